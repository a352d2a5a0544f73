/** The two ends of a modulated transformer block: its norm on the way in, its gated residual on the way out. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { addressIn, type Modulation, placeOf } from "./norm.ts";
import { gateBackward, norm } from "./residual_norm.ts";
import { rowsOf, type SampleOptions } from "./samples.ts";

/** Options of {@linkcode layerNormModulate}. */
export interface LayerNormModulateOptions extends SampleOptions {
  /** Added to the variance; 1e-6 by default. */
  eps?: number;
  /** Whether the result is made in 8-bit floats, for a linear layer in fp8, or in these and in its dtype, for a feedForward(). */
  fp8?: boolean | "both";
}

/**
 * `layerNorm(x) * (1 + scale) + shift` without a parameter of its own, rounded once: x [B, ..., C], shift and scale [B, C] of x's dtype
 * give [B, ..., C].
 */
export function layerNormModulate(
  x: Tensor,
  shift: Modulation,
  scale: Modulation,
  { eps = 1e-6, offsets, fp8 }: LayerNormModulateOptions = {},
): Tensor {
  return norm("layerNormModulate", x, rowsOf("layerNormModulate", x, offsets), { shift, scale, eps, offsets, fp8 });
}

/** `x + h * gate`, rounded once: x and h [B, ..., C], gate [B, C], all of one dtype, give [B, ..., C]. The gradient of x is dy itself. */
export function gateAdd(x: Tensor, h: Tensor, gate: Modulation, { offsets }: SampleOptions = {}): Tensor {
  const rows = rowsOf("gateAdd", x, offsets), [N, B, C] = rows, dtype = DTYPE[x.dtype];
  expectShape("gateAdd", "h", h, x.shape);
  expectDtype("gateAdd", "h", h, x.dtype);
  const place = placeOf("gateAdd", "gate", gate, x, [B, C])!,
    y = empty(x.shape, x.dtype),
    fill = (y: Tensor): void => {
      const at = offsets?.addr ?? 0n, stride = BigInt(place.stride);
      kernels().k_gate_add_fwd(y.addr, x.addr, h.addr, addressIn(place), at, N, B, C, stride, dtype, stream());
    };
  fill(y);
  const saved = [h, place.of, offsets], recipe = { kind: "residual", from: [x, ...saved], fill } as const;
  return record("gateAdd", y, [x, h, place.of], saved, (dy, soFar) => gateBackward(dy, h, place, soFar, rows, offsets), recipe);
}
