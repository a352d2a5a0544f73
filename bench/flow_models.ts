/** The half-billion-parameter flow models of the step benchmarks, on random data of full size. */
import type { PassOptions } from "../lib/memory/elastic.ts";
import { PUBLISHED_SLAT_FLOW, PUBLISHED_SS_FLOW } from "../lib/models/published.ts";
import { slatFlow, type SlatFlowOptions, slatFlowSpec } from "../lib/models/slat_flow.ts";
import { ssFlow, ssFlowSpec } from "../lib/models/ss_flow.ts";
import { initialize, leaves, type Parameters, type ParameterSpec } from "../lib/nn/parameters.ts";
import { mse } from "../lib/ops/loss.ts";
import {
  createOptimizer,
  type Optimizer,
  OPTIMIZER_DEFAULTS,
  type OptimizerConfig,
  type OptimizerOptions,
} from "../lib/optim/optimizer.ts";
import { batchCoords, makeVoxels, type Voxels } from "../lib/sparse/voxels.ts";
import type { FloatDType } from "../lib/tensor/dtype.ts";
import { Generator } from "../lib/tensor/random.ts";
import { persist, step } from "../lib/tensor/scope.ts";
import { backward, checkpoint } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";

/** Tokens of a condition picture: DINOv2 at 518 pixels. */
const TOKENS = 1374;

/** A model in training. */
export interface Work {
  name: string;
  optimizer: Optimizer<unknown>;
  /** Queues forward and backward; the loss is left on the device, for the caller to free. `whole`: with all of the model in one checkpoint. */
  pass(options?: PassOptions, whole?: boolean): Tensor;
  /** Floating-point operations of a forward and a backward pass. */
  flops: number;
  free(): void;
}

/** Options of the models here. */
export interface WorkOptions {
  batch: number;
  dtype?: FloatDType;
  /** Whether the blocks' linear layers are in 8-bit floats, "all" with the forward products of the MLPs. */
  fp8?: boolean | "all";
  /** Changes to the optimizer's usual settings. */
  optimizer?: Partial<OptimizerConfig> & OptimizerOptions;
}

/** A sparse-structure model other than image-L: its published config, and how it is called. */
export interface ModelChoice {
  config: string;
  label: string;
}

/** Samples other than shells of 15,192 voxels: the places of each, and the voxels of all, on the open device or, for a simulated one, the host. */
export interface SparseSamples {
  places: number[][];
  voxels: Voxels;
}

/** How a work is called. */
function nameOf(model: string, { batch, dtype = "bf16", fp8 }: WorkOptions): string {
  return `${model} ${fp8 === "all" ? "fp8-all" : fp8 ? "fp8" : dtype} batch ${batch}`;
}

/** What starts at zero starts at random instead: at zero, blocks would do nothing, and gradients of zeros cost less power. */
export function startAtRandom(specs: unknown): void {
  for (const [, spec] of leaves<ParameterSpec>(specs)) {
    if ("fill" in spec.init && spec.init.fill === 0 && spec.shape.length > 1) spec.init = { normal: 0.02 };
  }
}

function inTraining<S>(
  name: string,
  specs: S,
  flops: number,
  inputs: Tensor[],
  velocity: (params: Parameters<S>, options?: PassOptions) => Tensor,
  target: Tensor,
  { ranks, bucketBytes, ...changes }: Partial<OptimizerConfig> & OptimizerOptions = {},
): Work {
  startAtRandom(specs);
  const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), { ...OPTIMIZER_DEFAULTS, ...changes }, {
    ranks,
    bucketBytes,
  });
  return {
    name,
    optimizer,
    flops,
    pass: (options, whole) =>
      step(() => {
        const run = (): Tensor => velocity(optimizer.params, options), loss = mse(whole ? checkpoint(run, inputs) : run(), target);
        backward(loss);
        return loss;
      }),
    free() {
      optimizer.free();
      for (const t of [...inputs, target]) t.free();
    },
  };
}

/** Products of L tokens of C channels with M context tokens through one block's parameters and attention, forward. */
function blockFlops(L: number, M: number, C: number): number {
  return 2 * L * C * (3 * C + C + C + C + 8 * C) + 2 * M * C * 2 * C + 4 * L * L * C + 4 * L * M * C;
}

const IMAGE_L: ModelChoice = { config: "ss_flow_img_dit_L_16l8_fp16", label: "SS-Flow image-L" };

