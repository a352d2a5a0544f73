import assert from "node:assert/strict";
import type { ParameterSpec } from "../../lib/nn/parameters.ts";
import { initialize } from "../../lib/nn/parameters.ts";
import { type Adamw, adamwStep, type AdamwStepOptions, makeAdamw, readStats } from "../../lib/optim/adamw.ts";
import { type Ema, makeEmas } from "../../lib/optim/ema.ts";
import { type FlatBuffers, flattenParameters, freeParameters } from "../../lib/optim/parameters.ts";
import { type FloatDType, fromBf16, toBf16 } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";

/** AdamW in f64, one parameter vector. */
class Reference {
  p: Float64Array;
  m: Float64Array;
  v: Float64Array;
  emas: Float64Array[];
  applied = 0;

  constructor(p: ArrayLike<number>, readonly rates: number[]) {
    this.p = Float64Array.from(p);
    this.m = new Float64Array(p.length);
    this.v = new Float64Array(p.length);
    this.emas = rates.map(() => Float64Array.from(p));
  }

  step(grad: ArrayLike<number>, o: Required<Omit<AdamwStepOptions, "emas" | "zeroGrad">>): { norm: number; finite: boolean } {
    const g = Float64Array.from(grad, (v) => v * o.unscale), norm = Math.sqrt(g.reduce((s, v) => s + v * v, 0)), [b1, b2] = o.betas;
    const finite = g.every(Number.isFinite);
    if (finite) {
      const t = ++this.applied, clip = o.maxNorm > 0 ? Math.min(1, o.maxNorm / (norm + 1e-6)) : 1;
      for (let i = 0; i < g.length; i++) {
        const d = g[i] * clip;
        this.m[i] = b1 * this.m[i] + (1 - b1) * d;
        this.v[i] = b2 * this.v[i] + (1 - b2) * d * d;
        this.p[i] -= o.lr * o.weightDecay * this.p[i];
        this.p[i] -= o.lr * (this.m[i] / (1 - b1 ** t)) / (Math.sqrt(this.v[i] / (1 - b2 ** t)) + o.eps);
      }
    }
    this.emas.forEach((e, j) => e.forEach((_, i) => e[i] = this.rates[j] * e[i] + (1 - this.rates[j]) * this.p[i]));
    return { norm, finite };
  }
}

interface Setup {
  flat: FlatBuffers;
  state: Adamw;
  emas: Ema[];
  reference: Reference;
}

/** A model of one parameter of `size` elements in `dtype` and one f32 parameter. */
function withOptimizer(size: number, dtype: FloatDType, rates: number[], body: (s: Setup) => void): void {
  const specs: Record<string, ParameterSpec> = {
    a: { shape: [size], dtype, init: { values: () => random(1, size) } },
    b: { shape: [3], dtype: "f32", init: { values: () => random(2, 3) } },
  };
  const { flat, params } = flattenParameters(specs, initialize(specs, new Generator(1)));
  const state = makeAdamw(flat.master.size), emas = makeEmas(flat.master, rates);
  body({ flat, state, emas, reference: new Reference(flat.master.read(), rates) });
  freeParameters(flat, params);
  for (const t of [state.m, state.v, state.stats, ...emas.map((e) => e.values)]) t.free();
}

function compare({ flat, state, emas, reference }: Setup): void {
  assertClose("p", flat.master.read(), reference.p, { rtol: 1e-5, atol: 1e-6 });
  assertClose("m", state.m.read(), reference.m, { rtol: 1e-5, atol: 1e-7 });
  assertClose("v", state.v.read(), reference.v, { rtol: 1e-5, atol: 1e-9 });
  emas.forEach((e, j) => assertClose(`ema ${e.rate}`, e.values.read(), reference.emas[j], { rtol: 1e-5, atol: 1e-6 }));
}

const OPTIONS = { lr: 1e-2, betas: [0.9, 0.999] as const, eps: 1e-8, weightDecay: 0.1, maxNorm: 0, unscale: 1 };

