import { z } from "zod";
import type { ImportLimits } from "./import_files.ts";

const INDEX = z.int().nonnegative();
const NUMBERS = z.array(z.number());
const EXTENSIONS = z.record(z.string(), z.unknown()).optional();

const TRANSFORM = z.object({
  offset: z.tuple([z.number(), z.number()]),
  rotation: z.number(),
  scale: z.tuple([z.number(), z.number()]),
  texCoord: INDEX,
})
  .partial();
const TEXTURE_INFO = z.object({
  index: INDEX,
  texCoord: INDEX.default(0),
  extensions: z.object({ KHR_texture_transform: TRANSFORM.optional() }).optional(),
});
const MESHOPT = z.object({ buffer: INDEX, byteOffset: INDEX.default(0), byteLength: INDEX, byteStride: INDEX, count: INDEX });
const SPARSE = z.object({
  count: INDEX,
  indices: z.object({ bufferView: INDEX, byteOffset: INDEX.default(0), componentType: z.int() }),
  values: z.object({ bufferView: INDEX, byteOffset: INDEX.default(0) }),
});
const ACCESSOR = z.object({
  bufferView: INDEX.optional(),
  byteOffset: INDEX.default(0),
  componentType: z.int(),
  normalized: z.boolean().optional(),
  count: INDEX,
  type: z.string(),
  sparse: SPARSE.optional(),
});
const PRIMITIVE = z.object({
  attributes: z.record(z.string(), INDEX),
  indices: INDEX.optional(),
  material: INDEX.optional(),
  mode: z.int().min(0).max(6).default(4),
  extensions: EXTENSIONS,
});
const NODE = z.object({
  children: z.array(INDEX).default([]),
  mesh: INDEX.optional(),
  matrix: NUMBERS.length(16).optional(),
  translation: NUMBERS.length(3).default([0, 0, 0]),
  rotation: NUMBERS.length(4).default([0, 0, 0, 1]),
  scale: NUMBERS.length(3).default([1, 1, 1]),
  extensions: z.object({ EXT_mesh_gpu_instancing: z.object({ attributes: z.record(z.string(), INDEX) }).optional() }).optional(),
});
const MATERIAL = z.object({
  pbrMetallicRoughness: z.object({ baseColorFactor: NUMBERS.length(4).optional(), baseColorTexture: TEXTURE_INFO.optional() }).optional(),
  alphaMode: z.enum(["OPAQUE", "MASK", "BLEND"]).default("OPAQUE"),
  alphaCutoff: z.number().default(0.5),
  doubleSided: z.boolean().default(false),
  extensions: z.object({
    KHR_materials_pbrSpecularGlossiness: z.object({ diffuseFactor: NUMBERS.length(4).optional(), diffuseTexture: TEXTURE_INFO.optional() })
      .optional(),
  }).optional(),
});
const GLTF = z.object({
  asset: z.object({ version: z.string().regex(/^2\.\d+$/, "is not 2.x") }),
  extensionsRequired: z.array(z.string()).default([]),
  buffers: z.array(z.object({ uri: z.string().optional(), byteLength: INDEX })).default([]),
  bufferViews: z.array(z.object({
    buffer: INDEX,
    byteOffset: INDEX.default(0),
    byteLength: INDEX,
    byteStride: z.int().min(1).max(255).optional(),
    extensions: z.object({ EXT_meshopt_compression: MESHOPT.loose().optional() }).optional(),
  })).default([]),
  accessors: z.array(ACCESSOR).default([]),
  images: z.array(z.object({ uri: z.string().optional(), bufferView: INDEX.optional(), mimeType: z.string().optional() })).default([]),
  textures: z.array(z.object({ source: INDEX.optional(), sampler: INDEX.optional() })).default([]),
  samplers: z.array(z.object({ wrapS: z.int().optional() })).default([]),
  materials: z.array(MATERIAL).default([]),
  meshes: z.array(z.object({ primitives: z.array(PRIMITIVE).min(1) })).default([]),
  nodes: z.array(NODE).default([]),
  scene: INDEX.optional(),
  scenes: z.array(z.object({ nodes: z.array(INDEX).default([]) })).default([]),
});

/** The part of a glTF file's JSON that importing uses, checked. */
export type GltfJson = z.infer<typeof GLTF>;
/** A primitive of {@linkcode GltfJson}. */
export type GltfPrimitive = z.infer<typeof PRIMITIVE>;
/** A node of {@linkcode GltfJson}. */
export type GltfNode = z.infer<typeof NODE>;
/** A material of {@linkcode GltfJson}. */
export type GltfMaterial = z.infer<typeof MATERIAL>;

