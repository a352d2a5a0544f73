import assert from "node:assert/strict";
import { initialize, type ParameterSpec } from "../../lib/nn/parameters.ts";
import type { Histogram } from "../../lib/ops/histogram.ts";
import { partOf } from "../../lib/optim/histograms.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../../lib/optim/optimizer.ts";
import { Generator } from "../../lib/tensor/random.ts";

Deno.test("partOf() names blocks by their number, and layers without one", () => {
  const names = ["flow.blocks.12.mlp.mlp.0.weight", "flow.input_layer.bias", "image.pos", "scale"];
  assert.deepEqual(names.map(partOf), ["flow.blocks.12", "flow.input_layer", "image", "scale"]);
});

/** How many values a histogram has between two limits. */
function between({ limits, counts }: Histogram, low: number, high: number): number {
  return counts.reduce((sum, n, i) => limits[i] >= low && limits[i + 1] <= high ? sum + n : sum, 0);
}

for (const dtype of ["f32", "f16", "bf16"] as const) {
  Deno.test(`stepLater() gives histograms of ${dtype} parameters before the step, and of their gradients without the loss scale`, () => {
    const specs = {
      blocks: [0, 1].map((k): { w: ParameterSpec; b: ParameterSpec } => ({
        w: { shape: [3, 3], dtype, init: { fill: k + 1 } },
        b: { shape: [5], dtype: "f32", init: { fill: -8 } },
      })),
      out: { w: { shape: [2], dtype: "f32", init: { fill: 0 } } satisfies ParameterSpec },
    };
    const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS), scale = optimizer.lossScale();
    const { blocks: [first], out } = optimizer.params, seen: Record<string, Histogram>[] = [];
    first.w.grad!.write(new Float32Array(9).fill(0.3 * scale));
    out.w.grad!.write([Infinity, -2 * scale]);
    optimizer.stepLater((found) => seen.push(found));
    const [found] = seen;
    assert.deepEqual(Object.keys(found), ["blocks.0", "blocks.1", "out"].flatMap((part) => [`parameters/${part}`, `gradients/${part}`]));
    assert.deepEqual(
      [found["parameters/blocks.0"], found["parameters/blocks.1"]].map((
        h,
      ) => [between(h, 1, 1.25), between(h, 2, 2.5), between(h, -10, -8)]),
      [
        [9, 0, 5],
        [0, 9, 5],
      ],
    );
    assert.deepEqual([between(found["gradients/blocks.0"], 0.2, 0.4), between(found["gradients/blocks.0"], 0, 2 ** -100)], [9, 5]);
    assert.deepEqual([found["gradients/out"].notFinite, between(found["gradients/out"], -2.6, -1.9)], [1, 1]);
    optimizer.free();
  });
}
