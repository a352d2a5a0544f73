/**
 * Loss scaling for f16: the loss is multiplied by 2^logScale before the backward pass, so that small gradients do not vanish, and the
 * optimizer divides by it. The scale creeps up at every good step and halves at every overflow. A plain record: it is its own state for
 * checkpoints.
 */

/** The state of loss scaling. */
export interface LossScale {
  /** The logarithm of the scale, to base 2. */
  logScale: number;
  /** Added to it at every applied step: 1e-3 doubles the scale every 1000 steps. */
  growth: number;
}

/** Loss scaling before the first step: 2^20, growing by 1e-3. */
export function makeLossScale({ logScale = 20, growth = 1e-3 }: Partial<LossScale> = {}): LossScale {
  return { logScale, growth };
}

/** What the loss is multiplied by. */
export function lossScale({ logScale }: LossScale): number {
  return 2 ** logScale;
}

/** Adapts the scale to whether the step's gradients were finite. */
export function updateLossScale(scale: LossScale, finite: boolean): void {
  scale.logScale += finite ? scale.growth : -1;
}
