import assert from "node:assert/strict";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { empty, kernels, stream } from "../../lib/tensor/tensor.ts";
import { assertClose } from "../check.ts";

/** The 10 rounds of Philox 4x32 with a 64-bit counter and key, in BigInt. */
function philox(counter: bigint, key: bigint): number[] {
  const low = (v: bigint) => v & 0xffffffffn, high = (v: bigint) => v >> 32n;
  let c = [low(counter), high(counter), 0n, 0n], k = [low(key), high(key)];
  for (let round = 0; round < 10; round++) {
    const p = 0xd2511f53n * c[0], q = 0xcd9e8d57n * c[2];
    c = [high(q) ^ c[1] ^ k[0], low(q), high(p) ^ c[3] ^ k[1], low(p)];
    k = [low(k[0] + 0x9e3779b9n), low(k[1] + 0xbb67ae85n)];
  }
  return c.map(Number);
}

/** The words of counters `offset` on, 4 each. */
function words(n: number, seed: bigint, offset: bigint): number[] {
  return Array.from({ length: Math.ceil(n / 4) }, (_, i) => philox(BigInt.asUintN(64, offset + BigInt(i)), seed)).flat().slice(0, n);
}

Deno.test("the reference here gives the published words", () => {
  assert.deepEqual(philox(0n, 0n), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
});

for (const [seed, offset] of [[0n, 0n], [0x123456789abcdef0n, 0xfffffffen], [2n ** 64n - 1n, 2n ** 64n - 1n]] as const) {
  Deno.test(`Generator.uniform() is the upper 24 bits of Philox with seed ${seed} at ${offset}`, () =>
    step(() => {
      const g = new Generator(seed);
      g.restore({ seed: seed.toString(), offset: offset.toString() });
      const want = words(11, seed, offset).map((w) => (w >>> 8) / 2 ** 24);
      assert.deepEqual([...g.uniform([11]).read()], want);
      g.restore({ seed: seed.toString(), offset: offset.toString() });
      assertClose("range", g.uniform([11], { low: -3, high: 5 }).read(), want.map((u) => 8 * u - 3), { rtol: 0, atol: 5e-7 });
    }));

  Deno.test(`Generator.normal() is Box-Muller on Philox with seed ${seed} at ${offset}`, () =>
    step(() => {
      const g = new Generator(seed);
      g.restore({ seed: seed.toString(), offset: offset.toString() });
      const w = words(4000, seed, offset), want = new Float64Array(3999);
      for (let i = 0; i < want.length; i++) {
        const r = Math.sqrt(-2 * Math.log(Math.fround((Math.fround(w[i & ~1]) + 0.5) / 2 ** 32)));
        const angle = 2 * Math.PI * (w[i | 1] >>> 8) / 2 ** 24;
        want[i] = r * (i % 2 ? Math.sin(angle) : Math.cos(angle));
      }
      assertClose("normal", g.normal([3999]).read(), want, { rtol: 1e-6, atol: 1e-6 });
    }));
}

Deno.test("Generator draws have the moments of their distributions", () =>
  step(() => {
    const g = new Generator(42), n = 1 << 18, y = g.normal([n]).read(), u = g.uniform([n], { low: -1, high: 3 }).read();
    const moment = (v: Float32Array, p: number, at = 0) => v.reduce((s, x) => s + (x - at) ** p, 0) / v.length;
    assertClose("normal", [1, 2, 3, 4].map((p) => moment(y, p)), [0, 1, 0, 3], { rtol: 0, atol: 0.04 });
    assertClose("uniform", [moment(u, 1), moment(u, 2, 1)], [1, 16 / 12], { rtol: 0, atol: 0.01 });
    assert.ok(u.every((v) => v >= -1 && v < 3));
  }));

Deno.test("Generator rounds 16-bit draws from the f32 ones", () =>
  step(() => {
    const state = { seed: "7", offset: "3" }, g = new Generator(7);
    const draw = (dtype: "f32" | "f16" | "bf16") => (g.restore(state), g.normal([1001], { dtype }));
    const f32 = draw("f32").read();
    assert.deepEqual(draw("f16").readRaw(), Float16Array.from(f32));
    assertClose("bf16", draw("bf16").read(), f32, { rtol: 2 ** -8, atol: 0 });
  }));

Deno.test("Generator state is exact: draws go on where they stopped, in whole counters", () =>
  step(() => {
    const g = new Generator(5);
    g.normal([6]);
    assert.deepEqual(g.state(), { seed: "5", offset: "2" });
    const state = g.state(), next = g.normal([9]).read(), after = g.state();
    g.restore(JSON.parse(JSON.stringify(state)));
    assert.deepEqual(g.normal([9]).read(), next);
    assert.deepEqual(g.state(), after);
    assert.deepEqual(g.normal([0]).shape, [0]);
    assert.deepEqual(g.state(), after);
    assert.notDeepEqual(new Generator(6).normal([9]).read(), new Generator(5).normal([9]).read());
  }));

Deno.test("k_random_uniform_fwd refuses an empty range", () =>
  step(() => {
    const y = empty([1]);
    assert.throws(() => kernels().k_random_uniform_fwd(y.addr, 1n, 0n, 0n, 2, 2, 0, stream()), {
      name: "KernelError",
      message: "Cannot run k_random_uniform_fwd: low and high are 2 and 2, low must be below high, both finite",
    });
  }));

Deno.test("Generator draws the same bits on every device", () =>
  step(() => {
    const g = new Generator(123n);
    const draws = [
      g.normal([100_003]),
      g.uniform([1001], { low: -1, high: 1 }),
      g.normal([1003], { dtype: "f16" }),
      g.normal([1003], { dtype: "bf16" }),
    ];
    let hash = 0x811c9dc5; // FNV-1a
    for (const t of draws) {
      const { buffer } = t.readRaw();
      for (const byte of new Uint8Array(buffer)) hash = Math.imul(hash ^ byte, 0x01000193);
    }
    assert.equal((hash >>> 0).toString(16), "e80a8687");
  }));
