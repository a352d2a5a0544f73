import type { Material, RenderMesh } from "../render/mesh.ts";

/** A piece of a mesh with one material: V vertices, T triangles. */
export interface MeshPart {
  /** [V, 3] */
  positions: Float32Array<ArrayBuffer>;
  /** [T, 3], indices into this part's vertices. */
  triangles: Uint32Array<ArrayBuffer>;
  /** [V, 3], unit length. */
  normals?: Float32Array<ArrayBuffer>;
  /** [V, 2] */
  uvs?: Float32Array<ArrayBuffer>;
  /** [V, 4], linear, multiplied with the material's colour. */
  colors?: Float32Array<ArrayBuffer>;
  /** Index of the part's material. */
  material: number;
}

/** The part with three vertices of its own for each triangle and the triangle's normal on them. */
function flatten(part: MeshPart): MeshPart {
  const corners = part.triangles.length;
  const pick = (from: Float32Array | undefined, width: number): Float32Array<ArrayBuffer> | undefined => {
    if (!from) return undefined;
    const out = new Float32Array(corners * width);
    for (let i = 0; i < corners; i++) for (let c = 0; c < width; c++) out[i * width + c] = from[part.triangles[i] * width + c];
    return out;
  };
  const positions = pick(part.positions, 3)!;
  const normals = new Float32Array(corners * 3);
  for (let i = 0; i < corners * 3; i += 9) {
    const [ax, ay, az, bx, by, bz, cx, cy, cz] = positions.subarray(i, i + 9);
    const n = [
      (by - ay) * (cz - az) - (bz - az) * (cy - ay),
      (bz - az) * (cx - ax) - (bx - ax) * (cz - az),
      (bx - ax) * (cy - ay) - (by - ay) * (cx - ax),
    ];
    const length = Math.hypot(...n) || 1;
    for (let k = 0; k < 9; k++) normals[i + k] = n[k % 3] / length;
  }
  return {
    positions,
    normals,
    triangles: Uint32Array.from({ length: corners }, (_, i) => i),
    uvs: pick(part.uvs, 2),
    colors: pick(part.colors, 4),
    material: part.material,
  };
}

/**
 * Joins parts into one mesh. An attribute that only some parts have is filled in on the others:
 * normals with those of the triangles, texture coordinates with 0, colours with 1.
 */
export function joinParts(parts: MeshPart[], materials: Material[]): RenderMesh {
  const has = (key: "normals" | "uvs" | "colors"): boolean => parts.some((part) => part[key]);
  const whole = has("normals") ? parts.map((part) => part.normals ? part : flatten(part)) : parts;
  const V = whole.reduce((sum, part) => sum + part.positions.length / 3, 0);
  const T = whole.reduce((sum, part) => sum + part.triangles.length / 3, 0);
  const mesh: RenderMesh = {
    positions: new Float32Array(V * 3),
    triangles: new Uint32Array(T * 3),
    materialOfTriangle: new Int32Array(T),
    materials,
  };
  if (has("normals")) mesh.normals = new Float32Array(V * 3);
  if (has("uvs")) mesh.uvs = new Float32Array(V * 2);
  if (has("colors")) mesh.colors = new Float32Array(V * 4).fill(1);
  let v = 0, t = 0;
  for (const part of whole) {
    mesh.positions.set(part.positions, v * 3);
    if (part.normals) mesh.normals!.set(part.normals, v * 3);
    if (part.uvs) mesh.uvs!.set(part.uvs, v * 2);
    if (part.colors) mesh.colors!.set(part.colors, v * 4);
    for (let i = 0; i < part.triangles.length; i++) mesh.triangles[t * 3 + i] = part.triangles[i] + v;
    mesh.materialOfTriangle!.fill(part.material, t, t + part.triangles.length / 3);
    v += part.positions.length / 3;
    t += part.triangles.length / 3;
  }
  return mesh;
}