const COMPONENT_BYTES: Record<number, number> = { 5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4 };
const TYPE_WIDTH: Record<string, number> = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4, MAT2: 4, MAT3: 9, MAT4: 16 };

/** Required extensions that importing either carries out or may leave out without a change of shape or base colour. */
const KNOWN_EXTENSIONS =
  /^(KHR_mesh_quantization|EXT_meshopt_compression|EXT_mesh_gpu_instancing|KHR_texture_transform|KHR_lights_punctual|KHR_materials_\w+)$/;

/** Parses the JSON of a glTF 2 file and checks its structure; throws an Error that names the place. */
export function parseGltfJson(text: string): GltfJson {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new Error(`its JSON is broken: ${(error as Error).message}`);
  }
  const parsed = GLTF.safeParse(raw);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new Error(`its JSON does not follow glTF 2: ${issue.path.join(".") || "the top"}: ${issue.message}`);
  }
  for (const name of parsed.data.extensionsRequired) {
    if (!KNOWN_EXTENSIONS.test(name)) {
      throw new Error(`it requires the extension ${name}, which is not supported (export it again without)`);
    }
  }
  return parsed.data;
}

/** Element `i` of a list of the JSON; throws an Error when the file refers to one that is not there. */
export function at<T>(list: T[], i: number, what: string): T {
  if (!(i < list.length)) throw new Error(`it refers to ${what} ${i}, there are ${list.length}`);
  return list[i];
}

/** Checks that every buffer view lies in its buffer and every accessor in its view, before anything is decoded. `bytes[i]` is the size of buffer i. */
export function checkRanges(json: GltfJson, bytes: number[], limits: ImportLimits): void {
  json.bufferViews.forEach((view, i) => {
    const meshopt = view.extensions?.EXT_meshopt_compression;
    const { buffer, byteOffset, byteLength } = meshopt ?? view;
    at(json.buffers, view.buffer, "buffer");
    at(json.buffers, buffer, "buffer");
    if (byteOffset + byteLength > bytes[buffer]) {
      throw new Error(`buffer view ${i} ends at byte ${byteOffset + byteLength}, its buffer has ${bytes[buffer]} (a truncated file?)`);
    }
    if (meshopt && (meshopt.count * meshopt.byteStride !== view.byteLength || view.byteLength > limits.fileBytes)) {
      throw new Error(
        `buffer view ${i} unpacks to ${meshopt.count} x ${meshopt.byteStride} bytes, it must be ${view.byteLength} and at most ${limits.fileBytes}`,
      );
    }
  });

  const expectFits = (what: string, at_: number | undefined, offset: number, element: number, count: number): void => {
    if (at_ === undefined || count === 0) return;
    const view = at(json.bufferViews, at_, "buffer view");
    const end = offset + (count - 1) * Math.max(view.byteStride ?? 0, element) + element;
    if (view.byteStride !== undefined && view.byteStride < element) {
      throw new Error(`${what} has elements of ${element} bytes, its stride is ${view.byteStride}`);
    }
    if (end > view.byteLength) {
      throw new Error(`${what} ends at byte ${end}, its buffer view has ${view.byteLength} (a wrong accessor length)`);
    }
  };
  let total = 0;
  json.accessors.forEach((accessor, i) => {
    const component = COMPONENT_BYTES[accessor.componentType], width = TYPE_WIDTH[accessor.type];
    if (!component || !width) throw new Error(`accessor ${i} has type ${accessor.type} of ${accessor.componentType}, glTF has no such`);
    total += accessor.count * component * width;
    if (total > limits.fileBytes) throw new Error(`its accessors hold more than ${limits.fileBytes} bytes`);
    expectFits(`accessor ${i}`, accessor.bufferView, accessor.byteOffset, component * width, accessor.count);
    const { sparse } = accessor;
    if (!sparse) return;
    if (sparse.count > accessor.count) throw new Error(`accessor ${i} replaces ${sparse.count} of ${accessor.count} elements`);
    const indexBytes = COMPONENT_BYTES[sparse.indices.componentType];
    if (!indexBytes) throw new Error(`accessor ${i} has sparse indices of ${sparse.indices.componentType}, glTF has no such`);
    expectFits(`accessor ${i} (sparse indices)`, sparse.indices.bufferView, sparse.indices.byteOffset, indexBytes, sparse.count);
    expectFits(`accessor ${i} (sparse values)`, sparse.values.bufferView, sparse.values.byteOffset, component * width, sparse.count);
  });
}
