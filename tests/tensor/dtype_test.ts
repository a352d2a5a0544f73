import assert from "node:assert/strict";
import { DTYPE, type DType, DTYPE_BYTES, fromBf16, hostArray, isFloat, toBf16 } from "../../lib/tensor/dtype.ts";

const DTYPES = Object.keys(DTYPE) as DType[];

Deno.test("DTYPE has the codes of kernels/include/k.h", () => {
  const header = Deno.readTextFileSync(new URL("../../kernels/include/k.h", import.meta.url));
  const codes = [...header.matchAll(/K_(F32|F16|BF16|I32|I64|U8) = (\d+)/g)].map(([, name, code]) => [name.toLowerCase(), Number(code)]);
  assert.deepEqual(Object.fromEntries(codes), { ...DTYPE });
});

Deno.test("hostArray() is zeroed and has the elements and bytes of its dtype", () => {
  for (const dtype of DTYPES) {
    const array = hostArray(dtype, 5);
    assert.equal(array.length, 5);
    assert.equal(array.byteLength, 5 * DTYPE_BYTES[dtype]);
    assert.ok(new Uint8Array(array.buffer).every((byte) => byte === 0));
  }
  assert.deepEqual(DTYPES.filter(isFloat), ["f32", "f16", "bf16"]);
});

Deno.test("toBf16() rounds to nearest, ties to even", () => {
  const cases: [value: number, bits: number][] = [
    [0, 0],
    [-0, 0x8000],
    [1, 0x3f80],
    [1 + 2 ** -8, 0x3f80], // a tie, down to even
    [1 + 3 * 2 ** -8, 0x3f82], // a tie, up to even
    [1 + 2 ** -8 + 2 ** -20, 0x3f81],
    [-1 - 2 ** -7, 0xbf81],
    [Infinity, 0x7f80],
    [-Infinity, 0xff80],
    [3.4e38, 0x7f80], // above the largest bf16
    [3.3895313892515355e38, 0x7f7f],
    [1e-45, 0],
    [2 ** -133, 1], // the smallest subnormal
  ];
  assert.deepEqual([...toBf16(cases.map(([value]) => value))], cases.map(([, bits]) => bits));
  const [nan, quiet] = toBf16(new Float32Array(Uint32Array.of(0x7f800001, 0xffc00000).buffer));
  assert.equal(nan, 0x7fc0, "a NaN stays one though its high bits are those of infinity");
  assert.equal(quiet, 0xffc0);
});

Deno.test("fromBf16() is exact: every bf16 comes back as it was", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i),
    back = toBf16(fromBf16(all)),
    nan = (b: number): boolean => (b & 0x7fff) > 0x7f80;
  assert.ok(all.every((bits, i) => nan(bits) ? nan(back[i]) : back[i] === bits));
  assert.deepEqual([...fromBf16(Uint16Array.of(0x3f80, 0xc000, 0x7f7f, 1))], [1, -2, 3.3895313892515355e38, 2 ** -133]);
});
