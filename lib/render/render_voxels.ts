/** Pictures of voxels, for previews. */
import type { Camera } from "./camera.ts";
import type { RenderMesh } from "./mesh.ts";
import { srgbToLinear } from "./srgb.ts";
import { type RenderedView, renderMesh, type RenderOptions } from "./render_mesh.ts";

/** Per face of a cube: the axis it looks along, the step to the neighbour, and its corners, counterclockwise from outside. */
const FACES = [0, 1, 2].flatMap((axis) =>
  [1, -1].map((step) => {
    const u = (axis + 1) % 3, v = (axis + 2) % 3;
    const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([a, b]) => {
      const corner = [0, 0, 0];
      corner[axis] = step > 0 ? 1 : 0;
      corner[u] = step > 0 ? a : b;
      corner[v] = step > 0 ? b : a;
      return corner;
    });
    return { axis, step, corners };
  })
);

/**
 * The outer faces of voxels as a mesh in [-0.5, 0.5]^3. `coords` is [N, 3] in 0..R-1; `colors` [N, 3] is sRGB in 0..1, by default each voxel's
 * own position. A face between two voxels is left out.
 */
export function voxelMesh(coords: Int32Array, resolution: number, colors?: Float32Array): RenderMesh {
  const R = resolution, N = coords.length / 3, solid = new Uint8Array(R ** 3);
  if (colors && colors.length !== coords.length) {
    throw new RangeError(`Cannot make a voxel mesh: colors has ${colors.length} values, it must have ${coords.length}`);
  }
  for (let i = 0; i < coords.length; i++) {
    if (coords[i] < 0 || coords[i] >= R) {
      throw new RangeError(`Cannot make a voxel mesh: coords[${i}] is ${coords[i]}, it must be in 0..${R - 1}`);
    }
  }
  for (let n = 0; n < N; n++) solid[(coords[n * 3] * R + coords[n * 3 + 1]) * R + coords[n * 3 + 2]] = 1;
  const shown: number[] = []; // voxel * 6 + face
  for (let n = 0; n < N; n++) {
    FACES.forEach(({ axis, step }, face) => {
      const [x, y, z] = [0, 1, 2].map((d) => coords[n * 3 + d] + (d === axis ? step : 0));
      if (Math.min(x, y, z) < 0 || Math.max(x, y, z) >= R || !solid[(x * R + y) * R + z]) shown.push(n * 6 + face);
    });
  }
  const positions = new Float32Array(shown.length * 12),
    vertexColors = new Float32Array(shown.length * 16),
    triangles = new Uint32Array(shown.length * 6);
  shown.forEach((face, f) => {
    const n = Math.floor(face / 6);
    FACES[face % 6].corners.forEach((corner, k) => {
      for (let d = 0; d < 3; d++) {
        const at = coords[n * 3 + d], srgb = colors ? colors[n * 3 + d] : (at + 0.5) / R;
        positions[(f * 4 + k) * 3 + d] = (at + corner[d]) / R - 0.5;
        vertexColors[(f * 4 + k) * 4 + d] = srgbToLinear(srgb);
      }
      vertexColors[(f * 4 + k) * 4 + 3] = 1;
    });
    triangles.set([0, 1, 2, 0, 2, 3].map((k) => f * 4 + k), f * 6);
  });
  return { positions, triangles, colors: vertexColors, materials: [{ baseColor: [1, 1, 1, 1] }] };
}

/** Options of {@linkcode renderVoxels}. */
export interface RenderVoxelsOptions extends RenderOptions {
  /** [N, 3] sRGB in 0..1; by default each voxel's own position. */
  colors?: Float32Array;
}

/** Renders voxels `coords` [N, 3] of a grid with `resolution` a side as cubes, once a camera. */
export function renderVoxels(
  coords: Int32Array,
  resolution: number,
  cameras: readonly Camera[],
  { colors, ...options }: RenderVoxelsOptions,
): RenderedView[] {
  return renderMesh(voxelMesh(coords, resolution, colors), cameras, options);
}
