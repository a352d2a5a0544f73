/** The transformer over voxels that the SLat encoder and decoders share. */
import { cast } from "../ops/cast.ts";
import { add } from "../ops/elementwise.ts";
import type { AttentionPattern } from "../sparse/attention.ts";
import { voxelEmbedding } from "../sparse/position.ts";
import { expectFeatures, type SparseTensor } from "../sparse/voxels.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { tidy } from "../tensor/scope.ts";
import { expectDtype, type Tensor } from "../tensor/tensor.ts";
import { headsOf } from "./attention.ts";
import { runBlocks, transformerBlock, type TransformerBlockSpec, transformerBlockSpec } from "./block.ts";
import { applyLinear, type LinearSpec, linearSpec } from "./linear.ts";
import type { Parameters } from "./parameters.ts";

/** Options that the models share, named as in TRELLIS's configs. */
export interface SparseTransformerArgs {
  /** Side of the grid of voxels. */
  resolution: number;
  model_channels: number;
  num_blocks: number;
  /** By default model_channels / num_head_channels. */
  num_heads?: number;
  num_head_channels?: number;
  mlp_ratio?: number;
  /** Which voxels attend to which: see {@linkcode attentionPattern}. */
  attn_mode?: "full" | "swin" | "shift_window" | "shift_sequence" | "shift_order";
  window_size?: number;
  pe_mode?: "ape";
  use_fp16?: boolean;
  use_checkpoint?: boolean;
  qk_rms_norm?: boolean;
}

/** A model of this family: its options, the dtype of its blocks, and its parameters. */
export interface SparseTransformerModel<A, S> {
  args: A;
  dtype: FloatDType;
  params: Parameters<S>;
}

/** Parameters of {@linkcode sparseTransformer}. */
export type SparseTransformerSpec = { input_layer: LinearSpec; blocks: TransformerBlockSpec[] };

/** The parameters of a model of class `name` whose input has `inputs` channels; `dtype` is that of the blocks. */
export function sparseTransformerSpec(
  name: string,
  args: SparseTransformerArgs,
  inputs: number,
  dtype: FloatDType,
): SparseTransformerSpec {
  const { model_channels: C, num_blocks, mlp_ratio = 4, window_size = 8, pe_mode = "ape", qk_rms_norm: qkRmsNorm = false } = args;
  const H = headsOf(name, args);
  if (pe_mode !== "ape") throw new RangeError(`Cannot make ${name}: pe_mode is "${pe_mode}", it must be "ape"`);
  if (!(Number.isInteger(window_size) && window_size >= 1)) {
    throw new RangeError(`Cannot make ${name}: window_size is ${window_size}, it must be a whole number from 1 up`);
  }
  return {
    input_layer: linearSpec(inputs, C, "f32"),
    blocks: Array.from({ length: num_blocks }, () => {
      return transformerBlockSpec({ C, hidden: Math.floor(C * mlp_ratio), H, qkRmsNorm, dtype });
    }),
  };
}

const CURVES = ["zOrder", "zOrderTransposed", "hilbert", "hilbertTransposed"] as const;

/**
 * What the voxels of block `i` attend to. full: their sample. swin: windows of space, shifted by half of one in odd blocks. The others: windows
 * along the Z-order curve, of coordinates shifted by 16 cells (shift_window) or shifted by half a window (shift_sequence) in odd blocks, or along
 * one of four curves in turn (shift_order).
 */
export function attentionPattern({ attn_mode = "swin", window_size: window = 8 }: SparseTransformerArgs, i: number): AttentionPattern {
  const odd = i % 2, curve = "zOrder", half = Math.floor(window / 2);
  switch (attn_mode) {
    case "full":
      return "full";
    case "swin":
      return { window, shift: half * odd };
    case "shift_window":
      return { curve, window, coordinateShift: 16 * odd, sequenceShift: 0 };
    case "shift_sequence":
      return { curve, window, coordinateShift: 0, sequenceShift: half * odd };
    case "shift_order":
      return { curve: CURVES[i % 4], window, coordinateShift: 0, sequenceShift: 0 };
  }
}

/** Options of {@linkcode sparseTransformer}. */
export interface SparseTransformerOptions {
  /** How many blocks, from the first on, are computed again in the backward pass instead of kept; by default all or none as use_checkpoint says. */
  recompute?: number;
}

/** x [N, inputs] f32 on its voxels gives [N, C] in the dtype of the blocks. */
export function sparseTransformer(
  { args, dtype, params: p }: SparseTransformerModel<SparseTransformerArgs, SparseTransformerSpec>,
  x: SparseTensor,
  { recompute = args.use_checkpoint ? args.num_blocks : 0 }: SparseTransformerOptions = {},
): Tensor {
  const { features, voxels } = x, C = args.model_channels, H = headsOf("the model", args);
  expectFeatures("sparseTransformer", x, p.input_layer.weight.shape[1]);
  expectDtype("sparseTransformer", "features", features, "f32");
  const h = tidy(() => cast(add(applyLinear(p.input_layer, features), voxelEmbedding(voxels, C)), dtype));
  return runBlocks(p.blocks, [h], recompute, (block, i, h) => {
    return transformerBlock(block, h, H, { voxels, pattern: attentionPattern(args, i) });
  });
}
