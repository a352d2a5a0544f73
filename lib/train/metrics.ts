/** What a run writes down: metrics.jsonl, TensorBoard events, sample grids, and the live line. */
import { writeFileAtomic } from "../io/atomic.ts";
import { encodePng, type Image, writePng } from "../io/image.ts";
import { type Communicator, communicator } from "../dist/communicator.ts";
import type { Histogram } from "../ops/histogram.ts";
import { device } from "../tensor/device.ts";
import { countFlops } from "../tensor/flops.ts";
import { formatBytes } from "../tensor/memory.ts";
import { peakFlops } from "../tensor/profile.ts";
import { meanOf } from "./batch.ts";
import { startProgress } from "./progress.ts";
import { openEventWriter } from "./tensorboard.ts";

/** A run's log. */
export interface RunLog {
  /** To be called where a step begins: the first one after each record is counted, for the rate of computing. */
  stepBegins(): void;
  /** To be called where its work is queued: what is queued later is not counted. */
  stepEnds(): void;
  /** One step: shown on the live line, and written every `every` steps as the mean of the finite values since the last record. */
  step(step: number, values: Record<string, number>, samples: number): void;
  /** Values that are not means over steps, such as an evaluation; written at once. */
  record(step: number, values: Record<string, number>): void;
  /** A picture in `samples/` and in TensorBoard. */
  image(step: number, name: string, image: Image): void;
  /** Histograms in histograms.jsonl and in TensorBoard. */
  histograms(step: number, found: Record<string, Histogram>): void;
  say(text: string): void;
  /** The means that are not written yet, for a checkpoint; what tells of this process and not of the training is left out. */
  state(): LogState;
  close(): void;
}

/** Sums and counts by name since the last record. */
export type LogState = Record<string, [sum: number, count: number]>;

/** Whether a value is of memory, which a process that goes on may use otherwise. */
function ofProcess(name: string): boolean {
  return /^(memory|remade)/.test(name);
}

/** JSON knows no NaN: it comes as null. */
function withNaN(values: Record<string, number | null>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? NaN]));
}

/** The log of a process that is not the first of several: steps are told to the first, all else is left to it. */
export function secondaryLog(ranks: Communicator): RunLog {
  const nothing = (): void => {};
  return {
    stepBegins: nothing,
    stepEnds: nothing,
    step: (_step, values) => void ranks.exchange(values),
    record: nothing,
    image: nothing,
    histograms: nothing,
    say: nothing,
    state: () => ({}),
    close: nothing,
  };
}

/** Options of {@linkcode openRunLog}. */
export interface RunLogOptions {
  /** Steps of the whole run, and how many are done. */
  steps: number;
  first: number;
  /** Steps between records. */
  every: number;
  label: string;
  /** Whether a profile looks on: then nothing is counted. */
  profiled?: boolean;
  /** Where to go on. */
  state?: LogState;
}

/**
 * Opens `metrics.jsonl`, `tb_logs/` and `samples/` in the run's folder. Records of steps from `first` on are dropped from an earlier run's
 * metrics.jsonl: they will be written again.
 */
export function openRunLog(folder: string, { steps, first, every, label, profiled = false, state }: RunLogOptions): RunLog {
  Deno.mkdirSync(`${folder}/tb_logs`, { recursive: true });
  Deno.mkdirSync(`${folder}/samples`, { recursive: true });
  const path = `${folder}/metrics.jsonl`;
  dropRecords(path, ({ step, loss }) => step < first || (step === first && (loss !== undefined || first < steps))); // what a finished run found is found again
  dropRecords(`${folder}/histograms.jsonl`, ({ step }) => step <= first);
  const file = Deno.openSync(path, { write: true, create: true, append: true }), events = openEventWriter(`${folder}/tb_logs`);
  const progress = startProgress(label, steps, { first }), encoder = new TextEncoder();
  let sums: LogState = structuredClone(state ?? {}), samples = 0, since = performance.now(), rate = 0;
  let count: (() => number) | undefined, flops = 0, done = 0;
  const stepEnds = (): void => {
    if (count) flops = count();
    count = undefined;
  };
  const peak = peakFlops();
  const write = (step: number, values: Record<string, number>): void => {
    file.writeSync(encoder.encode(JSON.stringify({ step, ...values }) + "\n"));
    events.scalars(step, values);
  };
  return {
    stepBegins() {
      if (done === 0 && !profiled) count ??= countFlops();
    },
    stepEnds,
    step(step, own, taken) {
      stepEnds();
      done++;
      const values = meanOf(communicator().exchange(own).map(withNaN));
      for (const [name, value] of Object.entries(values)) {
        if (!Number.isFinite(value)) continue; // that step was passed over
        const entry = sums[name] ??= [0, 0];
        entry[0] += value;
        entry[1]++;
      }
      samples += taken;
      const seconds = (performance.now() - since) / 1000;
      rate = samples / seconds;
      if (step % every === 0 || step === steps) {
        const { used, peak: most } = device().memory.use(), speed = flops * done / seconds;
        const means = Object.fromEntries(Object.entries(sums).map(([name, [sum, n]]) => [name, sum / n]));
        write(step, {
          ...means,
          samples_per_second: rate,
          ...(speed && { tflops: speed / 1e12 }),
          ...(peak && speed && { mfu: speed / peak }),
          memory_used: used,
          memory_peak: most,
        });
        sums = {};
        samples = done = 0;
        since = performance.now();
      }
      const memory = formatBytes(device().memory.use().used);
      progress.update(step, `loss ${values.loss?.toPrecision(4)}  ${rate.toFixed(1)} samples/s  ${memory}`);
    },
    record: write,
    image(step, name, image) {
      writePng(`${folder}/samples/${name}_step${String(step).padStart(7, "0")}.png`, image);
      events.image(step, name, encodePng(image), image);
    },
    histograms(step, found) {
      const lines = Object.entries(found).map(([name, histogram]) => JSON.stringify({ step, name, ...histogram }) + "\n");
      Deno.writeTextFileSync(`${folder}/histograms.jsonl`, lines.join(""), { append: true });
      events.histograms(step, found);
    },
    say: progress.say,
    state: () => Object.fromEntries(Object.entries(structuredClone(sums)).filter(([name]) => !ofProcess(name))),
    close() {
      count?.();
      progress.end();
      file.close();
      events.close();
    },
  };
}

/** Keeps the records of a file of them, if there is one, that `keep` says. */
function dropRecords(path: string, keep: (record: Record<string, number>) => boolean): void {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  const kept = text.split("\n").filter((line) => {
    try {
      return keep(JSON.parse(line));
    } catch {
      return false; // a line cut off by a kill
    }
  });
  const left = kept.map((line) => line + "\n").join("");
  if (left !== text) writeFileAtomic(path, new TextEncoder().encode(left));
}

/** One value over the steps: `value[i]` at `step[i]`. */
export interface MetricSeries {
  step: number[];
  value: number[];
}

/** The series of a metrics file: for each name its steps and values. A last line that is not whole is left out: it is being written. */
export function readMetrics(path: string): Record<string, MetricSeries> {
  const series: Record<string, MetricSeries> = {}, lines = Deno.readTextFileSync(path).split("\n");
  for (const line of lines.slice(0, -1)) {
    const { step, ...values } = JSON.parse(line) as Record<string, number>;
    for (const [name, value] of Object.entries(values)) {
      const s = series[name] ??= { step: [], value: [] };
      s.step.push(step);
      s.value.push(value);
    }
  }
  return series;
}
