import assert from "node:assert/strict";
import { describe, planRecipe } from "../../recipes/plan.ts";

const TINY = { size: "tiny", file: undefined, overrides: [] };

Deno.test("planRecipe() plans both flow recipes on every card that is asked for", () => {
  for (const recipe of ["ss-flow", "slat-flow"]) {
    const { predictions, steps, batch } = planRecipe(recipe, TINY, { gpus: ["A100-40", "H200"], voxels: 1200, steps: 1000 });
    assert.deepEqual(predictions.map((p) => [p.card.name, p.fits]), [["A100 40 GB", true], ["H200", true]]);
    assert.ok(predictions[0].step > predictions[1].step && steps === 1000 && batch > 1);
    const text = describe(predictions[0], { batch, steps, gpus: 4 });
    assert.match(
      text,
      /^A100 40 GB: fits: [\d.]+ [MG]iB at the peak of 38\.80 GiB\n {2}at the peak: .*master .*\n {2}made again: norms and activations\n/,
    );
    assert.match(
      text,
      /a step: \d+ ms \([\d.]+ ms the optimizer\), [\d.]+ samples\/s a GPU\n {2}1000 steps: [\d.]+ hours, \d+ GPU hours, about \$\d+ at/,
    );
  }
});

Deno.test("planRecipe() knows an optimizer that is spread over several GPUs", () => {
  const flags = { ...TINY, overrides: ["optimizer.shard=true"] };
  const [one, eight] = [1, 8].map((count) => planRecipe("ss-flow", flags, { gpus: ["H100"], count, voxels: 1 }).predictions[0]);
  assert.ok(eight.atPeak.exp_avg < one.atPeak.exp_avg / 7 && eight.peak < one.peak && eight.atPeak.gradients >= one.atPeak.gradients);
});

Deno.test("planRecipe() plans recomputation for a budget, and says what it cannot plan", () => {
  const { predictions: [whole] } = planRecipe("ss-flow", TINY, { gpus: ["H100"], voxels: 1 }), budget = Math.floor(0.97 * whole.peak);
  const { predictions: [less] } = planRecipe("ss-flow", TINY, { gpus: ["H100"], voxels: 1, budget });
  assert.ok(less.peak <= budget && less.givenUp.length > 0);
  assert.match(describe(less, { batch: 1, steps: 1, gpus: 1 }), /made again: norms and activations, .* ms a step of it/);
  assert.throws(() => planRecipe("vae", TINY, { gpus: ["H100"], voxels: 1 }), {
    message: /the recipe is "vae", it must be ss-flow or slat-flow/,
  });
  assert.throws(() => planRecipe("ss-flow", TINY, { gpus: ["TPU"], voxels: 1 }), {
    message: /the GPU is "TPU", it must be one of A100-40, /,
  });
});

Deno.test("plan is a program: --gpu, --steps and settings of the recipe", () => {
  const args = [
    "run",
    "-q",
    "-P=train",
    "recipes/plan.ts",
    "ss-flow",
    "--size",
    "tiny",
    "--gpu",
    "RTX-4090",
    "--steps",
    "10",
    "--batch.size=2",
  ];
  const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), { args, cwd: new URL("../../", import.meta.url) }).outputSync();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert.equal(code, 0, errors);
  assert.match(text, /^RTX 4090: fits: /);
  assert.match(text, / 10 steps: /);
});
