import assert from "node:assert/strict";
import { runRanks } from "./ranks.ts";

const SHARDED = `
  import { shardedTensor } from("lib/dist/sharded.ts");
  import { tensorBytes } from("lib/tensor/snapshot.ts");
  import { tensor, zeros } from("lib/tensor/tensor.ts");
  import { giveParts, saveCheckpoint } from("lib/train/checkpoint.ts");
  const rows = [tensor([10 * rank, 10 * rank + 1], [2]), tensor([100 + rank], [1])];
  const make = (list) => shardedTensor([7], "f32", [{ count: 5, mine: list[0] }, { count: 2, mine: list[1] }], ranks);
`;

Deno.test("shardedTensor() is one tensor of all ranks' rows, without what fills them up, and is filled from one", async () => {
  const outcomes = await runRanks(
    3,
    `${SHARDED}
    const bytes = [...tensorBytes(make(rows))].map((chunk) => [...chunk]).flat(), into = [zeros([2]), zeros([1])];
    make(into).fill(Uint8Array.from(bytes));
    console.log(JSON.stringify([[...new Float32Array(Uint8Array.from(bytes).buffer)], into.map((t) => [...t.read()])]));
    ranks.close();`,
  );
  outcomes.forEach(({ code, stdout, stderr }, rank) => {
    assert.equal(code, 0, stderr);
    const [whole, filled] = JSON.parse(stdout);
    assert.deepEqual(whole, [0, 1, 10, 11, 20, 100, 101]);
    assert.deepEqual(filled, [[[0, 1], [100]], [[10, 11], [101]], [[20, 0], [0]]][rank]);
  });
});

Deno.test("the rank that writes goes through all parts also where it cannot write", async () => {
  const file = Deno.makeTempFileSync();
  const outcomes = await runRanks(
    2,
    `${SHARDED}
    const tensors = { narrow: tensor([1], [1], { dtype: "bf16" }), a: make(rows), b: make(rows) };
    let said = "";
    try {
      if (rank === 0) saveCheckpoint(Deno.args[0], 1, { tensors, state: null });
      else giveParts(tensors);
    } catch (error) {
      said = error.message;
    }
    console.log(JSON.stringify(ranks.exchange(said)));
    ranks.close();`,
    { args: [file] },
  );
  Deno.removeSync(file);
  for (const { code, stdout, stderr } of outcomes) {
    assert.equal(code, 0, stderr);
    const [writer, other] = JSON.parse(stdout);
    assert.match(writer, /^Cannot write a checkpoint to .*\/ckpts/);
    assert.equal(other, "");
  }
});
