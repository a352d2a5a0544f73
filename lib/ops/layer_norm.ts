/** Layer norm over the last axis. */
import { dim, type Tensor } from "../tensor/tensor.ts";
import { norm } from "./residual_norm.ts";

/** Options of {@linkcode layerNorm}. */
export interface LayerNormOptions {
  /** Scale [C] f32; none leaves it at 1. */
  w?: Tensor | null;
  /** Shift [C] f32; none leaves it at 0. */
  b?: Tensor | null;
  /** Added to the variance; 1e-5 by default. */
  eps?: number;
}

/** `(x - mean) / sqrt(var + eps) * w + b` over the last axis, statistics in f32: x [..., C] gives y [..., C]. */
export function layerNorm(x: Tensor, { w, b, eps = 1e-5 }: LayerNormOptions = {}): Tensor {
  const C = x.shape.at(-1) ?? 0, N = dim("layerNorm", "the number of rows", C ? x.size / C : 0);
  return norm("layerNorm", x, [N, 1, C], { w, b, eps });
}
