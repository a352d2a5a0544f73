import assert from "node:assert/strict";
import { absolutePositionEmbedding, timestepEmbedding } from "../../lib/ops/embed.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkDevices } from "../check.ts";

/** Values at places of an embedding, for angles up to 31 that may be two units in the last place of f32 off. */
function expectAt(got: ArrayLike<number>, want: Record<number, number>): void {
  const at = Object.keys(want).map(Number);
  assertClose("embedding", at.map((i) => got[i]), Object.values(want), { rtol: 3e-7, atol: 4e-6 });
}

Deno.test("timestepEmbedding() gives cosines, then sines", () =>
  step(() => {
    const y = timestepEmbedding(tensor([500, 0], [2]));
    assert.deepEqual(y.shape, [2, 256]);
    const values = y.read();
    expectAt(values, {
      0: -0.88384926,
      1: 0.94594574,
      64: 0.28366172,
      127: 0.99855685,
      128: -0.46777180,
      129: 0.32432494,
      192: -0.95892441,
      255: 0.05370453,
    });
    assert.deepEqual([...values.subarray(256)], [...new Array(128).fill(1), ...new Array(128).fill(0)]);
    assert.throws(() => timestepEmbedding(tensor([1], [1]), 3), { message: "Cannot run timestepEmbedding: dim is 3, it must be even" });
  }));

Deno.test("absolutePositionEmbedding() gives sines and cosines of each axis, then zeros", () => {
  const of = (C: number) => absolutePositionEmbedding(Int32Array.of(9, 9, 9, 1, 2, 31), C).subarray(C);
  expectAt(of(1024), {
    0: 0.84147102,
    1: 0.81182039,
    169: 1.0556733e-4,
    170: 0.54030228,
    340: 0.90929741,
    510: -0.41614681,
    685: -0.99666369,
    850: 0.91474235,
    1019: 0.99999464,
    1020: 0,
    1023: 0,
  });
  expectAt(of(768), { 1: 0.80196184, 127: 1.0746078e-4, 517: 0.35077721, 767: 0.99999446 });
  expectAt(of(1280), { 1: 0.81785911, 212: 1.0441894e-4, 857: -0.15938704, 1277: 0.99999475, 1278: 0, 1279: 0 });
});

checkDevices("timestepEmbedding", import.meta.url, {
  inputs: { t: { shape: [33], data: Float32Array.from({ length: 33 }, (_, i) => i * 31.25), grad: false, dtype: "f32" } },
  run: ({ t }) => timestepEmbedding(t),
  dtypes: ["f32"],
});
