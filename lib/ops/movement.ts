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

function whole(op: string, x: Tensor, extents: readonly number[], by: number): void {
  if (x.shape.length !== 5 || !Number.isInteger(by) || by < 1 || extents.some((n) => n % by !== 0)) {
    throw new RangeError(`Cannot run ${op}: x is [${x.shape}], it must have 5 axes with [${extents}] multiples of ${by}`);
  }
}

/** Cubes of p³ voxels as channels: x [B, C, X, Y, Z] gives [B, C p³, X/p, Y/p, Z/p], channel ((c p + i) p + j) p + k. */
export function patchify(x: Tensor, p: number): Tensor {
  const [B, C, X, Y, Z] = x.shape;
  whole("patchify", x, [X, Y, Z], p);
  if (p === 1) return x;
  const cells = permute(reshape(x, [B, C, X / p, p, Y / p, p, Z / p, p]), [0, 1, 3, 5, 7, 2, 4, 6]); // [B, C, p, p, p, X/p, Y/p, Z/p]
  return reshape(cells, [B, C * p ** 3, X / p, Y / p, Z / p]);
}

/** The inverse of {@linkcode patchify}: x [B, C p³, X, Y, Z] gives [B, C, X p, Y p, Z p]. */
export function unpatchify(x: Tensor, p: number): Tensor {
  const [B, CP, X, Y, Z] = x.shape;
  whole("unpatchify", x, [CP], p ** 3);
  if (p === 1) return x;
  const cells = permute(reshape(x, [B, CP / p ** 3, p, p, p, X, Y, Z]), [0, 1, 5, 2, 6, 3, 7, 4]); // [B, C, X, p, Y, p, Z, p]
  return reshape(cells, [B, CP / p ** 3, X * p, Y * p, Z * p]);
}

/** Channels as cubes of s³ voxels, channels last: x [B, X, Y, Z, C s³] with channel ((c s + i) s + j) s + k gives [B, X s, Y s, Z s, C]. */
export function pixelShuffle3d(x: Tensor, s: number): Tensor {
  const [B, X, Y, Z, CS] = x.shape;
  whole("pixelShuffle3d", x, [CS], s ** 3);
  if (s === 1) return x;
  const cells = permute(reshape(x, [B, X, Y, Z, CS / s ** 3, s, s, s]), [0, 1, 5, 2, 6, 3, 7, 4]); // [B, X, s, Y, s, Z, s, C]
  return reshape(cells, [B, X * s, Y * s, Z * s, CS / s ** 3]);
}
