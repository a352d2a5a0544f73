import assert from "node:assert/strict";
import { gradClipState, makeGradClip, percentileOf, recordNorm, restoreGradClip } from "../../lib/optim/grad_clip.ts";
import { assertClose, random } from "../check.ts";
import { hasReference, REFERENCE } from "../reference.ts";

Deno.test("percentileOf() is linear between ranks", () => {
  const ranks = Array.from({ length: 1000 }, (_, i) => 999 - i);
  assert.ok(Math.abs(percentileOf(ranks, 95) - 949.05) < 1e-9);
  assert.deepEqual([percentileOf([3], 50), percentileOf([4, 1], 0), percentileOf([4, 1], 100), percentileOf([1, 4], 50)], [3, 1, 4, 2.5]);
});

Deno.test("recordNorm() leaves a fixed limit alone", () => {
  const clip = makeGradClip({ maxNorm: 1 });
  for (const norm of [5, 0.1, NaN, Infinity]) recordNorm(clip, norm);
  assert.equal(clip.limit, 1);
  assert.equal(makeGradClip().limit, Infinity);
});

Deno.test("recordNorm() makes the limit a percentile of the last norms, at most maxNorm, passing over what is not finite", () => {
  const clip = makeGradClip({ maxNorm: 3.5, percentile: 50, bufferSize: 3 });
  const limits = [1, NaN, 2, 9, 5, Infinity, 4, 2].map((norm) => (recordNorm(clip, norm), clip.limit));
  assert.deepEqual(limits, [3.5, 3.5, 3.5, 2, 3.5, 3.5, 3.5, 3.5]);
  const free = makeGradClip({ percentile: 100, bufferSize: 2 });
  assert.deepEqual([7, 8, 1].map((norm) => (recordNorm(free, norm), free.limit)), [Infinity, 8, 8]);
});

Deno.test("restoreGradClip() goes on where gradClipState() was taken, through JSON", () => {
  const make = () => makeGradClip({ maxNorm: 1, percentile: 95, bufferSize: 20 });
  for (const split of [0, 7, 20, 33]) {
    const whole = make(), first = make(), second = make(), norms = random(1, 50).map(Math.abs);
    norms.forEach((n) => recordNorm(whole, n));
    norms.subarray(0, split).forEach((n) => recordNorm(first, n));
    restoreGradClip(second, JSON.parse(JSON.stringify(gradClipState(first))));
    norms.subarray(split).forEach((n) => recordNorm(second, n));
    assert.deepEqual(second, whole);
  }
  const unlimited = makeGradClip({ percentile: 95 });
  restoreGradClip(unlimited, JSON.parse(JSON.stringify(gradClipState(unlimited))));
  assert.equal(unlimited.limit, Infinity);
  const full = makeGradClip({ maxNorm: 5, percentile: 100, bufferSize: 2 }), other = makeGradClip({ maxNorm: 0.5 });
  restoreGradClip(full, { norms: [1, 2], pointer: 0 });
  restoreGradClip(other, { norms: [1, 2], pointer: 0 });
  assert.deepEqual([full.limit, other.limit], [2, 0.5], "the limit is that of this run's options");
  const small = makeGradClip({ percentile: 95, bufferSize: 1 });
  assert.throws(() => restoreGradClip(small, { norms: [1, 2], pointer: 0 }), {
    message: /2 norms are stored, it must be at most the 1 of/,
  });
});

Deno.test("makeGradClip() refuses options without sense", () => {
  assert.throws(() => makeGradClip({ maxNorm: 0 }), { message: "Cannot clip gradients: maxNorm is 0, it must be above 0" });
  assert.throws(() => makeGradClip({ percentile: 101 }), { message: /percentile is 101/ });
  assert.throws(() => makeGradClip({ percentile: 5, bufferSize: 0 }), { message: /bufferSize is 0/ });
});

const file = "adaptive_grad_clipper.json", here = hasReference(file);
Deno.test({
  name: `recordNorm() follows the reference trace${here ? "" : ` (skipped: ${file} is not here)`}`,
  ignore: !here,
  fn: () => {
    interface Trace {
      max_norm: number;
      clip_percentile: number;
      buffer_size: number;
      steps: { grad: number[]; norm: number; clipped: number[]; max_norm_after: number }[];
    }
    const trace: Trace = JSON.parse(Deno.readTextFileSync(`${REFERENCE}/${file}`));
    const clip = makeGradClip({ maxNorm: trace.max_norm, percentile: trace.clip_percentile, bufferSize: trace.buffer_size });
    for (const { grad, norm, clipped, max_norm_after } of trace.steps) {
      const scale = Math.min(1, clip.limit / (norm + 1e-6));
      if (Number.isFinite(norm)) assertClose("clipped", grad.map((g) => g * scale), clipped);
      recordNorm(clip, norm);
      assertClose("limit", [clip.limit], [max_norm_after]);
    }
  },
});
