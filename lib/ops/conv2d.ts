/** 2D convolution of channels-last images, as the middle plane of a 3D one. */
import { tidy } from "../tensor/scope.ts";
import { type Tensor, zeros } from "../tensor/tensor.ts";
import { conv3d } from "./conv3d.ts";
import { concat, reshape } from "./movement.ts";

/**
 * Cross-correlation over windows of 3 x 3 with zeros around x: x [B, H, W, Cin], weight [Cout, Cin, 3, 3] and bias [Cout] give [B, H, W, Cout] in
 * x's dtype. weight and bias are f32 or of x's dtype, weight must be whole.
 */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  const [B, H, W, Cin] = x.shape, [Cout, inputs, ...window] = weight.shape;
  if (x.shape.length !== 4 || inputs !== Cin || `${window}` !== "3,3") {
    throw new RangeError(
      `Cannot run conv2d: x is [${x.shape}] and weight [${weight.shape}], they must be [B, H, W, Cin] and [Cout, Cin, 3, 3]`,
    );
  }
  return tidy(() => {
    const nothing = zeros([Cout, Cin, 1, 3, 3], weight.dtype);
    const planes = concat([nothing, reshape(weight, [Cout, Cin, 1, 3, 3]), nothing], 2);
    return reshape(conv3d(reshape(x, [B, 1, H, W, Cin]), planes, bias, { padding: 1 }), [B, H, W, Cout]);
  });
}
