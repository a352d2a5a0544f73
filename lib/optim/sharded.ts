/**
 * An optimizer whose state is spread over the ranks (ZeRO, stage 1: Rajbhandari et al., 2020). Gradients are summed by reduce-scatter, so that of each
 * bucket a rank has the sum of its own row alone; it steps that row's masters, moments and means, which nobody else holds, and the new parameters are
 * gathered from all. Masters of f32 parameters are the model's own. The norm is that of all ranks' norms, in one order: it is rounded otherwise than
 * the norm of the whole buffer, so clipped steps may differ from those of a whole optimizer by rounding; all else is equal to the bit where sums are.
 */
import { K_ADAMW8_BLOCK } from "../../ffi/symbols.ts";
import { type Bucket, layOutBuckets } from "../dist/gradients.ts";
import { gatherRun, shardedTensor } from "../dist/sharded.ts";
import { persist } from "../tensor/scope.ts";
import type { Kept } from "../tensor/snapshot.ts";
import { empty, emptyOnHost, sizeOf, type Tensor, zeros } from "../tensor/tensor.ts";
import { type Adamw, applyAdamw, makeAdamw, queueNorm, readStats } from "./adamw.ts";
import { type Ema, resetEmas } from "./ema.ts";
import { castInto, type FlatBuffers, type FlatOptions, type FlatParameters, parametersFrom } from "./parameters.ts";
import { namedState, type Updater, type UpdaterOptions } from "./updater.ts";

/** Rows are whole blocks of 8-bit moments, which share a scale. */
const ROW_UNIT = K_ADAMW8_BLOCK;

/** How parameters must be laid out for `world` ranks. */
export function shardedLayout(world: number): FlatOptions {
  return { unit: world * ROW_UNIT, wideOnly: true };
}

/** This rank's row of a bucket, and what belongs to it. */
interface Row extends FlatBuffers {
  bucket: Bucket;
  /** Of the bucket: how many values an optimizer that is not spread has of it; the others fill it up. */
  count: number;
  /** The bucket as the model sees it, and this rank's row of it. */
  values: Tensor;
  mine: Tensor;
  adamw: Adamw;
  emas: Ema[];
}

/** How many values the 16-bit and the f32 parameters take where they are not spread. */
function plainSizes({ entries, boundary }: FlatParameters, unit: number): [half: number, wide: number] {
  const end = (wide: boolean): number =>
    entries.reduce((most, e) => (e.dtype === "f32") === wide ? Math.max(most, e.offset + sizeOf(e.shape)) : most, wide ? boundary : 0);
  const [half, wide] = [end(false), end(true) - boundary].map((size) => Math.ceil(size / unit) * unit);
  return [half, wide];
}

