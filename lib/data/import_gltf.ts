import { type Accessor, GLB_BUFFER, type mat4, MathUtils, type vec3, type vec4, WebIO } from "@gltf-transform/core";
import { EXTMeshoptCompression, KHRMeshQuantization } from "@gltf-transform/extensions";
import { MeshoptDecoder } from "meshoptimizer";
import type { Material, RenderMesh } from "../render/mesh.ts";
import type { AssetFolder } from "./import_files.ts";
import { at, checkRanges, type GltfJson, type GltfMaterial, type GltfNode, type GltfPrimitive, parseGltfJson } from "./import_gltf_json.ts";
import { decodeTexture } from "./import_texture.ts";
import { joinParts, type MeshPart } from "./mesh_parts.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const MAGIC = 0x46546c67, JSON_CHUNK = 0x4e4f534a, BIN_CHUNK = 0x004e4942, CLAMP_TO_EDGE = 33071;

function splitGlb(file: Bytes): { text: string; bin?: Bytes } {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 20 || view.getUint32(4, true) !== 2) throw new Error("it is not a GLB of version 2 (a truncated file?)");
  const length = view.getUint32(8, true);
  if (length > file.length) throw new Error(`it says that it has ${length} bytes, it has ${file.length} (a truncated file?)`);
  let text: string | undefined, bin: Bytes | undefined;
  for (let i = 12; i + 8 <= length;) {
    const size = view.getUint32(i, true), type = view.getUint32(i + 4, true);
    if (i + 8 + size > length) throw new Error(`a chunk ends at byte ${i + 8 + size}, the file at ${length} (a truncated file?)`);
    const chunk = file.subarray(i + 8, i + 8 + size);
    if (type === JSON_CHUNK) text ??= new TextDecoder().decode(chunk);
    if (type === BIN_CHUNK) bin ??= chunk;
    i += 8 + size;
  }
  if (text === undefined) throw new Error("it has no JSON chunk");
  return { text, bin };
}

async function readBuffers(json: GltfJson, bin: Bytes | undefined, folder: AssetFolder): Promise<Bytes[]> {
  const packed = new Set(json.bufferViews.filter((view) => view.extensions?.EXT_meshopt_compression).map((view) => view.buffer));
  const buffers: Bytes[] = [];
  for (const [i, { uri, byteLength }] of json.buffers.entries()) {
    const data = uri !== undefined ? await folder.readUri(uri) : i === 0 && bin ? bin : new Uint8Array();
    const isFallback = uri === undefined && packed.has(i) && data.length === 0;
    if (data.length < byteLength && !isFallback) {
      throw new Error(`buffer ${i} has ${data.length} bytes, it must have ${byteLength} (a truncated file?)`);
    }
    buffers.push(data);
  }
  return buffers;
}

/** Has gltf-transform decode the accessors (interleaved, sparse, packed); only buffers, views and accessors are shown to it. */
async function decodeAccessors(json: GltfJson, buffers: Bytes[]): Promise<Accessor[]> {
  const packed = json.bufferViews.some((view) => view.extensions?.EXT_meshopt_compression);
  if (packed) await MeshoptDecoder.ready;
  const io = new WebIO().registerExtensions([EXTMeshoptCompression, KHRMeshQuantization]).registerDependencies({
    "meshopt.decoder": MeshoptDecoder,
  });
  const resources = Object.fromEntries(buffers.map((data, i) => [`buffer${i}`, data]));
  const document = await io.readJSON({
    json: {
      asset: { version: "2.0" },
      extensionsUsed: packed ? ["EXT_meshopt_compression"] : [],
      buffers: json.buffers.map(({ byteLength }, i) => ({ byteLength, uri: `buffer${i}` })),
      bufferViews: json.bufferViews,
      // deno-lint-ignore no-explicit-any -- the type strings are checked, gltf-transform wants their literal types
      accessors: json.accessors as any,
    },
    resources: { ...resources, [GLB_BUFFER]: new Uint8Array() },
  });
  return document.getRoot().listAccessors();
}

/** Values of an accessor as floats, normalized integers unpacked. */
function floats(accessor: Accessor, width: number): Float32Array<ArrayBuffer> {
  const array = accessor.getArray();
  const size = accessor.getElementSize(), count = accessor.getCount();
  if (array instanceof Float32Array && size === width) return array as Float32Array<ArrayBuffer>;
  const out = new Float32Array(count * width).fill(1), element: number[] = [];
  for (let i = 0; i < count; i++) {
    accessor.getElement(i, element);
    for (let c = 0; c < Math.min(size, width); c++) out[i * width + c] = element[c];
  }
  return out;
}

