/** The straight path between data and noise of rectified flow (Lipman et al. 2022, Liu et al. 2022), and how its times are drawn. */
import { add, mul, sub } from "../ops/elementwise.ts";
import { reshape } from "../ops/movement.ts";
import { tidy } from "../tensor/scope.ts";
import { expectShape, type Tensor, tensor } from "../tensor/tensor.ts";

/** A point on the path and the velocity there. */
export interface PathPoint {
  /** `(1 - t) x0 + (σ + (1 - σ) t) ε`. */
  xt: Tensor;
  /** `(1 - σ) ε - x0`. */
  velocity: Tensor;
}

/** How much of a point on the path is data, `1 - t`, and how much is noise, `σ + (1 - σ) t`: [B] each. */
export interface PathWeights {
  ofData: Tensor;
  ofNoise: Tensor;
}

/** The weights at times t in [0, 1]; σ is the noise left at the data's end. */
export function pathWeights(t: ArrayLike<number>, { sigmaMin = 1e-5 }: { sigmaMin?: number } = {}): PathWeights {
  const times = Array.from(t), on = (weight: (t: number) => number): Tensor => tensor(times.map(weight), [times.length]);
  return { ofData: on((v) => 1 - v), ofNoise: on((v) => sigmaMin + (1 - sigmaMin) * v) };
}

/** x0 and noise [B, ...] f32, times t [B] on the host in [0, 1], or their {@linkcode pathWeights}; σ is the noise left at the data's end. */
export function flowPath(
  x0: Tensor,
  noise: Tensor,
  t: ArrayLike<number> | PathWeights,
  { sigmaMin = 1e-5 }: { sigmaMin?: number } = {},
): PathPoint {
  expectShape("flowPath", "noise", noise, x0.shape);
  const B = x0.shape[0], column = [B, ...x0.shape.slice(1).map(() => 1)];
  return tidy(() => {
    const { ofData, ofNoise } = "ofData" in t ? t : pathWeights(t, { sigmaMin });
    expectShape("flowPath", "the weights of the times", ofData, [B]);
    const [data, rest] = [ofData, ofNoise].map((weight) => reshape(weight, column));
    return { xt: add(mul(x0, data), mul(noise, rest)), velocity: sub(mul(noise, 1 - sigmaMin), x0) };
  });
}

/** How times are drawn. */
export type TimeSchedule = { name: "uniform" } | { name: "logitNormal"; mean: number; std: number };

/** `count` times in (0, 1), from uniform host numbers in [0, 1). */
export function drawTimes(schedule: TimeSchedule, count: number, random: () => number): Float32Array<ArrayBuffer> {
  if (schedule.name === "uniform") return Float32Array.from({ length: count }, random);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()); // Box and Muller 1958
  return Float32Array.from({ length: count }, () => 1 / (1 + Math.exp(-(schedule.mean + schedule.std * normal()))));
}

/** The mean errors of samples by time, in ten bins: what a training log shows. Empty bins are left out. */
export function errorsByTime(t: ArrayLike<number>, errors: ArrayLike<number>): Record<string, number> {
  const sums = new Float64Array(10), counts = new Float64Array(10);
  for (let i = 0; i < t.length; i++) {
    const bin = Math.floor(t[i] * 10);
    if (bin < 0 || bin > 9) continue;
    sums[bin] += errors[i];
    counts[bin]++;
  }
  return Object.fromEntries([...counts.keys()].filter((b) => counts[b] > 0).map((b) => [`bin_${b}`, sums[b] / counts[b]]));
}
