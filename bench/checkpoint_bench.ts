/**
 * What checkpoints cost the training of the half-billion-parameter SS-Flow model on CUDA (batch 8, bf16; one every 250 steps, so that a kill loses
 * 500 at most): how long a step is held up, and how much slower steps are while the other thread hashes and writes. Writes
 * bench/results/checkpoint.json, and what it has after each stage.
 *
 *   deno task bench bench/checkpoint_bench.ts
 */
import { device } from "../lib/tensor/device.ts";
import { snapshotBuffer } from "../lib/tensor/snapshot.ts";
import { openSaver } from "../lib/train/saver.ts";
import { ssFlowWork } from "./flow_models.ts";
import { benchmark, measured, type Row } from "./harness.ts";

const WARM_UP = 3, RUNS = 10, EVERY = 250, MOST_BESIDE = 150, GIB = 2 ** 30;

/** By how much steps may be slower on average. */
const ALLOWED = 0.02;

benchmark("checkpoint", (save) => {
  const work = ssFlowWork({ batch: 8 }),
    { memory } = device(),
    { tensors } = work.optimizer,
    folder = Deno.makeTempDirSync(),
    rows: Row[] = [];
  const timed = <T>(run: () => T): [ms: number, made: T] => {
    memory.synchronize();
    const began = performance.now(), made = run();
    memory.synchronize();
    return [performance.now() - began, made];
  };
  const steps = (count: number): number[] =>
    Array.from({ length: count }, () =>
      timed(() => {
        work.pass().free();
        work.optimizer.step();
      })[0]);
  const median = (list: number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1];
  const bytes = Object.values(tensors).reduce((sum, t) => sum + t.bytes, 0),
    name = `${work.name}, ${(bytes / GIB).toFixed(2)} GiB of state`;
  const say = (what: string, ours: number): void => {
    rows.push(measured({ case: `${name}: ${what}`, metric: "time", unit: "ms", ours }));
    save(rows);
  };
  steps(WARM_UP);
  const plain = median(steps(RUNS));
  say("a step", plain);
  const [locking, buffer] = timed(() => snapshotBuffer(tensors));
  say("page-locked memory for the copy, once a run", locking);
  const held = median([1, 2, 3].map(() => timed(() => buffer.take())[0]));
  say("the step is held up by a save", held);
  buffer.free();

  const saver = openSaver(folder, { tensors, config: null, keep: 9, milestoneEvery: 0, say: console.log });
  saver.save(1, work.optimizer.state());
  const began = performance.now(), beside: number[] = [];
  while (saver.busy() && beside.length < MOST_BESIDE) beside.push(...steps(1));
  const seen = performance.now() - began;
  saver.finish();
  const writing = performance.now() - began;
  saver.close();
  work.free();
  Deno.removeSync(folder, { recursive: true });
  say(`a step while the checkpoint is hashed and written (median of ${beside.length})`, median(beside));
  say("the checkpoint is on the disk after", writing);
  const lost = beside.reduce((sum, ms) => sum + ms - plain, 0) * writing / seen, part = (held + Math.max(0, lost)) / (EVERY * plain);
  rows.push(
    measured({
      case: `${name}: cost of a checkpoint every ${EVERY} steps`,
      metric: "fraction of step time",
      unit: "",
      ours: part,
      limit: ALLOWED,
      fraction_of_limit: part / ALLOWED,
    }),
  );
  return rows;
});
