/**
 * Parameters as plain records. A model first describes them (a tree of {@linkcode ParameterSpec}, which costs nothing and lists names, shapes and
 * dtypes) and then makes them (the same tree of tensors). The path of a leaf, joined by dots, is its key in a checkpoint.
 */
import { device } from "../tensor/device.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import type { Generator } from "../tensor/random.ts";
import { persist } from "../tensor/scope.ts";
import { empty, sizeOf, Tensor, tensor } from "../tensor/tensor.ts";

/** How a parameter starts: a constant, U(-bound, bound), N(0, std²), or given values. */
export type Init = { fill: number } | { uniform: number } | { normal: number } | { values: () => Float32Array<ArrayBuffer> };

/** One parameter before it exists. */
export interface ParameterSpec {
  shape: readonly number[];
  dtype: FloatDType;
  init: Init;
  /** Part of the checkpoint, but not trained. */
  buffer?: boolean;
}

/** A tree with leaves `L`: records and arrays, to any depth; absent parts are undefined. */
export type Tree<L> = L | undefined | Tree<L>[] | { [name: string]: Tree<L> };

/** The tree of tensors that a tree of specs describes. */
export type Parameters<S> = S extends ParameterSpec ? Tensor
  : S extends undefined ? undefined
  : S extends (infer E)[] ? Parameters<E>[]
  : { [K in keyof S]: Parameters<S[K]> };

function isSpec(value: unknown): value is ParameterSpec {
  return typeof value === "object" && value !== null && "init" in value && "dtype" in value;
}

/** The leaves of a tree of specs or tensors, with their paths, in order. */
export function leaves<L extends ParameterSpec | Tensor>(tree: unknown, prefix = ""): [path: string, leaf: L][] {
  if (tree === undefined) return [];
  if (tree instanceof Tensor || isSpec(tree)) return [[prefix, tree as L]];
  if (typeof tree !== "object" || tree === null) {
    throw new TypeError(`Cannot list parameters: ${prefix} is ${tree}, it must be a record, an array or a leaf`);
  }
  return Object.entries(tree).flatMap(([name, value]) => leaves<L>(value, prefix ? `${prefix}.${name}` : name));
}

/** The same tree with each leaf replaced. */
export function mapLeaves<S>(tree: S, replace: (leaf: ParameterSpec | Tensor, path: string) => Tensor, prefix = ""): Parameters<S> {
  if (tree === undefined) return undefined as Parameters<S>;
  if (tree instanceof Tensor || isSpec(tree)) return replace(tree, prefix) as Parameters<S>;
  const entries = Object.entries(tree as object).map(([k, v]) => [k, mapLeaves(v, replace, prefix ? `${prefix}.${k}` : k)] as const);
  return (Array.isArray(tree) ? entries.map(([, v]) => v) : Object.fromEntries(entries)) as Parameters<S>;
}

/** Frees every tensor of a tree. */
export function freeLeaves(tree: unknown): void {
  for (const [, t] of leaves<Tensor>(tree)) t.free();
}

/** How many values the trained parameters of a tree of specs have. */
export function countParameters(spec: unknown): number {
  return leaves<ParameterSpec>(spec).filter(([, s]) => !s.buffer).reduce((sum, [, s]) => sum + sizeOf(s.shape), 0);
}

function make(spec: ParameterSpec, random: Generator): Tensor {
  const { shape, dtype, init } = spec;
  if ("values" in init) return tensor(init.values(), shape, { dtype });
  if ("fill" in init) {
    const t = empty(shape, dtype);
    if (init.fill === 0 && t.size) device().memory.zero(t.addr, t.bytes);
    else t.write(new Float32Array(t.size).fill(init.fill));
    return t;
  }
  if ("uniform" in init) return random.uniform(shape, { low: -init.uniform, high: init.uniform, dtype });
  const drawn = random.normal(shape), values = drawn.read();
  drawn.free();
  for (let i = 0; i < values.length; i++) values[i] *= init.normal;
  return tensor(values, shape, { dtype });
}

/** Makes the parameters of a tree of specs; they live until they are freed by hand. */
export function initialize<S>(spec: S, random: Generator): Parameters<S> {
  return persist(() => mapLeaves(spec, (leaf) => make(leaf as ParameterSpec, random)));
}

/** The bound of a xavier-uniform matrix [out, in] (Glorot and Bengio 2010). */
export function xavierBound(fanIn: number, fanOut: number): number {
  return Math.sqrt(6 / (fanIn + fanOut));
}
