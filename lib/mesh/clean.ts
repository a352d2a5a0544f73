/** Making an extracted mesh presentable: smoothing, dropping crumbs, fewer triangles. */
import { MeshoptSimplifier } from "meshoptimizer";
import { vertexNormals } from "../render/mesh.ts";
import { type Mesh, subMesh, triangleCross, triangleParts, vertexNeighbors } from "./mesh.ts";

/** Options of {@linkcode smoothMesh}. */
export interface SmoothOptions {
  /** Pairs of a shrinking and a growing step. */
  iterations?: number;
  /** The farthest a vertex may go from its place along each axis, in world units; half a voxel keeps the thinnest wall of voxels alive. */
  maxMove?: number;
}

/** Options of {@linkcode simplifyMesh}. */
export interface SimplifyOptions {
  /** Triangles to be left; more are left where fewer would change how the surface hangs together. */
  targetTriangles: number;
}

/** Strengths of the two steps of a pair; waves longer than 1 / (1 / SHRINK + 1 / GROW) pass unharmed. */
const SHRINK = 0.5, GROW = -0.53;

/** A mesh without its fine bumps and without shrinking: Taubin's lambda-mu smoothing (A signal processing approach to fair surfaces, 1995). */
export function smoothMesh(mesh: Mesh, { iterations = 10, maxMove = Infinity }: SmoothOptions = {}): Mesh {
  const { start, neighbors } = vertexNeighbors(mesh), V = mesh.positions.length / 3;
  let from = mesh.positions.slice(), to = from.slice();
  for (let step = 0; step < 2 * iterations; step++) {
    const strength = step % 2 === 0 ? SHRINK : GROW;
    for (let v = 0; v < V; v++) {
      const degree = start[v + 1] - start[v];
      if (degree === 0) continue;
      for (let k = 0; k < 3; k++) {
        let sum = 0;
        for (let n = start[v]; n < start[v + 1]; n++) sum += from[3 * neighbors[n] + k];
        const here = from[3 * v + k], home = mesh.positions[3 * v + k];
        to[3 * v + k] = Math.min(Math.max(here + strength * (sum / degree - here), home - maxMove), home + maxMove);
      }
    }
    [from, to] = [to, from];
  }
  return { ...mesh, positions: from, normals: vertexNormals({ positions: from, triangles: mesh.triangles }) };
}

/** A mesh without the parts whose area is less than `minFraction` of the largest part's; 1 keeps the largest part alone. */
export function removeSmallParts(mesh: Mesh, minFraction: number): Mesh {
  const parts = triangleParts(mesh), areas = new Map<number, number>();
  parts.forEach((part, t) => {
    const area = Math.hypot(...triangleCross(mesh.positions, mesh.triangles, 3 * t)) / 2;
    areas.set(part, (areas.get(part) ?? 0) + area);
  });
  let largest = 0;
  for (const area of areas.values()) largest = Math.max(largest, area);
  return subMesh(mesh, mesh.triangles.filter((_, i) => areas.get(parts[Math.floor(i / 3)])! >= minFraction * largest));
}

/**
 * A mesh of about `targetTriangles` triangles: edges are collapsed where that moves the surface least (meshoptimizer's quadric simplifier).
 * A closed mesh stays closed; normals are computed anew, colours are those of the vertices that are left.
 */
export async function simplifyMesh(mesh: Mesh, { targetTriangles }: SimplifyOptions): Promise<Mesh> {
  if (!(targetTriangles >= 1)) {
    throw new RangeError(`Cannot simplify a mesh: targetTriangles is ${targetTriangles}, it must be at least 1`);
  }
  if (mesh.triangles.length <= 3 * targetTriangles) return mesh;
  await MeshoptSimplifier.ready;
  const [triangles] = MeshoptSimplifier.simplify(mesh.triangles, mesh.positions, 3, 3 * Math.floor(targetTriangles), 1);
  const small = subMesh(mesh, dropFlaps(triangles));
  return { ...small, normals: vertexNormals(small) };
}

/** Triangles [T,3] without the pairs of the same three vertices that face opposite ways: a sheet folded onto itself. */
function dropFlaps(triangles: Uint32Array): Uint32Array<ArrayBuffer> {
  const waiting = new Map<string, number>(), dropped = new Uint8Array(triangles.length / 3);
  for (let t = 0; t < dropped.length; t++) {
    const [a, b, c] = triangles.subarray(3 * t, 3 * t + 3);
    const first = Math.min(a, b, c), [second, third] = first === a ? [b, c] : first === b ? [c, a] : [a, b];
    const other = waiting.get(`${first} ${third} ${second}`);
    if (other !== undefined && dropped[other] === 0) dropped[other] = dropped[t] = 1;
    else waiting.set(`${first} ${second} ${third}`, t);
  }
  return triangles.filter((_, i) => dropped[Math.floor(i / 3)] === 0);
}
