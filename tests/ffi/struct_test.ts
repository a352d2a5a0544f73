import assert from "node:assert/strict";
import { pack } from "../../ffi/struct.ts";
import { K_ATTENTION, type KAttention } from "../../ffi/symbols.ts";

const FIELDS = [["n", "i64"], ["x", "u64"], ["scale", "f64"], ["last", "i64"]] as const;

Deno.test("pack() writes the size and every field in its place", () => {
  const words = pack(FIELDS, { last: 7, scale: -0.1, x: 2n ** 64n - 1n, n: 3 });
  assert.deepEqual([...words].map((w, i) => i === 3 ? 0n : w), [40n, 3n, 2n ** 64n - 1n, 0n, 7n]);
  assert.equal(new Float64Array(words.buffer)[3], -0.1);
});

Deno.test("pack() keeps whole numbers beyond 32 bits and below zero", () => {
  for (
    const n of [
      0,
      1,
      -1,
      2 ** 31 - 1,
      2 ** 31,
      -(2 ** 31),
      2 ** 32,
      2 ** 32 + 5,
      -(2 ** 32) - 5,
      Number.MAX_SAFE_INTEGER,
      Number.MIN_SAFE_INTEGER,
    ]
  ) {
    assert.equal(BigInt.asIntN(64, pack(FIELDS, { n, x: 0n, scale: 0, last: 0 })[1]), BigInt(n), `${n}`);
  }
});

Deno.test("pack() of the attention's fields has the size that C gives the struct", () => {
  const problem = Object.fromEntries(K_ATTENTION.map(([name, kind]) => [name, kind === "u64" ? 1n : 1])) as unknown as KAttention;
  const words = pack(K_ATTENTION, problem);
  assert.equal(words[0], 400n);
  assert.equal(words.byteLength, 400);
});
