/** Dense products and the gradients of linear layers: cuBLASLt on CUDA, Eigen on the CPU. The only user of both. */
import { matmul as cublasLtMatmul, type MatmulProblem, WORKSPACE_BYTES } from "../../ffi/cublaslt.ts";
import { device, type OpenDevice } from "../tensor/device.ts";
import { DTYPE, type FloatDType } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import type { SoFar } from "../tensor/tape.ts";
import { empty, kernels, stream, type Tensor, zeros } from "../tensor/tensor.ts";
import { sum } from "./reduce.ts";

/** A tensor that a device needs once, made when it is first asked for; a simulated device has that of the one that it stands for. */
export function onceADevice(make: () => Tensor): () => Tensor {
  const made = new WeakMap<OpenDevice, Tensor>();
  return () => {
    const at = device(), known = made.get(at) ?? (at.simulated && made.get(at.simulated.base ?? at)), found = known ?? persist(make);
    made.set(at, found);
    return found;
  };
}

/** The workspace of all products. */
export const productWorkspace = onceADevice(() => empty([WORKSPACE_BYTES], "u8"));

/** One product as cuBLASLt and the CPU library take it, with tensors for addresses. */
export interface Product extends Pick<MatmulProblem, "batch" | "M" | "N" | "K" | "transposeA" | "transposeB" | "strideA" | "strideB"> {
  y: Tensor;
  a: Tensor;
  b: Tensor;
  bias?: Tensor;
  aux?: Tensor;
  /** Whether it is added to what y holds. */
  adds?: boolean;
  /** Where a and b are bits of E4M3: what the rows of op(a) and the columns of op(b) are multiplied by, [M] and [N] f32; whole: one number each. */
  scales?: { a: Tensor; b: Tensor; fast: boolean; whole?: boolean };
}

/** Runs a product with an epilogue on cuBLASLt; false where there is none for it. */
export function runCublasLt(p: Product, epilogue: MatmulProblem["epilogue"]): boolean {
  const { y, a, b, bias, aux, adds = false, scales, batch, M, N, K, transposeA, transposeB, strideA, strideB } = p;
  const problem: MatmulProblem = {
    ...{ y: y.addr, a: a.addr, b: b.addr, bias: bias ? bias.addr : 0n, aux: aux ? aux.addr : 0n },
    ...{ batch, M, N, K, transposeA, transposeB, strideA, strideB, epilogue, adds },
    type: scales ? "e4m3" : a.dtype as FloatDType,
    outType: y.dtype as FloatDType,
    scales: scales && { ...scales, a: scales.a.addr, b: scales.b.addr },
  };
  const scratch = productWorkspace().addr; // a simulated device counts it too
  return device().simulated?.matmul(problem) ?? cublasLtMatmul(problem, scratch, stream());
}

/** y = op(a) op(b) + bias, added to what y holds where p.adds. */
export function product(p: Product): void {
  if (p.y.size === 0 || (p.K === 0 && p.adds)) return;
  if (p.K === 0) {
    if (p.bias) throw new RangeError("Cannot run matmul: K is 0 with a bias, it must be at least 1");
    return device().memory.zero(p.y.addr, p.y.bytes);
  }
  if (device().name === "cpu") {
    const { y, a, b, bias, batch, M, N, K } = p;
    return kernels().k_matmul_fwd(
      ...[y.addr, a.addr, b.addr, bias?.addr ?? 0n, p.adds ? y.addr : 0n] as const,
      ...[batch, M, N, K, Number(p.transposeA), Number(p.transposeB)] as const,
      ...[BigInt(p.strideA), BigInt(p.strideB), DTYPE[a.dtype], stream()] as const,
    );
  }
  if (!runCublasLt(p, p.bias ? "bias" : "none")) {
    throw new Error(`Cannot run matmul: cuBLASLt has no algorithm for [${p.M}, ${p.K}] x [${p.K}, ${p.N}] ${p.a.dtype} to ${p.y.dtype}`);
  }
}

/** A product of whole matrices as they lie. */
export const PLAIN = { batch: 1, transposeA: false, transposeB: false, strideA: 0, strideB: 0 };

/**
 * dw = dzᵀ x [N, K], added to the parameter's gradient where there is one (written over one that is outdated), and db = the column sums of dz [N]: in one pass where cuBLASLt can.
 * `known` is db, where it is there already.
 */
export function weightGradients(
  dz: Tensor,
  x: Tensor,
  w: Tensor,
  b: Tensor | null | undefined,
  soFar: SoFar,
  known: Tensor | null = null,
): [dw: Tensor | null, db: Tensor | null] {
  const [N, K] = w.shape, M = K ? x.size / K : 0, wantB = !!b?.requiresGrad && !known;
  if (M === 0) return [w.requiresGrad ? zeros([N, K]) : null, wantB ? zeros([N]) : known];
  if (!w.requiresGrad) return [null, wantB ? sum(dz.view([M, N]), { axes: [0], dtype: "f32" }) : known];
  const db = wantB && device().name === "cuda" ? soFar.fresh(b) : null, there = soFar.write(w), dw = there?.grad ?? empty([N, K]);
  const p: Product = { ...PLAIN, y: dw, a: dz, b: x, M: N, N: K, K: M, transposeA: true, adds: there?.outdated === false };
  if (db && runCublasLt({ ...p, bias: db }, "rowSums")) return [dw, db];
  product(p);
  if (db !== b?.grad) db?.free();
  return [dw, wantB ? sum(dz.view([M, N]), { axes: [0], dtype: "f32" }) : known];
}
