/** The two fused ops of a modulated transformer block: its norm on the way in, its gated residual on the way out. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, sizeOf, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode layerNormModulate}. */
export interface LayerNormModulateOptions {
  /** Added to the variance; 1e-6 by default. */
  eps?: number;
}

/** [B, L, C] of `x`, whose middle axes count as one. */
function batchOf(op: string, x: Tensor): [B: number, L: number, C: number] {
  if (x.shape.length < 2) throw new RangeError(`Cannot run ${op}: x is [${x.shape}], it must be [B, ..., C]`);
  const B = x.shape[0], C = x.shape.at(-1)!;
  return [dim(op, "B", B), dim(op, "L", sizeOf(x.shape.slice(1, -1))), dim(op, "C", C)];
}

/**
 * `layerNorm(x) * (1 + scale) + shift` without a parameter of its own, rounded once: x [B, ..., C], shift and scale [B, C] of x's dtype
 * give [B, ..., C].
 */
export function layerNormModulate(x: Tensor, shift: Tensor, scale: Tensor, { eps = 1e-6 }: LayerNormModulateOptions = {}): Tensor {
  const [B, L, C] = batchOf("layerNormModulate", x), dtype = DTYPE[x.dtype];
  for (const [name, t] of [["shift", shift], ["scale", scale]] as const) {
    expectShape("layerNormModulate", name, t, [B, C]);
    expectDtype("layerNormModulate", name, t, x.dtype);
  }
  const y = empty(x.shape, x.dtype), mean = empty([B, L]), rstd = empty([B, L]);
  const k = kernels();
  k.k_layer_norm_modulate_fwd(y.addr, mean.addr, rstd.addr, x.addr, shift.addr, scale.addr, B, L, C, eps, dtype, stream());

  return record("layerNormModulate", y, [x, shift, scale], [x, scale, mean, rstd], (dy) => {
    const [dx, dshift, dscale] = [x, shift, scale].map((t) => t.requiresGrad ? empty(t.shape, t.dtype) : null);
    withWorkspace(
      (bytes) => k.k_layer_norm_modulate_bwd_workspace(bytes, B, L, C),
      (scratch) =>
        k.k_layer_norm_modulate_bwd(
          dx?.addr ?? 0n,
          dshift?.addr ?? 0n,
          dscale?.addr ?? 0n,
          dy.addr,
          x.addr,
          scale.addr,
          mean.addr,
          rstd.addr,
          scratch,
          B,
          L,
          C,
          dtype,
          stream(),
        ),
    );
    return [dx, dshift, dscale];
  });
}

/** `x + h * gate`, rounded once: x and h [B, ..., C], gate [B, C], all of one dtype, give [B, ..., C]. The gradient of x is dy itself. */
export function gateAdd(x: Tensor, h: Tensor, gate: Tensor): Tensor {
  const [B, L, C] = batchOf("gateAdd", x), dtype = DTYPE[x.dtype];
  expectShape("gateAdd", "h", h, x.shape);
  expectShape("gateAdd", "gate", gate, [B, C]);
  expectDtype("gateAdd", "h", h, x.dtype);
  expectDtype("gateAdd", "gate", gate, x.dtype);
  const y = empty(x.shape, x.dtype), k = kernels();
  k.k_gate_add_fwd(y.addr, x.addr, h.addr, gate.addr, B, L, C, dtype, stream());

  return record("gateAdd", y, [x, h, gate], [h, gate], (dy) => {
    const [dh, dgate] = [h, gate].map((t) => t.requiresGrad ? empty(t.shape, t.dtype) : null);
    if (dh || dgate) {
      withWorkspace(
        (bytes) => k.k_gate_add_bwd_workspace(bytes, B, L, C),
        (scratch) => k.k_gate_add_bwd(dh?.addr ?? 0n, dgate?.addr ?? 0n, dy.addr, h.addr, gate.addr, scratch, B, L, C, dtype, stream()),
      );
    }
    return [dy, dh, dgate];
  });
}
