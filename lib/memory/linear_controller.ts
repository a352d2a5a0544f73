/**
 * TRELLIS's controller of memory: the peak of a pass is taken for a line over the tokens that keep their activations, `k (tokens ratio) + b`,
 * fitted to the last passes; the ratio of blocks that are kept follows from it. It starts with ratios at random.
 */
import { device } from "../tensor/device.ts";
import { OutOfMemoryError } from "../tensor/memory.ts";
import { booked, Ledger } from "../tensor/tape.ts";
import type { ElasticMemory, MemoryReport } from "./elastic.ts";

/** Options, named as in TRELLIS's configs. */
export interface LinearMemoryOptions {
  /** Passes that the line is fitted to, and passes between two fits. */
  bufferSize: number;
  updateEvery: number;
  /** The part of the memory to use. */
  targetRatio: number;
  /** GiB; null for the device's limit. */
  availableMemory: number | null;
  /** The largest ratio before the first fit; it grows by 0.1 with every fit. */
  maxMemRatioStart: number;
  /** k in GiB a token, and b in GiB. */
  params: [k: number, b: number];
}

/** TRELLIS's defaults. */
export const LINEAR_MEMORY_DEFAULTS: LinearMemoryOptions = {
  ...{ bufferSize: 1000, updateEvery: 500, targetRatio: 0.8, availableMemory: null, maxMemRatioStart: 0.1, params: [0, 0] },
};

/** One pass: its tokens, the ratio that it kept and its peak. */
interface Pass {
  size: number;
  ratio: number;
  gib: number;
}

/** What a controller knows. */
export interface LinearMemoryState {
  params: [k: number, b: number];
  maxRatio: number;
  step: number;
  /** Random ratios drawn. */
  drawn: number;
  /** The last passes, the oldest first. */
  passes: Pass[];
}

const GIB = 2 ** 30, GROWTH = 0.1;

/** The number `n` of a reproducible sequence of numbers in [0, 1). */
function uniform(seed: number, n: number): number {
  let x = Math.imul(seed + 0x9e3779b9, 0x85ebca6b) ^ Math.imul(n + 1, 0xc2b2ae35);
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
}

/** The least-squares line through points: [slope, intercept]. */
function fitLine(x: number[], y: number[]): [number, number] {
  const n = x.length, mean = (v: number[]): number => v.reduce((a, b) => a + b, 0) / n, mx = mean(x), my = mean(y);
  const varied = x.reduce((s, v) => s + (v - mx) ** 2, 0);
  const slope = varied === 0 ? 0 : x.reduce((s, v, i) => s + (v - mx) * (y[i] - my), 0) / varied;
  return [slope, my - slope * mx];
}

/** How many of `blocks` blocks, from the first on, are computed again for a ratio, and the ratio that this keeps. */
export function checkpointedBlocks(ratio: number, blocks: number): { recompute: number; exact: number } {
  if (ratio === 1) return { recompute: 0, exact: 1 };
  const recompute = Math.min(Math.ceil((1 - ratio) * blocks) + 1, blocks);
  return { recompute, exact: 1 - (recompute - 1) / blocks };
}

/** The controller itself. */
export class LinearMemoryController {
  readonly options: LinearMemoryOptions;
  state: LinearMemoryState;

  /** `seed` decides the random ratios; the memory is `options.availableMemory` or, in GiB, `available`. */
  constructor(options: Partial<LinearMemoryOptions>, readonly available: number, readonly seed = 0) {
    this.options = { ...LINEAR_MEMORY_DEFAULTS, ...options };
    this.state = { params: [...this.options.params], maxRatio: this.options.maxMemRatioStart, step: 0, drawn: 0, passes: [] };
  }

  /** The ratio for a pass over `size` tokens. */
  ratioFor(size: number): number {
    const { params: [k, b], maxRatio } = this.state;
    if (k === 0) return uniform(this.seed, this.state.drawn++) * maxRatio;
    const room = (this.options.availableMemory ?? this.available) * this.options.targetRatio - b;
    return Math.min(Math.max(room / (k * size), 0), maxRatio);
  }

  /** A pass is done: it kept `ratio` and took `gib`. */
  record(size: number, ratio: number, gib: number): void {
    const { state, options: { bufferSize, updateEvery } } = this;
    state.passes.push({ size: Math.fround(size), ratio: Math.fround(ratio), gib: Math.fround(gib) });
    if (state.passes.length > bufferSize) state.passes.shift();
    if (++state.step % updateEvery !== 0) return;
    state.maxRatio = Math.min(1, state.maxRatio + GROWTH);
    state.params = fitLine(state.passes.map((p) => Math.fround(p.size * p.ratio)), state.passes.map((p) => p.gib));
  }
}

/** The policy: `blocks` is how many the model has. A pass that runs out of memory is run again with all of them computed again. */
export function linearMemory(
  options: Partial<LinearMemoryOptions>,
  { blocks, seed = 0, say = () => {} }: { blocks: number; seed?: number; say?: (text: string) => void },
): ElasticMemory {
  const controller = new LinearMemoryController(options, device().memory.limit / GIB, seed);
  const report: MemoryReport = { budget: 0, predicted: 0, peak: 0, remade: 0, seconds: 0, share: 0, planning: 0, retries: 0 };
  let last = "";
  return {
    report,
    run(pass, sizes) {
      const { memory } = device(), size = sizes.reduce((a, b) => a + b, 0), book = new Ledger();
      let { recompute, exact } = checkpointedBlocks(controller.ratioFor(size), blocks);
      for (;;) {
        memory.resetPeak();
        try {
          const { params: [k, b] } = controller.state, result = booked(book, () => pass({ recompute })), { peak } = memory.use();
          const budget = (controller.options.availableMemory ?? controller.available) * controller.options.targetRatio * GIB;
          Object.assign(report, { budget, predicted: (k * size * exact + b) * GIB, peak, share: recompute / blocks });
          controller.record(size, exact, peak / GIB);
          last = `${recompute} of ${blocks} blocks made again`;
          return result;
        } catch (error) {
          if (!(error instanceof OutOfMemoryError) || recompute === blocks) throw error;
          memory.trim();
          book.again();
          say(`out of memory with ${recompute} of ${blocks} blocks made again: the micro-batch runs again with all of them`);
          ({ recompute, exact } = checkpointedBlocks(0, blocks));
          report.retries++;
        }
      }
    },
    describe: () => last,
    state: () => controller.state,
    restore(saved) {
      controller.state = saved as LinearMemoryState;
    },
  };
}
