/**
 * Training within a budget of memory. Each micro-batch is simulated before it runs; what it makes again in its backward pass is as much as the
 * budget asks for, the cheapest bytes first.
 */
import { device } from "../tensor/device.ts";
import { formatBytes, OutOfMemoryError } from "../tensor/memory.ts";
import { withChoice } from "../tensor/storage.ts";
import { booked, Ledger } from "../tensor/tape.ts";
import { type Card, cardFor } from "./cards.ts";
import { chooseLevel, type GivenUp, givenUp, type Ladder, NO_LADDER, simulateLevel, surveyPass } from "./plan.ts";

/** What a model is told: how many blocks, from the first on, are whole checkpoints; undefined leaves it to the model's config. */
export interface PassOptions {
  recompute?: number;
}

/** What the last micro-batch took. */
export interface MemoryReport {
  /** Bytes: what was to be kept to, what was expected, what was measured. */
  budget: number;
  predicted: number;
  peak: number;
  /** Bytes made again or brought to the host, and about how many seconds that takes. */
  remade: number;
  seconds: number;
  /** The part of all that could be made again. */
  share: number;
  /** Milliseconds of the host that planning took. */
  planning: number;
  /** Micro-batches of the run that ran out of memory all the same and were run again. */
  retries: number;
}

/** Keeps passes to a budget of memory. */
export interface ElasticMemory {
  /**
   * Runs a micro-batch's forward and backward pass. `pass` may be run several times, on a simulated device or again after a failure: it draws from
   * generators of its own, makes what it frees, and adds to gradients of parameters alone. `sizes` are the tokens or voxels of its samples.
   */
  run<T>(pass: (options: PassOptions) => T, sizes: readonly number[]): T;
  /** Of the last micro-batch. */
  readonly report: MemoryReport;
  /** In one line: what is made again. */
  describe(): string;
  /** For a checkpoint. */
  state(): unknown;
  restore(state: unknown): void;
}

/** Options of {@linkcode plannedMemory}. */
export interface PlannedMemoryOptions {
  /** Bytes; by default the open device's limit. */
  budget?: number;
  /** For estimates of time: by default an H100's. */
  card?: Card;
  /** Whether tensors may wait on the host, as many as the bus carries beside the computation. */
  offload?: boolean;
  /** Told of micro-batches that ran out of memory, in one line. */
  say?: (text: string) => void;
}

/** The part of a budget that plans fill: allocations are known to the byte, the rest is for what the pool rounds up. */
const FILLED = 0.99;
/** A plan that uses this part of what it may is good enough to stop looking. */
const ENOUGH = 0.98;
const MOST_SIMULATIONS = 8;
/** By how much the budget shrinks for good where a plan did not fit all the same. */
const NOTCH = 0.02, MOST_SHRUNK = 0.5;
/** A failed attempt's plan gives up so many times less than all. */
const STEPS = 16;

/** Bytes that are not less when they are printed. */
const roundUp = (bytes: number): number => {
  const unit = bytes >= 2 ** 30 ? 2 ** 30 / 100 : 2 ** 20 / 10;
  return Math.ceil(bytes / unit) * unit;
};

/** What a search found: the level, its simulated peak, and how many tensors with a recipe the pass has. */
interface Found {
  level: number;
  predicted: number;
  tensors: number;
}

/** What a saved run knows. */
interface State {
  shrunk: number;
  retries: number;
}

/** The planned policy, which can be asked for its last plan. */
export interface PlannedMemory extends ElasticMemory {
  plan(): { ladder: Ladder; level: number };
}

