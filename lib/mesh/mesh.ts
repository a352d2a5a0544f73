/** Triangle meshes: the record that every function on meshes takes and gives, and its measures. */
import { boundsOf, vertexNormals } from "../render/mesh.ts";

/** A triangle mesh in world units, Z up; seen from outside a triangle's corners go counter-clockwise. */
export interface Mesh {
  /** [V,3] */
  positions: Float32Array<ArrayBuffer>;
  /** [T,3], indices of vertices */
  triangles: Uint32Array<ArrayBuffer>;
  /** [V,3], unit length; 0 0 0 at a vertex without area */
  normals: Float32Array<ArrayBuffer>;
  /** [V,3], sRGB */
  colors?: Uint8Array<ArrayBuffer>;
}

/** What {@linkcode meshStats} counts. */
export interface MeshStats {
  vertices: number;
  triangles: number;
  /** Pieces that no edge joins. */
  parts: number;
  area: number;
  /** Signed: negative where the triangles face inwards. Means something only where the mesh is closed. */
  volume: number;
  /** Edges of one triangle only. */
  openEdges: number;
  /** Edges of more than two triangles, or of two that disagree about the outside. */
  badEdges: number;
  /** Vertices - edges + triangles: 2 for each sphere, 0 for each torus. */
  eulerNumber: number;
  /** Lowest and highest corner, [3] each; NaN for an empty mesh. */
  min: number[];
  max: number[];
}

/** The mesh of vertices [V,3] and triangles [T,3], with the normals these have. */
export function meshOf(positions: Float32Array<ArrayBuffer>, triangles: Uint32Array<ArrayBuffer>): Mesh {
  return { positions, triangles, normals: vertexNormals({ positions, triangles }) };
}

/** The mesh of some of a mesh's triangles [T,3], without the vertices they do not use; normals and colours stay as they were. */
export function subMesh(mesh: Mesh, triangles: Uint32Array<ArrayBuffer>): Mesh {
  const renumbered = new Int32Array(mesh.positions.length / 3).fill(-1);
  const kept: number[] = [];
  const compact = triangles.map((v) => renumbered[v] >= 0 ? renumbered[v] : (renumbered[v] = kept.push(v) - 1));
  const positions = gatherRows(mesh.positions, kept, new Float32Array(3 * kept.length));
  const normals = gatherRows(mesh.normals, kept, new Float32Array(3 * kept.length));
  const colors = mesh.colors && gatherRows(mesh.colors, kept, new Uint8Array(3 * kept.length));
  return { positions, triangles: compact, normals, ...(colors && { colors }) };
}

/** Counts and measures of a mesh. */
export function meshStats(mesh: Mesh): MeshStats {
  const { positions, triangles } = mesh;
  let area = 0, volume = 0;
  for (let t = 0; t < triangles.length; t += 3) {
    const [nx, ny, nz] = triangleCross(positions, triangles, t), a = 3 * triangles[t];
    area += Math.hypot(nx, ny, nz) / 2;
    volume += (nx * positions[a] + ny * positions[a + 1] + nz * positions[a + 2]) / 6;
  }
  const { min, max } = boundsOf(mesh) ?? { min: [NaN, NaN, NaN], max: [NaN, NaN, NaN] };
  const { edges, openEdges, badEdges } = countEdges(mesh);
  return {
    vertices: positions.length / 3,
    triangles: triangles.length / 3,
    parts: new Set(triangleParts(mesh)).size,
    area,
    volume,
    openEdges,
    badEdges,
    eulerNumber: new Set(triangles).size - edges + triangles.length / 3,
    min,
    max,
  };
}

/** The part each triangle belongs to, [T]: triangles that share a vertex share a number, which is some vertex of the part. */
export function triangleParts(mesh: Mesh): Uint32Array {
  const { triangles } = mesh;
  const parent = Uint32Array.from({ length: mesh.positions.length / 3 }, (_, v) => v);
  const root = (v: number): number => {
    while (parent[v] !== v) v = parent[v] = parent[parent[v]];
    return v;
  };
  for (let t = 0; t < triangles.length; t += 3) {
    const a = root(triangles[t]);
    parent[root(triangles[t + 1])] = a;
    parent[root(triangles[t + 2])] = a;
  }
  return Uint32Array.from({ length: triangles.length / 3 }, (_, t) => root(triangles[3 * t]));
}

/** Neighbours of each vertex along the mesh's edges: those of v are `neighbors[start[v]]` to before `neighbors[start[v + 1]]`. */
export function vertexNeighbors(mesh: Mesh): { start: Uint32Array; neighbors: Uint32Array } {
  const V = mesh.positions.length / 3;
  const sorted = directedEdges(mesh, true);
  const start = new Uint32Array(V + 1), neighbors = new Uint32Array(sorted.length);
  let count = 0;
  for (let i = 0; i < sorted.length; i++) {
    if (sorted[i] === sorted[i - 1]) continue;
    const from = Math.floor(sorted[i] / V);
    neighbors[count++] = sorted[i] - from * V;
    start[from + 1] = count;
  }
  for (let v = 0; v < V; v++) start[v + 1] = Math.max(start[v + 1], start[v]);
  return { start, neighbors: neighbors.subarray(0, count) };
}

/** Twice the area of the triangle that begins at index t, times its normal. */
export function triangleCross(positions: Float32Array, triangles: Uint32Array, t: number): [number, number, number] {
  const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
  const ux = positions[b] - positions[a], uy = positions[b + 1] - positions[a + 1], uz = positions[b + 2] - positions[a + 2];
  const vx = positions[c] - positions[a], vy = positions[c + 1] - positions[a + 1], vz = positions[c + 2] - positions[a + 2];
  return [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
}

function countEdges(mesh: Mesh): { edges: number; openEdges: number; badEdges: number } {
  const V = mesh.positions.length / 3, forward = directedEdges(mesh, false);
  const undirected = forward.map((key) => {
    const from = Math.floor(key / V), to = key - from * V;
    return Math.min(from, to) * V + Math.max(from, to);
  }).sort();
  let edges = 0, openEdges = 0, badEdges = 0;
  for (let i = 0, next = 0; i < undirected.length; i = next) {
    while (undirected[next] === undirected[i]) next++;
    edges++;
    if (next - i === 1) openEdges++;
    if (next - i > 2) badEdges++;
  }
  for (let i = 1; i < forward.length; i++) if (forward[i] === forward[i - 1]) badEdges++;
  return { edges, openEdges, badEdges };
}

/** Sorted keys `from * V + to` of each triangle's three edges, with both directions of each where `both`. */
function directedEdges(mesh: Mesh, both: boolean): Float64Array {
  const { triangles } = mesh, V = mesh.positions.length / 3;
  const keys = new Float64Array(triangles.length * (both ? 2 : 1));
  let count = 0;
  for (let t = 0; t < triangles.length; t++) {
    const from = triangles[t], to = triangles[t % 3 === 2 ? t - 2 : t + 1];
    keys[count++] = from * V + to;
    if (both) keys[count++] = to * V + from;
  }
  return keys.sort();
}

function gatherRows<A extends Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>>(rows: A, indices: number[], out: A): A {
  indices.forEach((v, i) => {
    for (let k = 0; k < 3; k++) out[3 * i + k] = rows[3 * v + k];
  });
  return out;
}
