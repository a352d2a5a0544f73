/** Sums and means over axes. */
import { DTYPE, type FloatDType } from "../tensor/dtype.ts";
import { noGrad, record } from "../tensor/tape.ts";
import { empty, kernels, sizeOf, stream, type Tensor } from "../tensor/tensor.ts";
import { cast } from "./cast.ts";
import { axisOf } from "./strides.ts";
import { withWorkspace } from "./workspace.ts";

/** Options of {@linkcode sum} and {@linkcode mean}. */
export interface ReduceOptions {
  /** The axes to reduce, negative ones from the end; all by default. */
  axes?: readonly number[];
  /** Whether reduced axes stay with extent 1. */
  keepDims?: boolean;
  /** f32 or x's dtype; by default f32 where all axes are reduced (losses), else x's dtype. */
  dtype?: FloatDType;
}

/** The sum over `axes`, added in f32 in a fixed order. */
export function sum(x: Tensor, options: ReduceOptions = {}): Tensor {
  return reduce("sum", x, options, () => 1);
}

/** The mean over `axes`. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  return reduce("mean", x, options, (count) => 1 / count);
}

/** `x` summed over the axes along which `shape` was broadcast to x's shape: the gradient of broadcasting. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const missing = x.shape.length - shape.length;
  const axes = x.shape.flatMap((n, d) => d < missing || (shape[d - missing] === 1 && n !== 1) ? [d] : []);
  if (axes.length === 0) return x;
  const y = sum(x, { axes, keepDims: true, dtype: x.dtype as FloatDType });
  return missing === 0 ? y : y.view(shape);
}

/** The sum over the rows of x [N, C], f32 [C], unrecorded: gradients of what is shared by all rows. */
export function sumRows(x: Tensor): Tensor {
  return noGrad(() => sum(x, { axes: [0], dtype: "f32" }));
}

function reduce(op: string, x: Tensor, { axes, keepDims = false, dtype }: ReduceOptions, scaleOf: (count: number) => number): Tensor {
  const rank = x.shape.length, reduced = new Set((axes ?? x.shape.keys().toArray()).map((a) => axisOf(op, a, rank)));
  const final = dtype ?? (reduced.size === rank ? "f32" : x.dtype as FloatDType);
  const kept = x.shape.map((n, d) => reduced.has(d) ? 1 : n);
  const groups = runs(x.shape, reduced);
  const scale = scaleOf(x.shape.reduce((count, n, d) => reduced.has(d) ? count * n : count, 1));
  let y = x;
  const own = groups.length === 1 || final === "f32"; // the dtype that the last sum can write: its input's, or f32
  for (const [first, end] of groups) {
    const last = first === groups.at(-1)![0], shape = y.shape.map((n, d) => d >= first && d < end ? 1 : n);
    const to = !last ? shape : keepDims ? kept : kept.filter((_, d) => !reduced.has(d));
    y = sumAxes(op, y, { first, end, shape: to, dtype: last && own ? final : "f32", scale: last ? scale : 1 });
  }
  return cast(y, final);
}

/** The runs [first, end) of neighbouring reduced axes, the last one first; axes of extent 1 between them do not part them. */
function runs(shape: readonly number[], reduced: Set<number>): [number, number][] {
  const out: [number, number][] = [];
  for (let d = shape.length - 1; d >= 0; d--) {
    if (!reduced.has(d)) continue;
    const before = out.at(-1);
    if (before && shape.slice(d + 1, before[0]).every((n) => n === 1)) before[0] = d;
    else out.push([d, d + 1]);
  }
  return out.length ? out : [[shape.length, shape.length]];
}

interface Stage {
  first: number;
  end: number;
  shape: readonly number[];
  dtype: FloatDType;
  scale: number;
}

function sumAxes(op: string, x: Tensor, { first, end, shape, dtype, scale }: Stage): Tensor {
  const O = BigInt(sizeOf(x.shape.slice(0, first))), R = BigInt(sizeOf(x.shape.slice(first, end))), I = BigInt(sizeOf(x.shape.slice(end)));
  const from = x.shape, xDtype = x.dtype, y = empty(shape, dtype);
  withWorkspace(
    (bytes) => kernels().k_sum_workspace(bytes, O, R, I),
    (scratch) => kernels().k_sum_fwd(y.addr, x.addr, scratch, O, R, I, scale, DTYPE[dtype], DTYPE[xDtype], stream()),
  );
  return record(op, y, [x], [], (dy) => {
    const dx = empty(from, xDtype);
    kernels().k_sum_bwd(dx.addr, dy.addr, O, R, I, scale, DTYPE[dtype], DTYPE[xDtype], stream());
    return [dx];
  });
}