function trianglesOf(primitive: GltfPrimitive, accessors: Accessor[], V: number): Uint32Array<ArrayBuffer> {
  const indices = primitive.indices === undefined ? undefined : at(accessors, primitive.indices, "accessor").getArray();
  const corner = (i: number): number => indices ? indices[i] : i;
  const count = indices?.length ?? V;
  if (primitive.mode === 4 && count % 3) throw new Error(`a triangle list has ${count} indices, it must have a multiple of 3`);
  const T = primitive.mode === 4 ? count / 3 : Math.max(0, count - 2);
  const out = new Uint32Array(T * 3);
  for (let t = 0; t < T; t++) {
    const odd = t % 2;
    const picked = primitive.mode === 4
      ? [3 * t, 3 * t + 1, 3 * t + 2]
      : primitive.mode === 5
      ? [t, t + 1 + odd, t + 2 - odd]
      : [t + 1, t + 2, 0];
    for (let k = 0; k < 3; k++) out[t * 3 + k] = corner(picked[k]);
  }
  for (const i of out) if (i >= V) throw new Error(`a triangle has vertex ${i}, there are ${V}`);
  return out;
}

function baseColorOf(material: GltfMaterial) {
  const pbr = material.pbrMetallicRoughness, old = material.extensions?.KHR_materials_pbrSpecularGlossiness;
  return { factor: pbr?.baseColorFactor ?? old?.diffuseFactor ?? [1, 1, 1, 1], texture: pbr?.baseColorTexture ?? old?.diffuseTexture };
}

function transformUvs(uvs: Float32Array<ArrayBuffer>, material: GltfMaterial): Float32Array<ArrayBuffer> {
  const change = baseColorOf(material).texture?.extensions?.KHR_texture_transform;
  if (!change) return uvs;
  const [ou, ov] = change.offset ?? [0, 0], [su, sv] = change.scale ?? [1, 1], angle = change.rotation ?? 0;
  const cos = Math.cos(angle), sin = Math.sin(angle);
  return uvs.map((_, i) => {
    const u = uvs[i - i % 2] * su, v = uvs[i - i % 2 + 1] * sv;
    return i % 2 ? -sin * u + cos * v + ov : cos * u + sin * v + ou;
  });
}

/** A primitive in its mesh's own space; undefined for points and lines. */
function readPrimitive(json: GltfJson, primitive: GltfPrimitive, accessors: Accessor[]): MeshPart | undefined {
  if (primitive.mode < 4) return undefined;
  if (primitive.extensions?.KHR_draco_mesh_compression) {
    throw new Error("a primitive is Draco-compressed, which is not supported (export it again without)");
  }
  const material = primitive.material === undefined ? undefined : at(json.materials, primitive.material, "material");
  const read = (semantic: string, width: number, V?: number): Float32Array<ArrayBuffer> | undefined => {
    const i = primitive.attributes[semantic];
    if (i === undefined) return undefined;
    const accessor = at(accessors, i, "accessor");
    const count = accessor.getCount(), size = accessor.getElementSize();
    const fits = semantic === "COLOR_0" ? size === 3 || size === 4 : size === width;
    if (!fits || (V !== undefined && count !== V)) {
      throw new Error(`${semantic} is ${count} x ${size}, it must be ${V ?? count} x ${width} (a wrong accessor length)`);
    }
    return floats(accessor, width);
  };
  const positions = read("POSITION", 3);
  if (!positions) return undefined;
  const V = positions.length / 3;
  const texture = material && baseColorOf(material).texture;
  const uvs = read(`TEXCOORD_${texture?.extensions?.KHR_texture_transform?.texCoord ?? texture?.texCoord ?? 0}`, 2, V);
  return {
    positions,
    triangles: trianglesOf(primitive, accessors, V),
    normals: read("NORMAL", 3, V),
    uvs: uvs && material ? transformUvs(uvs, material) : uvs,
    colors: read("COLOR_0", 4, V),
    material: primitive.material ?? json.materials.length,
  };
}

function multiply(a: ArrayLike<number>, b: ArrayLike<number>): mat4 {
  return Array.from({ length: 16 }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += a[k * 4 + i % 4] * b[(i >> 2) * 4 + k];
    return sum;
  }) as mat4;
}

