/** Learning rates. */

/** Options of {@linkcode learningRate}. */
export interface LearningRateOptions {
  /** The rate after the warm-up. */
  lr: number;
  /** The rate rises linearly over this many steps; 0 by default: it is constant. */
  warmupSteps?: number;
}

/** The rate of `step`, counted from 0: `lr * (step + 1) / warmupSteps` during the warm-up, then `lr`. */
export function learningRate(step: number, { lr, warmupSteps = 0 }: LearningRateOptions): number {
  return step < warmupSteps ? lr * (step + 1) / warmupSteps : lr;
}