/** The planned policy. */
export function plannedMemory({ budget, card = cardFor(), offload = false, say = () => {} }: PlannedMemoryOptions = {}): PlannedMemory {
  let ladder = NO_LADDER,
    surveyed = { size: 0, fixed: 0 },
    plan = { key: "", fixed: 0, target: 0, level: 0, predicted: 0, tensors: 0 },
    state: State = { shrunk: 0, retries: 0 };
  const report: MemoryReport = { budget: 0, predicted: 0, peak: 0, remade: 0, seconds: 0, share: 0, planning: 0, retries: 0 };

  const survey = (pass: () => unknown, size: number): void => {
    surveyed = { size, fixed: device().memory.use().used };
    ladder = surveyPass(pass, { card, offload });
  };

  /** The peak that the surveyed pass has at a level: between classes by their number. */
  const surveyedPeak = (level: number): number => {
    for (const [i, { blocks }] of ladder.classes.entries()) {
      const [before, after] = [ladder.peaks[i], ladder.peaks[i + 1]];
      if (level <= blocks) return before + (after - before) * level / blocks;
      level -= blocks;
    }
    return ladder.peaks.at(-1)!;
  };

  /** The lowest level whose simulated peak is within `target`, or the highest. */
  const search = (pass: () => unknown, size: number, target: number): Found => {
    const fixed = device().memory.use().used;
    if (ladder.tensors < 0) {
      const { peak, tensors } = simulateLevel(pass, NO_LADDER, 0, card)!;
      if (peak <= target) return { level: 0, predicted: peak, tensors };
      survey(pass, size);
    }
    let scale = size / surveyed.size || 1, tooLow = -1, best: Found | undefined;
    const expected = (level: number): number => fixed + (surveyedPeak(level) - surveyed.fixed) * scale;
    for (let i = 0; i < MOST_SIMULATIONS; i++) {
      let level = tooLow + 1;
      const most = best ? best.level - 1 : ladder.levels;
      while (level < most && expected(level) > target) level++;
      const simulation = simulateLevel(pass, ladder, level, card);
      if (!simulation) {
        survey(pass, size);
        [scale, tooLow, best] = [1, -1, undefined];
        continue;
      }
      const { peak, tensors } = simulation;
      scale *= (peak - fixed) / Math.max(1, expected(level) - fixed);
      if (peak <= target || level === ladder.levels) best = { level, predicted: peak, tensors };
      else tooLow = level;
      if (best && (best.level <= tooLow + 1 || best.predicted >= ENOUGH * target)) break;
    }
    return best ?? { level: ladder.levels, predicted: expected(ladder.levels), tensors: ladder.tensors };
  };

  const describeTo = (report: MemoryReport, { limit, size }: { limit: number; size: number }): void => {
    const made = givenUp(ladder, plan.level), scale = size / surveyed.size || 1;
    const total = (of: (g: GivenUp) => number): number => scale * made.reduce((sum, g) => sum + of(g), 0);
    Object.assign(report, {
      ...{ budget: limit, predicted: plan.predicted, peak: device().memory.use().peak, share: ladder.levels && plan.level / ladder.levels },
      ...{ remade: total((g) => g.bytes), seconds: total((g) => g.seconds), retries: state.retries },
    });
  };

  /** Throws where a micro-batch with all given up that can be takes more than `limit`. */
  const expectRoom = (pass: () => unknown, { limit, sizes, level }: { limit: number; sizes: readonly number[]; level: number }): void => {
    const least = simulateLevel(pass, ladder, level, card)?.peak ?? 0;
    if (least <= limit || device().simulated) return; // on a simulated card it is a finding, no fault
    throw new OutOfMemoryError(
      `Cannot train within the memory limit: it is ${formatBytes(limit)}, it must be at least ${formatBytes(roundUp(least))} for a ` +
        `micro-batch of ${sizes.length} samples with everything made again that can be; give it fewer samples (--batch.split), keep less of the ` +
        "optimizer on the device (--optimizer.momentBits=8, --optimizer.onHost=means), or raise --memory-limit",
    );
  };

  return {
    report,
    run(pass, sizes) {
      const { memory } = device(), limit = Math.min(budget ?? Infinity, memory.limit), plain = () => pass({}), book = new Ledger();
      const key = sizes.join(), size = sizes.reduce((a, b) => a + b, 0);
      let atLeast = 0, failedAtTop = false;
      for (;;) {
        const began = performance.now(), fixed = memory.use().used, target = limit * (FILLED - state.shrunk);
        if (plan.key !== key || plan.fixed !== fixed || plan.target !== target) {
          plan = { key, fixed, target, ...search(plain, size, target) };
        }
        const level = plan.level = Math.min(ladder.levels, Math.max(plan.level, atLeast)), choose = chooseLevel(ladder, level);
        let tensors = 0;
        report.planning = performance.now() - began;
        if (plan.predicted > limit) expectRoom(plain, { limit, sizes, level });
        memory.resetPeak();
        try {
          const result = booked(book, () => withChoice((...args) => (tensors++, choose(...args)), plain));
          if (tensors !== plan.tensors) plan.key = ""; // another pass than the one that the plan is for
          describeTo(report, { limit, size });
          return result;
        } catch (error) {
          if (!(error instanceof OutOfMemoryError) || failedAtTop) throw error;
          memory.trim();
          book.again();
          if (ladder.tensors < 0) survey(plain, size);
          say(
            `out of memory where ${formatBytes(plan.predicted)} of ${
              formatBytes(limit)
            } were planned: the micro-batch runs again, with less kept`,
          );
          atLeast = Math.min(ladder.levels, level + Math.max(1, Math.ceil(ladder.levels / STEPS)));
          failedAtTop = level === ladder.levels;
          state = { shrunk: Math.min(MOST_SHRUNK, state.shrunk + NOTCH), retries: state.retries + 1 };
        }
      }
    },
    describe() {
      const lists = (["drop", "offload"] as const).map((how) => {
        const some = givenUp(ladder, plan.level).filter((g) => g.how === how);
        return some.map(({ kind, blocks, bytes }) => `${kind} ${blocks === 1 ? "" : `of ${blocks} blocks `}(${formatBytes(bytes)})`).join(
          ", ",
        );
      });
      const [again, away] = lists, host = away && `; on the host meanwhile: ${away}`;
      return `${formatBytes(report.predicted)} of ${formatBytes(report.budget)}; made again: ${
        again || "norms and activations alone"
      }${host}`;
    },
    plan: () => ({ ladder, level: plan.level }),
    state: () => state,
    restore(saved) {
      state = saved as State;
    },
  };
}
