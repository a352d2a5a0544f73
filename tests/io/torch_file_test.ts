import assert from "node:assert/strict";
import { bytesToF32, type FloatDtype } from "../../lib/io/half.ts";
import { readPickle } from "../../lib/io/pickle.ts";
import type { StoredTensor } from "../../lib/io/safetensors.ts";
import { openTorchFile, parseTorchFile } from "../../lib/io/torch_file.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1, withFolder } from "./corrupt.ts";
import { op, smallTorchFile, tensorPickle, torchFile } from "./torch_builder.ts";

const parse = (bytes: Uint8Array<ArrayBuffer>) => parseTorchFile(bytes, "x.pt");
const values = ({ bytes, dtype }: StoredTensor): number[] => [...bytesToF32(bytes, dtype as FloatDtype)];
const ONE = new Uint8Array(new Float32Array([1]).buffer);
const withPickle = (value: Uint8Array) => torchFile(op.whole(value), { "0": ONE });

Deno.test("parseTorchFile() reads tensors, views and transposed ones of a shared storage, nested names and numbers", () => {
  const { tensors, values: numbers } = parse(smallTorchFile());
  assert.deepEqual([...tensors].map(([name, t]) => [name, t.dtype, t.shape, values(t)]), [
    ["weight", "F32", [2, 3], [0, 1, 2, 3, 4, 5]],
    ["turned", "F32", [3, 2], [0, 3, 1, 4, 2, 5]],
    ["part", "F32", [2], [2, 3]],
    ["inner.half", "F16", [2], [0.5, -1]],
  ]);
  assert.deepEqual([...numbers], [["step", -7]]);
});

Deno.test("openTorchFile() reads what PyTorch 2.11 wrote, and refuses what holds more than tensors", () => {
  const folder = new URL("torch/", import.meta.url).pathname, expected = JSON.parse(Deno.readTextFileSync(`${folder}expected.json`));
  const whole: Partial<Record<string, (bytes: ArrayBuffer) => ArrayLike<number>>> = {
    I64: (b) => Array.from(new BigInt64Array(b), Number),
    I32: (b) => new Int32Array(b),
    U8: (b) => new Uint8Array(b),
    BOOL: (b) => new Uint8Array(b),
  };
  for (const [name, wanted] of Object.entries<Record<string, { shape: number[]; values: number[] }>>(expected)) {
    using file = openTorchFile(`${folder}${name}.pt`);
    assert.deepEqual([...file.tensors.keys()], Object.keys(wanted));
    for (const [key, t] of file.tensors) {
      const got = whole[t.dtype]?.(t.bytes.slice().buffer) ?? bytesToF32(t.bytes, t.dtype as FloatDtype);
      assert.deepEqual([t.shape, Array.from(got)], [
        wanted[key].shape,
        Array.from(wanted[key].values, t.dtype === "F64" ? Math.fround : (v) => v),
      ], `${name} ${key}`);
    }
  }
  assertRefused(() => openTorchFile(`${folder}misc.pt`), /it holds "numpy\._core\.multiarray\.\w+", which could run code/);
  assertRefused(() => openTorchFile(`${folder}legacy.pt`), "PyTorch before 1.6 wrote such files");
});

Deno.test("openTorchFile() maps a file", () => {
  withFolder((folder) => {
    Deno.writeFileSync(`${folder}/a.pt`, smallTorchFile());
    using file = openTorchFile(`${folder}/a.pt`);
    assert.equal(file.tensors.size, 4);
    assertRefused(() => openTorchFile(`${folder}/b.pt`), "there is no such file");
  });
});

Deno.test("parseTorchFile() refuses every truncation and survives every flipped bit", () => {
  const bytes = smallTorchFile();
  assertTruncationsRefused(bytes, parse);
  countAcceptedFlips(bytes, parse);
});

Deno.test("parseTorchFile() runs nothing: any other name, and any opcode that calls one, is refused", () => {
  const evil = (module: string, name: string) => op.call(op.global(module, name), op.tuple(op.text("touch /tmp/owned")));
  for (
    const [module, name] of [["posix", "system"], ["builtins", "eval"], ["torch", "load"], ["collections", "deque"], ["__proto__", "x"]]
  ) {
    assertRefused(() => parse(withPickle(evil(module, name))), `it holds "${module}.${name}", which could run code`);
  }
  assertRefused(() => parse(withPickle(evil("torch", "FloatStorage"))), "its pickle calls FloatStorage");
  const stackGlobal = concat(op.text("os"), op.text("system"), Uint8Array.of(0x93));
  assertRefused(() => parse(withPickle(op.call(stackGlobal, op.tuple()))), '"os.system"');
  for (const code of [0x69, 0x6f, 0x81, 0x92, 0x82, 0x50, 0x97]) { // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, PERSID, NEXT_BUFFER
    assertRefused(() => parse(withPickle(concat(latin1("(N"), Uint8Array.of(code)))), `opcode 0x${code.toString(16)}`);
  }
});

