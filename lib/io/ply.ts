/** PLY files: meshes, point clouds, Gaussians and TRELLIS's voxels. */
import { writeFileAtomic } from "./atomic.ts";
import { parsePly, type Ply, type PlyColumn } from "./ply_parse.ts";
import { quote, readBytes, type Source, sourceName } from "./read.ts";

export type { Ply, PlyColumn, PlyElement, PlyLists } from "./ply_parse.ts";

/** Reads a PLY file, ascii or binary. Throws an `Error` naming the file and what is wrong with it. */
export function readPly(source: Source): Ply {
  return parsePly(readBytes(source), sourceName(source, "PLY"));
}

/** What `writePly` writes. */
export interface PlyToWrite {
  /** The vertex properties by name, in the order of the file; all of one length. */
  vertex: Record<string, PlyColumn>;
  /** Triangles as vertex indices, [F, 3]. */
  faces?: Int32Array | Uint32Array;
  comments?: readonly string[];
}

const ROWS_A_CHUNK = 1 << 14;
const TYPES = [
  [Int8Array, "char", (view: DataView, at: number, value: number): void => view.setInt8(at, value)],
  [Uint8Array, "uchar", (view: DataView, at: number, value: number): void => view.setUint8(at, value)],
  [Int16Array, "short", (view: DataView, at: number, value: number): void => view.setInt16(at, value, true)],
  [Uint16Array, "ushort", (view: DataView, at: number, value: number): void => view.setUint16(at, value, true)],
  [Int32Array, "int", (view: DataView, at: number, value: number): void => view.setInt32(at, value, true)],
  [Uint32Array, "uint", (view: DataView, at: number, value: number): void => view.setUint32(at, value, true)],
  [Float32Array, "float", (view: DataView, at: number, value: number): void => view.setFloat32(at, value, true)],
  [Float64Array, "double", (view: DataView, at: number, value: number): void => view.setFloat64(at, value, true)],
] as const;

/** Writes a binary little-endian PLY file, whole or not at all. */
export function writePly(path: string, { vertex, faces, comments = [] }: PlyToWrite): void {
  const columns = Object.entries(vertex).map(([name, data]) => ({ name, data, type: TYPES.find(([array]) => data instanceof array)! }));
  const count = columns[0]?.data.length ?? 0;
  for (const { name, data } of columns) {
    if (!/^\S+$/.test(name)) throw new Error(`Cannot write ${path}: a property is called ${quote(name)}, it must be one word`);
    if (data.length !== count) throw new Error(`Cannot write ${path}: ${name} has ${data.length} rows, ${columns[0].name} has ${count}`);
  }
  if (faces && faces.length % 3 !== 0) {
    throw new Error(`Cannot write ${path}: there are ${faces.length} face indices, it must be a multiple of 3`);
  }
  if (faces?.some((index) => index < 0 || index >= count)) throw new Error(`Cannot write ${path}: a face index is not below ${count}`);
  const header = [
    "ply",
    "format binary_little_endian 1.0",
    ...comments.map((text) => `comment ${text.replaceAll(/\s+/g, " ")}`),
    `element vertex ${count}`,
    ...columns.map(({ name, type }) => `property ${type[1]} ${name}`),
    ...(faces ? [`element face ${faces.length / 3}`, "property list uchar int vertex_indices"] : []),
    "end_header\n",
  ];
  writeFileAtomic(path, chunks(header.join("\n"), columns, count, faces));
}

interface Column {
  data: PlyColumn;
  type: (typeof TYPES)[number];
}

function* chunks(header: string, columns: readonly Column[], count: number, faces?: Int32Array | Uint32Array): Generator<Uint8Array> {
  yield new TextEncoder().encode(header);
  const stride = columns.reduce((sum, { data }) => sum + data.BYTES_PER_ELEMENT, 0);
  for (let first = 0; first < count; first += ROWS_A_CHUNK) {
    const end = Math.min(count, first + ROWS_A_CHUNK);
    const view = new DataView(new ArrayBuffer((end - first) * stride));
    let offset = 0;
    for (const { data, type: [, , set] } of columns) {
      for (let row = first, at = offset; row < end; row++, at += stride) set(view, at, data[row]);
      offset += data.BYTES_PER_ELEMENT;
    }
    yield new Uint8Array(view.buffer);
  }
  for (let first = 0; faces && first < faces.length; first += 3 * ROWS_A_CHUNK) {
    const end = Math.min(faces.length, first + 3 * ROWS_A_CHUNK);
    const view = new DataView(new ArrayBuffer((end - first) / 3 * 13));
    for (let i = first, at = 0; i < end; i += 3, at += 13) {
      view.setUint8(at, 3);
      for (let k = 0; k < 3; k++) view.setInt32(at + 1 + 4 * k, faces[i + k], true);
    }
    yield new Uint8Array(view.buffer);
  }
}

