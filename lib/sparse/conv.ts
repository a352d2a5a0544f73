/** Convolutions of sparse tensors. Their maps are built once for a set of voxels. */
import { spconv, type SpconvMap, spconvMap, spconvTable, type Window } from "../ops/spconv.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { stridedVoxels } from "./resample.ts";
import { mapOf, type SparseTensor, type Voxels } from "./voxels.ts";

/** The submanifold convolution, whose results stand where the voxels are: x [N, Cin], weight [Cout, k, k, k, Cin] with k odd, bias [Cout]. */
export function sparseConv({ features, voxels }: SparseTensor, weight: Tensor, bias?: Tensor | null): SparseTensor {
  const kernel = weight.shape[1];
  if (kernel % 2 !== 1) throw new RangeError(`Cannot run sparseConv: weight is [${weight.shape}], its kernel must be odd`);
  const map = mapOf(
    voxels,
    `convolution of ${kernel}`,
    () => spconvMap(spconvTable(voxels, voxels, { kernel, padding: (kernel - 1) / 2 })),
  );
  return { features: spconv(features, weight, bias, map), voxels };
}

/** Options of {@linkcode stridedConv} and {@linkcode inverseConv}. */
export interface StrideOptions {
  stride: number;
  /** Cells before the first one that a window may reach, 0 to k - 1; by default 0. */
  padding?: number;
}

/** The results of a strided convolution of `voxels`, and the maps to them and back. */
function stridedMaps(voxels: Voxels, window: Required<Window>): { voxels: Voxels; there: SpconvMap; back: SpconvMap } {
  const { kernel, stride, padding } = window;
  return mapOf(voxels, `convolution of ${kernel} with stride ${stride} and padding ${padding}`, () => {
    const { voxels: coarse } = stridedVoxels(voxels, window), there = spconvTable(coarse, voxels, window);
    const maps: { there: SpconvMap; back: SpconvMap } = {
      there: spconvMap(there, () => maps.back),
      back: spconvMap(spconvTable(voxels, coarse, window, { transposed: true }), () => maps.there),
    };
    return { voxels: coarse, ...maps };
  });
}

/** The convolution whose results stand at every place that a window with a voxel has: x [N, Cin], weight [Cout, k, k, k, Cin], bias [Cout]. */
export function stridedConv(x: SparseTensor, weight: Tensor, bias: Tensor | null, { stride, padding = 0 }: StrideOptions): SparseTensor {
  const { voxels, there } = stridedMaps(x.voxels, { kernel: weight.shape[1], stride, padding });
  return { features: spconv(x.features, weight, bias, there), voxels };
}

/** The transposed convolution that brings the results of {@linkcode stridedConv} of `fine` back to it: x [M, Cin] gives [N, Cout]. */
export function inverseConv(
  x: SparseTensor,
  fine: Voxels,
  weight: Tensor,
  bias: Tensor | null,
  { stride, padding = 0 }: StrideOptions,
): SparseTensor {
  const { voxels, back } = stridedMaps(fine, { kernel: weight.shape[1], stride, padding });
  if (x.voxels !== voxels) {
    throw new RangeError(`Cannot run inverseConv: x lies on ${x.voxels.N} other voxels, it must lie on those that stridedConv gives`);
  }
  return { features: spconv(x.features, weight, bias, back), voxels: fine };
}
