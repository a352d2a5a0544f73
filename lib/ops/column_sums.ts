/**
 * Gradients of biases that cost no pass: the gradient of a bias is the sum of the rows of the gradient of what it was added to, and an op that makes
 * that gradient can sum it on its way.
 */
import { empty, type Tensor } from "../tensor/tensor.ts";

/** Says that the op that made y [..., C] has use for the column sums of its gradient. */
export function wantColumnSums(y: Tensor): void {
  if (y.requiresGrad) y.columnSums = "wanted";
}

/** Room for the column sums, [C] f32, of the gradient of y; null where nobody has use for them. */
export function columnSumsFor(y: Tensor): Tensor | null {
  return y.columnSums === "wanted" ? empty([y.shape.at(-1)!]) : null;
}

/** Passes the column sums of `dy` on with it: they live until they are taken, or until the step ends. */
export function passColumnSums(dy: Tensor, sums: Tensor | null): void {
  if (!sums) return;
  sums.hold();
  dy.columnSums = sums;
}

/** The column sums of `dy`, where whoever made it made them too, once. A gradient that another was added to is another tensor: it has none. */
export function takeColumnSums(dy: Tensor): Tensor | null {
  const { columnSums } = dy;
  if (!columnSums || columnSums === "wanted") return null;
  dy.columnSums = null;
  return columnSums;
}
