/** Colours for the vertices that no picture shows. */
import { type Mesh, meshStats, vertexNeighbors } from "./mesh.ts";

/** Vertex colours of which some are still to be found. */
export interface PartialColors {
  /** [V,3], 0 to 255 */
  colors: Float32Array;
  /** [V], 1 where the colour is known */
  known: Uint8Array;
}

/** A mesh is symmetric when this part of its vertices have a vertex that faces alike at their mirror image. */
const SYMMETRIC = 0.9;
const SYMMETRY_SAMPLES = 2000, MIN_REACH = 0.02, SAME_FACING = 0.5;
const SWEEPS = 40;

/**
 * Gives unknown vertices the known colour at their mirror image, in the middle plane of x or of y, whichever the mesh is more symmetric in.
 * Leaves a mesh that is symmetric in neither as it is.
 */
export function mirrorColors(mesh: Mesh, { colors, known }: PartialColors): void {
  const { min, max, area, triangles } = meshStats(mesh);
  const reach = Math.max(MIN_REACH, 1.5 * Math.sqrt(area / triangles));
  const vertices = Uint32Array.from(known, (_, v) => v), stride = Math.ceil(known.length / SYMMETRY_SAMPLES);
  const samples = vertices.filter((v) => v % stride === 0), nearestOfAll = nearestVertex(mesh, vertices, reach);
  const scores = [0, 1].map((axis) => {
    const images = samples.filter((v) => nearestOfAll(mirrorImage(mesh, v, { axis, sum: min[axis] + max[axis] })) >= 0);
    return images.length / samples.length;
  });
  const axis = scores[1] > scores[0] ? 1 : 0;
  if (scores[axis] < SYMMETRIC) return;
  const nearestKnown = nearestVertex(mesh, vertices.filter((v) => known[v] === 1), reach);
  for (const v of vertices.filter((v) => known[v] === 0)) {
    const source = nearestKnown(mirrorImage(mesh, v, { axis, sum: min[axis] + max[axis] }));
    if (source < 0) continue;
    colors.copyWithin(3 * v, 3 * source, 3 * source + 3);
    known[v] = 1;
  }
}

/**
 * Gives unknown vertices a blend of the known colours around: ring by ring inwards from the known ones, then evened out. Vertices that no edges
 * join with a known one get the mean known colour.
 */
export function diffuseColors(mesh: Mesh, { colors, known }: PartialColors): void {
  const { start, neighbors } = vertexNeighbors(mesh), V = known.length;
  const ring = new Int32Array(V).fill(-1), queue = new Uint32Array(V), mean = [0, 0, 0];
  let head = 0, tail = 0;
  for (let v = 0; v < V; v++) {
    if (known[v] === 0) continue;
    ring[v] = 0;
    queue[tail++] = v;
    for (let k = 0; k < 3; k++) mean[k] += colors[3 * v + k];
  }
  const seeds = tail;
  while (head < tail) {
    const v = queue[head++];
    if (head > seeds) blend(v, (n) => ring[n] >= 0 && ring[n] < ring[v]);
    for (let i = start[v]; i < start[v + 1]; i++) {
      const n = neighbors[i];
      if (ring[n] >= 0) continue;
      ring[n] = ring[v] + 1;
      queue[tail++] = n;
    }
  }
  for (let sweep = 0; sweep < SWEEPS; sweep++) for (let i = seeds; i < tail; i++) blend(queue[i], () => true);
  for (let i = 0; i < 3 * V; i++) if (ring[Math.floor(i / 3)] < 0) colors[i] = mean[i % 3] / seeds;

  function blend(v: number, from: (n: number) => boolean): void {
    let r = 0, g = 0, b = 0, count = 0;
    for (let i = start[v]; i < start[v + 1]; i++) {
      const n = neighbors[i];
      if (!from(n)) continue;
      r += colors[3 * n];
      g += colors[3 * n + 1];
      b += colors[3 * n + 2];
      count++;
    }
    colors[3 * v] = r / count;
    colors[3 * v + 1] = g / count;
    colors[3 * v + 2] = b / count;
  }
}

interface OrientedPoint {
  point: number[];
  normal: number[];
}

/** Vertex v and its normal, mirrored in the plane where twice the coordinate is `sum`. */
function mirrorImage({ positions, normals }: Mesh, v: number, { axis, sum }: { axis: number; sum: number }): OrientedPoint {
  const point = [...positions.subarray(3 * v, 3 * v + 3)], normal = [...normals.subarray(3 * v, 3 * v + 3)];
  point[axis] = sum - point[axis];
  normal[axis] = -normal[axis];
  return { point, normal };
}

/** A function that finds the nearest of some vertices that faces the same way, -1 where there is none within `reach`. */
function nearestVertex({ positions, normals }: Mesh, vertices: Uint32Array, reach: number): (p: OrientedPoint) => number {
  const cells = new Map<number, number[]>();
  const cellOf = (x: number, y: number, z: number): number => (x * 4096 + y) * 4096 + z;
  for (const v of vertices) {
    const [x, y, z] = positions.subarray(3 * v, 3 * v + 3),
      key = cellOf(Math.floor(x / reach), Math.floor(y / reach), Math.floor(z / reach));
    const cell = cells.get(key);
    if (cell) cell.push(v);
    else cells.set(key, [v]);
  }
  return ({ point, normal }) => {
    const [cx, cy, cz] = point.map((p) => Math.floor(p / reach));
    let best = -1, bestSquared = reach * reach;
    for (let i = 0; i < 27; i++) {
      for (const v of cells.get(cellOf(cx + i % 3 - 1, cy + Math.floor(i / 3) % 3 - 1, cz + Math.floor(i / 9) - 1)) ?? []) {
        let squared = 0, alike = 0;
        for (let k = 0; k < 3; k++) {
          squared += (positions[3 * v + k] - point[k]) ** 2;
          alike += normals[3 * v + k] * normal[k];
        }
        if (squared > bestSquared || alike < SAME_FACING) continue;
        best = v;
        bestSquared = squared;
      }
    }
    return best;
  };
}
