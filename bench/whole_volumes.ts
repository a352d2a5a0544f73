/** SLat-Flow as it is without sparse convolutions: whole volumes are convolved, and what lies at the voxels is taken out. To measure against. */
import type { SparseConvSpec } from "../lib/nn/sparse_conv.ts";
import type { Parameters } from "../lib/nn/parameters.ts";
import { conv3d } from "../lib/ops/conv3d.ts";
import { permute, reshape } from "../lib/ops/movement.ts";
import { gatherRows, type RowIndex, rowIndex } from "../lib/ops/rows.ts";
import { mapOf, type SparseTensor, type Voxels } from "../lib/sparse/voxels.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";

/** Cells along an axis of the volume, the row of each cell's voxel (or zeros), and the cell of each voxel. */
interface Volume {
  side: number;
  voxelOf: RowIndex;
  cellOf: RowIndex;
}

function volumeOf(voxels: Voxels): Volume {
  return mapOf(voxels, "whole volume", () => {
    const side = 2 ** Math.ceil(Math.log2(voxels.side)), { N, B } = voxels, coords = voxels.coords.read();
    const cellOf = new Int32Array(N), voxelOf = new Int32Array(B * side ** 3).fill(-1);
    for (let n = 0; n < N; n++) {
      cellOf[n] = ((coords[4 * n] * side + coords[4 * n + 1]) * side + coords[4 * n + 2]) * side + coords[4 * n + 3];
      voxelOf[cellOf[n]] = n;
    }
    return { side, voxelOf: rowIndex(voxelOf, N), cellOf: rowIndex(cellOf, B * side ** 3) };
  });
}

/** x [N, in] gives [N, out] as a sparse convolution does, by way of volumes [B, side, side, side, ...]. */
export function wholeVolumeConv({ conv: { weight, bias } }: Parameters<SparseConvSpec>, { features, voxels }: SparseTensor): Tensor {
  const { side, voxelOf, cellOf } = volumeOf(voxels), { B } = voxels, [Cout, k, , , Cin] = weight.shape;
  const volume = reshape(gatherRows(features, voxelOf), [B, side, side, side, Cin]);
  const y = conv3d(volume, permute(weight, [0, 4, 1, 2, 3]), bias, { padding: (k - 1) / 2 });
  return gatherRows(reshape(y, [B * side ** 3, Cout]), cellOf);
}
