/** Euler sampling of a flow model from noise to data, with classifier-free guidance (Ho and Salimans 2022) in an interval of times (Kynkäänniemi et al. 2024). */
import { mul, sub } from "../ops/elementwise.ts";
import { tidy } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";

/** The model as a sampler sees it: the velocity at x [B, ...] or [N, ...] and times t [B] (times 1000), under a condition. */
export type Velocity = (x: Tensor, t: Tensor, cond: Tensor) => Tensor;

/** Options of {@linkcode sampleEuler}. */
export interface SamplerOptions {
  /** Euler steps. */
  steps?: number;
  /** Above 1 spends more steps near the noise: t becomes r t / (1 + (r - 1) t). */
  rescaleT?: number;
  /** w in (1 + w) v(cond) - w v(negative); 0 is unguided. */
  cfgStrength?: number;
  /** Times at which guidance acts, both ends included; elsewhere v(cond) alone. */
  cfgInterval?: [low: number, high: number];
  /** The noise left at the data's end; enters the estimates of the data alone. */
  sigmaMin?: number;
  /** How many samples there are, where that is not the first axis of the noise: rows of voxels. */
  samples?: number;
  /** Called after each step with the state and the estimate of the data; they are freed after the call. */
  onStep?: (step: number, xt: Tensor, x0: Tensor) => void;
}

/** The times from 1 to 0, `steps + 1` of them. */
export function timeGrid(steps: number, rescaleT = 1): number[] {
  return Array.from({ length: steps + 1 }, (_, i) => {
    const t = 1 - i / steps;
    return rescaleT * t / (1 + (rescaleT - 1) * t);
  });
}

/** Carries noise [B, ...], or the rows [N, ...] of `samples` samples, to samples of the data. `negative` is the condition that guidance moves away from. */
export function sampleEuler(
  velocity: Velocity,
  noise: Tensor,
  cond: Tensor,
  negative: Tensor | null,
  options: SamplerOptions = {},
): Tensor {
  const { steps = 50, rescaleT = 1, cfgStrength = 3, cfgInterval = [0, 1], sigmaMin = 1e-5, samples: B = noise.shape[0], onStep } = options;
  if (!Number.isInteger(steps) || steps < 1) throw new RangeError(`Cannot sample: steps is ${steps}, it must be a whole number from 1 up`);
  const times = timeGrid(steps, rescaleT);
  let x = noise;
  for (let i = 0; i < steps; i++) {
    const t = times[i], next = times[i + 1], before = x;
    x = noGrad(() =>
      tidy(() => {
        const at = tensor(new Float32Array(B).fill(1000 * t), [B]);
        let v = velocity(before, at, cond);
        if (negative && cfgStrength !== 0 && t >= cfgInterval[0] && t <= cfgInterval[1]) {
          v = sub(mul(v, 1 + cfgStrength), mul(velocity(before, at, negative), cfgStrength));
        }
        const after = sub(before, mul(v, t - next));
        if (onStep) onStep(i, after, sub(mul(before, 1 - sigmaMin), mul(v, sigmaMin + (1 - sigmaMin) * t)));
        return after;
      })
    );
    if (before !== noise) before.free();
  }
  return x;
}
