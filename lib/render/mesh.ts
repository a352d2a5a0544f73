/** The mesh that is rendered and voxelized: Z up, one vertex buffer, a material a triangle. */

/** An sRGB image with straight alpha. */
export interface Texture {
  width: number;
  height: number;
  /** RGBA8, [height, width, 4]; row 0 is at v = 0. */
  data: Uint8Array<ArrayBuffer>;
  /** What lies outside of 0..1; by default "repeat". */
  wrap?: "repeat" | "clamp";
}

/** How a triangle's surface looks. Both sides of it are shown whatever `doubleSided` says; it is kept for export. */
export interface Material {
  /** Linear red, green, blue and alpha; multiplied with texture and vertex colour. */
  baseColor: readonly [number, number, number, number];
  texture?: Texture;
  doubleSided?: boolean;
  /** Where alpha is less there is a hole; by default 0: opaque. */
  alphaCutoff?: number;
}

/** V vertices and T triangles. */
export interface RenderMesh {
  /** [V, 3]. */
  positions: Float32Array<ArrayBuffer>;
  /** [T, 3] vertex indices. */
  triangles: Uint32Array<ArrayBuffer>;
  /** [V, 3]; without them every triangle is flat. */
  normals?: Float32Array<ArrayBuffer>;
  /** [V, 2]. */
  uvs?: Float32Array<ArrayBuffer>;
  /** [V, 4], linear. */
  colors?: Float32Array<ArrayBuffer>;
  /** [T] indices into `materials`; without it every triangle has material 0. */
  materialOfTriangle?: Uint16Array<ArrayBuffer> | Int32Array<ArrayBuffer>;
  materials: readonly Material[];
}

/** The part of a mesh that voxelization needs. */
export type Surface = Pick<RenderMesh, "positions" | "triangles">;

function expectFinite(action: string, name: string, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) throw new RangeError(`Cannot ${action} the mesh: ${name}[${i}] is ${values[i]}, it must be finite`);
  }
}

function expectLength(action: string, name: string, got: number, want: number): void {
  if (got !== want) throw new RangeError(`Cannot ${action} the mesh: ${name} has ${got} values, it must have ${want}`);
}

/** Throws a RangeError unless positions are finite triples and triangles are triples of their indices. `action` is the verb of the message. */
export function expectSurface(action: string, { positions, triangles }: Surface): void {
  if (positions.length % 3) {
    throw new RangeError(`Cannot ${action} the mesh: positions has ${positions.length} values, it must be a multiple of 3`);
  }
  if (triangles.length % 3) {
    throw new RangeError(`Cannot ${action} the mesh: triangles has ${triangles.length} values, it must be a multiple of 3`);
  }
  expectFinite(action, "positions", positions);
  const V = positions.length / 3;
  for (let i = 0; i < triangles.length; i++) {
    if (triangles[i] >= V) {
      throw new RangeError(`Cannot ${action} the mesh: triangles[${i}] is ${triangles[i]}, it must be below the ${V} vertices`);
    }
  }
}

/** Throws a RangeError unless every array of `mesh` has its size, its values are finite and its indices in range. */
export function expectMesh(action: string, mesh: RenderMesh): void {
  expectSurface(action, mesh);
  const V = mesh.positions.length / 3, T = mesh.triangles.length / 3, M = mesh.materials.length;
  for (const [name, width] of [["normals", 3], ["uvs", 2], ["colors", 4]] as const) {
    const values = mesh[name];
    if (!values) continue;
    expectLength(action, name, values.length, V * width);
    expectFinite(action, name, values);
  }
  if (T > 0 && M === 0) throw new RangeError(`Cannot ${action} the mesh: it has 0 materials, it must have one or more`);
  mesh.materials.forEach(({ texture }, i) => {
    if (!texture) return;
    if (!(texture.width > 0 && texture.height > 0)) {
      throw new RangeError(
        `Cannot ${action} the mesh: materials[${i}].texture is ${texture.width} x ${texture.height}, it must have pixels`,
      );
    }
    expectLength(action, `materials[${i}].texture.data`, texture.data.length, texture.width * texture.height * 4);
  });
  const of = mesh.materialOfTriangle;
  if (!of) return;
  expectLength(action, "materialOfTriangle", of.length, T);
  for (let t = 0; t < T; t++) {
    if (of[t] < 0 || of[t] >= M) {
      throw new RangeError(`Cannot ${action} the mesh: materialOfTriangle[${t}] is ${of[t]}, it must be below the ${M} materials`);
    }
  }
}

/** The corners of the box around the vertices that triangles use, or undefined for a mesh without triangles. */
export function boundsOf({ positions, triangles }: Surface): { min: number[]; max: number[] } | undefined {
  if (triangles.length === 0) return undefined;
  const min = [Infinity, Infinity, Infinity], max = [-Infinity, -Infinity, -Infinity];
  for (const v of triangles) {
    for (let d = 0; d < 3; d++) {
      const x = positions[v * 3 + d];
      if (x < min[d]) min[d] = x;
      if (x > max[d]) max[d] = x;
    }
  }
  return { min, max };
}

/** A mesh in the unit cube, and the map that took it there: normalised = position * scale + offset. */
export interface Normalized<M extends Surface> {
  mesh: M;
  scale: number;
  offset: [number, number, number];
}

/**
 * Scales and moves a mesh so that the longest side of its box is 1 and the box's centre is at 0. Throws on a mesh with no triangles, with no
 * extent, or with a position that is not finite.
 */
export function normalizeMesh<M extends Surface>(mesh: M): Normalized<M> {
  expectSurface("normalize", mesh);
  const bounds = boundsOf(mesh);
  if (!bounds) throw new RangeError("Cannot normalize the mesh: it has 0 triangles, it must have one or more");
  const { min, max } = bounds, extent = Math.max(...max.map((x, d) => x - min[d]));
  if (!(extent > 0)) throw new RangeError(`Cannot normalize the mesh: its extent is ${extent}, it must be above 0`);
  const scale = 1 / extent, center = min.map((x, d) => (x + max[d]) / 2);
  const positions = mesh.positions.map((x, i) => (x - center[i % 3]) * scale);
  return { mesh: { ...mesh, positions }, scale, offset: [-center[0] * scale, -center[1] * scale, -center[2] * scale] };
}

/** Unit vertex normals [V, 3]: the mean of the adjacent triangles' normals by area; 0 0 0 at a vertex without area. */
export function vertexNormals(mesh: Surface): Float32Array<ArrayBuffer> {
  const { positions: p, triangles } = mesh, sums = new Float64Array(p.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const a = triangles[t] * 3, b = triangles[t + 1] * 3, c = triangles[t + 2] * 3;
    for (let d = 0; d < 3; d++) {
      const e = (d + 1) % 3, f = (d + 2) % 3;
      const n = (p[b + e] - p[a + e]) * (p[c + f] - p[a + f]) - (p[b + f] - p[a + f]) * (p[c + e] - p[a + e]);
      sums[a + d] += n;
      sums[b + d] += n;
      sums[c + d] += n;
    }
  }
  const normals = new Float32Array(p.length);
  for (let v = 0; v < p.length; v += 3) {
    const length = Math.hypot(sums[v], sums[v + 1], sums[v + 2]);
    if (length > 0) { for (let d = 0; d < 3; d++) normals[v + d] = sums[v + d] / length; }
  }
  return normals;
}
