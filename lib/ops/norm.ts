/** What the layer norms share: one kernel does the plain, the modulated, and that of a residual sum made in the same pass. */
import { pack } from "../../ffi/struct.ts";
import { K_NORM, type KNorm } from "../../ffi/symbols.ts";
import { DTYPE, DTYPE_BYTES } from "../tensor/dtype.ts";
import type { SoFar } from "../tensor/tape.ts";
import { empty, expectDtype, expectShape, kernels, stream, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Quantized } from "./fp8.ts";
import { withWorkspace } from "./workspace.ts";

/** Part `part` of the `parts` shifts, scales or gates [B, C] that lie side by side in `of` [B, parts C]. */
export interface ModulationPart {
  of: Tensor;
  part: number;
  parts: number;
}

/** A shift, scale or gate of each sample: [B, C], or a part of a tensor that has several side by side. */
export type Modulation = Tensor | ModulationPart;

/** The `parts` shifts, scales and gates [B, C] that lie side by side in m [B, parts C]; nothing is copied. */
export function modulationParts(m: Tensor, parts: number): ModulationPart[] {
  if (m.shape.length !== 2 || m.shape[1] % parts !== 0) {
    throw new RangeError(`Cannot run modulationParts: m is [${m.shape}], it must be [B, ${parts} C]`);
  }
  return Array.from({ length: parts }, (_, part) => ({ of: m, part, parts }));
}

/** A {@linkcode Modulation} that was looked at: its tensor, and where in it the values are. */
export interface Place {
  of: Tensor;
  /** Elements before those of the first sample, and from a sample's to the next one's. */
  offset: number;
  stride: number;
  /** Whether others may have their gradients in the same tensor. */
  shared: boolean;
}

/** Checks a modulation of [B, C] and says where it lies. */
export function placeOf(
  op: string,
  name: string,
  m: Modulation | null | undefined,
  x: Tensor,
  [B, C]: [B: number, C: number],
): Place | undefined {
  if (!m) return undefined;
  if (!("of" in m)) {
    expectShape(op, name, m, [B, C]);
    expectDtype(op, name, m, x.dtype);
    return { of: m, offset: 0, stride: C, shared: false };
  }
  const { of, part, parts } = m;
  expectShape(op, `the tensor of ${name}`, of, [B, parts * C]);
  expectDtype(op, `the tensor of ${name}`, of, x.dtype);
  return { of, offset: part * C, stride: parts * C, shared: true };
}

/** The address of a place in its tensor, or in one like it; 0 for none. */
export function addressIn(place: Place | undefined, tensor: Tensor | null | undefined = place?.of): bigint {
  return place && tensor ? tensor.addr + BigInt(place.offset * DTYPE_BYTES[tensor.dtype]) : 0n;
}

/** Gradients of modulations: those that lie in one tensor share its gradient, to which each adds its own columns. */
export class ModulationGradients {
  /** Whether kernels must add to what is there. */
  readonly adds: boolean;
  #made = new Map<Tensor, Tensor>();

  /** For `places`, some of which may be absent. */
  constructor(private readonly places: (Place | undefined)[], private readonly soFar: SoFar) {
    this.adds = places.some((p) => p?.shared);
  }

  /** Where the gradient of a place goes; null where none is wanted. */
  of(place: Place | undefined): Tensor | null {
    if (!place?.of.requiresGrad) return null;
    const { of } = place, known = this.#made.get(of);
    if (known) return known;
    const before = this.adds && !of.accumulates ? this.soFar.write(of)?.grad : null; // a parameter's own is f32
    const made = before ?? (this.adds ? zeros : empty)(of.shape, of.dtype);
    this.#made.set(of, made);
    return made;
  }

  /** What {@linkcode record} wants for each of the places, once a tensor. */
  list(): (Tensor | null)[] {
    const seen = new Set<Tensor>();
    return this.places.map((p) => {
      if (!p || seen.has(p.of)) return null;
      seen.add(p.of);
      return this.#made.get(p.of) ?? null;
    });
  }
}

const NO_PROBLEM = Object.fromEntries(K_NORM.map(([name, kind]) => [name, kind === "u64" ? 0n : 0])) as unknown as KNorm;

/** A norm's problem; what is absent is 0. */
export function normProblem(values: Pick<KNorm, "dtype" | "N" | "B" | "C" | "eps"> & Partial<KNorm>): KNorm {
  return { ...NO_PROBLEM, ...values };
}

/** Runs a norm forward. */
export function normForward(problem: KNorm): void {
  kernels().k_norm_fwd(pack(K_NORM, problem), stream());
}

/** Runs a norm forward whose result is in 8 bits; `problem.y` may be absent. */
export function normForwardInEightBits(problem: KNorm, { values, scale }: Quantized): void {
  kernels().k_fp8_norm_fwd(values.addr, scale.addr, pack(K_NORM, problem), stream());
}

/** Runs a norm backward. */
export function normBackward(problem: KNorm): void {
  withWorkspace(
    (bytes) => kernels().k_norm_bwd_workspace(bytes, pack(K_NORM, problem)),
    (workspace) => kernels().k_norm_bwd(pack(K_NORM, { ...problem, workspace }), stream()),
  );
}

/** The dtype, sizes and offsets of a problem over the rows of `x`. */
export function sizesOf(x: Tensor, [N, B, C]: [N: number, B: number, C: number], eps: number, offsets?: Tensor) {
  return { dtype: DTYPE[x.dtype], N, B, C, eps, offsets: offsets?.addr ?? 0n };
}
