/** Layer norm over the last axis. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

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
  const C = x.shape.at(-1) ?? 0, N = dim("layerNorm", "the number of rows", C ? x.size / C : 0), dtype = DTYPE[x.dtype];
  for (const [name, t] of [["w", w], ["b", b]] as const) {
    expectShape("layerNorm", name, t, [C]);
    expectDtype("layerNorm", name, t, "f32");
  }
  const y = empty(x.shape, x.dtype), mean = empty([N]), rstd = empty([N]);
  const k = kernels(),
    fill = (y: Tensor): void => {
      k.k_layer_norm_fwd(y.addr, mean.addr, rstd.addr, x.addr, w?.addr ?? 0n, b?.addr ?? 0n, N, C, eps, dtype, stream());
    };
  fill(y);

  return record("layerNorm", y, [x, w, b], [x, w, mean, rstd], (dy) => {
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    const dw = w?.requiresGrad ? empty([C]) : null, db = b?.requiresGrad ? empty([C]) : null;
    withWorkspace(
      (bytes) => k.k_layer_norm_bwd_workspace(bytes, N, C),
      (scratch) =>
        k.k_layer_norm_bwd(
          dx?.addr ?? 0n,
          dw?.addr ?? 0n,
          db?.addr ?? 0n,
          dy.addr,
          x.addr,
          w?.addr ?? 0n,
          mean.addr,
          rstd.addr,
          scratch,
          N,
          C,
          dtype,
          stream(),
        ),
    );
    return [dx, dw, db];
  }, { kind: "norm", from: [x, w, b, mean, rstd], fill });
}
