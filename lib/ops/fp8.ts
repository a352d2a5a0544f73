/** Products in 8-bit floats (E4M3) with a scale for each row: on Hopper's tensor cores twice as fast as in 16 bits. The CPU emulates the rounding. */
import { device } from "../tensor/device.ts";
import { DTYPE, type DType, type FloatDType } from "../tensor/dtype.ts";
import { noGrad } from "../tensor/tape.ts";
import { empty, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { full } from "./cast.ts";
import { permute } from "./movement.ts";
import { onceADevice, type Product, product, runCublasLt } from "./product.ts";

/** Codes of `kernels/include/fp8.h`. */
const ACT = { none: 0, gelu: 1 } as const;

/** The most channels of a row that is quantized. */
const MOST = 8192;

/** A matrix in 8-bit floats. */
export interface Quantized {
  /** [N, C] u8, the bits of E4M3. */
  values: Tensor;
  /** What each row is multiplied by, [N] f32. */
  scale: Tensor;
}

/** Options of {@linkcode quantize}. */
export interface QuantizeOptions {
  /** Applied first. */
  activation?: keyof typeof ACT;
  /** [C] f32, multiplied in first. */
  columns?: Tensor;
}

/** The rows [N, C] of x in 8-bit floats: each is divided by its largest value / 448 and rounded to nearest even. No gradient flows. */
export function quantize(x: Tensor, [N, C]: [N: number, C: number], { activation = "none", columns }: QuantizeOptions = {}): Quantized {
  const values = empty([N, C], "u8"), scale = empty([N]);
  kernels().k_fp8_quantize_fwd(
    ...[values.addr, scale.addr, x.addr, columns?.addr ?? 0n] as const,
    ...[N, C, ACT[activation], DTYPE[x.dtype], stream()] as const,
  );
  return { values, scale };
}

/** The values [N, C] in `dtype`; without a scale those of E4M3 as they are. */
export function dequantize(values: Tensor, scale: Tensor | null, dtype: FloatDType = "f32"): Tensor {
  const [N, C] = values.shape, y = empty([N, C], dtype);
  kernels().k_fp8_dequantize_fwd(y.addr, values.addr, scale?.addr ?? 0n, N, C, DTYPE[dtype], stream());
  return y;
}

/** Whether a linear layer of M rows from K to N channels can be in 8 bits: on the CPU, which emulates it in f32, or in 16 bits on CUDA. */
export function canQuantize(dtype: DType, M: number, N: number, K: number): boolean {
  return M > 0 && N % 16 === 0 && K % 16 === 0 && Math.max(N, K) <= MOST && (device().name === "cpu" || dtype !== "f32");
}

const ones = onceADevice(() => full([MOST], 1));

/** y = a bᵀ (+ bias); b's scale null: 1. */
function fp8Product(p: Product, a: Quantized, b: { values: Tensor; scale: Tensor | null }, fast: boolean): void {
  if (device().name === "cpu") {
    const [left, right] = [a, b].map(({ values, scale }) => dequantize(values, scale));
    product({ ...p, a: left, b: right, transposeB: true });
    for (const t of [left, right]) t.free();
  } else {
    const eight = { ...p, a: a.values, b: b.values, transposeB: true, scales: { a: a.scale, b: b.scale ?? ones(), fast } };
    if (!runCublasLt(eight, p.bias ? "bias" : "none")) {
      throw new Error(
        `Cannot run linear in fp8: cuBLASLt has no algorithm for [${p.M}, ${p.K}] x [${p.K}, ${p.N}] with a scale for each row, ` +
          "it must be version 12.9 or later on a Hopper GPU; train in bf16",
      );
    }
  }
}

/** y = act(a) bᵀ + bias of a linear layer, `p` being its product in 16 bits. */
export function fp8Linear(p: Product, activation: QuantizeOptions["activation"] = "none"): void {
  const a = quantize(p.a, [p.M, p.K], { activation }), b = quantize(p.b, [p.N, p.K]);
  fp8Product(p, a, b, true);
  for (const t of [a.values, a.scale, b.values, b.scale]) t.free();
}

/**
 * The gradient dx = dy w of a linear layer, `p` being its product in 16 bits. The weights are those of the forward pass to the bit: the scales
 * of their rows, which the sum runs over, go into dy.
 */
export function fp8InputGradient(p: Product): void {
  const w = quantize(p.b, [p.K, p.N]), dy = quantize(p.a, [p.M, p.K], { columns: w.scale }), b = noGrad(() => permute(w.values, [1, 0]));
  fp8Product(p, dy, { values: b, scale: null }, false);
  for (const t of [w.values, w.scale, dy.values, dy.scale, b]) t.free();
}
