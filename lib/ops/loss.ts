/** Losses: f32 scalars of shape [], whatever the dtype of the inputs. */
import { expectShape, type Tensor } from "../tensor/tensor.ts";
import { cast } from "./cast.ts";
import { absDiff, add, affine, bce, div, exp, mul, sigmoid, sqDiff, square, sub } from "./elementwise.ts";
import { slice } from "./movement.ts";
import { mean, sum } from "./reduce.ts";

/** Both in f32. Throws unless they have one shape: to broadcast one would be a mistake here. */
function f32(op: string, a: Tensor, b: Tensor): [Tensor, Tensor] {
  expectShape(op, "the second tensor", b, a.shape);
  return [cast(a, "f32"), cast(b, "f32")];
}

/** The mean of `(a - b)²`. */
export function mse(a: Tensor, b: Tensor): Tensor {
  return mean(sqDiff(...f32("mse", a, b)));
}

/** The mean of `(a - b)²` of each row: a and b [B, ...] give [B]. */
export function mseRows(a: Tensor, b: Tensor): Tensor {
  return mean(sqDiff(...f32("mseRows", a, b)), { axes: a.shape.keys().drop(1).toArray() });
}

/** The mean of `|a - b|`. */
export function l1(a: Tensor, b: Tensor): Tensor {
  return mean(absDiff(...f32("l1", a, b)));
}

/** The mean binary cross entropy of logits against targets in [0, 1]. */
export function bceWithLogits(logits: Tensor, target: Tensor): Tensor {
  return mean(bce(...f32("bceWithLogits", logits, target)));
}

/** `1 - (2 Σ p t + 1) / (Σ p + Σ t + 1)` with p = sigmoid(logits), the sums over everything. */
export function dice(logits: Tensor, target: Tensor): Tensor {
  const [x, t] = f32("dice", logits, target), p = sigmoid(x);
  const ratio = div(affine(sum(mul(p, t)), { scale: 2, shift: 1 }), affine(add(sum(p), sum(t)), { shift: 1 }));
  return affine(ratio, { scale: -1, shift: 1 });
}

/** The divergence of N(μ, e^logvar) from N(0, 1): `mean(μ² + e^logvar - logvar - 1) / 2`. */
export function klDivergence(mu: Tensor, logvar: Tensor): Tensor {
  const [m, v] = f32("klDivergence", mu, logvar);
  return affine(mean(add(square(m), sub(exp(v), v))), { scale: 0.5, shift: -0.5 });
}

/** The mean volume of Gaussians: `mean(s_x s_y s_z)` of their scales [N, 3]. */
export function volumeRegularizer(scales: Tensor): Tensor {
  expectShape("volumeRegularizer", "scales", scales, [scales.shape[0], 3]);
  const [x, y, z] = [0, 1, 2].map((axis) => cast(slice(scales, 1, axis, axis + 1), "f32"));
  return mean(mul(mul(x, y), z));
}

/** How far opacities in [0, 1] are from 1: `mean((o - 1)²)`. */
export function opacityRegularizer(opacity: Tensor): Tensor {
  return mean(square(affine(cast(opacity, "f32"), { shift: -1 })));
}
