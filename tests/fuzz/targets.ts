/** The parsers of files from outside, each with a corpus that is made here and with what its format is made of. */
import jpeg from "jpeg-js";
import { zipSync } from "fflate";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { type AssetFolder, DEFAULT_IMPORT_LIMITS, openAssetFolder } from "../../lib/data/import_files.ts";
import { importGltf } from "../../lib/data/import_gltf.ts";
import { importObj } from "../../lib/data/import_obj.ts";
import { parseCsv } from "../../lib/data/metadata.ts";
import { decodeJpeg } from "../../lib/io/jpeg.ts";
import { parseJsonObject } from "../../lib/io/json.ts";
import { encodeNpy, parseNpy } from "../../lib/io/npy.ts";
import { readNpz } from "../../lib/io/npz.ts";
import { readPlyMesh, readVoxels } from "../../lib/io/ply.ts";
import { readGaussians } from "../../lib/io/ply_gaussians.ts";
import { parsePly } from "../../lib/io/ply_parse.ts";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import { parseSafetensors, parseWeightMap } from "../../lib/io/safetensors.ts";
import { parseTorchFile } from "../../lib/io/torch_file.ts";
import { OPTIMIZER_DEFAULTS } from "../../lib/optim/optimizer.ts";
import { checkConfig, type Json, overlay } from "../../lib/train/config.ts";
import { parseManifest } from "../../lib/train/manifest.ts";
import { OPTIMIZER_SCHEMA, SS_FLOW_ARGS } from "../../lib/train/schemas.ts";
import { readTrellisConfig, trellisModel, trellisTrainer } from "../../lib/train/trellis.ts";
import { CUBE_OBJ, glb, smallPng, square } from "../data/assets.ts";
import { concat, latin1 } from "../io/corrupt.ts";
import { op, smallTorchFile, tensorPickle, torchFile } from "../io/torch_builder.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** A parser. */
export interface Target {
  /** Parts of whole files: a change is made in one part, or in the file that `assemble` makes of them (by default, the parts one after another). */
  seeds: Bytes[][];
  assemble?: (parts: Bytes[]) => Bytes;
  tokens: string[];
  run(bytes: Bytes): unknown;
}

const text = (value: unknown): Bytes => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value)) as Bytes;
const ramp = (n: number): Bytes => Uint8Array.from({ length: n }, (_, i) => i * 7);

/** A folder of an asset in memory: nothing of it is on a disk. `data:` URIs and refusals are those of the real one. */
function inMemory(main: Bytes, files: Record<string, Bytes>): AssetFolder {
  const limits = { ...DEFAULT_IMPORT_LIMITS, fileBytes: 2 ** 22, vertices: 1e5, triangles: 1e5, texturePixels: 2 ** 16 };
  const real = openAssetFolder("/nowhere/asset.glb", limits),
    pick = (name: string): Promise<Bytes> | undefined => Object.hasOwn(files, name) ? Promise.resolve(files[name]) : undefined;
  return {
    ...real,
    readMain: () => Promise.resolve(main),
    readUri: (uri) => pick(uri) ?? real.readUri(uri),
    readRelative: (path) => pick(path) ?? real.readRelative(path),
  };
}

function safetensorsFile([header, data]: Bytes[]): Bytes {
  const length = new Uint8Array(new BigUint64Array([BigInt(header.length)]).buffer);
  return concat(length, header, data);
}

/** A PNG whose chunks have the right checksums, as far as it still has chunks. */
function withChecksums(png: Bytes): Bytes {
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  for (let at = 8; at + 12 <= png.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > png.length) break;
    view.setUint32(at + 8 + length, crc32(png.subarray(at + 4, at + 8 + length)));
    at += 12 + length;
  }
  return png;
}

function gltf(change: (json: ReturnType<typeof square>["json"]) => void = () => {}): Bytes[] {
  const { json, bin } = square();
  change(json);
  return [text(json), bin];
}

const PLY =
  `ply\nformat ascii 1.0\ncomment x\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n0 1 2 255\n1 0 0 0\n0.5 -1e3 0 7\n3 0 1 2\n`;
