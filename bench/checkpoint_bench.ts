/**
 * What checkpoints cost the training of the half-billion-parameter SS-Flow model on CUDA (batch 8, bf16, interval 500): how long a step is held up,
 * how much slower steps are while the other thread writes, and what a save that waits takes. Writes bench/results/checkpoint.json.
 *
 *   deno task bench bench/checkpoint_bench.ts
 */
import { device } from "../lib/tensor/device.ts";
import { listCheckpoints, loadCheckpoint, saveCheckpoint } from "../lib/train/checkpoint.ts";
import { checkpointPath, readManifest } from "../lib/train/manifest.ts";
import { openSaver } from "../lib/train/saver.ts";
import { ssFlowWork } from "./flow_models.ts";
import { benchmark, measured } from "./harness.ts";

const WARM_UP = 3, RUNS = 10, INTERVAL = 500, GIB = 2 ** 30;

/** By how much steps may be slower on average. */
const ALLOWED = 0.02;

benchmark("checkpoint", () => {
  const work = ssFlowWork({ batch: 8 }), { memory } = device(), { tensors } = work.optimizer, folder = Deno.makeTempDirSync();
  const timed = (run: () => void): number => {
    const began = performance.now();
    run();
    return performance.now() - began;
  };
  const steps = (count: number): number[] =>
    Array.from({ length: count }, () =>
      timed(() => {
        work.pass().free();
        work.optimizer.step();
        memory.synchronize();
      }));
  const median = (list: number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1];
  const bytes = Object.values(tensors).reduce((sum, t) => sum + t.bytes, 0), state = work.optimizer.state();
  const saver = openSaver(folder, { tensors, config: null, keep: 9, milestoneEvery: 0, say: console.log });
  steps(WARM_UP);
  const plain = median(steps(RUNS));
  const first = timed(() => saver.save(1, state)), firstWritten = timed(() => saver.finish());
  const synchronous = timed(() => saveCheckpoint(`${folder}/waited`, 1, { tensors, state }));
  const [a, b] = [folder, `${folder}/waited`].map((at) => readManifest(checkpointPath(at, 1)).files[0].sha256);
  if (a !== b) throw new Error("a save beside the training and one that waits differ");
  const held = timed(() => saver.save(2, state)), since = performance.now(), beside: number[] = [];
  while (listCheckpoints(folder)[0] !== 2 && beside.length < 400) beside.push(...steps(1));
  const writing = performance.now() - since;
  saver.close();
  const loading = timed(() => loadCheckpoint(checkpointPath(`${folder}/waited`, 1), tensors));
  work.free();
  Deno.removeSync(folder, { recursive: true });

  const lost = beside.reduce((sum, ms) => sum + Math.max(0, ms - plain), 0),
    name = `${work.name}, ${(bytes / GIB).toFixed(2)} GiB of state`;
  const ms = (what: string, ours: number) => measured({ case: `${name}: ${what}`, metric: "time", unit: "ms", ours });
  return [
    ms("a step", plain),
    ms("the step is held up by a save", held),
    ms("the first save, which takes page-locked memory", first),
    ms(`a step while the checkpoint is written (median of ${beside.length})`, median(beside)),
    ms("the checkpoint is on the disk after", writing),
    ms("the first checkpoint is on the disk after", first + firstWritten),
    ms("a save that waits", synchronous),
    ms("a load, every byte checked", loading),
    measured({
      case: `${name}: cost of a checkpoint every ${INTERVAL} steps`,
      metric: "fraction of step time",
      unit: "",
      ours: (held + lost) / (INTERVAL * plain),
      limit: ALLOWED,
      fraction_of_limit: (held + lost) / (INTERVAL * plain) / ALLOWED,
    }),
  ];
});
