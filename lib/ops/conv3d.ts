/** Dense 3D convolution of channels-last volumes. */
import { DTYPE, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { sumRows } from "./reduce.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode conv3d}. */
export interface Conv3dOptions {
  /** Cells from one window to the next along each axis: 1, or the kernel's side with padding 0. */
  stride?: number;
  /** Cells of zeros around x, with stride 1 from 0 to the kernel's side - 1. */
  padding?: number;
}

/**
 * Cross-correlation, `y[b, p, o] = bias[o] + Σ weight[o, i, t] x[b, p stride + t - padding, i]` over taps t and channels i: x [B, X, Y, Z, Cin],
 * weight [Cout, Cin, k, k, k] with k from 1 to 3 (the checkpoints' layout) and bias [Cout] give y [B, X', Y', Z', Cout] in x's dtype, where an
 * axis of D cells becomes (D + 2 padding - k) / stride + 1, rounded down. weight and bias are f32 or of x's dtype; their gradients are f32.
 */
export function conv3d(x: Tensor, weight: Tensor, bias?: Tensor | null, { stride = 1, padding = 0 }: Conv3dOptions = {}): Tensor {
  const { sizes, outShape } = checkSizes(x, weight, stride, padding);
  expectShape("conv3d", "bias", bias, [weight.shape[0]]);
  const dtypes = { x: x.dtype, weight: weight.dtype, bias: bias?.dtype ?? weight.dtype };
  if (!isFloat(x.dtype)) throw new TypeError(`Cannot run conv3d: x is ${x.dtype}, it must be f32, f16 or bf16`);
  for (const name of ["weight", "bias"] as const) {
    if (dtypes[name] !== "f32" && dtypes[name] !== x.dtype) {
      throw new TypeError(`Cannot run conv3d: ${name} is ${dtypes[name]}, it must be f32 or x's ${x.dtype}`);
    }
  }
  const dtype = DTYPE[x.dtype], weightDtype = DTYPE[dtypes.weight], biasDtype = DTYPE[dtypes.bias], k = kernels();
  const y = empty(outShape, x.dtype),
    fill = (y: Tensor): void =>
      withWorkspace(
        (bytes) => k.k_conv3d_fwd_workspace(bytes, ...sizes, dtype),
        (scratch) =>
          k.k_conv3d_fwd(y.addr, x.addr, weight.addr, bias?.addr ?? 0n, scratch, ...sizes, dtype, weightDtype, biasDtype, stream()),
      );
  fill(y);

  const saved = [weight.requiresGrad ? x : null, x.requiresGrad ? weight : null];
  return record("conv3d", y, [x, weight, bias], saved, (dy, soFar) => {
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    const dweight = weight.requiresGrad ? soFar.fresh(weight) : null;
    if (dx) {
      withWorkspace(
        (bytes) => k.k_conv3d_bwd_input_workspace(bytes, ...sizes, dtype),
        (scratch) => k.k_conv3d_bwd_input(dx.addr, dy.addr, weight.addr, scratch, ...sizes, dtype, weightDtype, stream()),
      );
    }
    if (dweight) {
      withWorkspace(
        (bytes) => k.k_conv3d_bwd_weight_workspace(bytes, ...sizes, dtype),
        (scratch) => k.k_conv3d_bwd_weight(dweight.addr, dy.addr, x.addr, scratch, ...sizes, dtype, stream()),
      );
    }
    const Cout = weight.shape[0];
    return [dx, dweight, bias?.requiresGrad ? sumRows(dy.view([dy.size / Cout, Cout])) : null];
  }, { kind: "convolution", from: [x, weight, bias], fill });
}

/** B, X, Y, Z, Cin, Cout, kernel, stride, padding, as the kernels take them. */
type Sizes = readonly [number, number, number, number, number, number, number, number, number];

function checkSizes(x: Tensor, weight: Tensor, stride: number, padding: number): { sizes: Sizes; outShape: number[] } {
  if (x.shape.length !== 5) throw new RangeError(`Cannot run conv3d: x is [${x.shape}], it must be [B, X, Y, Z, Cin]`);
  const [B, X, Y, Z, Cin] = x.shape, [Cout, , side] = weight.shape;
  if (weight.shape.length !== 5 || !(side >= 1 && side <= 3) || Cout < 1) {
    throw new RangeError(`Cannot run conv3d: weight is [${weight.shape}], it must be [Cout, ${Cin}, k, k, k] with k = 1, 2 or 3`);
  }
  expectShape("conv3d", "weight", weight, [Cout, Cin, side, side, side]);
  const dense = stride === 1 && Number.isInteger(padding) && padding >= 0 && padding < side, apart = stride === side && padding === 0;
  if (!dense && !apart) {
    throw new RangeError(
      `Cannot run conv3d: stride is ${stride} and padding ${padding} with a kernel of ${side}, it must be stride 1 with padding 0 to ${
        side - 1
      }, or stride ${side} with padding 0`,
    );
  }
  const spatial = [X, Y, Z].map((D) => Math.max(0, Math.floor((D + 2 * padding - side) / stride) + 1));
  dim("conv3d", "the number of x's cells", B * X * Y * Z);
  return { sizes: [B, X, Y, Z, Cin, Cout, side, stride, padding], outShape: [B, ...spatial, Cout] };
}
