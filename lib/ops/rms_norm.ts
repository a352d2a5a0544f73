/** The multi-head RMS norm of queries and keys. */
import { DTYPE } from "../tensor/dtype.ts";
import { record, type SoFar } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, sizeOf, stream, type Tensor } from "../tensor/tensor.ts";
import { withWorkspace } from "./workspace.ts";

/**
 * `v / max(|v|, 1e-12) * gamma[h] * sqrt(D)` for each head vector v of packed queries, keys and values: x [..., G, H, D], where the first
 * `gammas.length` of the G parts are normalised, each with its own gamma [H, D] f32, and the others copied. `[gq, gk]` for qkv [..., 3, H,
 * D], `[gk]` for kv [..., 2, H, D], `[gq]` for q [..., 1, H, D]. D is at most 256.
 */
export function headRmsNorm(x: Tensor, gammas: Tensor[]): Tensor {
  const [G, H, D] = x.shape.slice(-3);
  if (x.shape.length < 3) throw new RangeError(`Cannot run headRmsNorm: x is [${x.shape}], it must be [..., G, H, D]`);
  if (G > 3 || gammas.length > G) {
    throw new RangeError(
      `Cannot run headRmsNorm: G is ${G} with ${gammas.length} gammas, it must be at most 3 with at most one gamma each`,
    );
  }
  expectGammas("headRmsNorm", gammas, [H, D]);
  const y = empty(x.shape, x.dtype), fill = (y: Tensor): void => forward(y, x, gammas, G);
  fill(y);
  return record("headRmsNorm", y, [x, ...gammas], [x, ...gammas], (dy, soFar) => {
    const dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    return [dx, ...backward(dx, dy, x, gammas, G, soFar)];
  }, { kind: "norm", from: [x, ...gammas], fill });
}

function expectGammas(op: string, gammas: Tensor[], shape: number[]): void {
  gammas.forEach((gamma, g) => {
    expectShape(op, `gammas[${g}]`, gamma, shape);
    expectDtype(op, `gammas[${g}]`, gamma, "f32");
  });
}

/** Unrecorded: y [..., 2, H, D] from the first two parts of x [..., 3, H, D]. */
export function normHeads(y: Tensor, x: Tensor, gammas: [q: Tensor, k: Tensor]): void {
  expectGammas("normHeads", gammas, x.shape.slice(-2));
  forward(y, x, gammas, 2);
}

/** The gradients of the gammas, and of the first two parts of x [..., 3, H, D] in the place of those of the norm: d [..., 3, H, D]. */
export function normHeadsBackward(d: Tensor, x: Tensor, gammas: [q: Tensor, k: Tensor], soFar: SoFar): (Tensor | null)[] {
  return backward(d, d, x, gammas, 2, soFar);
}

const address = (t?: Tensor | null): bigint => t?.addr ?? 0n;

/** Of the first G parts of x and y, which may have more. */
function forward(y: Tensor, x: Tensor, gammas: Tensor[], G: number): void {
  const { N, H, D } = sizesOf(x), [g0, g1, g2] = [0, 1, 2].map((g) => address(gammas[g])), [yParts, xParts] = [y, x].map(partsOf);
  kernels().k_head_rms_norm_fwd(y.addr, x.addr, g0, g1, g2, N, G, H, D, yParts, xParts, DTYPE[x.dtype], stream());
}

function backward(dx: Tensor | null, dy: Tensor, x: Tensor, gammas: Tensor[], G: number, soFar: SoFar): (Tensor | null)[] {
  const { N, H, D } = sizesOf(x), k = kernels(), grads = gammas.map((gamma) => gamma.requiresGrad ? soFar.fresh(gamma) : null);
  const [g0, g1, g2] = [0, 1, 2].map((g) => address(gammas[g])), [d0, d1, d2] = [0, 1, 2].map((g) => address(grads[g]));
  withWorkspace(
    (bytes) => k.k_head_rms_norm_bwd_workspace(bytes, N, G, H, D),
    (scratch) =>
      k.k_head_rms_norm_bwd(
        ...[address(dx), d0, d1, d2, dy.addr, x.addr, g0, g1, g2, scratch] as const,
        ...[N, G, H, D, partsOf(dy), partsOf(x), DTYPE[x.dtype], stream()] as const,
      ),
  );
  return grads;
}

const partsOf = (t: Tensor): number => t.shape.at(-3)!;

function sizesOf(x: Tensor): { N: number; H: number; D: number } {
  const [H, D] = x.shape.slice(-2);
  return { N: dim("headRmsNorm", "N", sizeOf(x.shape.slice(0, -3))), H, D };
}