/** A triangle mesh. */
export interface PlyMesh {
  /** [V, 3] x, y, z */
  positions: Float32Array<ArrayBuffer>;
  /** [F, 3] indices of vertices; polygons are cut into fans. */
  triangles: Uint32Array<ArrayBuffer>;
}

/** Reads the positions and faces of a PLY file; everything else in it is left aside. Throws where an index has no vertex. */
export function readPlyMesh(source: Source): PlyMesh {
  const name = sourceName(source, "PLY");
  const { elements: { vertex, face } } = readPly(source);
  const positions = interleave(vertex?.columns ?? {}, vertex?.count ?? 0, name);
  const polygons = face?.lists.vertex_indices ?? face?.lists.vertex_index;
  if (!polygons) throw new Error(`Cannot read ${name}: it has no faces (vertex_indices)`);
  const { offsets, values } = polygons;
  for (const index of values) {
    if (!Number.isInteger(index) || index < 0 || index >= vertex.count) {
      throw new Error(`Cannot read ${name}: a face has the vertex ${index}, it must be from 0 to ${vertex.count - 1}`);
    }
  }
  let count = 0;
  for (let row = 0; row < face.count; row++) count += Math.max(0, offsets[row + 1] - offsets[row] - 2);
  const triangles = new Uint32Array(3 * count);
  for (let row = 0, at = 0; row < face.count; row++) {
    for (let i = offsets[row] + 2; i < offsets[row + 1]; i++, at += 3) triangles.set([values[offsets[row]], values[i - 1], values[i]], at);
  }
  return { positions, triangles };
}

function interleave({ x, y, z }: Record<string, PlyColumn>, count: number, name: string): Float32Array<ArrayBuffer> {
  if (!x || !y || !z) throw new Error(`Cannot read ${name}: it has no vertex x, y and z`);
  const out = new Float32Array(3 * count);
  for (let row = 0; row < count; row++) out.set([x[row], y[row], z[row]], 3 * row);
  return out;
}

/**
 * Writes voxels as TRELLIS does: the centre `(i + 0.5) / resolution - 0.5` of each, in float32.
 * `indices` [N, 3] are from 0 to `resolution - 1`.
 */
export function writeVoxels(path: string, indices: Int32Array | Uint8Array, resolution: number): void {
  if (indices.length % 3 !== 0) {
    throw new Error(`Cannot write ${path}: there are ${indices.length} voxel indices, it must be a multiple of 3`);
  }
  if (indices.some((index) => index < 0 || index >= resolution)) {
    throw new Error(`Cannot write ${path}: a voxel index is not from 0 to ${resolution - 1}`);
  }
  const axis = (k: number): PlyColumn =>
    Float32Array.from({ length: indices.length / 3 }, (_, row) => (indices[3 * row + k] + 0.5) / resolution - 0.5);
  writePly(path, { vertex: { x: axis(0), y: axis(1), z: axis(2) } });
}

/** Reads voxels that TRELLIS or `writeVoxels` wrote: indices [N, 3]. Throws where a vertex is no voxel centre at this resolution. */
export function readVoxels(source: Source, resolution: number): Int32Array<ArrayBuffer> {
  const name = sourceName(source, "PLY");
  const { elements: { vertex } } = readPly(source);
  const positions = interleave(vertex?.columns ?? {}, vertex?.count ?? 0, name);
  const indices = new Int32Array(positions.length); // [N, 3]
  for (let i = 0; i < indices.length; i++) {
    const at = (positions[i] + 0.5) * resolution - 0.5;
    const index = Math.round(at);
    if (!(Math.abs(at - index) < 0.1) || index < 0 || index >= resolution) {
      throw new Error(
        `Cannot read ${name}: vertex ${Math.floor(i / 3)} lies at ${positions[i]}, no centre of a voxel at resolution ${resolution}`,
      );
    }
    indices[i] = index;
  }
  return indices;
}
