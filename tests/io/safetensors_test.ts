import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { bytesToF32, f32ToBytes } from "../../lib/io/half.ts";
import { openSafetensors, parseSafetensors, type TensorToWrite, writeSafetensors } from "../../lib/io/safetensors.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1, withFolder } from "./corrupt.ts";

/** A file of this header and so many bytes of data. */
function file(header: unknown, dataBytes: number): Uint8Array<ArrayBuffer> {
  const json = latin1(typeof header === "string" ? header : JSON.stringify(header));
  const head = new Uint8Array(8);
  new DataView(head.buffer).setBigUint64(0, BigInt(json.length), true);
  return concat(head, json, new Uint8Array(dataBytes));
}

/** Parses a file made by `file`. */
function parse(header: unknown, dataBytes: number): unknown {
  return parseSafetensors(file(header, dataBytes), "x.safetensors");
}

const TWO: TensorToWrite[] = [
  { name: "b", dtype: "BF16", shape: [3], bytes: f32ToBytes(new Float32Array([1, -2, 0.5]), "BF16") },
  { name: "w", dtype: "F32", shape: [1, 2], bytes: () => f32ToBytes(new Float32Array([1.5, -3]), "F32") },
];

Deno.test("writeSafetensors() writes exactly these bytes", () => {
  withFolder((folder) => {
    const path = `${folder}/a.safetensors`;
    writeSafetensors(path, TWO, { step: "7" });
    const header = '{"__metadata__":{"step":"7"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},' +
      '"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}';
    const padded = header.padEnd(Math.ceil(header.length / 8) * 8);
    const data = [0, 0, 0xc0, 0x3f, 0, 0, 0x40, 0xc0, 0x80, 0x3f, 0, 0xc0, 0, 0x3f];
    assert.deepEqual(
      Deno.readFileSync(path),
      concat(new Uint8Array([padded.length, 0, 0, 0, 0, 0, 0, 0]), latin1(padded), new Uint8Array(data)),
    );
  });
});

Deno.test("openSafetensors() reads back what writeSafetensors() wrote, for every dtype", () => {
  withFolder((folder) => {
    const widths = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 } as const;
    const tensors = Object.entries(widths).map(([dtype, width]) => ({
      name: `t.${dtype}`,
      dtype: dtype as keyof typeof widths,
      shape: [2, 3],
      bytes: Uint8Array.from({ length: 6 * width }, (_, i) => i + width),
    }));
    const odd = [
      { name: "scalar", dtype: "F32" as const, shape: [], bytes: new Uint8Array(4) },
      { name: "empty", dtype: "F16" as const, shape: [0, 5], bytes: new Uint8Array() },
      { name: 'a "quoted" \n name, ä', dtype: "U8" as const, shape: [1], bytes: new Uint8Array([1]) },
      { name: "__proto__", dtype: "U8" as const, shape: [1], bytes: new Uint8Array([2]) },
      { name: "12", dtype: "U8" as const, shape: [1], bytes: new Uint8Array([3]) },
    ];
    writeSafetensors(`${folder}/a.safetensors`, [...tensors, ...odd]);
    using read = openSafetensors(`${folder}/a.safetensors`);
    assert.deepEqual(read.metadata, {});
    assert.equal(read.tensors.size, tensors.length + odd.length);
    for (const { name, dtype, shape, bytes } of [...tensors, ...odd]) {
      const tensor = read.tensors.get(name)!;
      assert.deepEqual([tensor.dtype, tensor.shape, [...tensor.bytes]], [dtype, shape, [...bytes]], name);
      assert.equal(tensor.bytes.byteOffset % ({ ...widths })[dtype], 0, `${name} is not aligned`);
    }
    const bytes = read.tensors.get("t.F32")!.bytes;
    read.close();
    assert.equal(bytes.length, 0);
  });
});

