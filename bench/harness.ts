/** What the benchmarks share: device time in medians of CUDA events, rows beside the chip's limit, and the file that they go to. */
import { openCudart } from "../ffi/cudart.ts";
import { readDriver } from "../ffi/cuda_driver.ts";
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { hasCuda, openDevice } from "../lib/tensor/device.ts";
import { step } from "../lib/tensor/scope.ts";
import { stream } from "../lib/tensor/tensor.ts";

/** One measured case. `ratio` > 1 means that ours is better than the peer, `fraction_of_limit` is of what the chip could do. */
export interface Row {
  case: string;
  metric: string;
  unit: string;
  ours: number;
  peer: number | null;
  peer_name: string | null;
  ratio: number | null;
  limit: number;
  fraction_of_limit: number;
}

/** A row without a peer. */
export function row(values: Pick<Row, "case" | "metric" | "unit" | "ours" | "limit" | "fraction_of_limit">): Row {
  return { peer: null, peer_name: null, ratio: null, ...values };
}

const WARM_UP = 3, RUNS = 20;

/** Median milliseconds on the device of `run`, each time on what `prepare` made. */
export function time<T>(prepare: () => T, run: (made: T) => void): number {
  const cuda = openCudart(), events = [new BigUint64Array(1), new BigUint64Array(1)], elapsed = new Float32Array(1), all: number[] = [];
  for (const e of events) cuda.cudaEventCreate(e);
  const [start, end] = events.map((e) => e[0]);
  for (let i = -WARM_UP; i < RUNS; i++) {
    step(() => {
      const made = prepare();
      cuda.cudaEventRecord(start, stream());
      run(made);
      cuda.cudaEventRecord(end, stream());
      cuda.cudaEventSynchronize(end);
      cuda.cudaEventElapsedTime(elapsed, start, end);
      if (i >= 0) all.push(elapsed[0]);
    });
  }
  for (const e of [start, end]) cuda.cudaEventDestroy(e);
  return all.sort((a, b) => a - b)[RUNS >> 1];
}

/** Registers a benchmark with `deno bench`: it measures once and writes bench/results/<name>.json. Ignored where there is no GPU. */
export function benchmark(name: string, measure: () => Row[]): void {
  let done = false;
  Deno.bench({
    name: hasCuda() ? name : `${name} (needs a CUDA GPU)`,
    ignore: !hasCuda(),
    n: 1,
    warmup: 0,
    fn() {
      if (done) return;
      done = true;
      openDevice("cuda");
      const result = {
        bench: name,
        date: new Date().toISOString().slice(0, 10),
        gpu: readDriver().gpus[0]?.name,
        command: `deno task bench bench/${name}_bench.ts`,
        rows: measure(),
      };
      const folder = new URL("results/", import.meta.url).pathname;
      Deno.mkdirSync(folder, { recursive: true });
      writeFileAtomic(`${folder}${name}.json`, new TextEncoder().encode(JSON.stringify(result, null, 2) + "\n"));
    },
  });
}
