import assert from "node:assert/strict";
import { initialize, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { type Adamw, type AdamwOptions, adamwStep, makeAdamw, readStats } from "../../lib/optim/adamw.ts";
import { makeEmas } from "../../lib/optim/ema.ts";
import { type FlatParameters, flattenParameters, freeParameters } from "../../lib/optim/parameters.ts";
import { device } from "../../lib/tensor/device.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { assertClose, random } from "../check.ts";

const OPTIONS = { lr: 1e-2, betas: [0.9, 0.999] as const, eps: 1e-8, weightDecay: 0.1 };

interface Setup {
  flat: FlatParameters;
  state: Adamw;
  /** Steps with these gradients. */
  step(grad: ArrayLike<number>): void;
}

function withAdamw<T>(size: number, dtype: FloatDType, options: AdamwOptions, body: (s: Setup) => T): T {
  const specs: Record<string, ParameterSpec> = {
    a: { shape: [size], dtype, init: { values: () => random(1, size) } },
    b: { shape: [3], dtype: "f32", init: { values: () => random(2, 3) } },
  };
  const { flat, params } = flattenParameters(specs, initialize(specs, new Generator(1)));
  const state = makeAdamw(flat.master.size, options), emas = makeEmas(flat.master, [0.5], options);
  const result = body({
    flat,
    state,
    step(grad) {
      flat.grad.write(Array.from({ length: flat.grad.size }, (_, i) => grad[i] ?? 0));
      adamwStep(flat, state, { ...OPTIONS, emas });
      readStats(state);
    },
  });
  freeParameters(flat, params);
  for (const t of [state.m, state.v, state.stats, ...Object.values(state.scales ?? {}), ...emas.map((e) => e.values)]) t.free();
  return result;
}

/** What codes of [0, 1] stand for, by the definition. */
function decode(code: number, low: number): number {
  const e = code >> 3, f = code & 7;
  return (e === 0 ? f * 2 ** -low : (8 + f) * 2 ** (e - 1 - low)) / 15;
}

function moments({ state }: Setup): { m: number[]; v: number[] } {
  const [m, v, ms, vs] = [state.m, state.v, state.scales!.m, state.scales!.v].map((t) => Array.from(t.read()));
  return {
    m: m.map((code, i) => (code & 0x80 ? -1 : 1) * decode(code & 0x7f, 14) * ms[i >> 7]),
    v: v.map((code, i) => decode(code, 30) * vs[i >> 7]),
  };
}

for (const [size, dtype] of [[1, "f32"], [130, "f32"], [1030, "bf16"], [1030, "f16"]] as const) {
  Deno.test(`the first step with 8-bit moments of ${size} ${dtype} parameters is AdamW's, and its codes are within a step of the moments`, () => {
    const grad = random(5, size + 16).map((v) => v * 10 ** (4 * v));
    const [plain, codes] = [false, true].map((codes) =>
      withAdamw(size, dtype, { codes }, (s) => {
        s.step(grad);
        return {
          p: s.flat.master.read(),
          copy: s.flat.copy?.read(),
          ...(codes ? moments(s) : { m: [...s.state.m.read()], v: [...s.state.v.read()] }),
        };
      })
    );
    assertClose("p", codes.p, plain.p, { rtol: 1e-6, atol: 1e-7 });
    if (plain.copy) assertClose("copy", codes.copy!, plain.copy, { rtol: 8e-3 });
    for (const [name, low] of [["m", 14], ["v", 30]] as const) {
      plain[name].forEach((want, i) => {
        const block = plain[name].slice(i >> 7 << 7, (i >> 7 << 7) + 128), most = block.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        const apart = Math.max(Math.abs(want) / 8, most * 2 ** -low / 15) * 1.001;
        assert.ok(Math.abs(codes[name][i] - want) <= apart, `${name}[${i}] is ${codes[name][i]}, it must be near ${want}`);
      });
    }
  });
}

Deno.test("8-bit moments are rounded without bias: means of many steps are the moments, and two runs agree to the bit", () => {
  const size = 1024, grad = random(6, size).map((v) => 1 + 0.5 * v);
  const run = () =>
    withAdamw(size, "f32", { codes: true }, (s) => {
      for (let t = 0; t < 300; t++) s.step(grad);
      return { ...moments(s), bits: [...s.state.m.read(), ...s.state.v.read(), ...s.flat.master.read()] };
    });
  const { m, v, bits } = run(),
    mean = (of: (i: number) => number): number => Array.from({ length: size }, (_, i) => of(i)).reduce((a, b) => a + b, 0) / size;
  assertClose("m", [mean((i) => m[i] / grad[i])], [1], { rtol: 1e-2 });
  assertClose("v", [mean((i) => v[i] / grad[i] ** 2)], [1 - 0.999 ** 300], { rtol: 2e-2 });
  assert.deepEqual(run().bits, bits);
});

Deno.test("training with 8-bit moments, or with moments and means in the host's memory, goes as with f32 on the device", () => {
  const size = 500, target = random(7, size), noise = (t: number) => random(100 + t, size);
  const train = (options: AdamwOptions): { loss: number; used: number } =>
    withAdamw(size, "f32", options, (s) => {
      const { used } = device().memory.use();
      for (let t = 0; t < 400; t++) {
        const p = s.flat.master.read(), e = noise(t);
        s.step(target.map((goal, i) => p[i] - goal + 0.1 * e[i]));
      }
      const p = s.flat.master.read();
      return { loss: target.reduce((sum, goal, i) => sum + (p[i] - goal) ** 2, 0) / size, used };
    });
  const plain = train({}), codes = train({ codes: true }), host = train({ onHost: true }), both = train({ codes: true, onHost: true });
  assert.ok(plain.loss < 5e-3 && codes.loss < 1.1 * plain.loss, `${codes.loss} with codes, ${plain.loss} without`);
  assert.deepEqual([host.loss, both.loss], [plain.loss, codes.loss]);
  assert.ok(codes.used < plain.used && host.used < codes.used);
});

Deno.test("a step with gradients that are not finite leaves 8-bit moments as they are", () => {
  withAdamw(200, "f32", { codes: true }, (s) => {
    s.step(random(8, 200));
    const before = [s.state.m, s.state.v, s.flat.master].map((t) => t.read());
    s.step([NaN]);
    assert.equal(readStats(s.state).finite, false);
    assert.deepEqual([s.state.m, s.state.v, s.flat.master].map((t) => t.read()), before);
  });
});
