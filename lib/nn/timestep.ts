/** The timestep embedder: sinusoids and a two-layer MLP. */
import { silu } from "../ops/elementwise.ts";
import { timestepEmbedding } from "../ops/embed.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { applyLinear, type LinearSpec, linearSpec } from "./linear.ts";
import type { Parameters } from "./parameters.ts";

const FREQUENCIES = 256;

/** Parameters of {@linkcode embedTimestep}, f32. */
export type TimestepSpec = { mlp: { 0: LinearSpec; 2: LinearSpec } };

/** An embedder to C channels, weights N(0, 0.02²). */
export function timestepSpec(C: number): TimestepSpec {
  return { mlp: { 0: linearSpec(FREQUENCIES, C, "f32", { normal: 0.02 }), 2: linearSpec(C, C, "f32", { normal: 0.02 }) } };
}

/** t [B] (already times 1000) gives [B, C] f32. */
export function embedTimestep(p: Parameters<TimestepSpec>, t: Tensor): Tensor {
  return applyLinear(p.mlp[2], silu(applyLinear(p.mlp[0], timestepEmbedding(t, FREQUENCIES))));
}
