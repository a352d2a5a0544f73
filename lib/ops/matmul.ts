/** Dense products: cuBLASLt on CUDA, Eigen on the CPU. The only user of both. */
import { matmul as cublasLtMatmul, type MatmulProblem, WORKSPACE_BYTES } from "../../ffi/cublaslt.ts";
import { device, type OpenDevice } from "../tensor/device.ts";
import { DTYPE, type FloatDType, isFloat } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import { rebuildable, type Recipe } from "../tensor/storage.ts";
import { isRecording, record, type SoFar } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, sizeOf, stream, type Tensor, zeros } from "../tensor/tensor.ts";
import { geluBackward, unaryBackward, unaryForward } from "./elementwise.ts";
import { sum } from "./reduce.ts";

const workspaces = new WeakMap<OpenDevice, Tensor>();

/** One product as cuBLASLt and the CPU library take it, with tensors for addresses. */
interface Product extends Pick<MatmulProblem, "batch" | "M" | "N" | "K" | "transposeA" | "transposeB" | "strideA" | "strideB"> {
  y: Tensor;
  a: Tensor;
  b: Tensor;
  bias?: Tensor;
  aux?: Tensor;
  /** Whether it is added to what y holds. */
  adds?: boolean;
}

/** Runs a product with an epilogue on cuBLASLt; false where there is none for it. */
function runCublasLt(p: Product, epilogue: MatmulProblem["epilogue"]): boolean {
  const at = device(), known = workspaces.get(at) ?? (at.simulated && workspaces.get(at.simulated.base ?? at));
  const workspace = known ?? persist(() => empty([WORKSPACE_BYTES], "u8"));
  workspaces.set(at, workspace);
  const { y, a, b, bias, aux, adds = false, ...rest } = p;
  const addresses = { y: y.addr, a: a.addr, b: b.addr, bias: bias?.addr ?? 0n, aux: aux?.addr ?? 0n };
  const types = { type: a.dtype as FloatDType, outType: y.dtype as FloatDType };
  const problem = { ...rest, ...addresses, ...types, epilogue, adds };
  return device().simulated?.matmul(problem) ?? cublasLtMatmul(problem, workspace.addr, stream());
}

