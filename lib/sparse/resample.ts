/** Coarser and finer sets of voxels. */
import {
  type Family,
  type Pooling,
  poolVoxels,
  repeatRows,
  stridedPlaces,
  subdivideCoords,
  upsampleVoxels,
} from "../ops/sparse_resample.ts";
import { spconvTable, type Window } from "../ops/spconv.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { expectFeatures, mapOf, MAX_SIDE, type SparseTensor, startsOf, type Voxels, voxelsAt } from "./voxels.ts";

export type { Pooling };

/** The places that a strided convolution reaches, in the order of (sample, x, y, z); waits for the device to know how many they are. */
export function stridedVoxels(voxels: Voxels, window: Window): { voxels: Voxels; parent: Tensor | null } {
  const { kernel, stride = 1, padding = 0 } = window, side = Math.floor((voxels.side + 2 * padding - kernel) / stride) + 1;
  const { coords, count, parent } = stridedPlaces(voxels, window), M = count.item(), found = coords.view([M, 4]);
  return { voxels: voxelsAt(found, startsOf(found.readRaw() as Int32Array, voxels.B), Math.max(1, side)), parent };
}

/** The voxels of `factor` times the size that hold `voxels`, and who is in which. */
export function coarser(voxels: Voxels, factor: number): { voxels: Voxels; family: Family } {
  return mapOf(voxels, `coarser by ${factor}`, () => {
    const fine = { ...voxels, side: Math.ceil(voxels.side / factor) * factor }, window = { kernel: factor, stride: factor };
    const { voxels: coarse, parent } = stridedVoxels(fine, window);
    return { voxels: coarse, family: { parent: parent!, children: spconvTable(coarse, fine, window) } };
  });
}

/** Options of {@linkcode sparseDownsample}. */
export interface DownsampleOptions {
  /** TRELLIS's models divide the sum of n voxels by n + 1, which is the default; "mean" is their mean. */
  pooling?: Pooling;
}

/** The coarser voxels of `factor` times the size with features [M, C], from x [N, C]. */
export function sparseDownsample(x: SparseTensor, factor: number, { pooling = "meanWithZero" }: DownsampleOptions = {}): SparseTensor {
  expectFeatures("sparseDownsample", x, x.features.shape[1]);
  const { voxels, family } = coarser(x.voxels, factor);
  return { features: poolVoxels(x.features, family, pooling), voxels };
}

/** x [M, C] on the coarser voxels of `fine` gives [N, C] on `fine`: each voxel has the features of the one that it is in. */
export function sparseUpsample(x: SparseTensor, fine: Voxels, factor: number): SparseTensor {
  const { voxels, family } = coarser(fine, factor);
  if (x.voxels !== voxels) {
    throw new RangeError(
      `Cannot run sparseUpsample: x lies on ${x.voxels.N} other voxels, it must lie on those that sparseDownsample by ${factor} gives`,
    );
  }
  expectFeatures("sparseUpsample", x, x.features.shape[1]);
  return { features: upsampleVoxels(x.features, family), voxels: fine };
}

/** The eight halves of each voxel, those of one together. */
export function halves(voxels: Voxels): Voxels {
  return mapOf(voxels, "halves", () => {
    const { coords, starts, side } = voxels;
    if (2 * side > MAX_SIDE) throw new RangeError(`Cannot subdivide voxels: they reach ${side} cells, it must be at most ${MAX_SIDE / 2}`);
    return voxelsAt(subdivideCoords(coords), starts.map((s) => 8 * s), 2 * side);
  });
}

/** The eight halves of each voxel, with its features: x [N, C] gives [8 N, C]. */
export function sparseSubdivide(x: SparseTensor): SparseTensor {
  expectFeatures("sparseSubdivide", x, x.features.shape[1]);
  return { features: repeatRows(x.features), voxels: halves(x.voxels) };
}
