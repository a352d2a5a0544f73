/** The two fused ops of a modulated transformer block: its norm on the way in, its gated residual on the way out. */
import { DTYPE } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { rowsOf, type SampleOptions } from "./samples.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode layerNormModulate}. */
export interface LayerNormModulateOptions extends SampleOptions {
  /** Added to the variance; 1e-6 by default. */
  eps?: number;
}

/**
 * `layerNorm(x) * (1 + scale) + shift` without a parameter of its own, rounded once: x [B, ..., C], shift and scale [B, C] of x's dtype
 * give [B, ..., C].
 */
export function layerNormModulate(
  x: Tensor,
  shift: Tensor,
  scale: Tensor,
  { eps = 1e-6, offsets }: LayerNormModulateOptions = {},
): Tensor {
  const [N, B, C] = rowsOf("layerNormModulate", x, offsets), dtype = DTYPE[x.dtype];
  for (const [name, t] of [["shift", shift], ["scale", scale]] as const) {
    expectShape("layerNormModulate", name, t, [B, C]);
    expectDtype("layerNormModulate", name, t, x.dtype);
  }
  const y = empty(x.shape, x.dtype), mean = empty([N]), rstd = empty([N]);
  const k = kernels(),
    fill = (y: Tensor): void => {
      const at = offsets?.addr ?? 0n;
      k.k_layer_norm_modulate_fwd(y.addr, mean.addr, rstd.addr, x.addr, shift.addr, scale.addr, at, N, B, C, eps, dtype, stream());
    };
  fill(y);

  return record("layerNormModulate", y, [x, shift, scale], [x, scale, mean, rstd, offsets], (dy) => {
    const [dx, dshift, dscale] = [x, shift, scale].map((t) => t.requiresGrad ? empty(t.shape, t.dtype) : null);
    withWorkspace(
      (bytes) => k.k_layer_norm_modulate_bwd_workspace(bytes, N, B, C),
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
          offsets?.addr ?? 0n,
          scratch,
          N,
          B,
          C,
          dtype,
          stream(),
        ),
    );
    return [dx, dshift, dscale];
  }, { kind: "norm", from: [x, shift, scale, mean, rstd, offsets], fill });
}

/** `x + h * gate`, rounded once: x and h [B, ..., C], gate [B, C], all of one dtype, give [B, ..., C]. The gradient of x is dy itself. */
export function gateAdd(x: Tensor, h: Tensor, gate: Tensor, { offsets }: SampleOptions = {}): Tensor {
  const [N, B, C] = rowsOf("gateAdd", x, offsets), dtype = DTYPE[x.dtype];
  expectShape("gateAdd", "h", h, x.shape);
  expectShape("gateAdd", "gate", gate, [B, C]);
  expectDtype("gateAdd", "h", h, x.dtype);
  expectDtype("gateAdd", "gate", gate, x.dtype);
  const y = empty(x.shape, x.dtype),
    k = kernels(),
    fill = (y: Tensor): void => {
      k.k_gate_add_fwd(y.addr, x.addr, h.addr, gate.addr, offsets?.addr ?? 0n, N, B, C, dtype, stream());
    };
  fill(y);

  return record("gateAdd", y, [x, h, gate], [h, gate, offsets], (dy) => {
    const [dh, dgate] = [h, gate].map((t) => t.requiresGrad ? empty(t.shape, t.dtype) : null);
    if (dh || dgate) {
      withWorkspace(
        (bytes) => k.k_gate_add_bwd_workspace(bytes, N, B, C),
        (scratch) => {
          const [dhAddr, dgateAddr, at] = [dh, dgate, offsets].map((t) => t?.addr ?? 0n);
          k.k_gate_add_bwd(dhAddr, dgateAddr, dy.addr, h.addr, gate.addr, at, scratch, N, B, C, dtype, stream());
        },
      );
    }
    return [dy, dh, dgate];
  }, { kind: "residual", from: [x, h, gate, offsets], fill });
}
