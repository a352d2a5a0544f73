/** Bicubic resizing of grids as two matrix products, with PyTorch's weights. */
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { cast } from "./cast.ts";
import { matmul } from "./matmul.ts";
import { reshape, transpose } from "./movement.ts";

/** Keys' cubic convolution kernel. */
function cubic(x: number, a: number): number {
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/**
 * The matrix [to, from] of a bicubic resize along one axis, pixel centres at half integers. Plain: 4 taps with a = -0.75, those outside clamped
 * to the border. Antialiased: a = -0.5, the kernel stretched by from / to where this shrinks, taps outside left out, weights summing to 1.
 */
export function bicubicWeights(from: number, to: number, antialias: boolean): Float32Array<ArrayBuffer> {
  const w = new Float32Array(to * from), ratio = from / to, stretch = antialias ? Math.max(ratio, 1) : 1;
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * ratio;
    if (antialias) {
      const first = Math.max(0, Math.floor(centre - 2 * stretch + 0.5)), end = Math.min(from, Math.floor(centre + 2 * stretch + 0.5));
      const taps = Array.from({ length: end - first }, (_, j) => cubic((first + j + 0.5 - centre) / stretch, -0.5));
      const total = taps.reduce((a, b) => a + b, 0);
      taps.forEach((v, j) => w[i * from + first + j] = v / total);
    } else {
      const at = Math.floor(centre - 0.5), t = centre - 0.5 - at;
      for (let j = -1; j <= 2; j++) w[i * from + Math.min(from - 1, Math.max(0, at + j))] += cubic(t - j, -0.75);
    }
  }
  return w;
}

/** Options of {@linkcode resizeBicubic}. */
export interface ResizeOptions {
  /** Whether shrinking averages over all that an output covers. */
  antialias?: boolean;
}

/** Bicubic resize of x [B, H, W, C] to [B, size[0], size[1], C]. */
export function resizeBicubic(x: Tensor, size: readonly [number, number], { antialias = false }: ResizeOptions = {}): Tensor {
  if (x.shape.length !== 4 || x.size === 0 || size.some((n) => !Number.isInteger(n) || n < 1)) {
    throw new RangeError(`Cannot run resizeBicubic: [${x.shape}] to [${size}], x must be [B, H, W, C] and not empty, the sizes at least 1`);
  }
  const [B, H, W, C] = x.shape, [h, w] = size;
  const weights = (from: number, to: number): Tensor => cast(tensor(bicubicWeights(from, to, antialias), [to, from]), x.dtype);
  const tall = matmul(weights(H, h), reshape(x, [B, H, W * C])); // [B, h, W C]
  const swapped = transpose(reshape(tall, [B * h, W, C]), 1, 2); // [B h, C, W]
  const wide = matmul(reshape(swapped, [B * h * C, W]), weights(W, w), { transposeB: true }); // [B h C, w]
  return reshape(transpose(reshape(wide, [B * h, C, w]), 1, 2), [B, h, w, C]);
}