function compose(translation: number[], rotation: number[], scale: number[]): mat4 {
  return MathUtils.compose(translation as vec3, rotation as vec4, scale as vec3, new Array(16).fill(0) as mat4);
}

/** World matrices (column-major) of every placed mesh, instances included. */
function placements(json: GltfJson, accessors: Accessor[]): { mesh: number; world: mat4 }[] {
  const children = new Set(json.nodes.flatMap((node) => node.children));
  const scene = json.scenes.length ? at(json.scenes, json.scene ?? 0, "scene") : undefined;
  const roots = scene ? scene.nodes : json.nodes.map((_, i) => i).filter((i) => !children.has(i));
  const open = roots.map((i) => ({ i, parent: compose([0, 0, 0], [0, 0, 0, 1], [1, 1, 1]) }));
  const seen = new Set<number>(), out: { mesh: number; world: mat4 }[] = [];
  for (let step = open.shift(); step; step = open.shift()) {
    const node = at(json.nodes, step.i, "node");
    if (seen.has(step.i)) throw new Error(`node ${step.i} has two parents or is inside itself, the nodes must be a tree`);
    seen.add(step.i);
    const world = multiply(step.parent, node.matrix ?? compose(node.translation, node.rotation, node.scale));
    for (const child of node.children) open.push({ i: child, parent: world });
    if (node.mesh === undefined) continue;
    const instances = node.extensions?.EXT_mesh_gpu_instancing ? instancesOf(node, accessors) : [undefined];
    for (const local of instances) out.push({ mesh: node.mesh, world: local ? multiply(world, local) : world });
  }
  return out;
}

function instancesOf(node: GltfNode, accessors: Accessor[]): mat4[] {
  const attributes = node.extensions!.EXT_mesh_gpu_instancing!.attributes;
  const read = (name: string, width: number): Float32Array | undefined => {
    if (attributes[name] === undefined) return undefined;
    const accessor = at(accessors, attributes[name], "accessor");
    if (accessor.getElementSize() !== width) {
      throw new Error(`the instances' ${name} has ${accessor.getElementSize()} values, it must have ${width}`);
    }
    return floats(accessor, width);
  };
  const t = read("TRANSLATION", 3), r = read("ROTATION", 4), s = read("SCALE", 3);
  const counts = new Set([t && t.length / 3, r && r.length / 4, s && s.length / 3].filter((n) => n !== undefined));
  if (counts.size !== 1) {
    throw new Error(`the instances' attributes have lengths ${[...counts].join(", ") || "none"}, they must be one length`);
  }
  const slice = (a: Float32Array | undefined, i: number, width: number, none: number[]): number[] =>
    a ? [...a.subarray(i * width, (i + 1) * width)] : none;
  return Array.from(
    { length: [...counts][0] },
    (_, i) => compose(slice(t, i, 3, [0, 0, 0]), slice(r, i, 4, [0, 0, 0, 1]), slice(s, i, 3, [1, 1, 1])),
  );
}

/** Places a part in the world and turns glTF's Y up into Z up: (x, y, z) becomes (x, -z, y). A mirroring matrix turns the triangles round. */
function place(part: MeshPart, m: mat4): MeshPart {
  const cofactor = (a: number, b: number, c: number, d: number): number => m[a] * m[d] - m[b] * m[c];
  // The cofactor matrix carries normals, also where the scale differs by axis.
  const n = [
    [cofactor(5, 6, 9, 10), cofactor(6, 4, 10, 8), cofactor(4, 5, 8, 9)],
    [cofactor(9, 10, 1, 2), cofactor(10, 8, 2, 0), cofactor(8, 9, 0, 1)],
    [cofactor(1, 2, 5, 6), cofactor(2, 0, 6, 4), cofactor(0, 1, 4, 5)],
  ];
  const mirrored = m[0] * n[0][0] + m[1] * n[0][1] + m[2] * n[0][2] < 0;
  const positions = new Float32Array(part.positions.length), normals = part.normals && new Float32Array(part.normals.length);
  for (let i = 0; i < positions.length; i += 3) {
    const x = part.positions[i], y = part.positions[i + 1], z = part.positions[i + 2];
    positions[i] = m[0] * x + m[4] * y + m[8] * z + m[12];
    positions[i + 1] = -(m[2] * x + m[6] * y + m[10] * z + m[14]);
    positions[i + 2] = m[1] * x + m[5] * y + m[9] * z + m[13];
    if (!normals) continue;
    const p = part.normals![i], q = part.normals![i + 1], r = part.normals![i + 2];
    const nx = n[0][0] * p + n[1][0] * q + n[2][0] * r,
      ny = n[0][1] * p + n[1][1] * q + n[2][1] * r,
      nz = n[0][2] * p + n[1][2] * q + n[2][2] * r;
    const length = (Math.hypot(nx, ny, nz) || 1) * (mirrored ? -1 : 1);
    normals[i] = nx / length;
    normals[i + 1] = -nz / length;
    normals[i + 2] = ny / length;
  }
  const triangles = mirrored ? part.triangles.map((_, i, all) => all[i % 3 === 1 ? i + 1 : i % 3 === 2 ? i - 1 : i]) : part.triangles;
  return { ...part, positions, normals, triangles };
}

