/** What a run writes down: metrics.jsonl, TensorBoard events, sample grids, and the live line. */
import { writeFileAtomic } from "../io/atomic.ts";
import { encodePng, type Image, writePng } from "../io/image.ts";
import { type Communicator, communicator } from "../dist/communicator.ts";
import { device } from "../tensor/device.ts";
import { formatBytes } from "../tensor/memory.ts";
import { meanOf } from "./batch.ts";
import { startProgress } from "./progress.ts";
import { openEventWriter } from "./tensorboard.ts";

/** A run's log. */
export interface RunLog {
  /** One step: shown on the live line, and written every `every` steps as the mean of the finite values since the last record. */
  step(step: number, values: Record<string, number>, samples: number): void;
  /** Values that are not means over steps, such as an evaluation; written at once. */
  record(step: number, values: Record<string, number>): void;
  /** A picture in `samples/` and in TensorBoard. */
  image(step: number, name: string, image: Image): void;
  say(text: string): void;
  /** The means that are not written yet, for a checkpoint. */
  state(): LogState;
  close(): void;
}

/** Sums and counts by name since the last record. */
export type LogState = Record<string, [sum: number, count: number]>;

/** JSON knows no NaN: it comes as null. */
function withNaN(values: Record<string, number | null>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? NaN]));
}

/** The log of a process that is not the first of several: steps are told to the first, all else is left to it. */
export function secondaryLog(ranks: Communicator): RunLog {
  const nothing = (): void => {};
  return {
    step: (_step, values) => void ranks.exchange(values),
    record: nothing,
    image: nothing,
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
  /** Where to go on. */
  state?: LogState;
}

/**
 * Opens `metrics.jsonl`, `tb_logs/` and `samples/` in the run's folder. Records of steps from `first` on are dropped from an earlier run's
 * metrics.jsonl: they will be written again.
 */
export function openRunLog(folder: string, { steps, first, every, label, state }: RunLogOptions): RunLog {
  Deno.mkdirSync(`${folder}/tb_logs`, { recursive: true });
  Deno.mkdirSync(`${folder}/samples`, { recursive: true });
  const path = `${folder}/metrics.jsonl`;
  dropRecords(path, first, first >= steps);
  const file = Deno.openSync(path, { write: true, create: true, append: true }), events = openEventWriter(`${folder}/tb_logs`);
  const progress = startProgress(label, steps, { first }), encoder = new TextEncoder();
  let sums: LogState = structuredClone(state ?? {}), samples = 0, since = performance.now(), rate = 0;
  const write = (step: number, values: Record<string, number>): void => {
    file.writeSync(encoder.encode(JSON.stringify({ step, ...values }) + "\n"));
    events.scalars(step, values);
  };
  return {
    step(step, own, count) {
      const values = meanOf(communicator().exchange(own).map(withNaN));
      for (const [name, value] of Object.entries(values)) {
        if (!Number.isFinite(value)) continue; // that step was passed over
        const entry = sums[name] ??= [0, 0];
        entry[0] += value;
        entry[1]++;
      }
      samples += count;
      const seconds = (performance.now() - since) / 1000;
      rate = samples / seconds;
      if (step % every === 0 || step === steps) {
        const { used, peak } = device().memory.use();
        const means = Object.fromEntries(Object.entries(sums).map(([name, [sum, n]]) => [name, sum / n]));
        write(step, { ...means, samples_per_second: rate, memory_used: used, memory_peak: peak });
        sums = {};
        samples = 0;
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
    say: progress.say,
    state: () => structuredClone(sums),
    close() {
      progress.end();
      file.close();
      events.close();
    },
  };
}

/** Keeps the records before and at step `last` of a metrics file, if there is one. */
function dropRecords(path: string, last: number, finished: boolean): void {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  const kept = text.split("\n").filter((line) => {
    try {
      const { step, loss } = JSON.parse(line);
      return step < last || (step === last && (loss !== undefined || !finished)); // what a finished run found is found again
    } catch {
      return false; // a line cut off by a kill
    }
  });
  const left = kept.map((line) => line + "\n").join("");
  if (left !== text) writeFileAtomic(path, new TextEncoder().encode(left));
}

/** The series of a metrics file: for each name its steps and values. */
export function readMetrics(path: string): Record<string, { step: number[]; value: number[] }> {
  const series: Record<string, { step: number[]; value: number[] }> = {};
  for (const line of Deno.readTextFileSync(path).split("\n").filter(Boolean)) {
    const { step, ...values } = JSON.parse(line) as Record<string, number>;
    for (const [name, value] of Object.entries(values)) {
      const s = series[name] ??= { step: [], value: [] };
      s.step.push(step);
      s.value.push(value);
    }
  }
  return series;
}
