import assert from "node:assert/strict";
import { addressOf } from "../../ffi/host.ts";
import { openKernels } from "../../ffi/kernels.ts";
import { countGpus, runRanks } from "./ranks.ts";

const TENSORS = `import { tensor, empty } from("lib/tensor/tensor.ts");`;

/** What each rank says of every collective; `empty` tensors and those that lie in place too. */
const COLLECTIVES = `${TENSORS}
  const n = 2 * world, values = Array.from({ length: n }, (_, i) => 10 * rank + i + 0.5), say = [];
  const sum = (i) => 5 * world * (world - 1) + world * (i + 0.5), check = (t, value) => say.push(t.read().every((v, i) => v === value(i)));
  const all = tensor(values, [n]);
  ranks.allReduce(all);
  const part = empty([2]), scattered = tensor(values, [world, 2]), gathered = empty([world, n]), own = tensor(values, [n]), first = tensor(values, [n]);
  ranks.reduceScatter(part, scattered);
  ranks.allGather(gathered, own);
  ranks.broadcast(first);
  ranks.allReduce(empty([0]));
  ranks.join();
  check(all, sum);
  check(part, (i) => sum(2 * rank + i));
  check(gathered, (i) => 10 * Math.floor(i / n) + i % n + 0.5);
  check(first, (i) => i + 0.5);
  const wanted = Array.from({ length: world }, (_, rank) => ({ rank, text: "x".repeat(rank) }));
  say.push(JSON.stringify(ranks.exchange({ rank, text: "x".repeat(rank) })) === JSON.stringify(wanted));
  console.log(JSON.stringify(say));
  ranks.close();`;

async function expectCollectives(world: number, device: "cpu" | "cuda"): Promise<void> {
  for (const { code, stdout, stderr } of await runRanks(world, COLLECTIVES, { device })) {
    assert.equal(code, 0, stderr);
    assert.deepEqual(JSON.parse(stdout), [true, true, true, true, true]);
  }
}

Deno.test("collectives of four ranks on the CPU", () => expectCollectives(4, "cpu"));

const gpus = countGpus();
Deno.test({
  name: gpus > 1 ? `collectives of ${gpus} GPUs` : "collectives of several GPUs (skipped: fewer than two GPUs are here)",
  ignore: gpus < 2,
  fn: () => expectCollectives(gpus, "cuda"),
});

Deno.test("sums of large buffers are equal to the bit on all ranks, and those of one process in the order of ranks", async () => {
  const outcomes = await runRanks(
    3,
    `${TENSORS}
    import { Generator } from("lib/tensor/random.ts");
    const n = 700_001, mine = new Generator(rank).normal([n]);
    const wanted = new Generator(0).normal([n]).read();
    for (const r of [1, 2]) new Generator(r).normal([n]).read().forEach((v, i) => wanted[i] = Math.fround(wanted[i] + v));
    ranks.allReduce(mine);
    console.log(mine.read().every((v, i) => v === wanted[i]));
    ranks.close();`,
  );
  for (const { stdout, stderr } of outcomes) assert.equal(stdout.trim(), "true", stderr);
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