const BINARY_PLY = concat(
  latin1(
    "ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty double x\nproperty short y\nelement face 1\nproperty list uchar uint vertex_index\nend_header\n",
  ),
  ramp(20),
  Uint8Array.of(2, 0, 0, 0, 0, 1, 0, 0, 0),
);
const OBJ = CUBE_OBJ + "mtllib a.mtl\nusemtl a\nvt 0 1\nvt 1 0 0\nvn 0 0 1\nf 1/1/1 2/2/1 3//1\nf -1 -2 -3\nv 0 0 0 1 0.5 0\n";
const MTL = "newmtl a\nKd 1 0 0.5\nmap_Kd -s 1 1 1 a.png\nnewmtl b\n";
const TRELLIS = {
  models: { denoiser: { name: "ElasticSparseStructureFlowModel", args: { resolution: 16, in_channels: 8 } } },
  dataset: { name: "D", args: { resolution: 64, min_aesthetic_score: 4.5 } },
  trainer: {
    name: "T",
    args: {
      ...{ max_steps: 10, batch_size_per_gpu: 2, ema_rate: [0.99], fp16_mode: "inflat_all" },
      optimizer: { name: "AdamW", args: { lr: 1e-4, weight_decay: 0 } },
      grad_clip: { name: "AdaptiveGradClipper", args: { max_norm: 1, clip_percentile: 95 } },
    },
  },
};
const OPTIMIZER = { ...OPTIMIZER_DEFAULTS };
const image = { width: 8, height: 8, data: ramp(256) };

const VOXELS =
  "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n-0.4375 0.0625 0.4375\n0.1875 -0.0625 0.3125\n";
const COLUMNS = [...[
  "x",
  "y",
  "z",
  "f_dc_0",
  "f_dc_1",
  "f_dc_2",
  "opacity",
  "scale_0",
  "scale_1",
  "scale_2",
  "rot_0",
  "rot_1",
  "rot_2",
  "rot_3",
]];
const GAUSSIANS = `ply\nformat ascii 1.0\nelement vertex 1\n${COLUMNS.map((c) => `property float ${c}\n`).join("")}end_header\n${
  COLUMNS.map((_, i) => 0.1 * i).join(" ")
}\n`;

