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
  /** What the device waited for sums after the backward pass, on the slowest rank. */
  exposedMs: number;
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
  const events = [new BigUint64Array(1), new BigUint64Array(1)], [before, after] = events, elapsed = new Float32Array(1), { join } = ranks;
  for (const e of events) cuda.cudaEventCreate(e);
  const between = (): number => {
    cuda.cudaEventSynchronize(after[0]);
    cuda.cudaEventElapsedTime(elapsed, before[0], after[0]);
    return elapsed[0];
  };
  const waited = {
    ...ranks,
    join() {
      cuda.cudaEventRecord(before[0], stream());
      join();
      cuda.cudaEventRecord(after[0], stream());
    },
  };
  const work = ssFlowWork({ batch: BATCH, optimizer: { ranks: waited } }), gradNorms: number[] = [], exposed: number[] = [];
  memory.resetPeak();
  const stepMs = time(() => {
    work.pass().free();
    gradNorms.push(work.optimizer.step().grad_norm);
    if (ranks.world > 1) exposed.push(between());
  });
  const { peak } = memory.use(), slowest = ranks.exchange(exposed).reduce((a, b) => a.map((ms, i) => Math.max(ms, b[i])));
  work.free();
  const buffer = persist(() => cast(new Generator(1).normal([ALL_REDUCED]), "bf16")), reduced: number[] = [];
  for (let i = 0; i < WARM_UP + RUNS; i++) {
    ranks.exchange(i);
    cuda.cudaEventRecord(before[0], stream());
    ranks.allReduce(buffer);
    join();
    cuda.cudaEventRecord(after[0], stream());
    const ms = between();
    if (i >= WARM_UP) reduced.push(ms);
  }
  const times: ScalingTimes = {
    world: ranks.world,
    stepMs,
    peak,
    exposedMs: ranks.world > 1 ? median(slowest.slice(WARM_UP)) : 0,
    allReduceMs: median(reduced),
    gradNorms: gradNorms.slice(0, 3),
  };
  if (ranks.rank === 0) console.log(JSON.stringify(times));
  ranks.close();
}