/** The state spread over all ranks; `flat` is laid out as {@linkcode shardedLayout} says. `unit` is that of an optimizer that is not spread. */
export function shardedUpdater(flat: FlatParameters, options: UpdaterOptions & { unit: number }): Updater {
  const { ranks, codes, emaRates, hostMeans, hostMoments, bucketBytes } = options, { rank, world } = ranks, { boundary, grad } = flat;
  const [half, wide] = plainSizes(flat, options.unit);
  const buckets = layOutBuckets(grad.size, { bucketBytes, boundary, unit: world * ROW_UNIT }), n = grad.size / world;
  const adamw = makeAdamw(n, { codes, onHost: hostMoments });
  return persist(() => {
    const masters = empty([boundary / world]), norms = zeros([buckets.length + 1]), all = zeros([world * buckets.length]);
    const means = emaRates.map((rate) => ({ rate, values: (hostMeans ? emptyOnHost : empty)([n]) }));
    let at = 0;
    const rows = buckets.map((bucket): Row => {
      const size = bucket.size / world, own = bucket.offset + rank * size, isWide = bucket.offset >= boundary, from = isWide ? boundary : 0;
      const row = (t: Tensor, offset: number, length = size): Tensor => t.view([length], { offset }), blocks = size / ROW_UNIT;
      const source = isWide ? flat.master : flat.copy!, mine = row(source, own - from), master = isWide ? mine : row(masters, at);
      if (!isWide) castInto(master, mine);
      const emas = means.map(({ rate, values }) => ({ rate, values: row(values, at) }));
      resetEmas(master, emas);
      const { m, v, scales } = adamw, scalesOf = (t: Tensor): Tensor => row(t, at / ROW_UNIT, blocks);
      const made: Row = {
        bucket,
        count: Math.max(0, Math.min(bucket.size, (isWide ? wide : half) - (bucket.offset - from))),
        values: row(source, bucket.offset - from, bucket.size),
        ...{ mine, master, grad: row(grad, own), copy: isWide ? null : mine, emas },
        adamw: { ...adamw, m: row(m, at), v: row(v, at), scales: scales && { m: scalesOf(scales.m), v: scalesOf(scales.v) } },
      };
      at += size;
      return made;
    });
    const kept = (part: (row: Row) => Tensor, perValue = 1): Kept => {
      const runs = rows.map((row) => ({ count: row.count * perValue, mine: part(row) }));
      return shardedTensor([(half + wide) * perValue], runs[0].mine.dtype, runs, ranks);
    };
    const scaled = (of: "m" | "v"): Kept => kept(({ adamw }) => adamw.scales![of], 1 / ROW_UNIT);
    const moments = {
      m: kept(({ adamw }) => adamw.m),
      v: kept(({ adamw }) => adamw.v),
      scales: codes ? { m: scaled("m"), v: scaled("v") } : null,
    };
    const gatherValues = (): void => rows.forEach(({ values, mine }) => gatherRun(values, mine, ranks));
    return {
      tensors: namedState(kept(({ master }) => master), moments, means.map(({ rate }, i) => [rate, kept(({ emas }) => emas[i].values)])),
      held: namedState(masters, adamw, means.map(({ rate, values }) => [rate, values])),
      ...{ adamw, buckets },
      own: { parts: rows.map(({ bucket, grad }) => ({ offset: bucket.offset + rank * grad.size, size: grad.size })), others: ranks },
      send: (view, index) => ranks.reduceScatter(rows[index].grad, view),
      step(step) {
        readStats(adamw);
        // Each call writes its norm and, where the next one's goes, whether all is finite; the norm of what is not finite is not finite either.
        rows.forEach(({ grad }, i) => queueNorm(norms.addr + BigInt(4 * i), grad, step.unscale));
        const found = norms.view([buckets.length]);
        gatherRun(all, found, ranks);
        found.free();
        ranks.join();
        queueNorm(adamw.stats.addr, all);
        for (const row of rows) {
          applyAdamw(row, { ...row.adamw, applied: adamw.applied }, { ...step, emas: row.emas });
          gatherRun(row.values, row.mine, ranks); // while the next row is stepped
        }
        adamw.coming = adamw.stats.readLater();
        ranks.join();
      },
      averaged(params) {
        const whole = empty(grad.shape), parts = rows.map(({ bucket: { offset, size } }) => whole.view([size], { offset }));
        rows.forEach(({ emas }, i) => gatherRun(parts[i], emas[0].values, ranks));
        ranks.join();
        const averaged = parametersFrom(flat, params, whole);
        for (const t of [...parts, whole]) t.free(); // the parameters hold what they see
        return averaged;
      },
      refresh() {
        for (const { copy, master } of rows) if (copy) castInto(copy, master);
        gatherValues();
        ranks.join();
      },
      free() {
        for (const row of rows) {
          const { scales } = row.adamw,
            views = [row.values, row.mine, row.grad, row.adamw.m, row.adamw.v, ...row.emas.map(({ values }) => values)];
          for (const t of [...views, row.master, ...Object.values(scales ?? {})]) t.free();
        }
        for (
          const t of [
            masters,
            norms,
            all,
            adamw.m,
            adamw.v,
            adamw.stats,
            ...Object.values(adamw.scales ?? {}),
            ...means.map(({ values }) => values),
          ]
        ) t.free();
      },
    };
  });
}
