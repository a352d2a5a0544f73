/** From pictures and voxels to structured latents, and from these to Gaussians. */
import { sampleEuler } from "../flow/sampler.ts";
import { slatDecodeGaussians, type SlatGaussianDecoder } from "../models/slat_decoder_gaussian.ts";
import { type SlatFlow, slatFlow } from "../models/slat_flow.ts";
import { concat } from "../ops/movement.ts";
import { activateGaussians } from "../render/gaussians.ts";
import type { Splats } from "../render/splat.ts";
import { batchCoords, makeVoxels, type SparseTensor } from "../sparse/voxels.ts";
import { Generator } from "../tensor/random.ts";
import { step } from "../tensor/scope.ts";
import { noGrad } from "../tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../tensor/tensor.ts";
import { joinFloats } from "./batch.ts";
import type { Condition } from "./condition.ts";
import type { PipelineSampler } from "./pipeline_file.ts";

/** An object whose latents are sampled. */
export interface ObjectToSample {
  /** Its voxels [N, 3]. */
  coords: Int32Array;
  /** Its picture [3, S, S], 0 to 1, premultiplied on black. */
  picture: Float32Array;
  /** Chooses the noise. */
  seed: number;
}

/** Options of {@linkcode sampleLatents}. */
export interface SampleLatentsOptions extends Partial<PipelineSampler> {
  onStep?: (step: number) => void;
}

/** Normalised latents [N, C] of objects, sampled together. */
export function sampleLatents(
  { flow, condition }: { flow: SlatFlow; condition: Condition },
  objects: readonly ObjectToSample[],
  options: SampleLatentsOptions = {},
): Float32Array<ArrayBuffer>[] {
  const { in_channels: C } = flow.args, S = condition.config.image_size, B = objects.length;
  return step(() =>
    noGrad(() => {
      const voxels = makeVoxels(batchCoords(objects.map(({ coords }) => coords)), { B });
      const noise = concat(objects.map(({ coords, seed }) => new Generator(seed).normal([coords.length / 3, C])), 0);
      const tokens = condition.encode(tensor(joinFloats(objects.map(({ picture }) => picture)), [B, 3, S, S]));
      const velocity = (x: Tensor, t: Tensor, cond: Tensor): Tensor => slatFlow(flow, { features: x, voxels }, t, cond);
      const z = sampleEuler(velocity, noise, tokens, zeros(tokens.shape), { ...options, samples: B }).read();
      return objects.map((_, k) => z.slice(voxels.starts[k] * C, voxels.starts[k + 1] * C));
    })
  );
}

/** What latents on voxels, not normalised, look like as Gaussians, ready to be drawn. */
export function splatsOfLatents(decoder: SlatGaussianDecoder, x: SparseTensor, recompute = 0): Splats {
  const { representation_config: config } = decoder.args, starts = x.voxels.starts.map((row) => row * config.num_gaussians);
  return activateGaussians(slatDecodeGaussians(decoder, x, { recompute }), starts, config);
}
