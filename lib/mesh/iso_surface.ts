/** Surfaces of volumes: the closed mesh on which a field crosses its level. */
import { blurGrid, gridSide } from "./grid.ts";
import { type Mesh, meshOf } from "./mesh.ts";
import { EDGE_CORNERS, NONE, patchTable } from "./patch_table.ts";

/** Options of {@linkcode isoSurface}. */
export interface IsoSurfaceOptions {
  /** The value on the surface. */
  level?: number;
  /** Which side of the level is solid: "above" for logits and occupancies, "below" for signed distances. */
  inside?: "above" | "below";
  /**
   * Width in voxels of a Gaussian that rounds the steps of a field that jumps at its surface, such as a decoder's logits or a 0/1 grid:
   * the field becomes tanh((x - level) / 2), then is blurred. 0 takes the field as it is. Solids thinner than about two widths vanish.
   */
  prefilter?: number;
}

interface Cubes {
  /** [D,D,D], D = R + 1: bit c is set where corner c of the cube is inside; 0 too where all are. */
  cases: Uint8Array;
  /** Cubes the surface passes through. */
  active: Uint32Array;
  /** Edges it crosses: the quads of the surface. */
  quads: number;
}

/** Value of the layer around the field; an edge into it is crossed half-way, on the border of the unit cube. */
const PAD = -Infinity;
/** Crossings keep this part of an edge away from its ends, so that no triangle shrinks to nothing. */
const END_GAP = 0.01;
const TABLE = patchTable();

/**
 * The surface of a field [R,R,R], x slowest and z fastest, where it crosses `level`: closed, each edge in two triangles, facing outwards.
 * Voxel i is at (i + 0.5) / R - 0.5 on its axis; a solid that touches the border of the field is closed on the border of the unit cube.
 *
 * Each cube between eight voxels has one vertex for each sheet of the surface in it, the mean of that sheet's edge crossings, and each
 * crossed edge gives the quad of its four cubes. A field that never crosses its level gives an empty mesh.
 * Throws a RangeError where the field is no cube or not finite.
 */
export function isoSurface(field: Float32Array, { level = 0, inside = "above", prefilter = 0 }: IsoSurfaceOptions = {}): Mesh {
  const R = gridSide(field.length);
  const grid = paddedGrid(field, R, { level, inside, prefilter });
  const cubes = classifyCubes(grid, R);
  keepSheetsApart(cubes, R);
  const { positions, firstVertex } = placeVertices(grid, cubes, R);
  return meshOf(positions, joinQuads({ grid, cubes, positions, firstVertex }, R));
}

/** The field over its level, positive inside, with a layer of PAD around: [R+2,R+2,R+2]. */
function paddedGrid(field: Float32Array, R: number, { level, inside, prefilter }: Required<IsoSurfaceOptions>): Float32Array {
  const sign = inside === "above" ? 1 : -1, P = R + 2;
  let values: Float32Array = field.map((x) => sign * (x - level));
  const bad = values.findIndex((x) => !Number.isFinite(x));
  if (bad >= 0) throw new RangeError(`Cannot extract a surface: value ${bad} of the field is ${field[bad]}, it must be finite`);
  if (prefilter > 0) values = blurGrid(values.map((x) => Math.tanh(x / 2)), prefilter);
  const grid = new Float32Array(P ** 3).fill(PAD);
  for (let x = 0; x < R; x++) {
    for (let y = 0; y < R; y++) grid.set(values.subarray((x * R + y) * R, (x * R + y + 1) * R), ((x + 1) * P + y + 1) * P + 1);
  }
  return grid;
}

function classifyCubes(grid: Float32Array, R: number): Cubes {
  const D = R + 1, P = R + 2, cases = new Uint8Array(D ** 3);
  let count = 0, quads = 0;
  for (let x = 0, cube = 0; x < D; x++) {
    for (let y = 0; y < D; y++) {
      let low = 0;
      for (let z = 0, g = (x * P + y) * P + 1; z < D; z++, g++, cube++) {
        const high = (grid[g] > 0 ? 1 : 0) | (grid[g + P * P] > 0 ? 2 : 0) | (grid[g + P] > 0 ? 4 : 0) | (grid[g + P * P + P] > 0 ? 8 : 0);
        const id = low | (high << 4);
        low = high;
        if (id === 0 || id === 255) continue;
        cases[cube] = id;
        count++;
        quads += ((id ^ (id >> 1)) & 1) + ((id ^ (id >> 2)) & 1) + ((id ^ (id >> 4)) & 1);
      }
    }
  }
  const active = new Uint32Array(count);
  for (let cube = 0, i = 0; i < count; cube++) if (cases[cube] !== 0) active[i++] = cube;
  return { cases, active, quads };
}

