/** One rank of scaling_bench.ts: steps of SS-Flow image-L and an all-reduce beside all other ranks. Rank 0 prints the medians as JSON. */
import { openCudart } from "../ffi/cudart.ts";
import { openCommunicator } from "../lib/dist/communicator.ts";
import { findPlace } from "../lib/dist/place.ts";
import { device, openDevice } from "../lib/tensor/device.ts";
import { Generator } from "../lib/tensor/random.ts";
import { persist } from "../lib/tensor/scope.ts";
import { stream } from "../lib/tensor/tensor.ts";
import { cast } from "../lib/ops/cast.ts";
import { ssFlowWork } from "./flow_models.ts";

const WARM_UP = 3, RUNS = 9, BATCH = 8, ALL_REDUCED = 2 ** 27;

/** What a set of ranks measured. */
export interface ScalingTimes {
  world: number;
  stepMs: number;
  peak: number;
  allReduceMs: number;
  gradNorms: number[];
}

if (import.meta.main) {
  openDevice("cuda", { ordinal: findPlace().localRank });
  const ranks = openCommunicator(), { memory } = device(), cuda = openCudart();
  const median = (all: number[]): number => all.toSorted((a, b) => a - b)[all.length >> 1];
  /** Median over runs of the slowest rank's milliseconds. */
  const time = (run: () => void): number => {
    const all: number[] = [];
    for (let i = 0; i < WARM_UP + RUNS; i++) {
      memory.synchronize();
      ranks.exchange(i);
      const began = performance.now();
      run();
      memory.synchronize();
      const slowest = ranks.exchange(performance.now() - began).reduce((a, b) => Math.max(a, b));
      if (i >= WARM_UP) all.push(slowest);
    }
    return median(all);
  };
  const work = ssFlowWork({ batch: BATCH }), gradNorms: number[] = [];
  memory.resetPeak();
  const stepMs = time(() => {
    work.pass().free();
    gradNorms.push(work.optimizer.step().grad_norm);
  });
  const { peak } = memory.use(), events = [new BigUint64Array(1), new BigUint64Array(1)];
  work.free();
  const buffer = persist(() => cast(new Generator(1).normal([ALL_REDUCED]), "bf16")), elapsed = new Float32Array(1), reduced: number[] = [];
  for (const e of events) cuda.cudaEventCreate(e);
  for (let i = 0; i < WARM_UP + RUNS; i++) {
    ranks.exchange(i);
    cuda.cudaEventRecord(events[0][0], stream());
    ranks.allReduce(buffer);
    ranks.join();
    cuda.cudaEventRecord(events[1][0], stream());
    cuda.cudaEventSynchronize(events[1][0]);
    cuda.cudaEventElapsedTime(elapsed, events[0][0], events[1][0]);
    if (i >= WARM_UP) reduced.push(elapsed[0]);
  }
  const times: ScalingTimes = { world: ranks.world, stepMs, peak, allReduceMs: median(reduced), gradNorms: gradNorms.slice(0, 3) };
  if (ranks.rank === 0) console.log(JSON.stringify(times));
  ranks.close();
}
