/** Trainings that `plan` is held against. */
import type { Training } from "../lib/train/predict.ts";
import { type ModelChoice, slatFlowWork, type SparseSamples, ssFlowWork, type Work, type WorkOptions } from "./flow_models.ts";
import { shellOfVoxels } from "./memory_sparse.ts";

/** One of them. */
export interface PlanCase {
  name: string;
  /** GiB, and whether tensors may wait on the host. */
  budget?: number;
  offload?: boolean;
  /** Blocks that are whole checkpoints. */
  recompute?: number;
  /** Micro-batches of a step. */
  parts: number;
  sizes: number[];
  /** Places of the samples, for {@linkcode make}. */
  places?: number[][];
  make(samples?: SparseSamples): Work;
}

type Limits = Pick<PlanCase, "budget" | "offload" | "recompute"> & { parts?: number };

function named(work: string, { budget, offload, recompute, parts = 1 }: Limits): string {
  return [
    work,
    ...parts > 1 ? [`${parts} of them a step`] : [],
    ...recompute ? [`${recompute} whole blocks made again`] : [],
    ...budget ? [`a budget of ${budget} GiB${offload ? ", some on the host" : ""}`] : [],
  ].join(", ");
}

function ss(options: WorkOptions, { parts = 1, ...limits }: Limits = {}, model?: ModelChoice): PlanCase {
  const { batch, dtype = "bf16", fp8, optimizer } = options, label = model?.label ?? "SS-Flow image-L";
  const state = optimizer ? `, 8-bit moments, ${optimizer.onHost} in the host's memory` : "";
  const name = named(`${label} ${fp8 ? "fp8" : dtype} batch ${batch}${state}`, { ...limits, parts });
  return { name, parts, ...limits, sizes: new Array(batch).fill(4096), make: () => ssFlowWork(options, model) };
}

function slat(sizes: number[], { parts = 1, ...limits }: Limits = {}): PlanCase {
  const places = sizes.map(shellOfVoxels), batch = sizes.length;
  const name = named(`SLat-Flow image-L bf16, samples of ${sizes.join(", ")} voxels`, { ...limits, parts });
  return { name, parts, ...limits, sizes, places, make: (samples) => slatFlowWork({ batch }, samples) };
}

const XL = { config: "ss_flow_txt_dit_XL_16l8_fp16", label: "SS-Flow text-XL" };
const B = { config: "ss_flow_txt_dit_B_16l8_fp16", label: "SS-Flow text-B" };

/**
 * Cases that no card's sheet was set by: other batches, models, precisions, samples, budgets. Places of samples are made when this is called.
 */
export function planCases(): PlanCase[] {
  return [
    ss({ batch: 3 }),
    ss({ batch: 6 }, { budget: 20 }),
    slat([15000]),
    slat([4000, 6000, 8000, 10000]),
    slat([4000, 8000, 12000, 16000, 20000, 24000, 28000], { budget: 24 }),
    ss({ batch: 4 }, { budget: 30 }, XL),
    ss({ batch: 5, dtype: "f16" }),
    slat([30000, 32000]),
    ss({ batch: 5 }, { recompute: 12 }),
    ss({ batch: 2, optimizer: { momentBits: 8, onHost: "means" } }),
    ss({ batch: 8 }, {}, B),
    ss({ batch: 2 }, { parts: 3 }),
    ss({ batch: 12 }, { budget: 36 }),
  ];
}

/** Cases that the sheet of the H200 was set by, with what memory_bench calls them. */
export function calibrationCases(): (PlanCase & { measured: [name: string, peak: string] })[] {
  const large = "SS-Flow image-L bf16 batch 8", small = "SS-Flow image-L bf16 batch 1, 8-bit moments";
  const named = (name: string, c: PlanCase, peak = "peak") => ({ ...c, measured: [name, peak] as [string, string] });
  return [
    named(`${large}, nothing but norms and activations made again`, ss({ batch: 8 })),
    named(`${large}, whole blocks made again`, ss({ batch: 8 }, { recompute: 24 })),
    ...[32, 24, 18].map((budget) => named(`${large}, a budget of ${budget} GiB`, ss({ batch: 8 }, { budget }))),
    ...([["nothing", 11], ["means", 9], ["state", 8]] as const).map(([onHost, budget]) => {
      const name = `${small}, ${onHost} in the host's memory, ${budget} GiB`;
      return named(name, ss({ batch: 1, optimizer: { momentBits: 8, onHost } }, { budget }), "peak by the pool");
    }),
  ];
}

/** The training of a case, on the open device. */
export function trainingOf({ make, parts, sizes, recompute }: PlanCase, samples?: SparseSamples): Training & { work: Work } {
  const work = make(samples);
  return { work, optimizer: work.optimizer, parts, sizes, pass: (options) => work.pass({ recompute, ...options }).free() };
}
