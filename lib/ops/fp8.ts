/**
 * Matrices in 8-bit floats (E4M3) with a scale for each row, a power of two: on Hopper's tensor cores their products are twice as fast as in 16 bits.
 * The CPU emulates the rounding.
 */
import { device } from "../tensor/device.ts";
import { DTYPE, type DType, type FloatDType } from "../tensor/dtype.ts";
import { empty, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { full } from "./cast.ts";
import { onceADevice, type Product, product, runCublasLt } from "./product.ts";
import { withWorkspace } from "./workspace.ts";

/** Codes of `kernels/include/fp8.h`. */
const ACT = { none: 0, gelu: 1 } as const;

/** Scratch of `k_fp8_operands_fwd`. */
const CELLS = 64;

/** The most channels of a row that is quantized. */
const MOST = 8192;

/** A matrix in 8-bit floats. */
export interface Quantized {
  /** [N, C] u8, the bits of E4M3. */
  values: Tensor;
  /** What each row is multiplied by, [N] f32: powers of two. */
  scale: Tensor;
}

/** Options of {@linkcode quantize}. */
export interface QuantizeOptions {
  /** Applied first. */
  activation?: keyof typeof ACT;
  /** [C] f32, multiplied in first. */
  columns?: Tensor;
  /** [C] f32: becomes the sums of x's columns, without `columns`; not with an activation. */
  sums?: Tensor | null;
}

/** Room for a matrix of N rows and C columns. */
export function emptyQuantized(N: number, C: number): Quantized {
  return { values: empty([N, C], "u8"), scale: empty([N]) };
}

/** Frees both parts. */
export function freeQuantized(...all: Quantized[]): void {
  for (const { values, scale } of all) values.free(), scale.free();
}

/**
 * The rows [N, C] of x in 8-bit floats: each is divided by the least power of two that brings its largest value to at most 448, and rounded to nearest
 * even. No gradient flows.
 */
export function quantize(x: Tensor, [N, C]: [N: number, C: number], options: QuantizeOptions = {}, to = emptyQuantized(N, C)): Quantized {
  const { activation = "none", columns, sums } = options, k = kernels(), { values, scale } = to;
  const run = (scratch: bigint): void =>
    k.k_fp8_quantize_fwd(
      ...[values.addr, scale.addr, sums?.addr ?? 0n, x.addr, columns?.addr ?? 0n, scratch] as const,
      ...[N, C, ACT[activation], DTYPE[x.dtype], stream()] as const,
    );
  if (sums) withWorkspace((bytes) => k.k_fp8_quantize_workspace(bytes, N, C), run);
  else run(0n);
  return to;
}

/** Columns of the transpose of N rows. */
function paddedRows(N: number): number {
  return Math.ceil(N / 16) * 16;
}

/** The values [N, C] in `dtype`; without a scale those of E4M3 as they are. */
export function dequantize(values: Tensor, scale: Tensor | null, dtype: FloatDType = "f32"): Tensor {
  const [N, C] = values.shape, y = empty([N, C], dtype);
  kernels().k_fp8_dequantize_fwd(y.addr, values.addr, scale?.addr ?? 0n, N, C, DTYPE[dtype], stream());
  return y;
}

/** The transpose [C, P] of values [N, C]; P is N, rounded up to a multiple of 16, and what that adds is 0. */
export function transposeQuantized(values: Tensor): Tensor {
  const [N, C] = values.shape, P = paddedRows(N), y = empty([C, P], "u8");
  kernels().k_fp8_transpose_fwd(y.addr, values.addr, N, C, P, stream());
  return y;
}

/** What the products of a linear layer's gradients read. */
export interface Operands {
  /** dyᵀ [N, P], the scales of w's rows taken out, and xᵀ [K, P], with those of both in its elements. */
  dy: Tensor;
  x: Tensor;
  /** What their product is to be multiplied by, [1]. */
  scale: Tensor;
  /** wᵀ [K, N], where w was given. */
  w: Tensor | null;
}

/**
 * The operands of dyᵀ x, which sums over rows that have scales, and, from the values of w [N, K], of dy w. `columns` are the scales of w's rows, which
 * dy was multiplied by.
 */
export function gradientOperands(dy: Quantized, x: Quantized, columns: Tensor, w?: Tensor | null): Operands {
  const [M, N] = dy.values.shape, K = x.values.shape[1], P = paddedRows(M), cells = empty([CELLS], "i32");
  const to = { dy: empty([N, P], "u8"), x: empty([K, P], "u8"), scale: empty([1]), w: w ? empty([K, N], "u8") : null };
  kernels().k_fp8_operands_fwd(
    ...[to.x.addr, to.dy.addr, to.w?.addr ?? 0n, to.scale.addr, cells.addr, x.values.addr, x.scale.addr] as const,
    ...[dy.values.addr, dy.scale.addr, columns.addr, w?.addr ?? 0n, M, N, K, P, stream()] as const,
  );
  cells.free();
  return to;
}

/** Whether rows of C channels can be in 8 bits: on the CPU, which emulates it in f32, or in 16 bits on CUDA. */
export function canQuantizeRows(dtype: DType, N: number, C: number): boolean {
  return N > 0 && C % 16 === 0 && C <= MOST && (device().name === "cpu" || dtype !== "f32");
}

/** Whether a linear layer of M rows from K to N channels can be in 8 bits. */
export function canQuantize(dtype: DType, M: number, N: number, K: number): boolean {
  return canQuantizeRows(dtype, M, N) && canQuantizeRows(dtype, M, K);
}

const ones = onceADevice(() => full([MOST], 1));

/** A product's operand: its rows are scaled by 1 where `scale` is null. */
type Operand = Pick<Quantized, "values"> & { scale: Tensor | null };

/** A product of a [M, K] and b [N, K]. */
type Rows = Omit<Product, "a" | "b" | "transposeB" | "scales">;

/**
 * The most terms of sums of the forward pass that tensor cores keep to about 14 bits, as they do fastest. What that costs grows with the number of
 * terms: with random operands it is 0.05 % of a sum of 1,024, 0.08 % of 2,048 and 0.13 % of 4,096, where rounding a result to bf16 costs 0.17 %.
 */
const MOST_TERMS = 1024;

/** p.y = a bᵀ (+ bias), added to what it holds where p.adds. `fast` is whether tensor cores may keep the sums to about 14 bits. */
export function fp8Product(p: Rows, a: Operand, b: Operand, fast = p.K <= MOST_TERMS): void {
  if (device().name === "cpu") return emulated(p, dequantize(a.values, a.scale), dequantize(b.values, b.scale));
  onTensorCores({ ...p, a: a.values, b: b.values, transposeB: true, scales: { a: a.scale ?? ones(), b: b.scale ?? ones(), fast } });
}

/** p.y = scale [1] a bᵀ, added to what it holds where p.adds: for sums over many rows, kept in f32. */
export function fp8Sum(p: Rows, [a, b]: [a: Tensor, b: Tensor], scale: Tensor): void {
  if (device().name === "cpu") {
    const rows = full([p.M], scale.item());
    emulated(p, dequantize(a, rows), dequantize(b, null));
    return rows.free();
  }
  onTensorCores({ ...p, a, b, transposeB: true, scales: { a: scale, b: ones(), fast: false, whole: true } });
}

function emulated(p: Rows, a: Tensor, b: Tensor): void {
  product({ ...p, a, b, transposeB: true });
  a.free(), b.free();
}

function onTensorCores(p: Product): void {
  if (!runCublasLt(p, p.bias ? "bias" : "none")) {
    throw new Error(
      `Cannot run linear in fp8: cuBLASLt has no algorithm for [${p.M}, ${p.K}] x [${p.K}, ${p.N}], ` +
        "it must be version 12.9 or later on a Hopper GPU; train in bf16",
    );
  }
}
