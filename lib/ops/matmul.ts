/** Linear layers and products of batches. */
import { device } from "../tensor/device.ts";
import { isFloat } from "../tensor/dtype.ts";
import { rebuildable, type Recipe } from "../tensor/storage.ts";
import { isRecording, record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gelu, geluBackward, unaryForward } from "./elementwise.ts";
import { takeColumnSums, wantColumnSums } from "./column_sums.ts";
import { canQuantize } from "./fp8.ts";
import { fp8Linear } from "./fp8_layer.ts";
import { PLAIN, type Product, product, runCublasLt, weightGradients } from "./product.ts";
import { sum } from "./reduce.ts";

/** Options of {@linkcode linear}. */
export interface LinearOptions {
  /** Applied to the result in the same pass where cuBLASLt can. */
  activation?: "none" | "gelu";
  /**
   * Whether the products of the forward pass and of the gradients are in 8-bit floats (E4M3), with a scale for each row of x, w and dy. Where N or K is
   * no multiple of 16, or above 8192, all are in the dtype. "all" makes a difference to `feedForward` alone.
   */
  fp8?: boolean | "all";
}

/** Extents of a linear layer of x [..., K], w [N, K], b [N]; throws where they do not fit. */
export function layerOf(
  op: string,
  x: Pick<Tensor, "shape" | "size" | "dtype">,
  w: Tensor,
  b?: Tensor | null,
): { M: number; N: number; K: number } {
  const K = dim(op, "K", x.shape.at(-1) ?? 0), N = dim(op, "N", w.shape[0] ?? 0), M = dim(op, "rows", K ? x.size / K : 0);
  if (!isFloat(x.dtype)) throw new TypeError(`Cannot run ${op}: x is ${x.dtype}, it must be f32, f16 or bf16`);
  expectShape(op, "w", w, [N, K]);
  expectShape(op, "b", b, [N]);
  expectDtype(op, "w", w, x.dtype);
  expectDtype(op, "b", b, x.dtype);
  return { M, N, K };
}

/** y = gelu(before), before = x wᵀ + b: in one pass where cuBLASLt can. */
export function linearGelu(y: Tensor, before: Tensor, forward: Product): void {
  // cuBLASLt's own GELU is good to 16 bits: in f32 the exact one follows the product.
  const fused = device().name === "cuda" && y.dtype !== "f32" && forward.bias && forward.M > 0;
  if (fused && runCublasLt({ ...forward, y, aux: before }, "gelu")) return;
  product({ ...forward, y: before });
  unaryForward("gelu", y, before);
}

/**
 * `x wᵀ + b` over the last axis, and its tanh-GELU if asked: x [..., K], w [N, K], b [N] give [..., N]. All of one float dtype; sums in f32. The
 * gradients of w and b are f32.
 */
export function linear(x: Tensor, w: Tensor, b?: Tensor | null, { activation = "none", fp8 = false }: LinearOptions = {}): Tensor {
  const { M, N, K } = layerOf("linear", x, w, b);
  if (fp8 && canQuantize(x.dtype, M, N, K)) {
    const y = fp8Linear(x, w, b, { M, N, K });
    return activation === "gelu" ? gelu(y) : y;
  }
  const y = empty([...x.shape.slice(0, -1), N], x.dtype);
  const before = activation === "gelu" ? empty(y.shape, y.dtype) : undefined; // x wᵀ + b, kept for the backward pass
  const multiply = (y: Tensor, before?: Tensor): void => {
    const forward: Product = { ...PLAIN, y, a: x, b: w, M, N, K, transposeB: true, bias: b ?? undefined };
    if (before) linearGelu(y, before, forward);
    else product(forward);
  };
  multiply(y, before);
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
  record("linear", y, [x, w, b], [x, w, before], (dy, soFar) => {
    const dz = before ? geluBackward(dy, before) : dy,
      db = before ? null : takeColumnSums(dy),
      dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    if (dx) product({ ...PLAIN, y: dx, a: dz, b: w, M, N: K, K: N });
    return [dx, ...weightGradients(dz, x, w, b, soFar, db)];
  }, recipe);
  if (b?.requiresGrad && !before) wantColumnSums(y);
  return y;
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
