/** Meshes as GLB files, which every 3D program opens. */
import { type Accessor, Document, WebIO } from "@gltf-transform/core";
import { writeFileAtomic } from "../io/atomic.ts";
import type { Mesh } from "./mesh.ts";
import { srgbToLinear } from "../render/srgb.ts";

/** A mesh for {@linkcode glbBytes}: plain, with vertex colours, or with a texture. */
export interface GlbMesh extends Mesh {
  /** [V,2], from the left and the top of the texture, 0 to 1 */
  uvs?: Float32Array<ArrayBuffer>;
  /** A whole PNG or JPEG file. */
  texture?: Uint8Array<ArrayBuffer>;
}

/** Meshes of more vertices need 32-bit indices: glTF keeps 65535 for itself. */
const SHORT_INDICES = 65535;
const PNG_START = [0x89, 0x50, 0x4e, 0x47], JPEG_START = [0xff, 0xd8, 0xff];

/**
 * A GLB file of a mesh: Y up, (x, y, z) becomes (x, z, -y); sRGB vertex colours become linear COLOR_0 of 16 bits; one material, rough and no
 * metal. Throws a RangeError where the mesh is empty, its arrays do not fit each other, a position is not finite, or a texture has no uvs.
 */
export async function glbBytes(mesh: GlbMesh): Promise<Uint8Array<ArrayBuffer>> {
  expectWritable(mesh);
  const { positions, triangles, normals, colors, uvs, texture } = mesh, V = positions.length / 3;
  const document = new Document(), buffer = document.createBuffer();
  document.getRoot().getAsset().generator = "Espalier";
  const accessor = (
    type: "SCALAR" | "VEC2" | "VEC3" | "VEC4",
    values: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>,
  ): Accessor => document.createAccessor().setBuffer(buffer).setType(type).setArray(values);
  const material = document.createMaterial("surface").setRoughnessFactor(1).setMetallicFactor(0);
  const primitive = document.createPrimitive().setMaterial(material)
    .setIndices(accessor("SCALAR", V <= SHORT_INDICES ? Uint16Array.from(triangles) : triangles))
    .setAttribute("POSITION", accessor("VEC3", yUp(positions)))
    .setAttribute("NORMAL", accessor("VEC3", yUp(unitNormals(normals))));
  if (colors) primitive.setAttribute("COLOR_0", accessor("VEC4", linearColors(colors)).setNormalized(true));
  if (uvs) primitive.setAttribute("TEXCOORD_0", accessor("VEC2", uvs));
  if (texture) {
    const image = document.createTexture("color").setImage(texture).setMimeType(
      startsWith(texture, PNG_START) ? "image/png" : "image/jpeg",
    );
    material.setBaseColorTexture(image);
  }
  const node = document.createNode("mesh").setMesh(document.createMesh("mesh").addPrimitive(primitive));
  document.createScene().addChild(node);
  return await new WebIO().writeBinary(document);
}

/** Writes the file of {@linkcode glbBytes}, whole or not at all. */
export async function writeGlb(path: string, mesh: GlbMesh): Promise<void> {
  writeFileAtomic(path, await glbBytes(mesh));
}

function expectWritable({ positions, triangles, normals, colors, uvs, texture }: GlbMesh): void {
  const fail = (what: string): never => {
    throw new RangeError(`Cannot write a GLB: ${what}`);
  };
  const V = positions.length / 3;
  if (triangles.length === 0) fail("the mesh has 0 triangles, it must have at least 1; the field it comes from may never cross its level");
  for (const [name, values, width] of [["normals", normals, 3], ["colors", colors, 3], ["uvs", uvs, 2]] as const) {
    if (values && values.length !== V * width) fail(`${name} has ${values.length} values, it must have ${V * width} for ${V} vertices`);
  }
  const badPosition = positions.findIndex((x) => !Number.isFinite(x)), badIndex = triangles.findIndex((v) => v >= V);
  if (badPosition >= 0) fail(`position value ${badPosition} is ${positions[badPosition]}, it must be finite`);
  if (badIndex >= 0) fail(`triangle index ${badIndex} is ${triangles[badIndex]}, it must be below the ${V} vertices`);
  if (texture && !uvs) fail("the mesh has a texture and no uvs, it must have both");
  if (texture && !startsWith(texture, PNG_START) && !startsWith(texture, JPEG_START)) {
    fail("the texture is of unknown kind, it must be a PNG or JPEG file");
  }
}

function startsWith(bytes: Uint8Array, start: number[]): boolean {
  return start.every((b, i) => bytes[i] === b);
}

function yUp(vectors: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const out = new Float32Array(vectors.length);
  for (let i = 0; i < out.length; i += 3) out.set([vectors[i], vectors[i + 2], -vectors[i + 1]], i);
  return out;
}

/** Normals with +Z in place of zeros, which glTF does not allow. */
function unitNormals(normals: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  return normals.map((n, i) => {
    const v = i - i % 3, isZero = normals[v] === 0 && normals[v + 1] === 0 && normals[v + 2] === 0;
    return isZero ? (i % 3 === 2 ? 1 : 0) : n;
  });
}

/** [V,4] with alpha 1. */
function linearColors(colors: Uint8Array): Uint16Array<ArrayBuffer> {
  const table = Uint16Array.from({ length: 256 }, (_, c) => Math.round(65535 * srgbToLinear(c / 255)));
  return Uint16Array.from({ length: colors.length / 3 * 4 }, (_, i) => i % 4 === 3 ? 65535 : table[colors[Math.floor(i / 4) * 3 + i % 4]]);
}
