import assert from "node:assert/strict";
import { bytesToF32, f32ToBytes } from "../../lib/io/half.ts";
import { fromBf16, toBf16 } from "../../lib/tensor/dtype.ts";

/** The float with these 32 bits. */
function bits(value: number): number {
  return new Float32Array(new Uint32Array([value]).buffer)[0];
}

Deno.test("toBf16() rounds to nearest, ties to even", () => {
  const cases: [f32: number, bf16: number][] = [
    [0x3f800000, 0x3f80], // 1
    [0x3f807fff, 0x3f80], // below the middle
    [0x3f808000, 0x3f80], // the middle, even below
    [0x3f808001, 0x3f81], // above the middle
    [0x3f818000, 0x3f82], // the middle, even above
    [0xbf818000, 0xbf82],
    [0x80000000, 0x8000], // -0
    [0x00000001, 0x0000], // subnormal
    [0x007fffff, 0x0080],
    [0x7f7fffff, 0x7f80], // the largest f32 becomes infinite
    [0x7f800000, 0x7f80],
    [0xff800000, 0xff80],
    [0x7f800001, 0x7fc0], // a NaN whose payload is cut off stays NaN
    [0xffffffff, 0xffff],
  ];
  const f32 = new Float32Array(new Uint32Array(cases.map(([f32]) => f32)).buffer);
  assert.deepEqual([...toBf16(f32)], cases.map(([, bf16]) => bf16));
});

Deno.test("fromBf16() is exact for all 65536 values, and toBf16() takes them back", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const wide = fromBf16(all);
  assert.equal(wide[0x3f80], 1);
  assert.equal(wide[0xff80], -Infinity);
  assert.equal(wide[0x0001], bits(0x00010000));
  const back = toBf16(wide);
  for (let i = 0; i < all.length; i++) assert.ok(back[i] === i || (Number.isNaN(wide[i]) && back[i] === (i | 0x40)));
});

Deno.test("bytesToF32() and f32ToBytes() agree for every dtype, aligned or not", () => {
  const x = new Float32Array([0, -1.5, 3, 1024]);
  for (const dtype of ["F64", "F32", "F16", "BF16"] as const) {
    const bytes = f32ToBytes(x, dtype);
    assert.deepEqual(bytesToF32(bytes, dtype), x);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    assert.deepEqual(bytesToF32(shifted.subarray(1), dtype), x);
  }
  assert.equal(bytesToF32(f32ToBytes(x, "F32"), "F32").buffer, x.buffer, "aligned F32 is not copied");
  assert.throws(() => bytesToF32(new Uint8Array(3), "F16"), /Cannot read F16 values: there are 3 bytes/);
});
