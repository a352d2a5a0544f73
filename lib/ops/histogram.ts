/** How the values of tensors are distributed, counted on the device. */
import { K_HISTOGRAM_BINS } from "../../ffi/symbols.ts";
import { DTYPE } from "../tensor/dtype.ts";
import { kernels, stream, type Tensor } from "../tensor/tensor.ts";

/** Counts between limits: `counts[i]` values are between `limits[i]` and `limits[i + 1]`; one at a limit counts where its magnitude is the least. */
export interface Histogram {
  limits: number[];
  counts: number[];
  /** Values that are not finite, which no interval has. */
  notFinite: number;
}

/** Adds the counts of x, of any shape, f32, f16 or bf16, to `counts` [K_HISTOGRAM_BINS] i64; see k_histogram_fwd. */
export function countBins(counts: Tensor, x: Tensor): void {
  if (counts.dtype !== "i64" || counts.size !== K_HISTOGRAM_BINS) {
    throw new TypeError(`Cannot count values: counts is [${counts.shape}] ${counts.dtype}, it must be [${K_HISTOGRAM_BINS}] i64`);
  }
  kernels().k_histogram_fwd(counts.addr, x.addr, BigInt(x.size), DTYPE[x.dtype], stream());
}

const HALF = K_HISTOGRAM_BINS / 2, FINITE = 255 << 2, SHIFT = 21;

/** The value at which a bin of positive values begins. */
function limitOf(bin: number): number {
  return new Float32Array(Uint32Array.of(bin << SHIFT).buffer)[0];
}

/** The histogram of counted bins, values times `scale`: of what is between the least and the largest, empty intervals beside each other as one. */
export function histogramOf(bins: ArrayLike<number | bigint>, scale = 1): Histogram {
  const found: { low: number; high: number; count: number }[] = [];
  let notFinite = 0;
  for (let k = 0; k < K_HISTOGRAM_BINS; k++) {
    const negative = k < HALF, bin = negative ? HALF - 1 - k : k - HALF, count = Number(bins[negative ? HALF + bin : bin]);
    if (bin >= FINITE) notFinite += count;
    else {
      const [near, far] = [scale * limitOf(bin), bin + 1 === FINITE ? scale * 2 ** 128 : scale * limitOf(bin + 1)];
      const low = negative ? -far : near, high = negative ? -near : far, before = found.at(-1);
      if (count === 0 && (!before || before.count === 0)) {
        if (before) before.high = high;
      } else found.push({ low, high, count });
    }
  }
  if (found.at(-1)?.count === 0) found.pop();
  return {
    limits: found.length ? [found[0].low, ...found.map(({ high }) => high)] : [],
    counts: found.map(({ count }) => count),
    notFinite,
  };
}
