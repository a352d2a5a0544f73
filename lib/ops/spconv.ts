/** Sparse convolution: rows of features meet where a table says so. Submanifold, strided and inverse convolutions differ in their table alone. */
import { DTYPE, isFloat } from "../tensor/dtype.ts";
import { onDevice } from "../tensor/device.ts";
import { beside, tidy } from "../tensor/scope.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { sumRows } from "./reduce.ts";
import { withWorkspace } from "./workspace.ts";

/** Rows are put in the order of their taps within runs of about this many: what one run reads stays in an L2 cache. */
const GROUP = 131072;
/** Where walking a table in parts pays: up to FEW rows from FEW_CHANNELS on, up to GROUP rows from MANY_CHANNELS on. */
const FEW = 32768, FEW_CHANNELS = 128, MANY_CHANNELS = 1024;

/** A batch of places: [N, 4] i32 rows of (sample, x, y, z), the sample below B, the others below `side`. */
export interface Places {
  coords: Tensor;
  B: number;
  side: number;
}

/** The window of a convolution. */
export interface Window {
  /** Taps along an axis, 1 to 5. */
  kernel: number;
  /** Cells from one window to the next, 1 to 5. */
  stride?: number;
  /** Cells before the first one that a window may reach, 0 to kernel - 1. */
  padding?: number;
}

/** Which row of N each tap of each of `rows` results reads. */
export interface Table {
  /** [rows, K] i32, -1 for none. */
  entries: Tensor;
  /** [rows, ceil(K / 32)] i32: bit t of a row's words tells whether tap t has one. */
  taps: Tensor;
  rows: number;
  N: number;
  K: number;
}

/** The order in which the kernels walk a table, its taps in `parts`. */
interface Walk {
  order: Tensor;
  masks: Tensor;
  parts: number;
}

/** A table by taps, for the gradient of the weights. */
interface Pairs {
  pairs: Tensor;
  offsets: Tensor;
}

/** What {@linkcode spconv} needs of a set of places, shared by every layer and pass: each part is built when it is first needed. */
export interface SpconvMap {
  table: Table;
  walk(parts: number): Walk;
  pairs(): Pairs;
  /** The map of the input's gradient: a submanifold convolution's own with `mirror`, its taps in the opposite order. */
  backward(): { map: SpconvMap; mirror: boolean };
}

/**
 * The table of a convolution from the places `from` to the places `to`: tap t of result q reads the place `q stride + t - padding`. With
 * `transposed` it is the inverse convolution's, from coarse places to fine ones: tap t of result p reads the q for which this gives p.
 */
export function spconvTable(to: Places, from: Places, window: Window, { transposed = false } = {}): Table {
  const { kernel, stride = 1, padding = 0 } = window, k = kernels();
  for (const [name, { coords }] of [["to", to], ["from", from]] as const) {
    expectDtype("spconvTable", name, coords, "i32");
    expectShape("spconvTable", name, coords, [coords.shape[0], 4]);
  }
  const rows = to.coords.shape[0], N = from.coords.shape[0], K = kernel ** 3;
  dim("spconvTable", "rows times taps", rows * K);
  const entries = empty([rows, K], "i32"), taps = empty([rows, Math.ceil(K / 32)], "i32");
  return tidy(() => {
    const faults = empty([3], "i32");
    withWorkspace(
      (bytes) => k.k_spconv_table_workspace(bytes, rows, N, from.B, from.side),
      (scratch) =>
        k.k_spconv_table(
          ...[entries.addr, taps.addr, faults.addr, to.coords.addr, from.coords.addr, scratch, rows, N, from.B, from.side] as const,
          ...[kernel, stride, padding, Number(transposed), stream()] as const,
        ),
    );
    return { entries, taps, rows, N, K };
  });
}

function walkOf({ taps, rows, K }: Table, parts: number): Walk {
  const order = empty([parts, rows], "i32"), masks = empty([parts, Math.ceil(rows / 64), Math.ceil(K / 32)], "i32"), k = kernels();
  const groups = Math.round(rows / GROUP), group = groups > 1 ? Math.ceil(rows / groups / 64) * 64 : 0;
  withWorkspace(
    (bytes) => k.k_spconv_plan_workspace(bytes, rows, K, parts),
    (scratch) => k.k_spconv_plan(order.addr, masks.addr, taps.addr, scratch, rows, K, parts, group, stream()),
  );
  return { order, masks, parts };
}

/**
 * In how many parts a product over C channels walks a table. Sorting planes of taps apart saves a quarter of the products for 15,000 voxels of a
 * surface, a fifth for 60,000 and a tenth for 250,000; adding the planes' sums moves 28 bytes a result, whatever C is.
 */
export function partsFor({ rows, K }: Table, C: number): number {
  const planes = Math.round(Math.cbrt(K)), pays = rows <= FEW ? C >= FEW_CHANNELS : rows <= GROUP && C >= MANY_CHANNELS;
  return planes % 2 === 1 && planes > 1 && pays ? planes : 1;
}

