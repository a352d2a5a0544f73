/** Coarser and finer places, and the features of voxels between them. */
import { device } from "../tensor/device.ts";
import { DTYPE, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { broadcastTo, reshape } from "./movement.ts";
import type { Places, Table, Window } from "./spconv.ts";
import { withWorkspace } from "./workspace.ts";

/** The places that a strided convolution reaches. */
export interface StridedPlaces {
  /** [bound, 4] i32, in the order of (sample, x, y, z); rows from `count` on are -1. */
  coords: Tensor;
  /** [1] i32. */
  count: Tensor;
  /** [N] i32, where stride is the kernel: the row that each place is in, -1 for none. */
  parent: Tensor | null;
}

/** The places q whose window, `q stride + t - padding` for taps t, holds one of `from`, each once. */
export function stridedPlaces({ coords, B, side }: Places, { kernel, stride = 1, padding = 0 }: Window): StridedPlaces {
  expectDtype("stridedPlaces", "coords", coords, "i32");
  expectShape("stridedPlaces", "coords", coords, [coords.shape[0], 4]);
  if (device().simulated) throw new Error("Cannot plan a pass: it makes voxels, they must be made before it, in the same step");
  const k = kernels(), N = coords.shape[0], bound = new BigUint64Array(1), sizes = [N, B, side, kernel, stride, padding] as const;
  k.k_sparse_strided_rows(bound, ...sizes);
  const out = empty([Number(bound[0]), 4], "i32"), count = empty([1], "i32"), parent = kernel === stride ? empty([N], "i32") : null;
  withWorkspace(
    (bytes) => k.k_sparse_strided_coords_workspace(bytes, ...sizes),
    (scratch) => k.k_sparse_strided_coords(out.addr, count.addr, parent?.addr ?? 0n, coords.addr, scratch, ...sizes, stream()),
  );
  return { coords: out, count, parent };
}

/** Which coarse voxel each fine one is in, and the fine ones of each coarse one. */
export interface Family {
  /** [N] i32, below M, the number of coarse voxels. */
  parent: Tensor;
  /** [M, f³]. */
  children: Table;
}

const MODES = { sum: 0, mean: 1, meanWithZero: 2 } as const;

/** How {@linkcode poolVoxels} puts n voxels together: their sum, sum / n, or sum / (n + 1) as TRELLIS's models have it. */
export type Pooling = keyof typeof MODES;

/** The coarse voxels' features: x [N, C] gives [M, C], each row made of its children's. */
export function poolVoxels(x: Tensor, { parent, children }: Family, mode: Pooling): Tensor {
  const { rows: M, N, K, entries } = children, C = expectRows("poolVoxels", x, N), y = empty([M, C], x.dtype);
  const sizes = [M, N, C, K, MODES[mode], DTYPE[x.dtype]] as const;
  kernels().k_sparse_pool_fwd(y.addr, x.addr, entries.addr, ...sizes, stream());
  return record("poolVoxels", y, [x], [parent, entries], (dy) => {
    const dx = empty(x.shape, x.dtype);
    kernels().k_sparse_pool_bwd(dx.addr, dy.addr, parent.addr, mode === "sum" ? 0n : entries.addr, ...sizes, stream());
    return [dx];
  });
}

/** The fine voxels' features: x [M, C] gives [N, C], each row its parent's. */
export function upsampleVoxels(x: Tensor, { parent, children }: Family): Tensor {
  const { rows: M, N, K, entries } = children, C = expectRows("upsampleVoxels", x, M), y = empty([N, C], x.dtype);
  const sizes = [M, N, C, K, MODES.sum, DTYPE[x.dtype]] as const;
  const fill = (y: Tensor): void => kernels().k_sparse_pool_bwd(y.addr, x.addr, parent.addr, 0n, ...sizes, stream());
  fill(y);
  return record("upsampleVoxels", y, [x], [parent, entries], (dy) => {
    const dx = empty(x.shape, x.dtype);
    kernels().k_sparse_pool_fwd(dx.addr, dy.addr, entries.addr, ...sizes, stream());
    return [dx];
  }, { kind: "movement", from: [x, parent], fill });
}

function expectRows(op: string, x: Tensor, rows: number): number {
  if (!isFloat(x.dtype)) throw new TypeError(`Cannot run ${op}: x is ${x.dtype}, it must be f32, f16 or bf16`);
  expectShape(op, "x", x, [rows, x.shape[1] ?? 0]);
  return dim(op, "C", x.shape[1]);
}

/** The eight halves of each place, (2x + i, 2y + j, 2z + k) as row 8n + 4i + 2j + k: coords [N, 4] i32 give [8 N, 4]. */
export function subdivideCoords(coords: Tensor): Tensor {
  expectDtype("subdivideCoords", "coords", coords, "i32");
  const N = dim("subdivideCoords", "8 N", 8 * coords.shape[0]) / 8, out = empty([8 * N, 4], "i32");
  expectShape("subdivideCoords", "coords", coords, [N, 4]);
  kernels().k_sparse_subdivide_coords(out.addr, coords.addr, N, stream());
  return out;
}

/** Each row eight times: x [N, C] gives [8 N, C]. */
export function repeatRows(x: Tensor): Tensor {
  const [N, C] = x.shape;
  return reshape(broadcastTo(reshape(x, [N, 1, C]), [N, 8, C]), [8 * N, C]);
}