/** Runs all readers; throws an error that is not ours before one that is, and nothing where one of them takes the file. */
function every(readers: (() => unknown)[]): void {
  const errors = readers.flatMap((read) => {
    try {
      read();
      return [];
    } catch (error) {
      return [error as Error];
    }
  });
  const foreign = errors.find((e) => !/^Cannot \w+ [^(]/.test(e.message) || e instanceof TypeError);
  if (foreign || errors.length === readers.length) throw foreign ?? errors[0];
}

/** All of them, by name. */
export const TARGETS: Record<string, Target> = {
  safetensors: {
    seeds: [
      [
        text({
          __metadata__: { a: "b" },
          x: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
          y: { dtype: "BOOL", shape: [], data_offsets: [24, 25] },
        }),
        ramp(25),
      ],
      [text({ z: { dtype: "I64", shape: [0], data_offsets: [0, 0] } }), ramp(0)],
    ],
    assemble: safetensorsFile,
    tokens: ['"F16"', '"data_offsets":[0,8]', '"shape":[9007199254740991,2]', '"dtype":', "__metadata__"],
    run: (bytes) => parseSafetensors(bytes, "x"),
  },
  npy: {
    seeds: [
      [encodeNpy({ shape: [2, 3], data: new Float32Array(6) }, "a")],
      [encodeNpy({ shape: [4], data: new Uint8Array(4) }, "a")],
      [encodeNpy({ shape: [], data: new Float64Array(1) }, "a")],
    ],
    tokens: ["'descr': ", "'<f8'", "'|O'", "'fortran_order': True", "(999999999, 999999999)", "(0, )"],
    run: (bytes) => parseNpy(bytes, "x"),
  },
  npz: {
    seeds: [[encodeNpy({ shape: [2], data: new Float32Array(2) }, "a"), encodeNpy({ shape: [3], data: new Int32Array(3) }, "b")]],
    assemble: ([a, b]) => new Uint8Array(zipSync({ "a.npy": [a, { level: 6 }], "b.npy": [b, { level: 0 }] })),
    tokens: ["PK\x01\x02", "PK\x05\x06", "PK\x06\x06", "PK\x06\x07", "a.npy"],
    run: (bytes) => readNpz(bytes, { maxBytes: 2 ** 24 }),
  },
  glb: {
    seeds: [
      gltf(),
      gltf((json) =>
        json.nodes = [{ children: [1], matrix: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1] }, { mesh: 0, scale: [1, 2, 3] }]
      ),
    ],
    assemble: ([json, bin]) => {
      const whole = glb({}, bin),
        pad = new Uint8Array(-json.length & 3).fill(0x20),
        body = concat(json, pad),
        out = concat(whole.subarray(0, 12), new Uint8Array(8), body, whole.subarray(24));
      const view = new DataView(out.buffer);
      [0x46546c67, 2, out.length, body.length, 0x4e4f534a].forEach((word, i) => view.setUint32(i * 4, word, true));
      return out;
    },
    tokens: [
      '"uri":"data:application/octet-stream;base64,AAAA"',
      '"children":[0]',
      '"byteStride":4',
      '"sparse":{"count":1,"indices":{"bufferView":2,"componentType":5123},"values":{"bufferView":0}}',
      '"mode":5',
      '"skin":0',
      '"normalized":true',
      "KHR_texture_transform",
      "EXT_meshopt_compression",
    ],
    run: (bytes) => importGltf(inMemory(bytes, {})),
  },
  gltf: {
    seeds: [gltf((json) => {
      json.buffers[0].uri = "a.bin";
      json.images = [{ uri: "a.png" }];
      json.textures = [{ source: 0 }];
      json.materials = [{ pbrMetallicRoughness: { baseColorTexture: { index: 0 } } }];
    })],
    assemble: ([json]) => json,
    tokens: [
      '"uri":"../a.bin"',
      '"uri":"http://a/b"',
      '"mesh":0',
      '"nodes":[0,0]',
      '"type":"MAT4"',
      '"componentType":5125',
      '"count":4294967295',
    ],
    run: (bytes) => importGltf(inMemory(bytes, { "a.bin": square().bin, "a.png": smallPng() })),
  },
  obj: {
    seeds: [[text(OBJ), text(MTL)]],
    assemble: ([obj]) => obj,
    tokens: ["\nf ", "\nv ", "\nvt ", "\nvn ", "\nusemtl ", "\nmtllib a.mtl\n", "\\\n", "1/1/1", "-1", "1//", "999999999"],
    run: (bytes) => importObj(inMemory(bytes, { "a.mtl": text(MTL), "a.png": smallPng() })),
  },
  mtl: {
    seeds: [[text(MTL)]],
    tokens: ["\nnewmtl a\n", "\nKd ", "\nmap_Kd ", "-o 1 2 3", "a.png", "../a.png", "/etc/passwd"],
    run: (bytes) => importObj(inMemory(text(OBJ), { "a.mtl": bytes, "a.png": smallPng() })),
  },
  ply: {
    seeds: [[text(PLY)], [BINARY_PLY]],
    tokens: ["element vertex ", "property list uchar int ", "property float z\n", "end_header\n", "4294967295", "binary_big_endian"],
    run: (bytes) => parsePly(bytes, "x"),
  },
  ply_readers: {
    seeds: [[text(PLY)], [text(VOXELS)], [text(GAUSSIANS)]],
    tokens: ["element vertex ", "property list uchar int ", "property float z\n", "end_header\n", "4294967295", " nan ", "-1"],
    run: (bytes) => every([() => readPlyMesh(bytes), () => readVoxels(bytes, 8), () => readGaussians(bytes)]),
  },
  shards: {
    seeds: [[text({ metadata: {}, weight_map: { "a.weight": "model-1.safetensors", b: "model-2.safetensors" } })]],
    tokens: ['"../x.safetensors"', '"/etc/x.safetensors"', '"a\\u0000.safetensors"', '"weight_map":'],
    run: (bytes) => parseWeightMap(bytes, "x"),
  },
  png: {
    seeds: [[smallPng()], [Uint8Array.from(encodePng({ width: 8, height: 8, channels: 3, data: ramp(192) }))]],
    assemble: ([png]) => withChecksums(png.slice()),
    tokens: ["IHDR", "IDAT", "PLTE", "tRNS", "IEND", "\x01\x03"],
    run: (bytes) => decodePng(bytes, "x", 2 ** 16),
  },
  jpeg: {
    seeds: [[new Uint8Array(jpeg.encode(image, 50).data)], [
      new Uint8Array(jpeg.encode({ width: 3, height: 17, data: ramp(204) }, 90).data),
    ]],
    tokens: ["\xff\xda", "\xff\xc4", "\xff\xc0", "\xff\xc2", "\xff\xdd", "\xff\xdb", "\xff\xd9", "\xff\xe1"],
    run: (bytes) => decodeJpeg(bytes, "x", 2 ** 16),
  },
  json: {
    seeds: [[text(TRELLIS)], [text({ ...TRELLIS, optimizer: OPTIMIZER, model: { resolution: 8, in_channels: 8 } })]],
    tokens: ['"optimizer":', '"args":{', '"name":"x",', "\\ud800", '{"a":'.repeat(70), "1e400"],
    run(bytes) {
      const value = parseJsonObject(bytes) as Json;
      checkConfig(OPTIMIZER_SCHEMA, overlay(OPTIMIZER, (value as { optimizer: Json }).optimizer ?? {}), { known: OPTIMIZER, source: "x" });
      checkConfig(SS_FLOW_ARGS.partial(), (value as { model: Json }).model ?? {}, { known: {}, source: "x" });
      const config = readTrellisConfig(value);
      return [trellisModel(config, "SparseStructureFlowModel"), trellisTrainer(config)];
    },
  },
  torch: {
    seeds: [
      [
        op.whole(op.dict({ a: tensorPickle({ key: "0", count: 6, shape: [2, 3], stride: [3, 1] }), b: op.dict({ c: op.int(5) }) })),
        new Uint8Array(24),
      ] as Bytes[],
      [
        op.whole(
          op.dict({ a: tensorPickle({ key: "0", count: 6, shape: [3, 2], stride: [1, 3] }), b: op.tuple(op.int(1), op.put(1), op.get(1)) }),
        ),
        new Uint8Array(24),
      ] as Bytes[],
    ],
    assemble: ([pickle, storage]) => torchFile(pickle, { "0": storage }),
    tokens: [
      "ctorch._utils\n_rebuild_tensor_v2\n",
      "ctorch\nHalfStorage\n",
      "cposix\nsystem\n",
      "q\x01",
      "h\x01",
      "Q",
      "R",
      "}",
      "(",
      "u",
      "\x85",
      "\x86",
      "\x87",
      "b",
      "\x8a\x09",
      "\x93",
    ],
    run: (bytes) => parseTorchFile(bytes, "x"),
  },
  torch_zip: {
    seeds: [[smallTorchFile()]],
    tokens: ["PK\x01\x02", "PK\x05\x06", "PK\x06\x06"],
    run: (bytes) => parseTorchFile(bytes, "x"),
  },
  csv: {
    seeds: [[text('sha256,file_identifier,aesthetic_score\nabc,"a ""b"", c",4.5\r\nd,e,\n')]],
    tokens: ['"', '""', ",", "\n", "\r\n"],
    run: (bytes) => parseCsv(new TextDecoder().decode(bytes)),
  },
  manifest: {
    seeds: [[
      text(
        '{\n"format": "espalier-checkpoint-1",\n"step": 1,\n"files": [{"name": "a", "bytes": 1, "sha256": ""}],\n"state": null,\n"config": {}',
      ),
    ]],
    assemble: ([body]) => concat(body, text(`,\n"sha256": "${createHash("sha256").update(body).digest("hex")}"\n}\n`)),
    tokens: ['"step": ', '"files": [{"name": "../x"}]', '"format": "x"'],
    run: (bytes) => parseManifest(bytes, "x"),
  },
};
