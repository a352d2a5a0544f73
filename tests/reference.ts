/** Reference files made by the reference system; tests against them skip where they are absent. */
import { bytesToF32, type FloatDtype } from "../lib/io/half.ts";
import { openSafetensors, type SafetensorsFile } from "../lib/io/safetensors.ts";
import type { ParameterSpec } from "../lib/nn/parameters.ts";
import { leaves, mapLeaves, type Parameters } from "../lib/nn/parameters.ts";
import { persist } from "../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { assertClose, assertNear } from "./check.ts";

/** Where the reference files are: beside the project, or where ESPALIER_REFERENCE says. */
export const REFERENCE: string = Deno.env.get("ESPALIER_REFERENCE") ?? new URL("../../shared/reference", import.meta.url).pathname;

/** Whether a reference file is here. */
export function hasReference(name: string): boolean {
  try {
    return Deno.statSync(`${REFERENCE}/${name}`).isFile;
  } catch {
    return false;
  }
}

/** Registers a test that needs a reference file; the name says so where it is skipped. */
export function referenceTest(name: string, file: string, fn: (r: Reference) => void): void {
  const here = hasReference(file);
  Deno.test({
    name: here ? name : `${name} (skipped: ${file} is not here)`,
    ignore: !here,
    fn: () => {
      using stored = openSafetensors(`${REFERENCE}/${file}`);
      fn(new Reference(stored));
    },
  });
}

/** An open reference file. */
export class Reference {
  constructor(readonly file: SafetensorsFile) {}

  /** A JSON value of the metadata. */
  meta<T>(name: string): T {
    return JSON.parse(this.file.metadata[name]) as T;
  }

  /** The values of a stored tensor. */
  values(name: string): Float32Array<ArrayBuffer> {
    const t = this.file.tensors.get(name);
    if (!t) throw new Error(`Cannot read the reference: ${name} is missing`);
    return bytesToF32(t.bytes, t.dtype as FloatDtype);
  }

  shape(name: string): number[] {
    return this.file.tensors.get(name)!.shape;
  }

  /** A stored tensor on the device. */
  tensor(name: string, requiresGrad = false): Tensor {
    return tensor(this.values(name), this.shape(name), { requiresGrad });
  }

  /** All parameters of a model, from the tensors under `prefix`; every one must be stored and used. */
  parameters<S>(spec: S, prefix = "weights/"): Parameters<S> {
    const stored = new Set([...this.file.tensors.keys()].filter((n) => n.startsWith(prefix)));
    const params = persist(() =>
      mapLeaves(spec, (leaf, name) => {
        const key = prefix + name;
        if (!stored.delete(key)) throw new Error(`Cannot read the reference: ${key} is missing or used twice`);
        const want = (leaf as ParameterSpec).shape;
        if (`${this.shape(key)}` !== `${want}`) throw new Error(`${key} is [${this.shape(key)}], the model's is [${want}]`);
        const t = this.tensor(key);
        t.requiresGrad = !(leaf as ParameterSpec).buffer;
        return t;
      })
    );
    if (stored.size) throw new Error(`the model has no ${[...stored].join(", ")}`);
    return params;
  }

  /** Compares a tensor with a stored one, by the tensor's largest value. */
  expect(name: string, got: Tensor, tolerance = 2e-4): void {
    assertNear(name, got.read(), this.values(name), tolerance);
  }

  /**
   * Compares the gradient of every parameter that has a stored one, by the tensor's largest value. A gradient that is zero in exact arithmetic (a
   * bias before a norm that removes it) holds rounding errors alone: one below 1e-4 of the largest gradient is measured by that, and those of `zero`
   * by the largest gradient itself.
   */
  expectGradients(params: unknown, tolerance = 1e-3, zero: string[] = []): void {
    const wanted = [...this.file.tensors.keys()].filter((n) => n.startsWith("grads/")), known = new Map(leaves<Tensor>(params));
    if (wanted.length === 0) throw new Error("the reference stores no gradients");
    const largest = new Map(wanted.map((name) => [name, this.values(name).reduce((m, v) => Math.max(m, Math.abs(v)), 0)]));
    const most = Math.max(...largest.values()), floor = 1e-4 * most;
    for (const name of wanted) {
      const t = known.get(name.slice("grads/".length));
      if (!t?.grad) throw new Error(`${name}: the parameter has no gradient`);
      const scale = zero.includes(name.slice("grads/".length)) ? most : Math.max(largest.get(name)!, floor);
      assertClose(name, t.grad.read(), this.values(name), { rtol: 0, atol: tolerance * scale });
    }
  }
}
