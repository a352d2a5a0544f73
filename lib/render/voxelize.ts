/** Surface voxels of a mesh. */
import type { Device } from "../../ffi/kernels.ts";
import { expectSurface, type Surface } from "./mesh.ts";
import { runOn } from "./run.ts";

/**
 * The occupancy [R, R, R] (x slowest, 1 or 0) of the grid over [-0.5, 0.5]^3: a voxel is 1 where its closed cube touches a triangle. Vertices
 * outside are clamped to the cube, so normalise the mesh before. Throws a RangeError on a position that is not finite or an index out of range.
 */
export function voxelize(mesh: Surface, resolution: number, { device }: { device?: Device } = {}): Uint8Array<ArrayBuffer> {
  expectSurface("voxelize", mesh);
  if (!Number.isInteger(resolution) || resolution < 1 || resolution > 1024) {
    throw new RangeError(`Cannot voxelize the mesh: resolution is ${resolution}, it must be a whole number from 1 to 1024`);
  }
  const occupancy = new Uint8Array(resolution ** 3), { positions, triangles } = mesh;
  runOn(device, ({ kernels, stream, input, output }) => {
    const out = output(occupancy), V = positions.length / 3, T = triangles.length / 3;
    kernels.k_voxelize_fwd(out, input(positions), input(triangles), V, T, resolution, stream);
  });
  return occupancy;
}

/** The voxels x y z that are not 0 in an occupancy [R, R, R], as [N, 3] in ascending order. */
export function occupiedVoxels(occupancy: Uint8Array, resolution: number): Int32Array<ArrayBuffer> {
  if (occupancy.length !== resolution ** 3) {
    throw new RangeError(`Cannot list voxels: the occupancy has ${occupancy.length} values, it must have ${resolution}^3`);
  }
  let N = 0;
  for (let i = 0; i < occupancy.length; i++) if (occupancy[i]) N++;
  const coords = new Int32Array(N * 3);
  for (let i = 0, at = 0; at < coords.length; i++) {
    if (!occupancy[i]) continue;
    coords[at++] = Math.floor(i / resolution ** 2);
    coords[at++] = Math.floor(i / resolution) % resolution;
    coords[at++] = i % resolution;
  }
  return coords;
}