Deno.test("writeSafetensors() refuses wrong tensors and leaves the old file", () => {
  withFolder((folder) => {
    const path = `${folder}/a.safetensors`;
    writeSafetensors(path, TWO);
    const before = Deno.readFileSync(path);
    const u8 = (name: string, shape: number[]): TensorToWrite => ({ name, dtype: "U8", shape, bytes: new Uint8Array(2) });
    assertRefused(() => writeSafetensors(path, [u8("a", [2]), u8("a", [2])]), 'the tensor name "a" is taken');
    assertRefused(() => writeSafetensors(path, [u8("__metadata__", [2])]), "is taken");
    assertRefused(() => writeSafetensors(path, [u8("a", [3])]), 'tensor "a" has 2 bytes, its shape [3] of U8 takes 3');
    assertRefused(() => writeSafetensors(path, [u8("a", [-1])]), "whole numbers from 0");
    assert.deepEqual(Deno.readFileSync(path), before);
    assert.equal([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("parseSafetensors() refuses each fault of a header, naming the tensor", () => {
  const ok = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
  parse({ a: ok }, 8);
  const faults: [header: unknown, bytes: number, says: string][] = [
    [{ a: { ...ok, dtype: "F8_E4M3" } }, 8, 'the dtype of tensor "a" is "F8_E4M3"'],
    [{ a: { ...ok, dtype: "toString" } }, 8, 'the dtype of tensor "a"'],
    [{ a: { ...ok, shape: [3] } }, 8, 'the bytes of tensor "a" are 8, its shape [3] of F32 takes 12'],
    [{ a: { ...ok, shape: [2.5] } }, 8, 'the shape of tensor "a"'],
    [{ a: { ...ok, shape: [-2] } }, 8, 'the shape of tensor "a"'],
    [{ a: { ...ok, shape: [2 ** 53] } }, 8, 'the shape of tensor "a"'],
    [{ a: { ...ok, shape: Array(40).fill(2 ** 31) } }, 8, "takes"],
    [{ a: { ...ok, shape: "2" } }, 8, 'the shape of tensor "a"'],
    [{ a: { ...ok, data_offsets: [0, 8, 9] } }, 8, 'the data_offsets of tensor "a"'],
    [{ a: { ...ok, data_offsets: [8, 0] } }, 8, "must rise"],
    [{ a: { ...ok, data_offsets: [0, 16] } }, 8, "stay within 8"],
    [{ a: { ...ok, data_offsets: [-8, 0] } }, 8, 'the data_offsets of tensor "a"'],
    [{ a: { ...ok, extra: 1 } }, 8, 'has "extra"'],
    [{ a: [] }, 8, 'the entry of tensor "a" is not an object'],
    [{ a: null }, 8, 'the entry of tensor "a" is not an object'],
    [{ a: ok, b: ok }, 8, 'tensor "b" begins at byte 0 of the data, it must begin at 8'],
    [{ a: ok, b: { ...ok, data_offsets: [12, 20] } }, 20, 'tensor "b" begins at byte 12 of the data, it must begin at 8'],
    [{ a: { ...ok, data_offsets: [4, 12] } }, 12, "must begin at 0"],
    [{ a: ok }, 9, "its tensors fill 8 bytes, the file has 9"],
    [{}, 1, "its tensors fill 0 bytes"],
    [{ __metadata__: { a: 1 }, a: ok }, 8, "__metadata__"],
    [{ __metadata__: [], a: ok }, 8, "__metadata__"],
    ['{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0, "given twice"],
    ['{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}', 1, "given twice"],
    ["[]", 0, "does not begin with {"],
    ["{]", 0, "not JSON"],
    ['{"\xff":1}', 0, "not UTF-8"],
    [`{"a":${"[".repeat(1000)}`, 0, "nested deeper"],
  ];
  for (const [header, bytes, says] of faults) assertRefused(() => parse(header, bytes), says);
  const long = file({}, 0);
  new DataView(long.buffer).setBigUint64(0, 2n ** 63n, true);
  assertRefused(() => parseSafetensors(long, "x"), "its header length is 9223372036854775808, it must be at most 2");
});

Deno.test("parseSafetensors() refuses every truncation and survives every flipped bit of the header", () => {
  const small = file({
    __metadata__: { a: "b" },
    a: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
    b: { dtype: "I8", shape: [3], data_offsets: [8, 11] },
  }, 11);
  const read = (bytes: Uint8Array<ArrayBuffer>): unknown => parseSafetensors(bytes, "x");
  read(small);
  assertTruncationsRefused(small, read);
  const accepted = countAcceptedFlips(small, read, small.length - 11);
  assert.ok(accepted < 64, `${accepted} flips were accepted: more than the letters of names and metadata explain`);
});

Deno.test("openSafetensors() joins shards by their index, and by a list", () => {
  withFolder((folder) => {
    const [b, w] = TWO;
    writeSafetensors(`${folder}/m-1.safetensors`, [b], { part: "1" });
    writeSafetensors(`${folder}/m-2.safetensors`, [w], { format: "pt" });
    const index = `${folder}/m.safetensors.index.json`;
    const write = (weight_map: unknown): void =>
      Deno.writeTextFileSync(index, JSON.stringify({ metadata: { total_size: 14 }, weight_map }));
    write({ b: "m-1.safetensors", w: "m-2.safetensors" });
    for (const path of [index, [`${folder}/m-1.safetensors`, `${folder}/m-2.safetensors`]]) {
      using both = openSafetensors(path);
      assert.deepEqual(both.metadata, { part: "1", format: "pt" });
      assert.deepEqual([...both.tensors.keys()].sort(), ["b", "w"]);
      assert.deepEqual([...bytesToF32(both.tensors.get("b")!.bytes, "BF16")], [1, -2, 0.5]);
    }
    assertRefused(() => openSafetensors([`${folder}/m-1.safetensors`, `${folder}/m-1.safetensors`]), 'tensor "b" is in an earlier shard');

    write({ b: "m-1.safetensors", w: "m-2.safetensors", x: "m-2.safetensors" });
    assertRefused(() => openSafetensors(index), 'tensor "x" is not in m-2.safetensors');
    write({ b: "m-2.safetensors", w: "m-1.safetensors" });
    assertRefused(() => openSafetensors(index), /tensor "[bw]" is here, the index has it in m-/);
    write({ b: "m-1.safetensors" });
    using one = openSafetensors(index);
    assert.equal(one.tensors.size, 1);
    writeSafetensors(`${folder}/m-1.safetensors`, [b, w]);
    assertRefused(() => openSafetensors(index), /tensor "w" is not in the index/);
    write({ b: "m-3.safetensors" });
    assertRefused(() => openSafetensors(index), "there is no such file");
  });
});

Deno.test("openSafetensors() refuses shard names that leave the folder", () => {
  withFolder((folder) => {
    const index = `${folder}/m.safetensors.index.json`;
    for (
      const name of [
        "../a.safetensors",
        "/a.safetensors",
        "b/a.safetensors",
        "b\\a.safetensors",
        "a\0.safetensors",
        ".safetensors/..",
        "a.bin",
        "",
        3,
        null,
      ]
    ) {
      Deno.writeTextFileSync(index, JSON.stringify({ weight_map: { t: name } }));
      assertRefused(() => openSafetensors(index), 'the shard of tensor "t" is');
    }
    for (const text of ["{}", '{"weight_map":[]}', "[]", "", '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}']) {
      Deno.writeTextFileSync(index, text);
      assertRefused(() => openSafetensors(index));
    }
  });
});

const REFERENCE = new URL("../../../shared/reference/ss_flow_ape_p1.safetensors", import.meta.url).pathname;
const hasReference = existsSync(REFERENCE);

Deno.test({
  name: "openSafetensors() reads a file of the reference system" + (hasReference ? "" : " (skipped: it is not here)"),
  ignore: !hasReference,
  fn() {
    using read = openSafetensors(REFERENCE);
    assert.ok(read.tensors.size > 20);
    assert.ok(Object.keys(read.metadata).length > 0);
    const weights = [...read.tensors].filter(([name]) => name.startsWith("weights/"));
    assert.ok(weights.length > 10);
    for (const [name, { dtype, bytes }] of weights) {
      if (dtype === "F32") assert.ok(bytesToF32(bytes, dtype).every(Number.isFinite), name);
    }
    assert.equal(read.tensors.get("loss")?.bytes.length, 4);
  },
});