/** Gives two cubes that meet in a doubtful face the complementary cases. */
function keepSheetsApart({ cases, active }: Cubes, R: number): void {
  const D = R + 1, strides = [D * D, D, 1];
  const changed = active.filter((cube) => {
    const face = TABLE.doubtfulFace[cases[cube]];
    if (face === NONE) return false;
    const stride = strides[face >> 1];
    return TABLE.doubtfulFace[cases[cube + ((face & 1) === 1 ? stride : -stride)]] !== NONE;
  });
  for (const cube of changed) cases[cube] = 255 - cases[cube];
}

function placeVertices(
  grid: Float32Array,
  { cases, active }: Cubes,
  R: number,
): { positions: Float32Array<ArrayBuffer>; firstVertex: Uint32Array } {
  const D = R + 1, P = R + 2, offsets = Array.from({ length: 8 }, (_, c) => (c & 1) * P * P + ((c >> 1) & 1) * P + (c >> 2));
  let V = 0;
  for (const cube of active) V += TABLE.patches[cases[cube]];
  const positions = new Float32Array(3 * V), firstVertex = new Uint32Array(D ** 3), crossings = new Uint8Array(4);
  let vertex = 0;
  for (const cube of active) {
    const id = cases[cube], z = cube % D, y = ((cube - z) / D) % D, x = (cube - z - y * D) / (D * D), g = (x * P + y) * P + z;
    firstVertex[cube] = vertex;
    crossings.fill(0);
    for (let e = 0; e < 12; e++) {
      const patch = TABLE.patchOf[id * 12 + e];
      if (patch === NONE) continue;
      const [low, high] = EDGE_CORNERS[e], a = grid[g + offsets[low]], b = grid[g + offsets[high]];
      const t = a === PAD || b === PAD ? 0.5 : Math.min(Math.max(a / (a - b), END_GAP), 1 - END_GAP);
      const p = 3 * (vertex + patch), axis = e >> 2;
      crossings[patch]++;
      positions[p] += axis === 0 ? t : low & 1;
      positions[p + 1] += axis === 1 ? t : (low >> 1) & 1;
      positions[p + 2] += axis === 2 ? t : low >> 2;
    }
    for (let patch = 0; patch < TABLE.patches[id]; patch++, vertex++) {
      positions[3 * vertex] = (x + positions[3 * vertex] / crossings[patch] - 0.5) / R - 0.5;
      positions[3 * vertex + 1] = (y + positions[3 * vertex + 1] / crossings[patch] - 0.5) / R - 0.5;
      positions[3 * vertex + 2] = (z + positions[3 * vertex + 2] / crossings[patch] - 0.5) / R - 0.5;
    }
  }
  return { positions, firstVertex };
}

/** Two triangles [T,3] for each crossed edge, cut along the shorter diagonal of its quad. */
function joinQuads(
  { grid, cubes, positions, firstVertex }: { grid: Float32Array; cubes: Cubes; positions: Float32Array; firstVertex: Uint32Array },
  R: number,
): Uint32Array<ArrayBuffer> {
  const D = R + 1, P = R + 2, strides = [D * D, D, 1], gridStrides = [P * P, P, 1];
  const triangles = new Uint32Array(6 * cubes.quads), quad = new Uint32Array(4);
  let count = 0;
  for (const cube of cubes.active) {
    const z = cube % D, y = ((cube - z) / D) % D, x = (cube - z - y * D) / (D * D), g = (x * P + y) * P + z;
    for (let axis = 0; axis < 3; axis++) {
      const insideLow = grid[g] > 0;
      if (insideLow === grid[g + gridStrides[axis]] > 0) continue;
      const u = strides[(axis + 1) % 3], v = strides[(axis + 2) % 3];
      for (let corner = 0; corner < 4; corner++) {
        const du = corner === 0 || corner === 3 ? 1 : 0, dv = corner < 2 ? 1 : 0;
        const at = cube - du * u - dv * v;
        quad[insideLow ? corner : 3 - corner] = firstVertex[at] + TABLE.patchOf[cubes.cases[at] * 12 + 4 * axis + du + 2 * dv];
      }
      const [a, b, c, d] = quad;
      const pair = squaredDistance(positions, a, c) <= squaredDistance(positions, b, d) ? [a, b, c, a, c, d] : [a, b, d, b, c, d];
      triangles.set(pair, count);
      count += 6;
    }
  }
  return triangles;
}

function squaredDistance(positions: Float32Array, a: number, b: number): number {
  const dx = positions[3 * a] - positions[3 * b], dy = positions[3 * a + 1] - positions[3 * b + 1];
  const dz = positions[3 * a + 2] - positions[3 * b + 2];
  return dx * dx + dy * dy + dz * dz;
}