Deno.test("parseTorchFile() refuses tensors that lie, and bombs", () => {
  const one = (changes: Partial<Parameters<typeof tensorPickle>[0]>) =>
    withPickle(op.dict({ a: tensorPickle({ key: "0", count: 1, shape: [1], stride: [1], ...changes }) }));
  assert.deepEqual(values(parse(one({})).tensors.get("a")!), [1]);
  const faults: [Uint8Array<ArrayBuffer>, string][] = [
    [one({ key: "7" }), 'storage "7" is not in the archive'],
    [one({ key: "../../etc/passwd" }), "is not in the archive"],
    [one({ count: 2 }), 'storage "0" has 4 bytes, 2 of F32 take 8'],
    [one({ type: "DoubleStorage" }), "take 8"],
    [one({ type: "QInt8Storage" }), "torch.QInt8Storage"],
    [one({ offset: 1 }), "reaches to element 1"],
    [one({ shape: [2] }), "reaches to element 1"],
    [one({ shape: [2_000_000_000], stride: [0] }), "an expanded tensor"],
    [one({ shape: [-1] }), "not described as one"],
    [one({ stride: [-1], shape: [2] }), "not described as one"],
    [withPickle(op.dict({ a: op.tuple(op.text("storage")) })).slice(0, -1), "no zip directory"],
    [torchFile(op.whole(latin1("N")), {}, 9), "deflated, it must be stored"],
    [concat(Uint8Array.of(0x80, 2), latin1("}.")), "PyTorch before 1.6"],
    [latin1("hello") as Uint8Array<ArrayBuffer>, "it is no zip archive"],
    [withPickle(latin1("]K")), "cut off"],
    [withPickle(concat(latin1("]"), op.get(3))), "recalls value 3"],
    [withPickle(latin1("s")), "empty stack"],
    [withPickle(concat(latin1("("), op.put(0))), "empty stack"],
    [withPickle(latin1("]]s")), "empty stack"],
    [withPickle(latin1("}NNN")), "leaves values over"],
    [withPickle(concat(latin1("}"), latin1("]N"), latin1("s"))), "neither a text nor a number"],
    [withPickle(latin1("]}b")), "sets attributes of what is no dictionary"],
  ];
  for (const [bytes, says] of faults) assertRefused(() => parse(bytes), says);
  let laughs = concat(op.dict({}), op.put(0)); // 2^30 values in a few hundred bytes
  for (let i = 1; i <= 30; i++) laughs = concat(laughs, latin1("0"), op.dict({ a: op.get(i - 1), b: op.get(i - 1) }), op.put(i));
  assertRefused(() => parse(withPickle(laughs)), "more than 1000000 values");
  const itself = concat(latin1("}"), op.put(0), op.text("a"), op.get(0), latin1("s"));
  assertRefused(() => parse(withPickle(itself)), "nested deeper than 32");
  const many = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`t${i}`, op.get(1)]));
  const turned = tensorPickle({ key: "0", count: 4000, shape: [2, 2000], stride: [1, 2] });
  const copies = torchFile(op.whole(concat(turned, op.put(1), latin1("0"), op.dict(many))), { "0": new Uint8Array(16000) });
  assertRefused(() => parse(copies), "take more than 4 times the file");
});

Deno.test("readPickle() reads protocols 2 to 5, and their numbers", () => {
  const read = (...parts: Uint8Array[]) => readPickle(concat(...parts), "p", { functions: {}, persistent: (id) => id });
  const long = Uint8Array.of(0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 128, 0), negative = Uint8Array.of(0x8a, 1, 0xff), none = Uint8Array.of(0x8a, 0);
  const float = concat(latin1("G"), new Uint8Array(new Float64Array([1.5]).buffer).toReversed());
  assert.deepEqual(
    read(
      Uint8Array.of(0x80, 4, 0x95, 9, 0, 0, 0, 0, 0, 0, 0),
      latin1("("),
      long,
      negative,
      none,
      float,
      Uint8Array.of(0x8c, 1, 0x61, 0x94, 0x68, 0),
      latin1("t."),
    ),
    [2n ** 63n, -1, 0, 1.5, "a", "a"],
  );
  for (const version of [0, 1, 6]) assertRefused(() => read(Uint8Array.of(0x80, version), latin1("N.")), `protocol ${version}`);
});