/** y = op(a) op(b) + bias, added to what y holds where p.adds. */
function product(p: Product): void {
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

const PLAIN = { batch: 1, transposeA: false, transposeB: false, strideA: 0, strideB: 0 };

/** Options of {@linkcode linear}. */
export interface LinearOptions {
  /** Applied to the result in the same pass where cuBLASLt can. */
  activation?: "none" | "gelu";
}

/** What ties the two products of {@linkcode feedForward}: the second one's backward pass goes through the activation too. */
interface Link {
  /** What the activation was applied to. */
  before?: Tensor;
}

/** `linear(linear(x, w1, b1, gelu), w2, b2)`: x [..., K], w1 [N, K], w2 [P, N] give [..., P]. The gradient passes the GELU in the second product. */
export function feedForward(x: Tensor, [w1, b1]: [Tensor, Tensor], [w2, b2]: [Tensor, Tensor]): Tensor {
  const link: Link = {};
  return linked(linked(x, w1, b1, { activation: "gelu", out: link }), w2, b2, { in: link });
}

/**
 * `x wᵀ + b` over the last axis, and its tanh-GELU if asked: x [..., K], w [N, K], b [N] give [..., N]. All of one float dtype; sums in f32. The
 * gradients of w and b are f32.
 */
export function linear(x: Tensor, w: Tensor, b?: Tensor | null, options: LinearOptions = {}): Tensor {
  return linked(x, w, b, options);
}

/** A linear layer whose output goes, or whose input comes, by a link. */
function linked(
  x: Tensor,
  w: Tensor,
  b: Tensor | null | undefined,
  { activation = "none", out, in: link }: LinearOptions & { out?: Link; in?: Link },
): Tensor {
  const K = dim("linear", "K", x.shape.at(-1) ?? 0), N = dim("linear", "N", w.shape[0] ?? 0), M = dim("linear", "rows", K ? x.size / K : 0);
  if (!isFloat(x.dtype)) throw new TypeError(`Cannot run linear: x is ${x.dtype}, it must be f32, f16 or bf16`);
  expectShape("linear", "w", w, [N, K]);
  expectShape("linear", "b", b, [N]);
  expectDtype("linear", "w", w, x.dtype);
  expectDtype("linear", "b", b, x.dtype);
  const y = empty([...x.shape.slice(0, -1), N], x.dtype);
  const before = activation === "gelu" ? empty(y.shape, y.dtype) : undefined; // x wᵀ + b, kept for the backward pass
  const multiply = (y: Tensor, aux?: Tensor): void => {
    const forward: Product = { ...PLAIN, y, a: x, b: w, M, N, K, transposeB: true, bias: b ?? undefined };
    if (!aux) return product(forward);
    // cuBLASLt's own GELU is good to 16 bits: in f32 the exact one follows the product.
    if (device().name === "cuda" && x.dtype !== "f32" && b && M > 0 && runCublasLt({ ...forward, aux }, "gelu")) return;
    product({ ...forward, y: aux });
    unaryForward("gelu", y, aux);
  };
  multiply(y, before);
  if (out) out.before = before;
  const again = { kind: "linear", from: [x, w, b] } as const;
  if (before && isRecording() && [x, w, b].some((t) => t?.requiresGrad)) {
    rebuildable(before, {
      ...again,
      fill(before) {
        const scratch = empty(before.shape, before.dtype); // the same product as in the forward pass, for the same bits
        multiply(scratch, before);
        scratch.free();
      },
    });
  }
  const recipe: Recipe = before
    ? { kind: "activation", from: [before], fill: (y) => unaryForward("gelu", y, before) }
    : { ...again, fill: multiply };
  return record("linear", y, [x, w, b], [x, w, before, link?.before], (dy, soFar) => {
    const dz = before && !out ? geluBackward(dy, before) : dy; // by a link, dy has passed the activation
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    if (dx) inputGradient({ ...PLAIN, y: dx, a: dz, b: w, M, N: K, K: N }, link?.before);
    return [dx, ...weightGradients(dz, x, w, b, soFar)];
  }, recipe);
}

/** The product dx = dz w, times the derivative of GELU at `before` where that is given: in one pass where cuBLASLt can. */
function inputGradient(p: Product, before?: Tensor): void {
  if (!before) return product(p);
  if (device().name === "cuda" && p.y.dtype !== "f32" && p.M > 0 && runCublasLt({ ...p, aux: before }, "geluBackward")) return;
  product(p);
  unaryBackward("gelu", p.y, before, p.y);
}

/**
 * dw = dzᵀ x [N, K], added to the parameter's gradient where there is one, and db = the column sums of dz [N]: in one pass where cuBLASLt can.
 */
function weightGradients(
  dz: Tensor,
  x: Tensor,
  w: Tensor,
  b: Tensor | null | undefined,
  soFar: SoFar,
): [dw: Tensor | null, db: Tensor | null] {
  const [N, K] = w.shape, M = K ? x.size / K : 0, wantB = !!b?.requiresGrad;
  if (M === 0) return [w.requiresGrad ? zeros([N, K]) : null, wantB ? zeros([N]) : null];
  if (!w.requiresGrad) return [null, wantB ? sum(dz.view([M, N]), { axes: [0], dtype: "f32" }) : null];
  const db = wantB ? empty([N]) : null, grad = soFar.write(w), dw = grad ?? empty([N, K]);
  const p: Product = { ...PLAIN, y: dw, a: dz, b: x, M: N, N: K, K: M, transposeA: true, adds: grad !== null };
  if (db && device().name === "cuda" && runCublasLt({ ...p, bias: db }, "rowSums")) return [dw, db];
  product(p);
  db?.free();
  return [dw, wantB ? sum(dz.view([M, N]), { axes: [0], dtype: "f32" }) : null];
}

/** Options of {@linkcode matmul}. */
export interface MatmulOptions {
  /** a is stored [..., K, M]. */
  transposeA?: boolean;
  /** b is stored [..., N, K]. */
  transposeB?: boolean;
}

/** `a b` for each leading index: a [..., M, K] and b [..., K, N] give [..., M, N]; a or b of rank 2 is used for every index. */
export function matmul(a: Tensor, b: Tensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): Tensor {
  const { lead, M, N, K } = extents(a, b, transposeA, transposeB);
  expectDtype("matmul", "b", b, a.dtype);
  const batch = dim("matmul", "the product of the leading axes", sizeOf(lead));
  const aBatched = a.shape.length > 2, bBatched = b.shape.length > 2;
  const y = empty([...lead, M, N], a.dtype);
  const strides = { strideA: aBatched ? M * K : 0, strideB: bBatched ? K * N : 0 };
  product({ y, a, b, batch, M, N, K, transposeA, transposeB, ...strides });

  return record("matmul", y, [a, b], [a, b], (dy) => {
    const out = (t: Tensor, batched: boolean): Tensor => empty(batched || batch === 1 ? t.shape : [batch, ...t.shape], t.dtype);
    const fold = (g: Tensor, t: Tensor): Tensor => g.size === t.size ? g : sum(g.view([batch, t.size]), { axes: [0] }).view(t.shape);
    let da: Tensor | null = null, db: Tensor | null = null;
    if (a.requiresGrad) {
      da = out(a, aBatched);
      // da = dy bᵀ [M, K], or its transpose b dyᵀ [K, M]
      if (transposeA) {
        product({
          y: da,
          a: b,
          b: dy,
          batch,
          M: K,
          N: M,
          K: N,
          transposeA: transposeB,
          transposeB: true,
          strideA: strides.strideB,
          strideB: M * N,
        });
      } else {product({
          y: da,
          a: dy,
          b,
          batch,
          M,
          N: K,
          K: N,
          transposeA: false,
          transposeB: !transposeB,
          strideA: M * N,
          strideB: strides.strideB,
        });}
      da = fold(da, a);
    }
    if (b.requiresGrad) {
      db = out(b, bBatched);
      // db = aᵀ dy [K, N], or its transpose dyᵀ a [N, K]
      if (transposeB) {
        product({
          y: db,
          a: dy,
          b: a,
          batch,
          M: N,
          N: K,
          K: M,
          transposeA: true,
          transposeB: transposeA,
          strideA: M * N,
          strideB: strides.strideA,
        });
      } else {product({
          y: db,
          a,
          b: dy,
          batch,
          M: K,
          N,
          K: M,
          transposeA: !transposeA,
          transposeB: false,
          strideA: strides.strideA,
          strideB: M * N,
        });}
      db = fold(db, b);
    }
    return [da, db];
  });
}

function extents(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): { lead: number[]; M: number; N: number; K: number } {
  if (a.shape.length < 2 || b.shape.length < 2 || !isFloat(a.dtype)) {
    throw new RangeError(`Cannot run matmul: a is [${a.shape}] ${a.dtype} and b is [${b.shape}], they must be floats of rank 2 or more`);
  }
  const [a0, a1] = a.shape.slice(-2), [b0, b1] = b.shape.slice(-2), leadA = a.shape.slice(0, -2), leadB = b.shape.slice(0, -2);
  const [M, K] = transposeA ? [a1, a0] : [a0, a1], [Kb, N] = transposeB ? [b1, b0] : [b0, b1];
  const sameLead = leadA.length === 0 || leadB.length === 0 || `${leadA}` === `${leadB}`;
  if (K !== Kb || !sameLead) {
    throw new RangeError(
      `Cannot run matmul: a is [${a.shape}]${transposeA ? " transposed" : ""} and b is [${b.shape}]${transposeB ? " transposed" : ""}, ` +
        "their inner axes must agree and their leading axes must be equal (or absent)",
    );
  }
  return { lead: [...(leadA.length ? leadA : leadB)], M: dim("matmul", "M", M), N: dim("matmul", "N", N), K: dim("matmul", "K", K) };
}
