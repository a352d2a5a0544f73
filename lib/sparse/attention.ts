/** Attention among the voxels of each sample: all of them, by windows of space, or by windows along a space-filling curve. */
import { crossAttention, selfAttention, type Sequences } from "../ops/attention.ts";
import { reshape, slice } from "../ops/movement.ts";
import { type NormedAttentionOptions, normedSelfAttention } from "../ops/normed_attention.ts";
import { headRmsNorm } from "../ops/rms_norm.ts";
import { gatherRows, type RowIndex, rowIndex } from "../ops/rows.ts";
import { argsort, type Curve, curveKeys, segments, windowKeys } from "../ops/sparse_order.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import { curveWindows } from "./curve_windows.ts";
import { mapOf, MAX_SIDE, type Voxels } from "./voxels.ts";

/** Voxels attend to those whose shifted coordinates lie in the same cube of `window` cells. */
export interface SpaceWindows {
  window: number;
  shift: number;
}

/** Voxels attend to the `window` voxels around their part of a curve: see {@linkcode curveWindows}. */
export interface SequenceWindows {
  curve: Curve;
  window: number;
  /** Added to the coordinates before they are put on the curve. */
  coordinateShift: number;
  /** Voxels along the curve by which the windows begin later. */
  sequenceShift: number;
}

/** Which voxels of its sample a voxel attends to. */
export type AttentionPattern = "full" | SpaceWindows | SequenceWindows;

/** Packed projections qkv [N, 3, H, D] give [N, H, D]; queries and keys pass a multi-head RMS norm first where there are gammas [H, D]. */
export function sparseSelfAttention(
  qkv: Tensor,
  voxels: Voxels,
  pattern: AttentionPattern,
  gammas?: [q: Tensor, k: Tensor],
  { kept }: Pick<NormedAttentionOptions, "kept"> = {},
): Tensor {
  if (pattern === "full" || !("curve" in pattern)) {
    const sequences = pattern === "full" ? samplesOf(voxels) : windowsOf(voxels, pattern);
    return gammas ? normedSelfAttention(qkv, gammas, { sequences, kept }) : selfAttention(qkv, { sequences });
  }
  if (gammas) qkv = headRmsNorm(qkv, gammas);
  const [N, , H, D] = qkv.shape, C = H * D, { sorted, windows, sequences, keySequences } = curveMaps(voxels, pattern);
  const rows = reshape(qkv, [N, 3 * C]), q = reshape(slice(rows, 1, 0, C), [N, H, D]);
  const kv = gatherRows(gatherRows(slice(rows, 1, C, 3 * C), sorted), windows); // [the windows' keys, 2 C]
  return crossAttention(q, reshape(kv, [-1, 2, H, D]), { sequences, keySequences });
}

/** Attention of each sample's voxels to its context: q [N, H, D], kv [B, M, 2, H, D] give [N, H, D]. */
export function sparseCrossAttention(q: Tensor, kv: Tensor, voxels: Voxels): Tensor {
  const [B, M, , H, D] = kv.shape;
  const keySequences = mapOf(voxels, `context ${M}`, (): Sequences => {
    return { offsets: tensor(Int32Array.from({ length: B + 1 }, (_, b) => b * M), [B + 1], { dtype: "i32" }), longest: M };
  });
  return crossAttention(q, reshape(kv, [B * M, 2, H, D]), { sequences: samplesOf(voxels), keySequences });
}

function samplesOf({ offsets, longest }: Voxels): Sequences {
  return { offsets, longest };
}

function bitsFor(count: number): number {
  return Math.ceil(Math.log2(Math.max(1, count)));
}

function windowsOf(voxels: Voxels, { window, shift }: SpaceWindows): Sequences {
  return mapOf(voxels, `windows of ${window}, shifted by ${shift}`, () => {
    const { coords, N, B, side, longest } = voxels, along = Math.floor((side - 1 + shift) / window) + 1, bits = Math.max(1, bitsFor(along));
    const keys = windowKeys(coords, { window, shift, bits }), { order } = argsort(keys, 3 * bits + bitsFor(B));
    const most = Math.min(N, B * along ** 3); // windows with a voxel; those past the last are empty
    return { offsets: segments(keys, order).view([most + 1]), longest: Math.min(longest, window ** 3), rows: order };
  });
}

interface CurveMaps {
  /** The voxels along the curve. */
  sorted: RowIndex;
  /** Of those, the keys of each window; a voxel may be in two. */
  windows: RowIndex;
  sequences: Sequences;
  keySequences: Sequences;
}

const CURVE_BITS = 30;

function curveMaps(voxels: Voxels, { curve, window, coordinateShift, sequenceShift }: SequenceWindows): CurveMaps {
  return mapOf(voxels, `${curve} of ${window}, shifted by ${coordinateShift} and ${sequenceShift}`, () => {
    const { coords, N, B, starts, side } = voxels, i32 = { dtype: "i32" } as const;
    if (side + coordinateShift > MAX_SIDE) {
      throw new RangeError(
        `Cannot put voxels on a curve: they reach ${side} cells, it must be at most ${
          MAX_SIDE - coordinateShift
        } to be shifted by ${coordinateShift}`,
      );
    }
    const { order, inverse } = argsort(curveKeys(coords, curve, { shift: coordinateShift }), CURVE_BITS + bitsFor(B));
    const sorted = { index: order, offsets: tensor(Int32Array.from({ length: N + 1 }, (_, n) => n), [N + 1], i32), order: inverse, N };
    const at = curveWindows(starts, { window, shift: sequenceShift });
    const rows = reshape(gatherRows(reshape(order, [N, 1]), tensor(at.queries, [N], i32)), [N]);
    const sequence = (offsets: Int32Array): Sequences => ({
      offsets: tensor(offsets, [offsets.length], i32),
      longest: offsets.reduce((most, end, s) => s ? Math.max(most, end - offsets[s - 1]) : 0, 0),
    });
    return {
      sorted,
      windows: rowIndex(at.keys, N),
      sequences: { ...sequence(at.queryOffsets), rows },
      keySequences: sequence(at.keyOffsets),
    };
  });
}
