/** Orders of voxels: by the window that they are in, and along space-filling curves. */
import { empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

const CURVES = { zOrder: 0, hilbert: 1, zOrderTransposed: 2, hilbertTransposed: 3 } as const;

/** A space-filling curve; the transposed ones exchange x and y. */
export type Curve = keyof typeof CURVES;

function countOf(op: string, coords: Tensor): number {
  expectDtype(op, "coords", coords, "i32");
  expectShape(op, "coords", coords, [coords.shape[0], 4]);
  return coords.shape[0];
}

/** Options of {@linkcode windowKeys}. */
export interface WindowKeyOptions {
  /** Cells of a window along an axis. */
  window: number;
  /** Added to the coordinates. */
  shift: number;
  /** Bits of a window's number along an axis, 1 to 11. */
  bits: number;
}

/** The number of each voxel's window, (sample, (x + shift) / window, ...): coords [N, 4] i32 give [N] i64. */
export function windowKeys(coords: Tensor, { window, shift, bits }: WindowKeyOptions): Tensor {
  const N = countOf("windowKeys", coords), keys = empty([N], "i64");
  kernels().k_sparse_window_keys(keys.addr, coords.addr, N, window, shift, bits, stream());
  return keys;
}

/** Each voxel's place along a curve, `sample 2^30 + code(x + shift, y + shift, z + shift)`: coords [N, 4] i32 give [N] i64. */
export function curveKeys(coords: Tensor, curve: Curve, { shift = 0 } = {}): Tensor {
  const N = countOf("curveKeys", coords), keys = empty([N], "i64");
  kernels().k_sparse_curve_keys(keys.addr, coords.addr, N, CURVES[curve], shift, stream());
  return keys;
}

/** The rows by ascending key below 2^bits, and where each row went: keys [N] i64 give order and inverse [N] i32. */
export function argsort(keys: Tensor, bits: number): { order: Tensor; inverse: Tensor } {
  expectDtype("argsort", "keys", keys, "i64");
  const N = keys.size, order = empty([N], "i32"), inverse = empty([N], "i32"), k = kernels();
  withWorkspace(
    (bytes) => k.k_sparse_argsort_workspace(bytes, N),
    (scratch) => k.k_sparse_argsort(order.addr, inverse.addr, keys.addr, scratch, N, bits, stream()),
  );
  return { order, inverse };
}

/** Where the runs of equal keys lie in `order`: [N + 1] i32, run s from offsets[s] to offsets[s + 1]; those past the last are empty. */
export function segments(keys: Tensor, order: Tensor): Tensor {
  const N = keys.size, offsets = empty([N + 1], "i32"), count = empty([1], "i32"), k = kernels();
  expectShape("segments", "order", order, [N]);
  withWorkspace(
    (bytes) => k.k_sparse_segments_workspace(bytes, N),
    (scratch) => k.k_sparse_segments(offsets.addr, count.addr, keys.addr, order.addr, scratch, N, stream()),
  );
  count.free();
  return offsets;
}
