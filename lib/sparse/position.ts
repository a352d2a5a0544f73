/** The position embedding of voxels. */
import { positionTable } from "../ops/embed.ts";
import { concat, reshape, slice } from "../ops/movement.ts";
import { gatherRows } from "../ops/rows.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../tensor/tensor.ts";
import { mapOf, type Voxels } from "./voxels.ts";

/** Each voxel's sines and cosines of x, y and z, as in {@linkcode absolutePositionEmbedding}: [N, C] f32. */
export function voxelEmbedding(voxels: Voxels, C: number): Tensor {
  const { coords, N, side } = voxels;
  const { table, places } = mapOf(voxels, `position embedding of ${C}`, () => {
    const values = positionTable(side, C), width = values.length / side;
    return { table: tensor(values, [side, width]), places: reshape(slice(coords, 1, 1, 4), [3 * N]) };
  });
  return noGrad(() => {
    const width = 3 * table.shape[1], rows = reshape(gatherRows(table, places), [N, width]);
    return width === C ? rows : concat([rows, zeros([N, C - width])], 1);
  });
}
