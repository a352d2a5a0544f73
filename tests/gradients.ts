/** Gradients of whole layers and models: too many values to difference one by one, so along random directions of each parameter. */
import { leaves, type ParameterSpec } from "../lib/nn/parameters.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { random } from "./check.ts";

/** Fills a tree of parameters with random values, as large as a layer needs to be neither flat nor steep: nothing stays at zero. */
export function randomize(params: unknown, spec: unknown, seed = 1): void {
  const specs = new Map(leaves<ParameterSpec>(spec));
  leaves<Tensor>(params).forEach(([path, t], i) => {
    const { init, shape, buffer } = specs.get(path)!, base = "fill" in init ? init.fill : 0;
    if (buffer) return;
    const size = shape.length > 1 && base === 0 ? Math.sqrt(3 * shape[0] / t.size) : 0.3;
    t.write(random(seed + i, t.size).map((v) => base + size * v));
  });
}

/** Every trained tensor of a tree by its path, and asks for its gradient. */
export function trained(params: unknown, spec: unknown): Record<string, Tensor> {
  const buffers = new Set(leaves<ParameterSpec>(spec).filter(([, s]) => s.buffer).map(([path]) => path));
  const list = leaves<Tensor>(params).filter(([path]) => !buffers.has(path));
  for (const [, t] of list) t.requiresGrad = true;
  return Object.fromEntries(list);
}

/** The output of `run` dotted with fixed random numbers, in f64. */
function probe(run: () => Tensor): number {
  return step(() =>
    noGrad(() => {
      const y = run().read(), weights = random(90, y.length);
      let sum = 0;
      for (let j = 0; j < y.length; j++) sum += y[j] * weights[j];
      return sum;
    })
  );
}

/** The gradients of {@linkcode probe} by the tape. */
export function gradientsOf(wrt: Record<string, Tensor>, run: () => Tensor): Record<string, Float32Array> {
  return step(() => {
    const y = run();
    backward(y, tensor(random(90, y.size), y.shape, { dtype: y.dtype }));
    const grads = Object.entries(wrt).map(([name, t]) => {
      if (!t.grad) throw new Error(`${name} has no gradient`);
      const values = t.grad.read();
      t.grad = null;
      return [name, values] as const;
    });
    return Object.fromEntries(grads);
  });
}

/** Throws where arrays by name are not equal to the bit, with the first difference: a whole diff of so many numbers would take minutes. */
export function expectSameBits(got: Record<string, Float32Array>, want: Record<string, Float32Array>, what: string): void {
  const names = Object.keys(want);
  if (Object.keys(got).join() !== names.join()) throw new Error(`${what}: there are ${Object.keys(got)}, there must be ${names}`);
  for (const name of names) {
    const a = got[name], b = want[name], at = a.findIndex((v, i) => !Object.is(v, b[i]));
    if (a.length !== b.length) throw new Error(`${what}: ${name} has ${a.length} values, there must be ${b.length}`);
    if (at >= 0) throw new Error(`${what}: ${name} [${at}] is ${a[at]}, it must be ${b[at]}`);
  }
}

/**
 * Compares the gradient of each of `wrt` with central differences (of fourth order) of the output of `run` along two random directions of signs:
 * along one of them the derivative is about as large as the gradient's norm, so an error anywhere in the gradient shows.
 */
export function checkGradients(wrt: Record<string, Tensor>, run: () => Tensor, { h = 1e-3, tolerance = 1e-2 } = {}): void {
  const grads = gradientsOf(wrt, run);
  Object.entries(wrt).forEach(([name, t], i) => {
    const g = grads[name], before = t.read(), norm = Math.hypot(...g);
    if (!(norm > 1e-6)) throw new Error(`${name}: the norm of its gradient is ${norm}, the test says nothing`);
    for (const seed of [0, 1]) {
      const signs = random(1000 + 2 * i + seed, t.size).map(Math.sign),
        at = (by: number): number => {
          t.write(before.map((v, j) => v + by * signs[j]));
          return probe(run);
        };
      const got = g.reduce((sum, v, j) => sum + v * signs[j], 0), want = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      t.write(before);
      if (!(Math.abs(got - want) <= tolerance * norm)) {
        throw new Error(`${name}: along direction ${seed} the gradient is ${got}, it must be ${want} (its norm is ${norm})`);
      }
    }
  });
}
