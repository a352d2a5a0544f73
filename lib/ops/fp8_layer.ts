/**
 * Linear layers in 8-bit floats. Scales are powers of two, one a row. Those of the weights' rows, which the sum of the input's
 * gradient runs over, go into the rows of dy; those of the rows of x and dy, which the sum of the weights' gradient runs over, into the elements of x,
 * and those of w's rows out of dy again: none of it rounds again but for values too small to count. Nothing depends on earlier steps, so a pass that is run again
 * gives the same bits. A layer's three products are in 8 bits, but for the MLPs' forward products, which only `fp8` "all" has there.
 */
import { DTYPE } from "../tensor/dtype.ts";
import { rebuildable, unmade } from "../tensor/storage.ts";
import { isRecording, record, type SoFar } from "../tensor/tape.ts";
import { empty, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { takeColumnSums, wantColumnSums } from "./column_sums.ts";
import {
  canQuantizeRows,
  emptyQuantized,
  fp8Product,
  fp8Sum,
  freeQuantized,
  gradientOperands,
  type Operands,
  quantize,
  type Quantized,
  transposeQuantized,
} from "./fp8.ts";
import { PLAIN } from "./product.ts";
import { withWorkspace } from "./workspace.ts";

/** Extents of a layer of M rows from K to N channels. */
export type Extents = { M: number; N: number; K: number };

/** Results that were made in 8 bits, by the tensor that stands for them. */
const made = new WeakMap<Tensor, Quantized>();

/** How a result [N, C] is made in 8 bits. */
export interface EightBits {
  N: number;
  C: number;
  /** What the functions read. */
  from: (Tensor | null | undefined)[];
  /** Makes it for the first time, and in the dtype where `y` is there. */
  fill(to: Quantized, y: Tensor | null): void;
  /** Makes it again, to the bit. */
  again(to: Quantized): void;
  /** Writes it in the dtype. */
  wide(y: Tensor): void;
  /** Whether it is made in the dtype too, in the same pass; by default only where an op asks. */
  both?: boolean;
}

/** A tensor that stands for a result that is made in 8 bits, for {@linkcode fp8Linear} and its like. */
export function inEightBits(shape: readonly number[], dtype: Tensor["dtype"], { N, C, from, fill, again, wide, both }: EightBits): Tensor {
  const y = both ? empty(shape, dtype) : unmade(shape, dtype, { kind: "norm", from, fill: wide }), eight = emptyQuantized(N, C);
  fill(eight, both ? y : null);
  keptInEightBits(eight, from, again);
  made.set(y, eight);
  return y;
}

/** Says how values that a backward pass may want are made again. */
function keptInEightBits({ values }: Quantized, from: (Tensor | null | undefined)[], again: (to: Quantized) => void): void {
  if (!isRecording()) return;
  rebuildable(values, { kind: "fp8", from, fill: (values) => again({ values, scale: empty([values.shape[0]]) }) });
}

/** Rounds x [..., C] once for all layers in fp8 that are to read it: what they read lives as long as x's scope, or as ops keep it. */
export function roundOnce(x: Tensor): void {
  const C = x.shape.at(-1)!, N = x.size / C;
  if (canQuantizeRows(x.dtype, N, C)) made.set(x, quantize(x, [N, C]));
}

/** x [N, C] in 8 bits: as it was made, or rounded here. */
export function rounded(x: Tensor, [N, C]: [N: number, C: number]): Quantized {
  const known = made.get(x);
  if (known && !known.values.freed) return known;
  const eight = quantize(x, [N, C]);
  keptInEightBits(eight, [x], (to) => void quantize(x, [N, C], {}, to));
  return eight;
}

/** dx = dy w, sums kept to 14 bits: `dy` was multiplied by the scales of w's rows before it was rounded. Frees wt [K, N], the transpose of w. */
function inputGradient(dx: Tensor, dy: Quantized, wt: Tensor, { M, N, K }: Extents): void {
  fp8Product({ ...PLAIN, y: dx, M, N: K, K: N }, dy, { values: wt, scale: null }, true);
  wt.free();
}

/**
 * dw = dyᵀ x [N, K] in f32, added to the parameter's gradient where there is one (written over one that is outdated). Frees the operands.
 */
function weightGradient(w: Tensor, { dy, x, scale }: Operands, { N, K }: Extents, soFar: SoFar): Tensor {
  const there = soFar.write(w), dw = there?.grad ?? empty([N, K]);
  fp8Sum({ ...PLAIN, y: dw, M: N, N: K, K: dy.shape[1], adds: there?.outdated === false }, [dy, x], scale);
  for (const t of [dy, x, scale]) t.free();
  return dw;
}

/** The gradients of x and w of a layer, where they are wanted. */
function gradients(
  x: Tensor,
  w: Tensor,
  [dy, x8, w8]: [dy: Quantized, x: Quantized, w: Quantized],
  extents: Extents,
  soFar: SoFar,
): [dx: Tensor | null, dw: Tensor | null] {
  const operands = w.requiresGrad ? gradientOperands(dy, x8, w8.scale, x.requiresGrad ? w8.values : null) : null;
  const dw = operands && weightGradient(w, operands, extents, soFar), dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
  if (dx) inputGradient(dx, dy, operands?.w ?? transposeQuantized(w8.values), extents);
  return [dx, dw];
}

/** The tensors of some, one after the other. */
export const parts = (...all: Quantized[]): Tensor[] => all.flatMap(({ values, scale }) => [values, scale]);

/** Room for the gradient of a bias that wants one. */
const biasGradient = (b: Tensor | null | undefined, soFar: SoFar): Tensor | null => b?.requiresGrad ? soFar.fresh(b) : null;

/** dy [M, N] in 8 bits, times the scales of w's rows, and the gradient of the bias: what dy's maker summed on its way, or summed here. */
function roundedGradient(
  dy: Tensor,
  { M, N }: Extents,
  scales: Tensor,
  b: Tensor | null | undefined,
  soFar: SoFar,
): [dy: Quantized, db: Tensor | null] {
  const known = b?.requiresGrad ? takeColumnSums(dy) : null, sums = known ? null : biasGradient(b, soFar);
  return [quantize(dy, [M, N], { columns: scales, sums }), known ?? sums];
}

/** `x wᵀ + b` over the last axis. */
export function fp8Linear(x: Tensor, w: Tensor, b: Tensor | null | undefined, extents: Extents): Tensor {
  const { M, N, K } = extents, x8 = rounded(x, [M, K]), w8 = quantize(w, [N, K]), y = empty([...x.shape.slice(0, -1), N], x.dtype);
  const fill = (y: Tensor): void => fp8Product({ ...PLAIN, y, M, N, K, bias: b ?? undefined }, x8, w8);
  fill(y);
  record("linear", y, [x, w, b], [w, ...parts(x8, w8)], (dy, soFar) => {
    const [dy8, db] = roundedGradient(dy, extents, w8.scale, b, soFar);
    return [...gradients(x, w, [dy8, x8, w8], extents, soFar), db];
  }, { kind: "linear", from: [...parts(x8, w8), b], fill });
  if (b?.requiresGrad) wantColumnSums(y);
  return y;
}

/** What the backward pass of two layers with a GELU between them has in 8 bits from the forward pass: x, and the weights if they were rounded there. */
export interface FeedForwardInEightBits {
  x: Quantized;
  w1?: Quantized;
  w2?: Quantized;
}

/** The gradients of x, w1, b1, w2, b2 of two layers x [..., K] through z [..., N] and gelu(z) to P channels: all four products in 8 bits. */
export function fp8FeedForwardBackward(
  dy: Tensor,
  [x, z]: [x: Tensor, z: Tensor],
  [w1, b1]: [w: Tensor, b: Tensor],
  [w2, b2]: [w: Tensor, b: Tensor],
  eight: FeedForwardInEightBits,
  [up, down]: [Extents, Extents],
  soFar: SoFar,
): (Tensor | null)[] {
  const { M, N, K } = up, u8 = eight.w1 ?? quantize(w1, [N, K]), d8 = eight.w2 ?? quantize(w2, [down.N, N]);
  const db1 = biasGradient(b1, soFar), [dy8, db2] = roundedGradient(dy, down, d8.scale, b2, soFar);
  const dg = empty(z.shape, z.dtype), dz8 = emptyQuantized(M, N), g8 = emptyQuantized(M, N);
  inputGradient(dg, dy8, transposeQuantized(d8.values), down);
  geluBackward([dz8, g8, db1], dg, z, u8.scale, up);
  dg.free();
  const dw2 = w2.requiresGrad ? weightGradient(w2, gradientOperands(dy8, g8, d8.scale), down, soFar) : null;
  freeQuantized(g8, dy8);
  const [dx, dw1] = gradients(x, w1, [dz8, eight.x, u8], up, soFar);
  return [dx, dw1, db1, dw2, db2];
}

/** Two layers and the tanh-GELU between them, all six products in 8 bits. What is kept is x in 8 bits and what the GELU is applied to. */
export function fp8FeedForward(
  x: Tensor,
  [w1, b1]: [w: Tensor, b: Tensor],
  [w2, b2]: [w: Tensor, b: Tensor],
  [up, down]: [Extents, Extents],
): Tensor {
  const { M, N, K } = up, P = down.N, lead = x.shape.slice(0, -1), x8 = rounded(x, [M, K]), inputs = [x, w1, b1, w2, b2];
  const u8 = quantize(w1, [N, K]), d8 = quantize(w2, [P, N]), z = empty([...lead, N], x.dtype), y = empty([...lead, P], x.dtype);
  const fillZ = (z: Tensor): void => fp8Product({ ...PLAIN, y: z, M, N, K, bias: b1 }, x8, u8);
  const fill = (y: Tensor): void => {
    const g8 = quantize(z, [M, N], { activation: "gelu" });
    fp8Product({ ...PLAIN, y, M, N: P, K: N, bias: b2 }, g8, d8);
    freeQuantized(g8);
  };
  fillZ(z);
  fill(y);
  if (!isRecording() || !inputs.some((t) => t.requiresGrad)) {
    z.free();
    return y;
  }
  rebuildable(z, { kind: "linear", from: [...parts(x8, u8), b1], fill: fillZ });
  record(
    "feedForward",
    y,
    inputs,
    [w1, w2, z, ...parts(x8, u8, d8)],
    (dy, soFar) => fp8FeedForwardBackward(dy, [x, z], [w1, b1], [w2, b2], { x: x8, w1: u8, w2: d8 }, [up, down], soFar),
    { kind: "linear", from: [z, b2, ...parts(d8)], fill },
  );
  if (b2.requiresGrad) wantColumnSums(y);
  return y;
}

/** From the gradient dg of gelu(z): that of z times `columns`, and gelu(z), in 8 bits, and the sums of the first's rows, without columns. */
function geluBackward(
  [dz, g, db]: [dz: Quantized, g: Quantized, db: Tensor | null],
  dg: Tensor,
  z: Tensor,
  columns: Tensor,
  { M, N }: Extents,
): void {
  const k = kernels(), to = [...parts(dz, g), db].map((t) => t?.addr ?? 0n) as [bigint, bigint, bigint, bigint, bigint];
  withWorkspace(
    (bytes) => k.k_fp8_gelu_bwd_workspace(bytes, M, N),
    (scratch) => k.k_fp8_gelu_bwd(...to, dg.addr, z.addr, columns.addr, scratch, M, N, DTYPE[z.dtype], stream()),
  );
}