function isClamped(json: GltfJson, texture: number): boolean {
  const { sampler } = json.textures[texture];
  return sampler !== undefined && at(json.samplers, sampler, "sampler").wrapS === CLAMP_TO_EDGE;
}

async function readMaterials(json: GltfJson, used: Set<number>, buffers: Bytes[], folder: AssetFolder): Promise<Material[]> {
  const out: Material[] = [];
  for (const [i, material] of json.materials.entries()) {
    const { factor, texture } = baseColorOf(material);
    const made: Material = { baseColor: factor as [number, number, number, number], doubleSided: material.doubleSided };
    // What shines through is drawn solid: only texels that are as good as invisible are cut out.
    if (material.alphaMode !== "OPAQUE") made.alphaCutoff = material.alphaMode === "MASK" ? material.alphaCutoff : 0.05;
    if (texture && used.has(i)) {
      const source = at(json.textures, texture.index, "texture").source;
      if (source === undefined) throw new Error(`texture ${texture.index} has no PNG or JPEG picture, it must have one`);
      const image = at(json.images, source, "image");
      let bytes: Bytes;
      if (image.bufferView !== undefined) {
        const view = at(json.bufferViews, image.bufferView, "buffer view");
        bytes = buffers[view.buffer].subarray(view.byteOffset, view.byteOffset + view.byteLength);
      } else if (image.uri !== undefined) {
        bytes = await folder.readUri(image.uri);
      } else throw new Error(`image ${source} has neither a URI nor a buffer view`);
      made.texture = {
        ...await decodeTexture(bytes, `image ${source}`, folder.limits),
        wrap: isClamped(json, texture.index) ? "clamp" : "repeat",
      };
    }
    out.push(made);
  }
  out.push({ baseColor: [1, 1, 1, 1], doubleSided: false });
  return out;
}

/** Reads a GLB or glTF 2 file into one mesh, Z up; throws an Error for what is broken, unsupported or beyond the limits. */
export async function importGltf(folder: AssetFolder): Promise<RenderMesh> {
  const file = await folder.readMain();
  const isGlb = file.length >= 4 && new DataView(file.buffer, file.byteOffset).getUint32(0, true) === MAGIC;
  const { text, bin } = isGlb ? splitGlb(file) : { text: new TextDecoder().decode(file), bin: undefined };
  const json = parseGltfJson(text);
  const buffers = await readBuffers(json, bin, folder);
  checkRanges(json, buffers.map((data) => data.length), folder.limits);
  const accessors = await decodeAccessors(json, buffers);

  const meshes = new Map<number, MeshPart[]>(), parts: MeshPart[] = [];
  let V = 0, T = 0;
  for (const { mesh, world } of placements(json, accessors)) {
    if (!meshes.has(mesh)) {
      const { primitives } = at(json.meshes, mesh, "mesh");
      meshes.set(mesh, primitives.map((primitive) => readPrimitive(json, primitive, accessors)).filter((part) => part !== undefined));
    }
    for (const part of meshes.get(mesh)!) {
      V += part.positions.length / 3;
      T += part.triangles.length / 3;
      if (V > folder.limits.vertices || T > folder.limits.triangles) {
        throw new Error(`it has more than ${folder.limits.vertices} vertices or ${folder.limits.triangles} triangles`);
      }
      parts.push(place(part, world));
    }
  }
  return joinParts(parts, await readMaterials(json, new Set(parts.map((part) => part.material)), buffers, folder));
}
