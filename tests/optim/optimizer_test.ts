import assert from "node:assert/strict";
import { initialize, leaves, type Parameters, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { createOptimizer, type Optimizer, OPTIMIZER_DEFAULTS, type OptimizerConfig } from "../../lib/optim/optimizer.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward, record } from "../../lib/tensor/tape.ts";
import { empty, type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { loadCheckpoint, saveCheckpoint } from "../../lib/train/checkpoint.ts";
import { assertClose, random } from "../check.ts";

type Specs = { a: ParameterSpec; b: ParameterSpec; table: ParameterSpec };
type Made = Optimizer<Parameters<Specs>>;

const CONFIG: OptimizerConfig = { ...OPTIMIZER_DEFAULTS, lr: 0.1, clip: { maxNorm: null, percentile: null }, emaRates: [0.5, 0.9] };

function make(dtype: FloatDType, changes: Partial<OptimizerConfig> = {}): Made {
  const specs: Specs = {
    a: { shape: [5], dtype, init: { values: () => random(1, 5) } },
    b: { shape: [3], dtype: "f32", init: { values: () => random(2, 3) } },
    table: { shape: [2], dtype: "f32", init: { fill: 3 }, buffer: true },
  };
  return createOptimizer(specs, initialize(specs, new Generator(1)), { ...CONFIG, ...changes });
}

/** Gives `a` and `b` these gradients times the loss scale, as a backward pass would, and takes a step. */
function stepWith(optimizer: Made, { a, b }: { a: ArrayLike<number>; b: ArrayLike<number> }): ReturnType<Made["step"]> {
  giveGradients(optimizer, { a, b });
  return optimizer.step();
}

/** A backward pass that gives these gradients times the loss scale; none to what is absent. */
function giveGradients(optimizer: Made, { a, b }: { a?: ArrayLike<number>; b?: ArrayLike<number> }): void {
  const scale = optimizer.lossScale();
  step(() => {
    for (const [p, g] of [[optimizer.params.a, a], [optimizer.params.b, b]] as const) {
      if (!g) continue;
      const y = record("given", empty(p.shape, p.dtype), [p], [], () => [tensor(Float32Array.from(g, (v) => v * scale), p.shape)]);
      backward(y, zeros(p.shape, p.dtype));
    }
  });
}

/** Every tensor of the optimizer and of its model but the gradients, to be compared to the bit. */
function bitsOf({ held: { gradients: _, ...held }, params }: Made): Record<string, Float32Array> {
  return Object.fromEntries([...Object.entries(held), ...leaves<Tensor>(params)].map(([name, t]) => [name, t.read()]));
}

const GRADS = { a: [1, -2, 0.5, 4, -1], b: [2, 0.25, -8] };

Deno.test("createOptimizer() moves the parameters into its own memory and frees those given", () => {
  const specs = { a: { shape: [4], dtype: "f32", init: { normal: 1 } } satisfies ParameterSpec };
  const given = initialize(specs, new Generator(1)),
    before = given.a.read(),
    { params, size, tensors, held } = createOptimizer(specs, given, CONFIG);
  assert.throws(() => given.a.read(), /freed/);
  assert.deepEqual(params.a.read(), before);
  assert.equal(params.a.addr, held.master.addr);
  assert.deepEqual([size, params.a.requiresGrad], [4, true]);
  assert.deepEqual(Object.keys(tensors), ["master", "exp_avg", "exp_avg_sq", "ema0.5", "ema0.9"]);
  assert.equal(make("f32").size, 8, "the buffer is not trained");
});

Deno.test("step() is AdamW's first step: the sign of the gradient times the rate, after decay", () => {
  const optimizer = make("f32", { weightDecay: 0.2 }), { a, b, table } = optimizer.params, before = [a.read(), b.read()];
  const report = stepWith(optimizer, GRADS), [gradA, gradB] = [GRADS.a, GRADS.b];
  const expected = (p: Float32Array, g: number[]): number[] => g.map((v, i) => p[i] * (1 - 0.1 * 0.2) - 0.1 * v / (Math.abs(v) + 1e-8));
  assertClose("a", a.read(), expected(before[0], gradA));
  assertClose("b", b.read(), expected(before[1], gradB));
  assert.deepEqual([...table.read()], [3, 3]);
  assertClose("norm", [report.grad_norm], [Math.hypot(...gradA, ...gradB)]);
  assert.deepEqual([report.lr, report.skipped, report.log_scale], [0.1, 0, undefined]);
  assert.ok(a.outdated && b.outdated);
});

Deno.test("step() raises the learning rate over the warm-up", () => {
  const optimizer = make("f32", { warmup: 4 });
  const rates = Array.from({ length: 6 }, () => stepWith(optimizer, GRADS).lr);
  assertClose("lr", rates, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]);
});

Deno.test("step() clips to maxNorm: a gradient ten times the limit moves the moments as one at the limit", () => {
  const norm = Math.hypot(...GRADS.a, ...GRADS.b), optimizer = make("f32", { clip: { maxNorm: norm / 10, percentile: null } });
  stepWith(optimizer, GRADS);
  assertClose("exp_avg", [...optimizer.held.exp_avg.read()].slice(0, 5), GRADS.a.map((g) => 0.1 * g / 10), { rtol: 1e-4 });
});

Deno.test("step() follows the norms with an adaptive clip, once it has seen a thousand", () => {
  const optimizer = make("f32", { clip: { maxNorm: 100, percentile: 50 } });
  optimizer.restore({ ...optimizer.state(), clip: { norms: new Array(999).fill(2), pointer: 999 } });
  stepWith(optimizer, GRADS);
  assert.deepEqual([optimizer.state().clip.norms.length, optimizer.state().clip.pointer], [1000, 0]);
  const before = optimizer.held.exp_avg.read(), { grad_norm } = stepWith(optimizer, GRADS), after = optimizer.held.exp_avg.read();
  assertClose("exp_avg", [after[0]], [0.9 * before[0] + 0.1 * GRADS.a[0] * 2 / grad_norm], { rtol: 1e-4 });
});

for (const dtype of ["f32", "f16", "bf16"] as const) {
  Deno.test(`lossScale() is ${dtype === "f16" ? "2^20 and undone by the step" : "1"} with ${dtype} parameters`, () => {
    const optimizer = make(dtype), plain = make("f32"), scale = optimizer.lossScale();
    assert.equal(scale, dtype === "f16" ? 2 ** 20 : 1);
    const report = stepWith(optimizer, GRADS);
    assertClose("norm", [report.grad_norm], [stepWith(plain, GRADS).grad_norm]);
    assert.deepEqual(optimizer.held.exp_avg.read(), plain.held.exp_avg.read());
    assert.equal(report.log_scale, dtype === "f16" ? 20 : undefined);
    if (dtype === "f16") assertClose("scale", [optimizer.lossScale()], [2 ** 20.001], { rtol: 1e-9 });
  });
}

Deno.test("step() skips gradients that are not finite, says so, and halves the loss scale of f16", () => {
  for (const [dtype, value] of [["f16", Infinity], ["f32", NaN]] as const) {
    const optimizer = make(dtype), before = bitsOf(optimizer);
    optimizer.params.b.grad!.write([value, 1, 1]);
    const report = optimizer.step(), { steps, applied, logScale, clip } = optimizer.state();
    assert.deepEqual([report.skipped, report.grad_norm], [1, 0]);
    assert.deepEqual([steps, applied, logScale, clip.norms], [1, 0, dtype === "f16" ? 19 : 20, []]);
    const after = bitsOf(optimizer);
    for (const name of ["master", "exp_avg", "exp_avg_sq", "a", "b"]) assert.deepEqual(after[name], before[name], name);
  }
});

Deno.test("step() gives up after a hundred skipped steps in a row", () => {
  const optimizer = make("f32"), bad = (): number => stepWith(optimizer, { a: GRADS.a, b: [NaN, 0, 0] }).skipped;
  for (let i = 0; i < 99; i++) assert.equal(bad(), 1);
  assert.equal(stepWith(optimizer, GRADS).skipped, 0);
  for (let i = 0; i < 99; i++) bad();
  assert.throws(bad, { name: "RangeError", message: /^Cannot go on: the gradients of the last 100 steps are not all finite/ });
});

Deno.test("step() begins gradients anew: the first is written, later ones are added, and who gets none has 0", () => {
  const optimizer = make("f32"), plain = make("f32"), { a, b } = optimizer.params;
  for (const one of [optimizer, plain]) stepWith(one, GRADS);
  assert.deepEqual([a.outdated, a.requiresGrad], [true, true]);
  giveGradients(optimizer, { a: [1, 2, 3, 4, 5] });
  assert.deepEqual([...a.grad!.read()], [1, 2, 3, 4, 5]);
  giveGradients(optimizer, { a: [1, 1, 1, 1, 1] });
  assert.deepEqual([[...a.grad!.read()], a.outdated, b.outdated], [[2, 3, 4, 5, 6], false, true]);
  giveGradients(plain, { a: [2, 3, 4, 5, 6], b: [0, 0, 0] });
  assert.deepEqual(optimizer.step(), plain.step());
  assert.deepEqual(bitsOf(optimizer), bitsOf(plain));
});

Deno.test("stepLater() takes the same steps, whoever asks for its reports and when", () => {
  const grads = (i: number) => i === 2 ? { a: random(i, 5), b: [Infinity, 0, 0] } : { a: random(i, 5), b: random(40 + i, 3) };
  for (const dtype of ["f32", "f16"] as const) {
    const config = { clip: { maxNorm: 1, percentile: 50 } },
      waits = make(dtype, config),
      late = make(dtype, config),
      never = make(dtype, config);
    const reports = [0, 1, 2, 3, 4].map((i) => stepWith(waits, grads(i)));
    const queue = (optimizer: Made, i: number): ReturnType<Made["stepLater"]> => {
      giveGradients(optimizer, grads(i));
      return optimizer.stepLater();
    };
    const asked = [0, 1, 2, 3, 4].map((i) => queue(late, i));
    for (let i = 0; i < 5; i++) queue(never, i);
    assert.deepEqual([asked.map((report) => report()), asked[1]()], [reports, reports[1]]);
    for (const other of [late, never]) {
      assert.deepEqual(other.state(), waits.state());
      assert.deepEqual(bitsOf(other), bitsOf(waits));
    }
  }
});

Deno.test("averaged() gives the parameters at the first EMA rate, in the model's dtypes and without gradients", () => {
  for (const dtype of ["f32", "bf16"] as const) {
    const optimizer = make(dtype), start = optimizer.params.b.read();
    stepWith(optimizer, GRADS);
    const end = optimizer.params.b.read();
    step(() => {
      const { a, b, table } = optimizer.averaged();
      assertClose("b", b.read(), start.map((v, i) => (v + end[i]) / 2));
      assert.deepEqual([a.dtype, a.requiresGrad, table === optimizer.params.table], [dtype, false, true]);
    });
    assert.deepEqual(optimizer.params.b.read(), end);
  }
});

Deno.test("restore() after the tensors of a checkpoint goes on to the bit, also after a drop of the loss scale", () => {
  const folder = Deno.makeTempDirSync({ prefix: "espalier_optimizer_" });
  const grads = (i: number): { a: ArrayLike<number>; b: ArrayLike<number> } => ({ a: random(10 + i, 5), b: random(30 + i, 3) });
  try {
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      const config: Partial<OptimizerConfig> = { warmup: 4, clip: { maxNorm: 1, percentile: 95 }, weightDecay: 0.1 };
      const whole = make(dtype, config), again = make(dtype, config);
      for (let i = 0; i < 3; i++) stepWith(whole, i === 1 ? { a: grads(i).a, b: [Infinity, 0, 0] } : grads(i));
      stepWith(whole, { a: grads(0).a, b: [NaN, 0, 0] });
      assert.deepEqual([whole.state().applied, whole.state().skipped], [2, 1]);
      saveCheckpoint(folder, 3, { tensors: whole.tensors, state: whole.state(), keep: 1 });
      again.restore(loadCheckpoint(`${folder}/ckpts/step0000003.json`, again.tensors) as ReturnType<Made["state"]>);
      assert.deepEqual(bitsOf(again), bitsOf(whole));
      for (let i = 3; i < 6; i++) assert.deepEqual(stepWith(again, grads(i)), stepWith(whole, grads(i)));
      assert.deepEqual([bitsOf(again), again.state()], [bitsOf(whole), whole.state()]);
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
