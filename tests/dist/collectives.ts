/** What every communicator must do. */
import assert from "node:assert/strict";
import { runRanks } from "./ranks.ts";

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

/** Expects of `world` ranks what collectives give. */
export async function expectCollectives(world: number, device: "cpu" | "cuda", by = "auto"): Promise<void> {
  for (const { code, stdout, stderr } of await runRanks(world, COLLECTIVES, { device, env: { ESPALIER_COLLECTIVES: by } })) {
    assert.equal(code, 0, stderr);
    assert.deepEqual(JSON.parse(stdout), [true, true, true, true, true]);
  }
}
