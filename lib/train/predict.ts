/** What a training will take, before it runs and on any machine: its steps are run on a simulated card. */
import type { Card } from "../memory/cards.ts";
import { type PassOptions, plannedMemory } from "../memory/elastic.ts";
import { type GivenUp, givenUp, simulateLevel } from "../memory/plan.ts";
import { type Share, simulatedDevice } from "../memory/simulate.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { KEPT_BY_RECORDINGS } from "../memory/replay.ts";
import { onDevice } from "../tensor/device.ts";

/** A training to look at: made on the simulated card. */
export interface Training {
  optimizer: Optimizer<unknown>;
  /** Micro-batches of a step, all like this one. */
  parts: number;
  /** Forward and backward of one, which may run several times. */
  pass(options: PassOptions): unknown;
  /** Tokens or voxels of its samples. */
  sizes: number[];
  /** Whether passes run from a recording where that keeps little memory. */
  recorded?: boolean;
}

/** What it takes. */
export interface Prediction {
  card: Card;
  /** Bytes that it may use, and whether that is enough. */
  budget: number;
  fits: boolean;
  /** Values that are trained. */
  parameters: number;
  peak: number;
  /** Bytes at the peak: the optimizer's tensors by name, gradients, frozen weights, what recorded ops keep by kind, and the rest. */
  atPeak: Record<string, number>;
  /** Seconds of a step, and of them those of the optimizer. */
  step: number;
  optimizer: number;
  /** What is made again, in seconds of a step and by class. */
  remade: number;
  givenUp: GivenUp[];
}

/** Seconds of the host for a kernel, its tensors and their memory, as measured at batch 1: a step cannot take less than its launches. */
const LAUNCH = 35e-6;
/** Seconds between two passes from a recording, in which their inputs are brought. */
const REPLAY = 0.3e-3;
/** The reserve of a card that is not named. */
const RESERVE = 0.6 * 2 ** 30;

/** Predicts the training that `make` makes, on `card` within `budget` bytes (by default the card's memory less a reserve); see `plannedMemory`. */
export function predictTraining(
  card: Card,
  make: () => Training,
  budget: number = card.memory - RESERVE,
  { offload = false }: { offload?: boolean } = {},
): Prediction {
  const at = simulatedDevice("cuda", card), { meter } = at;
  return onDevice(at, () => {
    const { optimizer, parts, pass, sizes, recorded = false } = make(),
      state = meter.used,
      elastic = plannedMemory({ budget, card, offload });
    const tensors = Object.entries(optimizer.held), onDevice = tensors.filter(([, t]) => !t.storage.onHost);
    elastic.run(pass, sizes);
    const { ladder, level } = elastic.plan(),
      whole = () => pass({}),
      { peak, atPeak, seconds, launches } = simulateLevel(whole, ladder, level, card)!;
    Object.assign(meter, { seconds: 0, launches: 0 });
    optimizer.step();
    // read and written at once: the bus carries both ways
    const bus = tensors.filter(([, t]) => t.storage.onHost).reduce((sum, [, t]) => sum + t.bytes, 0) / card.host;
    const ofOptimizer = Math.max(meter.seconds, bus), made = givenUp(ladder, level);
    const replayed = recorded && peak - state <= KEPT_BY_RECORDINGS * budget;
    const step = parts * (replayed ? seconds + REPLAY : Math.max(seconds, launches * LAUNCH)) + ofOptimizer;
    const named = Object.fromEntries(onDevice.map(([name, t]) => [name, t.bytes]));
    const rest = state - onDevice.reduce((sum, [, t]) => sum + t.bytes, 0),
      { other = 0, ...kinds } = atPeak as Record<Share, number>;
    const result: Prediction = {
      ...{ card, budget, fits: peak <= budget, parameters: optimizer.size, peak, step, optimizer: ofOptimizer },
      atPeak: { ...named, "16-bit copies and frozen weights": rest, ...kinds, "everything else": other - state },
      remade: parts * made.reduce((sum, g) => sum + g.seconds, 0),
      givenUp: made,
    };
    optimizer.free();
    return result;
  });
}
