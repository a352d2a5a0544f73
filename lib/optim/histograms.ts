/** How the parameters and the gradients of a model's parts are distributed. */
import { K_HISTOGRAM_BINS } from "../../ffi/symbols.ts";
import type { Bucket } from "../dist/gradients.ts";
import type { Communicator } from "../dist/communicator.ts";
import { countBins, type Histogram, histogramOf } from "../ops/histogram.ts";
import { tidy } from "../tensor/scope.ts";
import { type Tensor, zeros } from "../tensor/tensor.ts";
import type { FlatParameters } from "./parameters.ts";

/** The part of a model that a parameter belongs to: up to the last number in its name but for the parameter's own, or all but its last word. */
export function partOf(name: string): string {
  const words = name.split("."), numbered = words.findIndex((word) => /^\d+$/.test(word));
  return words.slice(0, numbered < 0 ? Math.max(words.length - 1, 1) : numbered + 1).join(".");
}

/** Options of {@linkcode modelHistograms}. */
export interface HistogramOptions {
  /** The parts of the gradient buffer that hold sums here: all of it, or what this rank steps. */
  own: Bucket[];
  /** Those who hold the sums of the other parts; all ask together. */
  ranks?: Communicator;
  /** What the gradients are multiplied by: 1 / the loss scale. */
  unscale: number;
}

/** Histograms named parameters/<part> and gradients/<part>; `tensors` are the parameters by name. Waits for the device. */
export function modelHistograms(
  { entries, grad }: FlatParameters,
  tensors: Map<string, Tensor>,
  { own, ranks, unscale }: HistogramOptions,
): Record<string, Histogram> {
  const parts = [...new Set(entries.map(({ name }) => partOf(name)))], size = parts.length * K_HISTOGRAM_BINS;
  const [ofParameters, ofGradients] = tidy(() => {
    const [parameters, gradients] = [1, 2].map(() => zeros([size], "i64"));
    for (const { name, offset } of entries) {
      const at = parts.indexOf(partOf(name)) * K_HISTOGRAM_BINS,
        t = tensors.get(name)!,
        bins = (all: Tensor) => all.view([K_HISTOGRAM_BINS], { offset: at });
      countBins(bins(parameters), t);
      for (const bucket of own) {
        const begin = Math.max(offset, bucket.offset), end = Math.min(offset + t.size, bucket.offset + bucket.size);
        if (end > begin) countBins(bins(gradients), grad.view([end - begin], { offset: begin }));
      }
    }
    ranks?.allReduce(gradients);
    ranks?.join();
    return [parameters, gradients].map((t) => t.readRaw() as BigInt64Array);
  });
  return Object.fromEntries(parts.flatMap((part, i) => {
    const bins = (all: BigInt64Array): BigInt64Array => all.subarray(i * K_HISTOGRAM_BINS, (i + 1) * K_HISTOGRAM_BINS);
    return [[`parameters/${part}`, histogramOf(bins(ofParameters))], [`gradients/${part}`, histogramOf(bins(ofGradients), unscale)]];
  }));
}
