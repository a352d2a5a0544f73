/**
 * Flat parameters. Training keeps one f32 master buffer of all trained parameters, one f32 gradient buffer, and one buffer of 16-bit
 * copies; the model's tensors are views of them. So one kernel steps the optimizer, one all-reduce shares the gradients, and nothing is
 * copied around.
 */
import { leaves, mapLeaves, type Parameters, type ParameterSpec } from "../nn/parameters.ts";
import { device } from "../tensor/device.ts";
import { DTYPE, type FloatDType } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import { parameter } from "../tensor/tape.ts";
import { empty, kernels, stream, type Tensor, zeros } from "../tensor/tensor.ts";

/** Every parameter starts at a multiple of this many elements, so that kernels may move 16 bytes at a time. */
export const ALIGNMENT = 8;

/** Where a parameter lies in the flat buffers. */
export interface FlatEntry {
  /** The path in the model, joined by dots: its key in a checkpoint. */
  name: string;
  shape: readonly number[];
  /** The dtype that the model computes with. */
  dtype: FloatDType;
  /** The first element in `master` and `grad`, and in `copy` where the dtype has 16 bits. */
  offset: number;
}

/** Masters, gradients and 16-bit copies of as many values; the copies are those of the first ones. */
export interface FlatBuffers {
  /** [n] f32. */
  master: Tensor;
  /** [n] f32, laid out as `master`: backward passes add to it, the optimizer sets it back to 0. */
  grad: Tensor;
  copy: Tensor | null;
}

/** The flat buffers of a model: the 16-bit parameters first, then the f32 ones, which the model sees in `master`. They live until {@linkcode freeParameters}. */
export interface FlatParameters extends FlatBuffers {
  /** The trained parameters in the order of the model. */
  entries: FlatEntry[];
  /** Where the f32 parameters begin. */
  boundary: number;
}

/** Options of {@linkcode flattenParameters}. */
export interface FlatOptions {
  /** What the sizes of the 16-bit part and of the f32 part are multiples of. */
  unit?: number;
  /** Whether `master` has the f32 parameters alone: the masters of the others are elsewhere. */
  wideOnly?: boolean;
}

/** Where parameters lie: `boundary` and `size` are as {@linkcode FlatOptions} says. */
function layOut(trained: [name: string, t: Tensor][], unit: number): { entries: FlatEntry[]; boundary: number; size: number } {
  const half = trained.find(([, t]) => t.dtype !== "f32");
  const offsets = new Map<string, number>();
  let size = 0, boundary = 0;
  for (const wide of [false, true]) {
    for (const [name, t] of trained) {
      if (t.dtype !== "f32" && t.dtype !== half![1].dtype) {
        throw new TypeError(
          `Cannot lay out parameters: ${name} is ${t.dtype} and ${half![0]} ${half![1].dtype}, 16-bit ones must be alike`,
        );
      }
      if ((t.dtype === "f32") !== wide) continue;
      offsets.set(name, size);
      size += Math.ceil(t.size / ALIGNMENT) * ALIGNMENT;
    }
    size = Math.ceil(size / unit) * unit;
    if (!wide) boundary = size;
  }
  const entries = trained.map(([name, t]) => ({ name, shape: t.shape, dtype: t.dtype as FloatDType, offset: offsets.get(name)! }));
  return { entries, boundary, size };
}

/**
 * Moves the trained parameters of `params` (a tree as `specs` describes; buffers stay as they are) into flat buffers. Returns these and the
 * tree that sees them, whose tensors accumulate gradients in `grad`; the tensors given are freed. Masters of 16-bit parameters start as
 * their values.
 */
export function flattenParameters<S>(
  specs: S,
  params: Parameters<S>,
  { unit = ALIGNMENT, wideOnly = false }: FlatOptions = {},
): { flat: FlatParameters; params: Parameters<S> } {
  const tensors = new Map(leaves<Tensor>(params));
  const trained = leaves<ParameterSpec>(specs).filter(([, spec]) => !spec.buffer).map(([name]): [string, Tensor] => {
    const t = tensors.get(name);
    if (!t) throw new Error(`Cannot lay out parameters: ${name} is missing, it must be in the tree of tensors`);
    return [name, t];
  });
  const { entries, boundary, size } = layOut(trained, unit), first = wideOnly ? boundary : 0;
  return persist(() => {
    const master = zeros([size - first]), grad = zeros([size]), half = entries.find((e) => e.dtype !== "f32");
    const copy = half ? zeros([boundary], half.dtype) : null, flat = { entries, boundary, master, grad, copy };
    const moved = new Map(entries.map((entry) => {
      const { name, shape, dtype, offset } = entry, from = tensors.get(name)!;
      if (offset >= first) {
        const to = master.view(shape, { offset: offset - first });
        castInto(to, from);
        if (dtype === "f32") {
          from.free();
          return [name, parameter(to, grad.view(shape, { offset }))];
        }
        to.free();
      }
      const seen = copy!.view(shape, { offset });
      device().memory.copy(seen.addr, from.addr, from.bytes);
      from.free();
      return [name, parameter(seen, grad.view(shape, { offset }))];
    }));
    return { flat, params: mapLeaves(specs, (_, name) => moved.get(name) ?? tensors.get(name)!) };
  });
}

/** Rounds the masters into the model's 16-bit parameters: after the masters were written by anything but the optimizer. */
export function refreshCopy({ master, copy }: FlatBuffers): void {
  if (copy) castInto(copy, master);
}

/** Rounds the first values of `from` to those of `to`. */
export function castInto(to: Tensor, from: Tensor): void {
  kernels().k_cast_fwd(to.addr, from.addr, BigInt(to.size), DTYPE[to.dtype], DTYPE[from.dtype], stream());
}

/**
 * The parts of a flat f32 buffer (`master`, `grad`, an optimizer's state, an EMA) by the parameter's name after `prefix`, as checkpoints
 * keep them. Views in the caller's scope: writing to them writes to the buffer.
 */
export function namedViews({ entries }: FlatParameters, buffer: Tensor, prefix = ""): Record<string, Tensor> {
  return Object.fromEntries(entries.map(({ name, shape, offset }) => [prefix + name, buffer.view(shape, { offset })]));
}

/**
 * The model with its trained parameters taken from another flat f32 buffer, such as an EMA: f32 ones see the buffer, 16-bit ones are
 * rounded copies. They need no gradients and live in the caller's scope; buffers are those of `params`.
 */
export function parametersFrom<P>({ entries, copy }: FlatParameters, params: P, source: Tensor): P {
  const half = copy && empty(copy.shape, copy.dtype);
  if (half) castInto(half, source);
  const made = new Map(
    entries.map(({ name, shape, dtype, offset }) => [name, (dtype === "f32" ? source : half!).view(shape, { offset })]),
  );
  half?.free(); // the views hold its memory
  return mapLeaves(params, (t, name) => made.get(name) ?? t as Tensor) as P;
}

/** Gives the buffers back, with every tensor of the tree that {@linkcode flattenParameters} returned. */
export function freeParameters({ master, grad, copy }: FlatParameters, params: unknown): void {
  for (const [, t] of leaves<Tensor>(params)) {
    t.grad?.free();
    t.free();
  }
  for (const t of [master, grad, copy]) t?.free();
}
