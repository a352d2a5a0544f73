/** Movement of elements: views, permutations, slices, concatenations, broadcasts. Any dtype; gradients flow through floats. */
import { DTYPE_BYTES } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { empty, expectDtype, kernels, sizeOf, stream, type Tensor, zeros } from "../tensor/tensor.ts";
import { sumTo } from "./reduce.ts";
import { axisOf, broadcastShape, broadcastStrides, collapse, contiguousStrides } from "./strides.ts";

interface Walk {
  extents: readonly number[];
  yStrides: readonly number[];
  xStrides: readonly number[];
  /** Elements before the first one. */
  yOffset?: number;
  xOffset?: number;
}

/** y[yOffset + i · yStrides] = x[xOffset + i · xStrides] for all i below extents. */
function copy(op: string, y: Tensor, x: Tensor, { extents, yStrides, xStrides, yOffset = 0, xOffset = 0 }: Walk): void {
  if (extents.includes(0)) return;
  const merged = collapse(extents, [yStrides, xStrides]), rank = merged.extents.length;
  if (rank > 8) throw new RangeError(`Cannot run ${op}: [${extents}] needs ${rank} axes, it must be at most 8`);
  const [n, ys, xs] = [merged.extents, ...merged.strides].map((v) => BigUint64Array.from(v, BigInt)), bytes = DTYPE_BYTES[x.dtype];
  kernels().k_copy_fwd(y.addr + BigInt(yOffset * bytes), x.addr + BigInt(xOffset * bytes), n, ys, xs, rank, bytes, stream());
}

/** The same elements in another shape, without a copy; one extent may be -1 and is then what is left. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const known = sizeOf(shape.filter((n) => n !== -1)), to = shape.map((n) => n === -1 ? x.size / known : n);
  if (sizeOf(to) !== x.size || to.some((n) => !Number.isInteger(n) || n < 0) || shape.filter((n) => n === -1).length > 1) {
    throw new RangeError(`Cannot run reshape: [${x.shape}] to [${shape}], it must keep ${x.size} elements`);
  }
  const from = x.shape;
  return record("reshape", x.view(to), [x], [], (dy) => [dy.view(from)]);
}

/** Axis d of the result is axis `axes[d]` of x. A view where no element has to move. */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  const rank = x.shape.length, order = axes.map((a) => axisOf("permute", a, rank));
  if (order.length !== rank || new Set(order).size !== rank) {
    throw new RangeError(`Cannot run permute: axes are [${axes}], they must be each of the ${rank} axes once`);
  }
  const shape = order.map((a) => x.shape[a]), moving = order.filter((a) => x.shape[a] !== 1);
  if (x.size === 0 || moving.every((a, i) => i === 0 || a > moving[i - 1])) return reshape(x, shape);
  const own = contiguousStrides(x.shape), y = empty(shape, x.dtype);
  copy("permute", y, x, { extents: shape, yStrides: contiguousStrides(shape), xStrides: order.map((a) => own[a]) });
  return record("permute", y, [x], [], (dy) => [permute(dy, order.map((_, d) => order.indexOf(d)))]);
}

/** Swaps two axes, by default the last two. */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  const rank = x.shape.length, p = axisOf("transpose", a, rank), q = axisOf("transpose", b, rank);
  return permute(x, x.shape.map((_, d) => d === p ? q : d === q ? p : d));
}

/** `x` repeated along axes of extent 1 and new leading axes until it has `shape`. */
export function broadcastTo(x: Tensor, shape: readonly number[]): Tensor {
  if (sizeOf(broadcastShape("broadcastTo", x.shape, shape)) !== sizeOf(shape) || x.shape.length > shape.length) {
    throw new RangeError(`Cannot run broadcastTo: x is [${x.shape}], it must have 1 or the extents of [${shape}]`);
  }
  if (x.size === sizeOf(shape)) return reshape(x, shape);
  const from = x.shape, y = empty(shape, x.dtype);
  copy("broadcastTo", y, x, { extents: shape, yStrides: contiguousStrides(shape), xStrides: broadcastStrides(from, shape) });
  return record("broadcastTo", y, [x], [], (dy) => [sumTo(dy, from)]);
}

/** x[start, end) along `axis`. A view where the elements lie together at a multiple of 16 bytes. */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  const d = axisOf("slice", axis, x.shape.length), n = x.shape[d];
  if (!(Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start <= end && end <= n)) {
    throw new RangeError(`Cannot run slice: the range is ${start} to ${end}, it must lie in 0 to ${n}`);
  }
  const shape = x.shape.with(d, end - start), strides = contiguousStrides(x.shape), xOffset = start * strides[d], from = x.shape;
  const together = sizeOf(x.shape.slice(0, d)) === 1 && xOffset * DTYPE_BYTES[x.dtype] % 16 === 0;
  const y = together ? x.view(shape, { offset: xOffset }) : empty(shape, x.dtype);
  if (!together) copy("slice", y, x, { extents: shape, yStrides: contiguousStrides(shape), xStrides: strides, xOffset });
  return record("slice", y, [x], [], (dy) => {
    const dx = zeros(from, dy.dtype);
    copy("slice", dx, dy, { extents: shape, yStrides: strides, xStrides: contiguousStrides(shape), yOffset: xOffset });
    return [dx];
  });
}

/** `parts` equal slices along `axis`, or slices of the given extents. */
export function split(x: Tensor, axis: number, parts: number | readonly number[]): Tensor[] {
  const d = axisOf("split", axis, x.shape.length), n = x.shape[d];
  const sizes = typeof parts === "number" ? new Array<number>(parts).fill(n / parts) : parts;
  if (sizes.some((s) => !Number.isInteger(s)) || sizes.reduce((a, b) => a + b, 0) !== n) {
    throw new RangeError(`Cannot run split: axis ${axis} of [${x.shape}] into ${parts}, the parts must be whole and sum to ${n}`);
  }
  let at = 0;
  return sizes.map((s) => slice(x, d, at, at += s));
}

/** The slices of extent 1 along `axis`, without this axis. */
export function unbind(x: Tensor, axis: number): Tensor[] {
  const d = axisOf("unbind", axis, x.shape.length), shape = x.shape.toSpliced(d, 1);
  return split(x, d, x.shape[d]).map((s) => reshape(s, shape));
}

/** Tensors of one dtype, equal but for `axis`, one after the other along it. */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  if (tensors.length === 0) throw new RangeError("Cannot run concat: there are 0 tensors, it must be at least 1");
  const [first] = tensors, d = axisOf("concat", axis, first.shape.length);
  for (const t of tensors) {
    expectDtype("concat", "a tensor", t, first.dtype);
    if (t.shape.length !== first.shape.length || t.shape.some((n, k) => k !== d && n !== first.shape[k])) {
      throw new RangeError(`Cannot run concat: a tensor is [${t.shape}], it must be [${first.shape}] but for axis ${d}`);
    }
  }
  const shape = first.shape.with(d, tensors.reduce((n, t) => n + t.shape[d], 0)), strides = contiguousStrides(shape);
  const y = empty(shape, first.dtype), starts: number[] = [];
  let at = 0;
  for (const t of tensors) {
    copy("concat", y, t, { extents: t.shape, yStrides: strides, xStrides: contiguousStrides(t.shape), yOffset: at * strides[d] });
    starts.push(at);
    at += t.shape[d];
  }
  return record(
    "concat",
    y,
    [...tensors],
    [],
    (dy) => tensors.map((t, i) => t.requiresGrad ? slice(dy, d, starts[i], starts[i] + t.shape[d]) : null),
  );
}