for (const [size, dtype] of [[1, "f32"], [33, "f32"], [1030, "bf16"], [1030, "f16"]] as const) {
  Deno.test(`adamwStep() follows the definition over steps of ${size} ${dtype} parameters, with clipping, unscaling and EMAs`, () => {
    withOptimizer(size, dtype, [0.9999, 0.5], (s) => {
      for (let i = 0; i < 6; i++) {
        const maxNorm = [0, 0.5, Infinity, 1e6, 0.01, 2][i], unscale = [1, 2 ** -10, 1, 0.25, 1, 1][i];
        const grad = random(10 + i, s.flat.grad.size).map((v) => v / unscale),
          options = { ...OPTIONS, lr: 1e-2 / (i + 1), maxNorm, unscale };
        s.flat.grad.write(grad);
        adamwStep(s.flat, s.state, { ...options, emas: s.emas });
        const want = s.reference.step(grad, options), got = readStats(s.state);
        assert.ok(Math.abs(got.norm - want.norm) < 1e-5 * want.norm, `${got.norm}, ${want.norm}`);
        assert.equal(got.finite, true);
        assert.ok(s.flat.grad.read().every((v) => v === 0), "gradients are 0 again");
      }
      compare(s);
      if (s.flat.copy) {
        const p = s.flat.master.read().subarray(0, s.flat.copy.size);
        assert.deepEqual(s.flat.copy.read(), dtype === "f16" ? Float32Array.from(Float16Array.from(p)) : fromBf16(toBf16(p)));
      }
      assert.equal(s.state.applied, 6);
    });
  });
}

Deno.test("adamwStep() skips steps whose gradients are not finite, but not their EMAs, and counts the others exactly", () => {
  withOptimizer(70, "bf16", [0.9], (s) => {
    const bad = new Map([[0, NaN], [2, Infinity], [3, -Infinity]]);
    for (let i = 0; i < 6; i++) {
      const grad = random(20 + i, s.flat.grad.size);
      if (bad.has(i)) grad[i * 13] = bad.get(i)!;
      s.flat.grad.write(grad);
      const before = s.flat.copy!.read();
      adamwStep(s.flat, s.state, { ...OPTIONS, maxNorm: 1, emas: s.emas });
      const { finite } = s.reference.step(grad, { ...OPTIONS, maxNorm: 1 });
      if (i % 2) { // every second step is read only when the next one begins
        assert.equal(readStats(s.state).finite, finite);
        assert.equal(Number.isFinite(readStats(s.state).norm), finite);
      }
      if (!finite) assert.deepEqual(s.flat.copy!.read(), before);
      assert.ok(s.flat.grad.read().every((v) => v === 0));
    }
    readStats(s.state);
    assert.equal(s.state.applied, 3);
    compare(s);
  });
});

Deno.test("adamwStep() keeps the gradients where it is told to, and its default options are PyTorch's", () => {
  withOptimizer(5, "f32", [], (s) => {
    const grad = random(3, s.flat.grad.size);
    s.flat.grad.write(grad);
    adamwStep(s.flat, s.state, { lr: 1e-3, zeroGrad: false });
    assert.deepEqual(s.flat.grad.read(), grad);
    s.reference.step(grad, { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxNorm: 0, unscale: 1 });
    compare(s);
  });
});

for (const [n, half] of [[1, 1], [7, 3], [1031, 518]]) {
  Deno.test(`adamwStep() takes buffers of any length: ${n}, the first ${half} with bf16 copies`, () => {
    step(() => {
      const master = tensor(random(1, n), [n]), grad = tensor(random(2, n), [n]), copy = zeros([half], "bf16");
      const flat = { master, grad, copy }, state = makeAdamw(flat.master.size), emas = makeEmas(flat.master, [0.9]);
      const reference = new Reference(master.read(), [0.9]), options = { ...OPTIONS, maxNorm: 0.5 };
      const want = reference.step(grad.read(), options);
      adamwStep(flat, state, { ...options, emas });
      assertClose("norm", [readStats(state).norm], [want.norm]);
      compare({ flat, state, emas, reference });
      assert.deepEqual(copy.read(), fromBf16(toBf16(master.read().subarray(0, half))));
      for (const t of [state.m, state.v, state.stats, emas[0].values]) t.free();
    });
  });
}

Deno.test("adamwStep() twice from the same state agrees to the bit", () => {
  const run = () => {
    let out: Float32Array[] = [];
    withOptimizer(40000, "f32", [0.99], (s) => {
      s.flat.grad.write(random(5, s.flat.grad.size));
      adamwStep(s.flat, s.state, { ...OPTIONS, maxNorm: 1, emas: s.emas });
      out = [s.flat.master.read(), s.state.m.read(), s.state.v.read(), s.emas[0].values.read(), s.state.stats.read()];
    });
    return out;
  };
  assert.deepEqual(run(), run());
});
