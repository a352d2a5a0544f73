import assert from "node:assert/strict";
import { addressOf } from "../../ffi/host.ts";
import { openKernels } from "../../ffi/kernels.ts";
import { expectCollectives } from "./collectives.ts";
import { countGpus, runRanks } from "./ranks.ts";

const TENSORS = `import { tensor, empty } from("lib/tensor/tensor.ts");`;

Deno.test("collectives of four ranks on the CPU", () => expectCollectives(4, "cpu"));

const gpus = countGpus();
Deno.test({
  name: `collectives of ${gpus > 1 ? `${gpus} GPUs` : "several GPUs (skipped: fewer than two GPUs are here)"}`,
  ignore: gpus < 2,
  fn: () => expectCollectives(gpus, "cuda"),
});

for (const [world, device] of [[3, "cpu"], [gpus, "cuda"]] as const) {
  const ignore = device === "cuda" && gpus < 2;
  Deno.test({
    name: `sums of large buffers are equal to the bit on all ranks, and those of one process in the order of ranks${
      device === "cpu" ? "" : `, on GPUs${ignore ? " (skipped: fewer than two GPUs are here)" : ""}`
    }`,
    ignore,
    fn: async () => {
      const outcomes = await runRanks(
        world,
        `${TENSORS}
    import { Generator } from("lib/tensor/random.ts");
    const n = 700_001, mine = new Generator(rank).normal([n]);
    const wanted = new Generator(0).normal([n]).read();
    for (let r = 1; r < world; r++) new Generator(r).normal([n]).read().forEach((v, i) => wanted[i] = Math.fround(wanted[i] + v));
    ranks.allReduce(mine);
    ranks.join();
    console.log(mine.read().every((v, i) => v === wanted[i]));
    ranks.close();`,
        { device },
      );
      for (const { stdout, stderr } of outcomes) assert.equal(stdout.trim(), "true", stderr);
    },
  });
}

Deno.test({
  name: `ranks that are told different collectives are told so, on GPUs${gpus > 1 ? "" : " (skipped: fewer than two GPUs are here)"}`,
  ignore: gpus < 2,
  fn: async () => {
    const outcomes = await runRanks(2, "ranks.close();", { device: "cuda", env: { ESPALIER_COLLECTIVES: "nvlink" } });
    for (const { code, stderr } of outcomes) {
      assert.equal(code, 1);
      assert.match(stderr, /ESPALIER_COLLECTIVES is nvlink, nvlink by rank, it must be the same on all and one of auto, copies, nccl/);
    }
  },
});

Deno.test("a rank that ends is named to the others", async () => {
  const outcomes = await runRanks(3, `if (rank === 2) Deno.exit(7); ranks.exchange(1); ranks.exchange(2);`);
  assert.equal(outcomes[2].code, 7);
  for (const { code, stderr } of outcomes.slice(0, 2)) {
    assert.equal(code, 1);
    assert.match(stderr, /rank 2 closed its connection during all_gather, it ended or was killed/);
  }
});

Deno.test("a rank that hangs is named to the others after the timeout", async () => {
  const outcomes = await runRanks(
    3,
    `if (rank === 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000); else ranks.exchange(1);`,
    { timeout: 1 },
  );
  for (const { code, stderr } of [outcomes[0], outcomes[2]]) {
    assert.equal(code, 1);
    assert.match(stderr, /rank 1 did not take part in all_gather within 1 s/);
  }
});

Deno.test("ranks that call different collectives are told so", async () => {
  const outcomes = await runRanks(
    2,
    `${TENSORS} if (rank === 0) ranks.allReduce(tensor([1, 2], [2])); else ranks.allReduce(tensor(new Float32Array(2_000_000), [2_000_000]));`,
  );
  for (const { code, stderr } of outcomes) {
    assert.equal(code, 1);
    assert.match(stderr, /rank 1 called all_reduce 0 of 2000000 elements .* where rank 0 called all_reduce 0 of 2 elements/);
  }
});

Deno.test("a world of one needs nobody", async () => {
  const [{ code, stderr }] = await runRanks(1, `ranks.exchange(1);`);
  assert.equal(code, 0, stderr);
});

Deno.test("a rank that does not come is named by rank 0, and one of another job is refused", () => {
  const k = openKernels("cpu"), out = new BigUint64Array(2), host = new TextEncoder().encode("127.0.0.1\0");
  k.k_collective_listen(out, addressOf(host), 0, 3, 1n, 0.3);
  const [handle, port] = out;
  assert.throws(() => k.k_collective_accept(handle), /collective_accept: rank 1, 2 of 3 did not come within 0.3 s/);
  k.k_collective_close(handle);
  assert.throws(() => k.k_collective_connect(out, addressOf(host), Number(port), 1, 3, 1n, 0.3), /rank 0 did not answer at 127.0.0.1 port/);
  assert.throws(() => k.k_collective_listen(out, addressOf(host), 0, 0, 1n, 1), /world is 0, it must be at least 1/);
});
