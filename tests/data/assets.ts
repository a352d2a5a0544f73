/** Small assets for the tests of importing and preparing. */
import { join } from "node:path";
import { encodePng } from "../../lib/io/image.ts";

/** Writes files into a new folder, runs `body` with its path, and removes it. */
export async function withFolder(
  files: Record<string, string | Uint8Array>,
  body: (folder: string) => Promise<void> | void,
): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "espalier_" });
  try {
    for (const [name, content] of Object.entries(files)) {
      Deno.mkdirSync(join(folder, name, ".."), { recursive: true });
      Deno.writeFileSync(join(folder, name), typeof content === "string" ? new TextEncoder().encode(content) : content);
    }
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** A GLB file of a JSON and a binary chunk. */
export function glb(json: unknown, bin: Uint8Array): Uint8Array<ArrayBuffer> {
  const pad = (data: Uint8Array, fill: number): Uint8Array => {
    const out = new Uint8Array(Math.ceil(data.length / 4) * 4).fill(fill);
    out.set(data);
    return out;
  };
  const text = pad(new TextEncoder().encode(JSON.stringify(json)), 0x20), body = pad(bin, 0);
  const out = new Uint8Array(12 + 8 + text.length + 8 + body.length), view = new DataView(out.buffer);
  [0x46546c67, 2, out.length, text.length, 0x4e4f534a].forEach((word, i) => view.setUint32(i * 4, word, true));
  out.set(text, 20);
  view.setUint32(20 + text.length, body.length, true);
  view.setUint32(24 + text.length, 0x004e4942, true);
  out.set(body, 28 + text.length);
  return out;
}

/** A 2 x 2 PNG: red, green / blue, white. */
export function smallPng(): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array([255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 255, 255, 255, 255]);
  return Uint8Array.from(encodePng({ width: 2, height: 2, channels: 4, data }));
}

/** A square in x, y from 0 to 1 at z = 0 as glTF: 4 positions, uvs, 6 short indices. Change the JSON as the test needs it. */
// deno-lint-ignore no-explicit-any -- tests break the JSON in every way
export function square(): { json: any; bin: Uint8Array<ArrayBuffer> } {
  const bin = new Uint8Array(48 + 32 + 12);
  new Float32Array(bin.buffer, 0, 12).set([0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0]);
  new Float32Array(bin.buffer, 48, 8).set([0, 1, 1, 1, 1, 0, 0, 0]);
  new Uint16Array(bin.buffer, 80, 6).set([0, 1, 2, 0, 2, 3]);
  const json = {
    asset: { version: "2.0" },
    scene: 0,
    scenes: [{ nodes: [0] }],
    nodes: [{ mesh: 0 }] as unknown[],
    meshes: [{ primitives: [{ attributes: { POSITION: 0, TEXCOORD_0: 1 } as Record<string, number>, indices: 2, material: 0, mode: 4 }] }],
    materials: [{ pbrMetallicRoughness: { baseColorFactor: [0.5, 0.25, 1, 1] } }] as unknown[],
    accessors: [
      { bufferView: 0, componentType: 5126, count: 4, type: "VEC3" },
      { bufferView: 1, componentType: 5126, count: 4, type: "VEC2" },
      { bufferView: 2, componentType: 5123, count: 6, type: "SCALAR" },
    ],
    bufferViews: [{ buffer: 0, byteLength: 48 }, { buffer: 0, byteOffset: 48, byteLength: 32 }, {
      buffer: 0,
      byteOffset: 80,
      byteLength: 12,
    }],
    buffers: [{ byteLength: 92 }] as { byteLength: number; uri?: string }[],
  };
  return { json, bin };
}

/** A cube from -1 to 1 as OBJ. */
export const CUBE_OBJ = `
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
`;
