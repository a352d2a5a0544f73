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

/** Bytes of scratch of `k_fp8_transpose_scaled_fwd`. */
const SCALED_SCRATCH = 128;

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

/** The values [N, C] in `dtype`; without a scale those of E4M3 as they are. */
export function dequantize(values: Tensor, scale: Tensor | null, dtype: FloatDType = "f32"): Tensor {
  const [N, C] = values.shape, y = empty([N, C], dtype);
  kernels().k_fp8_dequantize_fwd(y.addr, values.addr, scale?.addr ?? 0n, N, C, DTYPE[dtype], stream());
  return y;
}

/** The transpose [C, P] of values [N, C]; P is N, rounded up to a multiple of 16, and what that adds is 0. */
export function transposeQuantized(values: Tensor): Tensor {
  const [N, C] = values.shape, P = Math.ceil(N / 16) * 16, y = empty([C, P], "u8");
  kernels().k_fp8_transpose_fwd(y.addr, values.addr, N, C, P, stream());
  return y;
}

/**
 * x as an operand of a product that sums over its rows and those of another matrix with the scales `other` [N]: its transpose [C, P], with the scales of
 * both in its elements. `scale` [M], with 1 / columns [M] in it, is what the product's rows are then multiplied by.
 */
export function summedOverRows({ values, scale }: Quantized, other: Tensor, columns: Tensor): Quantized {
  const [N, C] = values.shape, [M] = columns.shape, P = Math.ceil(N / 16) * 16, y = { values: empty([C, P], "u8"), scale: empty([M]) };
  const scratch = empty([SCALED_SCRATCH], "u8");
  kernels().k_fp8_transpose_scaled_fwd(
    ...[y.values.addr, y.scale.addr, values.addr, scale.addr, other.addr, columns.addr, scratch.addr] as const,
    ...[N, C, P, M, stream()] as const,
  );
  scratch.free();
  return y;
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

/** p.y = a bᵀ (+ bias) of a [M, K] and b [N, K], added to what it holds where p.adds. fast: sums may be kept to fewer bits than f32's. */
export function fp8Product(p: Omit<Product, "a" | "b" | "transposeB">, a: Operand, b: Operand, fast: boolean): void {
  if (device().name === "cpu") {
    const [left, right] = [a, b].map(({ values, scale }) => dequantize(values, scale));
    product({ ...p, a: left, b: right, transposeB: true });
    for (const t of [left, right]) t.free();
    return;
  }
  const scales = { a: a.scale ?? ones(), b: b.scale ?? ones(), fast };
  if (!runCublasLt({ ...p, a: a.values, b: b.values, transposeB: true, scales }, p.bias ? "bias" : "none")) {
    throw new Error(
      `Cannot run linear in fp8: cuBLASLt has no algorithm for [${p.M}, ${p.K}] x [${p.K}, ${p.N}] with a scale for each row, ` +
        "it must be version 12.9 or later on a Hopper GPU; train in bf16",
    );
  }
}
