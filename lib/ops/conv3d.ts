/** Dense 3D convolution of channels-last volumes, as implicit products. */
import { DTYPE, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectShape, kernels, stream, type Tensor, zeros } from "../tensor/tensor.ts";
import { sum } from "./reduce.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode conv3d}. */
export interface Conv3dOptions {
  /** Cells from one output position to the next; 1 by default, or the kernel's side. */
  stride?: number;
  /** Zeros around the volume; 0 by default. */
  padding?: number;
}

/**
 * `y[b, p, o] = bias[o] + Σ w[o, i, t] x[b, p stride + t - padding, i]`: x [B, X, Y, Z, Cin], weight [Cout, Cin, k, k, k] with k 1, 2 or 3 and bias
 * [Cout] (each f32 or x's dtype) give [B, X', Y', Z', Cout], X' = ⌊(X + 2 padding - k) / stride⌋ + 1. Gradients of weight and bias are f32.
 */
export function conv3d(x: Tensor, weight: Tensor, bias?: Tensor | null, { stride = 1, padding = 0 }: Conv3dOptions = {}): Tensor {
  if (x.shape.length !== 5 || weight.shape.length !== 5) {
    throw new RangeError(
      `Cannot run conv3d: x is [${x.shape}] and weight [${weight.shape}], they must be [B, X, Y, Z, Cin] and [Cout, Cin, k, k, k]`,
    );
  }
  const [B, X, Y, Z, Cin] = x.shape.map((d, i) => dim("conv3d", `axis ${i} of x`, d)), [Cout, , k] = weight.shape;
  expectShape("conv3d", "weight", weight, [Cout, Cin, k, k, k]);
  expectShape("conv3d", "bias", bias, [Cout]);
  for (const [name, t] of [["x", x], ["weight", weight], ["bias", bias]] as const) {
    if (t && (!isFloat(t.dtype) || (t.dtype !== "f32" && t.dtype !== x.dtype))) {
      throw new TypeError(
        `Cannot run conv3d: ${name} is ${t.dtype}, it must be ${name === "x" ? "f32, f16 or bf16" : `f32 or ${x.dtype}`}`,
      );
    }
  }
  const [X1, Y1, Z1] = [X, Y, Z].map((d) => Math.max(0, Math.floor((d + 2 * padding - k) / stride) + 1));
  const y = empty([B, X1, Y1, Z1, Cout], x.dtype), c = kernels(), sizes = [B, X, Y, Z, Cin, Cout, k, stride, padding] as const;
  const dtype = DTYPE[x.dtype], weightDtype = DTYPE[weight.dtype], biasDtype = DTYPE[bias?.dtype ?? "f32"], xShape = x.shape;
  withWorkspace(
    (bytes) => c.k_conv3d_fwd_workspace(bytes, ...sizes, dtype),
    (scratch) => c.k_conv3d_fwd(y.addr, x.addr, weight.addr, bias?.addr ?? 0n, scratch, ...sizes, dtype, weightDtype, biasDtype, stream()),
  );

  return record("conv3d", y, [x, weight, bias], [weight.requiresGrad ? x : null, x.requiresGrad ? weight : null], (dy) => {
    const dx = x.requiresGrad ? empty(xShape, dy.dtype) : null;
    if (dx) {
      withWorkspace(
        (bytes) => c.k_conv3d_bwd_input_workspace(bytes, ...sizes, dtype),
        (scratch) => c.k_conv3d_bwd_input(dx.addr, dy.addr, weight.addr, scratch, ...sizes, dtype, weightDtype, stream()),
      );
    }
    const dw = weight.requiresGrad ? (dy.size ? empty(weight.shape) : zeros(weight.shape)) : null;
    if (dw && dy.size) {
      withWorkspace(
        (bytes) => c.k_conv3d_bwd_weight_workspace(bytes, ...sizes, dtype),
        (scratch) => c.k_conv3d_bwd_weight(dw.addr, dy.addr, x.addr, scratch, ...sizes, dtype, stream()),
      );
    }
    const db = bias?.requiresGrad ? sum(dy, { axes: [0, 1, 2, 3], dtype: "f32" }) : null;
    return [dx, dw, db];
  });
}
