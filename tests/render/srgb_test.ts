import assert from "node:assert/strict";
import { linearToSrgb, srgbToLinear } from "../../lib/render/srgb.ts";

Deno.test("srgbToLinear() meets the standard's values", () => {
  assert.equal(srgbToLinear(0), 0);
  assert.equal(srgbToLinear(1), 1);
  assert.ok(Math.abs(srgbToLinear(0.5) - 0.21404) < 1e-5);
  assert.ok(Math.abs(srgbToLinear(0.04) - 0.04 / 12.92) < 1e-9);
});

Deno.test("linearToSrgb() is its inverse", () => {
  for (const c of [0, 0.003, 0.04, 0.0405, 0.2, 0.7, 1]) assert.ok(Math.abs(linearToSrgb(srgbToLinear(c)) - c) < 1e-6);
});