/** SS-Flow image-L, 555.5 M parameters, or another, 4096 tokens a sample. */
export function ssFlowWork(options: WorkOptions, { config, label } = IMAGE_L): Work {
  const { batch: B, dtype = "bf16", fp8, optimizer } = options;
  const args = { ...PUBLISHED_SS_FLOW[config], use_fp16: false }, specs = ssFlowSpec(args, dtype);
  const { resolution: R, in_channels: C, cond_channels: X } = args, random = new Generator(2);
  return persist(() => {
    const [x, target] = [1, 2].map(() => random.normal([B, C, R, R, R])), cond = random.normal([B, TOKENS, X]), t = times(B);
    const flops = 3 * B * args.num_blocks * blockFlops(R ** 3, TOKENS, args.model_channels), name = nameOf(label, options);
    return inTraining(
      name,
      specs,
      flops,
      [x, cond, t],
      (params, options) => ssFlow({ args, dtype, fp8, params }, x, t, cond, options),
      target,
      optimizer,
    );
  });
}

/** Voxels at `places` on the open device, for {@linkcode slatFlowWork}; they live until they are freed. */
export function sparseSamples(places: number[][]): SparseSamples {
  return { places, voxels: persist(() => makeVoxels(batchCoords(places), { B: places.length })) };
}

/** Frees the voxels of samples. */
export function freeSamples({ voxels: { coords, offsets } }: SparseSamples): void {
  for (const t of [coords, offsets]) t.free();
}

/**
 * SLat-Flow image-L: 600.4 M parameters, on sphere shells of 15,192 voxels a sample, or on `given` samples, which stay the caller's; `convolve` is done
 * in place of the sparse convolutions, and the maps of the voxels are then kept from pass to pass.
 */
export function slatFlowWork(options: WorkOptions, given?: SparseSamples, convolve?: SlatFlowOptions["convolve"]): Work {
  const { batch: B, dtype = "bf16", fp8, optimizer } = options;
  const args = { ...PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16, use_fp16: false }, specs = slatFlowSpec(args, dtype);
  const { in_channels: C, cond_channels: X } = args, random = new Generator(2);
  const { places, voxels } = given ?? sparseSamples(new Array(B).fill(shellOf(args.resolution)));
  return persist(() => {
    const { N } = voxels, cells = new Map([...new Set(places)].map((p) => [p, coarse(p)]));
    const [features, target] = [1, 2].map(() => random.normal([N, C])), cond = random.normal([B, TOKENS, X]), t = times(B);
    const flops = places.reduce((sum, p) => sum + 3 * args.num_blocks * blockFlops(cells.get(p)!, TOKENS, args.model_channels), 0); // of the blocks alone
    const name = `${nameOf("SLat-Flow image-L", options)}, ${N} voxels`,
      run = (params: Parameters<typeof specs>, options?: PassOptions): Tensor => {
        const coords = voxels.coords.view(voxels.coords.shape); // a batch has new voxels each step, and builds its maps anew
        const fresh = convolve ? voxels : { ...voxels, coords, maps: {} };
        return slatFlow({ args, dtype, fp8, params }, { features, voxels: fresh }, t, cond, { ...options, convolve });
      };
    const inputs = [features, cond, t, ...given ? [] : [voxels.coords, voxels.offsets]];
    return inTraining(name, specs, flops, inputs, run, target, optimizer);
  });
}

function times(B: number): Tensor {
  return tensor(Float32Array.from({ length: B }, (_, i) => 1000 * (i + 0.5) / B), [B]);
}

/** The cells of a grid of side R between two spheres, as the benchmarks of sparse convolution have them. */
export function shellOf(R: number): number[] {
  const middle = (R - 1) / 2, out: number[] = [];
  for (let x = 0; x < R; x++) {
    for (let y = 0; y < R; y++) {
      for (let z = 0; z < R; z++) {
        const distance = Math.hypot(x - middle, y - middle, z - middle);
        if (distance >= R / 2 - 1.25 && distance <= R / 2) out.push(x, y, z);
      }
    }
  }
  return out;
}

/** Cells of twice the size that places lie in. */
function coarse(places: number[]): number {
  const seen = new Set<number>();
  for (let i = 0; i < places.length; i += 3) seen.add(((places[i] >> 1) * 1024 + (places[i + 1] >> 1)) * 1024 + (places[i + 2] >> 1));
  return seen.size;
}
