import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type ArrayToWrite, assertFinite, encodeNpy, parseNpy, parseNpyHeader, readNpy, writeNpy } from "../../lib/io/npy.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1, withFolder } from "./corrupt.ts";

/** An .npy file of format 1 with this header text. */
function file(header: string, data: Uint8Array = new Uint8Array()): Uint8Array<ArrayBuffer> {
  return concat(latin1("\x93NUMPY\x01\x00"), new Uint8Array([header.length & 0xff, header.length >> 8]), latin1(header), data);
}

/** As NumPy wrote it: np.arange(24, dtype=int16).reshape(2, 3, 4) in Fortran order. */
const FORTRAN = "k05VTVBZAQB2AHsnZGVzY3InOiAnPGkyJywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMywgNCksIH0gICAgICAgICAgICAgICAgICAg" +
  "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAwABAAQAAgAFAABAA0ABQARAAkAFQACAA4ABgASAAoAFgADAA8ABwATAAsAFwA=";

Deno.test("encodeNpy() writes exactly these bytes", () => {
  const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }".padEnd(117) + "\n";
  const want = file(header, new Uint8Array([0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]));
  assert.deepEqual(encodeNpy({ shape: [1, 2], data: new Float32Array([1.5, -2]) }, "x"), want);
});

Deno.test("readNpy() reads back what writeNpy() wrote, for every dtype and shape", () => {
  const arrays: ArrayToWrite[] = [
    { shape: [2, 2], data: new Float16Array([1, -2.5, NaN, Infinity]) },
    { shape: [4], data: new Float32Array([1, -2.5, NaN, Infinity]) },
    { shape: [1, 1, 2], data: new Float64Array([Math.PI, -0]) },
    { shape: [2], data: new Int16Array([-32768, 32767]) },
    { shape: [2], data: new Int32Array([-(2 ** 31), 2 ** 31 - 1]) },
    { shape: [2], data: new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n]) },
    { shape: [3], data: new Uint8Array([0, 7, 255]) },
    { shape: [2], data: new Uint16Array([1, 65535]) },
    { shape: [3], data: new Uint8Array([0, 1, 1]), dtype: "b1" },
    { shape: [], data: new Float32Array([3]) },
    { shape: [0, 3], data: new Float32Array() },
  ];
  withFolder((folder) => {
    for (const array of arrays) {
      writeNpy(`${folder}/a.npy`, array);
      const read = readNpy(`${folder}/a.npy`);
      assert.deepEqual(read.data, array.data);
      assert.deepEqual(read.shape, array.shape);
      if (array.dtype) assert.equal(read.dtype, array.dtype);
    }
  });
});

Deno.test("readNpy() turns Fortran order into C order", () => {
  const { dtype, shape, data } = readNpy(new Uint8Array(Buffer.from(FORTRAN, "base64")));
  assert.deepEqual([dtype, shape], ["i2", [2, 3, 4]]);
  assert.deepEqual([...data], Array.from({ length: 24 }, (_, i) => i));
});

Deno.test("parseNpy() views aligned bytes and copies others", () => {
  const bytes = encodeNpy({ shape: [2], data: new Float32Array([1, 2]) }, "x");
  assert.equal(parseNpy(bytes, "x").data.buffer, bytes.buffer);
  assert.deepEqual([...parseNpy(concat(new Uint8Array(1), bytes).subarray(1), "x").data], [1, 2]);
});

Deno.test("parseNpyHeader() takes the header as others may write it", () => {
  const { shape, dtype, start, bytes } = parseNpyHeader(file(`{"shape":(3,),"descr":"<f8","fortran_order":False}`), "x");
  assert.deepEqual([shape, dtype, bytes - start], [[3], "f8", 24]);
});

Deno.test("parseNpyHeader() refuses each fault of a header", () => {
  const head = (descr: string, shape: string, order = "False"): string =>
    `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }\n`;
  const faults: [header: string, says: string][] = [
    [head("'>f4'", "(2,)"), 'its dtype is ">f4"'],
    [head("'<f3'", "(2,)"), 'its dtype is "<f3"'],
    [head("'|O'", "(2,)"), 'its dtype is "|O"'],
    [head("'<U8'", "(2,)"), 'its dtype is "<U8"'],
    [head("'toString'", "(2,)"), "its dtype is"],
    [head("[('a', '<f4')]", "(2,)"), "records and objects are not read"],
    [head("'<f4'", "(-2,)"), 'its shape is "(-2,)"'],
    [head("'<f4'", "(2.0,)"), "its shape is"],
    [head("'<f4'", "(2,,3)"), "its shape is"],
    [head("'<f4'", "(99999999999999999,)"), "its shape is"],
    [head("'<f4'", `(${"1,".repeat(65)})`), "its shape has 65 axes"],
    [head("'<f4'", "2"), "its header must be"],
    [head("'<f4'", "(2,)", "Maybe"), "its header must be"],
    [`{'descr': '<f4', 'shape': (2,)}`, "its header must be"],
    [`{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}`, "its header must be"],
    [`{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 'y'}`, "its header must be"],
    [`__import__('os')`, "its header must be"],
    ["", "its header must be"],
  ];
  for (const [header, says] of faults) assertRefused(() => parseNpy(concat(file(header), new Uint8Array(4)), "x"), says);
  assertRefused(() => parseNpy(file(head("'<f4'", "(9000000000000000,)")), "x"), "f4 [9000000000000000] takes 36000000000000");
  assertRefused(() => parseNpy(file(head("'<f4'", "(94906267, 94906267)"), new Uint8Array(8)), "x"), "takes");
  assertRefused(() => parseNpy(file(head("'|b1'", "(2,)"), new Uint8Array([1, 2])), "x"), "element 1 of a bool array is 2");
  assertRefused(() => parseNpy(concat(latin1("\x93NUMPY\x04\x00"), new Uint8Array(60)), "x"), "its format version is 4");
  assertRefused(() => parseNpy(concat(latin1("\x93NUMPY\x02\x00\xff\xff\xff\xff"), new Uint8Array(60)), "x"), "its header ends at byte");
});

Deno.test("readNpy() refuses every truncation, and survives every flipped bit of the header", () => {
  const small = encodeNpy({ shape: [2, 3], data: new Float32Array(6) }, "x");
  assertTruncationsRefused(small, (bytes) => readNpy(bytes));
  assert.ok(countAcceptedFlips(small, (bytes) => readNpy(bytes), small.length - 24) < 100);
});

Deno.test("encodeNpy() refuses a shape or dtype that does not fit", () => {
  assertRefused(() => encodeNpy({ shape: [3], data: new Float32Array(2) }, "x"), "it has 2 elements, its shape [3]");
  assertRefused(() => encodeNpy({ shape: [-1, -2], data: new Float32Array(2) }, "x"), "its shape [-1, -2]");
  assertRefused(() => encodeNpy({ shape: [2], data: new Float32Array(2), dtype: "b1" }, "x"), "its data is Float32Array");
});

Deno.test("assertFinite() names the array and the element", () => {
  assertFinite("feats", new Float32Array([0, -1, 3e38]));
  assertRefused(() => assertFinite("feats", new Float32Array([0, NaN])), "Cannot use feats: element 1 is NaN");
  assertRefused(() => assertFinite("feats", new Float16Array([-Infinity])), "element 0 is -Infinity");
});