function pairsOf({ entries, taps, rows, K }: Table): Pairs {
  const pairs = empty([2, rows * K], "i32"), offsets = empty([K + 1], "i32"), k = kernels();
  withWorkspace(
    (bytes) => k.k_spconv_pairs_workspace(bytes, rows, K),
    (scratch) => k.k_spconv_pairs(pairs.addr, offsets.addr, entries.addr, taps.addr, scratch, rows, K, stream()),
  );
  return { pairs, offsets };
}

/** The map of a table; `transposed` is the map with the places' roles exchanged. Without it the table is a submanifold convolution's. */
export function spconvMap(table: Table, transposed?: () => SpconvMap): SpconvMap {
  const walks: Record<number, Walk> = {};
  const keep = <T>(build: () => T): T => onDevice(table.entries.storage.device, () => beside(table.entries, () => tidy(build))) as T;
  let pairs: Pairs | undefined;
  const map: SpconvMap = {
    table,
    walk: (parts) => walks[parts] ??= keep(() => walkOf(table, parts)),
    pairs: () => pairs ??= keep(() => pairsOf(table)),
    backward: () => transposed ? { map: transposed(), mirror: false } : { map, mirror: true },
  };
  return map;
}

/**
 * `y[r, o] = bias[o] + Σ weight[o, t, i] x[table[r, t], i]` over the taps t that have a row and channels i: x [N, Cin], weight [Cout, k, k, k,
 * Cin] with taps along x, y, z (the checkpoints' layout) and bias [Cout] give y [rows, Cout] in x's dtype. weight and bias are f32 or of x's
 * dtype; their gradients are f32.
 */
export function spconv(x: Tensor, weight: Tensor, bias: Tensor | null | undefined, map: SpconvMap): Tensor {
  const { entries, rows, N, K } = map.table, [Cout, side] = weight.shape, Cin = weight.shape.at(-1) ?? 0;
  if (weight.shape.length !== 5 || side ** 3 !== K) {
    throw new RangeError(`Cannot run spconv: weight is [${weight.shape}], it must be [Cout, k, k, k, Cin] with k³ = ${K}, the map's taps`);
  }
  expectShape("spconv", "weight", weight, [Cout, side, side, side, Cin]);
  expectShape("spconv", "x", x, [N, Cin]);
  expectShape("spconv", "bias", bias, [Cout]);
  if (!isFloat(x.dtype)) throw new TypeError(`Cannot run spconv: x is ${x.dtype}, it must be f32, f16 or bf16`);
  for (const [name, t] of [["weight", weight], ["bias", bias]] as const) {
    if (t && t.dtype !== "f32" && t.dtype !== x.dtype) {
      throw new TypeError(`Cannot run spconv: ${name} is ${t.dtype}, it must be f32 or x's ${x.dtype}`);
    }
  }
  const dtype = DTYPE[x.dtype], weightDtype = DTYPE[weight.dtype], biasDtype = DTYPE[bias?.dtype ?? weight.dtype], k = kernels();
  const sizes = [K, Cin, Cout] as const, y = empty([rows, Cout], x.dtype), { order, masks, parts } = map.walk(partsFor(map.table, Cin));
  const fill = (y: Tensor): void =>
    withWorkspace(
      (bytes) => k.k_spconv_fwd_workspace(bytes, rows, ...sizes, parts, dtype),
      (scratch) =>
        k.k_spconv_fwd(
          ...[y.addr, x.addr, weight.addr, bias?.addr ?? 0n, entries.addr, order.addr, masks.addr, scratch] as const,
          ...[rows, ...sizes, parts, dtype, weightDtype, biasDtype, stream()] as const,
        ),
    );
  fill(y);
  const back = x.requiresGrad ? map.backward() : null, walk = back?.map.walk(partsFor(back.map.table, Cout));
  const saved = [
    weight.requiresGrad ? x : null,
    back && weight,
    entries,
    map.table.taps,
    back?.map.table.entries,
    walk?.order,
    walk?.masks,
  ];
  return record("spconv", y, [x, weight, bias], saved, (dy) => {
    const dx = back ? empty(x.shape, x.dtype) : null, dweight = weight.requiresGrad ? empty(weight.shape) : null;
    if (dx && back && walk) {
      const maps = [back.map.table.entries.addr, walk.order.addr, walk.masks.addr] as const;
      withWorkspace(
        (bytes) => k.k_spconv_bwd_input_workspace(bytes, N, ...sizes, walk.parts, dtype),
        (scratch) =>
          k.k_spconv_bwd_input(
            ...[dx.addr, dy.addr, weight.addr, ...maps, scratch] as const,
            ...[N, ...sizes, walk.parts, Number(back.mirror), dtype, weightDtype, stream()] as const,
          ),
      );
    }
    if (dweight) {
      const { pairs, offsets } = map.pairs();
      withWorkspace(
        (bytes) => k.k_spconv_bwd_weight_workspace(bytes, rows, ...sizes, dtype),
        (scratch) =>
          k.k_spconv_bwd_weight(
            ...[dweight.addr, dy.addr, x.addr, pairs.addr, offsets.addr, scratch, rows, ...sizes, dtype, stream()] as const,
          ),
      );
    }
    return [dx, dweight, bias?.requiresGrad ? sumRows(dy) : null];
  }, { kind: "convolution", from: [x, weight, bias, entries, order, masks], fill });
}
