/** Layer norms of a transformer block: of x, or of a residual sum that is made in the same pass. */
import type { KNorm } from "../../ffi/symbols.ts";
import { DTYPE } from "../tensor/dtype.ts";
import { record, type SoFar } from "../tensor/tape.ts";
import { empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { canQuantizeRows } from "./fp8.ts";
import { inEightBits } from "./fp8_layer.ts";
import { columnSumsFor, passColumnSums, takeColumnSums } from "./column_sums.ts";
import {
  addressIn,
  type Modulation,
  ModulationGradients,
  normBackward,
  normForward,
  normForwardInEightBits,
  normProblem,
  type Place,
  placeOf,
  sizesOf,
} from "./norm.ts";
import { rowsOf, type SampleOptions } from "./samples.ts";
import { withWorkspace } from "./workspace.ts";

/** What follows the normalisation: `* w + b` with w and b [C] f32, or `* (1 + scale) + shift` with those of the sample, [B, C] of x's dtype. */
export interface NormAffine {
  w?: Tensor | null;
  b?: Tensor | null;
  scale?: Modulation;
  shift?: Modulation;
}

/** Options of {@linkcode norm} and {@linkcode residualNorm}. */
export interface NormOptions extends NormAffine, SampleOptions {
  /** Added to the variance. */
  eps: number;
  /**
   * Whether the result is made in 8-bit floats, for a linear layer in fp8, or in these and in its dtype, for a {@linkcode feedForward}; where its
   * channels are no multiple of 16, or above 8192, it is in its dtype alone.
   */
  fp8?: boolean | "both";
}

interface Sizes {
  op: string;
  rows: [N: number, B: number, C: number];
  scale?: Place;
  shift?: Place;
}

/** A residual that was just added, whose gradients the norm of the sum computes on its way. */
interface Residual {
  h: Tensor;
  gate?: Place;
  /** Filled by the norm's backward pass: the gradient of the sum that it gave, and that of h. */
  made?: { dsum: Tensor; dh: Tensor | null };
}

function sizesFor(op: string, x: Tensor, rows: Sizes["rows"], { w, b, scale, shift }: NormAffine): Sizes {
  const [, B, C] = rows;
  for (const [name, t] of [["w", w], ["b", b]] as const) {
    expectShape(op, name, t, [C]);
    expectDtype(op, name, t, "f32");
  }
  return { op, rows, shift: placeOf(op, "shift", shift, x, [B, C]), scale: placeOf(op, "scale", scale, x, [B, C]) };
}

/** Makes and records the norm of `sum`; `first` is the problem of the first time, which may make the sum too. */
function makeNorm(
  sum: Tensor,
  [mean, rstd]: Tensor[],
  { op, rows, scale, shift }: Sizes,
  options: NormOptions,
  first: Partial<KNorm>,
  residual?: Residual,
): Tensor {
  const { w, b, offsets, eps } = options, gate = residual?.gate, places = [scale, shift, gate];
  const common = () => ({
    ...sizesOf(sum, rows, eps, offsets),
    ...{ w: w?.addr ?? 0n, scale: addressIn(scale), stride: (scale ?? shift)?.stride ?? 0, mean: mean.addr, rstd: rstd.addr },
  });
  const backward = (dy: Tensor, soFar: SoFar): (Tensor | null)[] => {
    const dsum = sum.requiresGrad ? soFar.read(sum) : null, dx = sum.requiresGrad ? empty(sum.shape, sum.dtype) : null;
    const dw = w?.requiresGrad ? soFar.fresh(w) : null, db = b?.requiresGrad ? soFar.fresh(b) : null;
    const gated = dx && gate ? residual : undefined, dh = gated?.h.requiresGrad ? empty(sum.shape, sum.dtype) : null;
    const gradients = new ModulationGradients(gated ? places : [scale, shift], soFar);
    const dbias = dx && residual && (!gate || dh) ? columnSumsFor(residual.h) : null;
    const [dscale, dshift, dgate] = [scale, shift, gated && gate].map((p) => addressIn(p, gradients.of(p)));
    const addr = (t: Tensor | null) => t?.addr ?? 0n, used = dh !== null || dgate !== 0n;
    normBackward(normProblem({
      ...common(),
      ...(used && gated ? { h: gated.h.addr, gate: addressIn(gate), gate_stride: gate!.stride, sum: sum.addr } : { x: sum.addr }),
      ...{
        dy: dy.addr,
        dsum: addr(dsum),
        dx: addr(dx),
        dh: addr(dh),
        dw: addr(dw),
        db: addr(db),
        dscale,
        dshift,
        dgate,
        dbias: addr(dbias),
      },
      adds: gradients.adds ? 1 : 0,
    }));
    if (dbias) passColumnSums(gate ? dh! : dx!, dbias);
    if (gated && used) {
      dh?.hold(); // until the residual's own backward pass, which is next
      gated.made = { dsum: dx!, dh };
    }
    return [dx, dw, db, ...gradients.list(), ...(gated ? [] : [null])];
  };
  const whole = (): KNorm => normProblem({ ...common(), b: b?.addr ?? 0n, shift: addressIn(shift), x: sum.addr });
  const from = [sum, w, b, scale?.of, shift?.of, mean, rstd, offsets], { shape, dtype } = sum, [N, , C] = rows;
  const fill = (y: Tensor): void => normForward({ ...whole(), y: y.addr });
  const eight = options.fp8 && canQuantizeRows(dtype, N, C), both = options.fp8 === "both";
  const y = eight
    ? inEightBits(shape, dtype, {
      ...{ N, C, from, wide: fill, both },
      fill: (to, y) => normForwardInEightBits({ ...whole(), ...first, y: y?.addr ?? 0n }, to),
      again: (to) => normForwardInEightBits(whole(), to),
    })
    : empty(shape, dtype);
  if (!eight) normForward({ ...whole(), ...first, y: y.addr });
  const inputs = [sum, w, b, scale?.of, shift?.of, sum.requiresGrad ? gate?.of : null];
  const saved = [sum, w, scale?.of, mean, rstd, offsets, ...(gate ? [residual!.h, gate.of] : [])];
  return record(op, y, inputs, saved, backward, eight && !both ? undefined : { kind: "norm", from, fill });
}

/** The layer norm of x [B, ..., C] (or [N, C] with offsets) over the last axis; statistics in f32, rounded once. */
export function norm(op: string, x: Tensor, rows: Sizes["rows"], options: NormOptions): Tensor {
  return makeNorm(x, [empty([rows[0]]), empty([rows[0]])], sizesFor(op, x, rows, options), options, {});
}

/**
 * `sum = x + h * gate`, rounded once, and its layer norm y: `[sum, y]`. x and h [B, ..., C] (or [N, C] with offsets), gate [B, C] (none: 1), all of
 * one dtype. One pass forward, and one backward, which also adds the gradient that reaches the sum by other ways.
 */
export function residualNorm(x: Tensor, h: Tensor, gate: Modulation | null, options: NormOptions): [sum: Tensor, y: Tensor] {
  const op = "residualNorm", rows = rowsOf(op, x, options.offsets), [N, B, C] = rows, { offsets } = options;
  expectShape(op, "h", h, x.shape);
  expectDtype(op, "h", h, x.dtype);
  const sizes = sizesFor(op, x, rows, options), place = placeOf(op, "gate", gate, x, [B, C]), residual: Residual = { h, gate: place };
  const sum = empty(x.shape, x.dtype), statistics = [empty([N]), empty([N])];
  recordSum(sum, x, residual, rows, offsets);
  const first = { x: x.addr, h: h.addr, gate: addressIn(place), gate_stride: place?.stride ?? 0, sum: sum.addr };
  return [sum, makeNorm(sum, statistics, sizes, options, first, residual)];
}

/** Records `sum`, whose gradients are those that its norm made on the way, or made here where the norm was not asked. */
function recordSum(sum: Tensor, x: Tensor, residual: Residual, [N, B, C]: [N: number, B: number, C: number], offsets?: Tensor): void {
  const { h, gate } = residual, dtype = DTYPE[x.dtype];
  const backward = (dy: Tensor, soFar: SoFar): (Tensor | null)[] => {
    if (!gate) {
      const dh = h.requiresGrad ? dy.view(dy.shape) : null;
      if (dh) passColumnSums(dh, takeColumnSums(dy));
      return [x.requiresGrad ? dy : null, dh, null];
    }
    const { made } = residual;
    if (made) {
      if (made.dsum !== dy) {
        throw new Error("Cannot run residualNorm backward: the gradient of the sum changed after its norm's backward pass");
      }
      return [dy, made.dh, null];
    }
    return gateBackward(dy, h, gate, soFar, [N, B, C], offsets);
  };
  const fill = (sum: Tensor): void => {
    if (!gate) return kernels().k_accumulate_fwd(sum.addr, x.addr, h.addr, BigInt(x.size), dtype, dtype, stream());
    kernels().k_gate_add_fwd(sum.addr, x.addr, h.addr, addressIn(gate), offsets?.addr ?? 0n, N, B, C, BigInt(gate.stride), dtype, stream());
  };
  const recipe = { kind: "residual", from: [x, h, gate?.of, offsets], fill } as const;
  record("residual", sum, [x, h, gate?.of], gate ? [h, gate.of, offsets] : [], backward, recipe);
}

/** Gradients of x, h and the gate of `x + h * gate`. */
export function gateBackward(
  dy: Tensor,
  h: Tensor,
  gate: Place,
  soFar: SoFar,
  [N, B, C]: [N: number, B: number, C: number],
  offsets?: Tensor,
): (Tensor | null)[] {
  const dh = h.requiresGrad ? empty(h.shape, h.dtype) : null,
    dbias = dh && columnSumsFor(h),
    gradients = new ModulationGradients([gate], soFar),
    dgate = gradients.of(gate);
  if (dh || dgate) {
    const k = kernels(), at = offsets?.addr ?? 0n, dtype = DTYPE[h.dtype];
    const [dhAddr, dgateAddr, gateAddr] = [dh?.addr ?? 0n, addressIn(gate, dgate), addressIn(gate)], stride = BigInt(gate.stride);
    withWorkspace(
      (bytes) => k.k_gate_add_bwd_workspace(bytes, N, B, C),
      (scratch) =>
        k.k_gate_add_bwd(
          ...[dhAddr, dgateAddr, dbias?.addr ?? 0n, dy.addr, h.addr, gateAddr, at, scratch] as const,
          ...[N, B, C, stride, gradients.adds ? 1 : 0, dtype, stream()] as const,
        ),
    );
  }
  if (dh) passColumnSums(dh, dbias);
  return [dy, dh, dgate];
}
