/** What the benchmarks share: device time in medians of CUDA events, peers, rows beside the chip's limit, and the file that they go to. */
import { openCudart } from "../ffi/cudart.ts";
import { readDriver } from "../ffi/cuda_driver.ts";
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { sum } from "../lib/ops/reduce.ts";
import { device, type DeviceOptions, hasCuda, openDevice } from "../lib/tensor/device.ts";
import { step } from "../lib/tensor/scope.ts";
import { empty, stream } from "../lib/tensor/tensor.ts";

/** One measured case. `ratio` > 1 means that ours is better than the peer, `fraction_of_limit` is of what the chip could do. */
export interface Row {
  case: string;
  metric: string;
  unit: string;
  ours: number;
  peer: number | null;
  peer_name: string | null;
  ratio: number | null;
  limit: number | null;
  fraction_of_limit: number | null;
}

/** A row; what is not given is null. */
export function row(values: Pick<Row, "case" | "metric" | "unit" | "ours"> & Partial<Row>): Row {
  const { case: name, metric, unit, ours, ...rest } = values;
  return { case: name, metric, unit, ours, peer: null, peer_name: null, ratio: null, limit: null, fraction_of_limit: null, ...rest };
}

/** A {@linkcode row} that is printed too. */
export function measured(values: Parameters<typeof row>[0]): Row {
  const made = row(values), { peer, peer_name, ratio, unit } = made, digits = (x: number): string => `${Number(x.toPrecision(4))} ${unit}`;
  console.error(`${made.case}: ${digits(made.ours)}${peer === null ? "" : `, ${peer_name} ${digits(peer)}, ratio ${ratio?.toFixed(3)}`}`);
  return made;
}

const WARM_UP = 3, RUNS = 20, SPACER = { bytes: 2 ** 28, times: 8 }, REST = 300;

/** Leaves the device alone for that many milliseconds. */
function rest(ms: number): void {
  openCudart().cudaStreamSynchronize(stream());
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/**
 * Median milliseconds on the device of `run`, each time on what `prepare` made. Zeros are written before, `spacers` times 256 MiB (60 µs each on an
 * H200): the host gets ahead of the device meanwhile, so that launches cost nothing, and the cache holds nothing of the inputs. Then they are read, so
 * that it holds nothing either that is yet to be written to memory: `run` would pay for that. Many short launches need more spacers than a few long ones.
 * The device rests first, for its clock not to be what the case before has left: a card that has just worked at its limit of power runs slower.
 */
export function time<T>(prepare: () => T, run: (made: T) => void, runs = RUNS, spacers = SPACER.times): number {
  const cuda = openCudart(), events = [new BigUint64Array(1), new BigUint64Array(1)], elapsed = new Float32Array(1), all: number[] = [];
  rest(REST);
  for (const e of events) cuda.cudaEventCreate(e);
  const [start, end] = events.map((e) => e[0]);
  for (let i = -WARM_UP; i < runs; i++) {
    step(() => {
      const made = prepare(), spacer = empty([SPACER.bytes / 4], "f32");
      for (let k = 0; k < spacers; k++) device().memory.zero(spacer.addr, spacer.bytes);
      sum(spacer).free();
      spacer.free();
      cuda.cudaEventRecord(start, stream());
      run(made);
      cuda.cudaEventRecord(end, stream());
      cuda.cudaEventSynchronize(end);
      cuda.cudaEventElapsedTime(elapsed, start, end);
      if (i >= 0) all.push(elapsed[0]);
    });
  }
  for (const e of [start, end]) cuda.cudaEventDestroy(e);
  return all.sort((a, b) => a - b)[runs >> 1];
}

/** One case of another program, timed in the same way; null where it cannot run it. */
export interface PeerTime {
  case: string;
  name: string;
  ms: number | null;
}

/** Runs bench/peers/<name>.py, which writes its rows to the file that it is given. None where there is no python3 that has what it needs. */
export function timePeers(name: string): PeerTime[] {
  const script = decodeURIComponent(new URL(`peers/${name}.py`, import.meta.url).pathname),
    file = Deno.makeTempFileSync({ suffix: ".json" });
  try {
    const { success } = new Deno.Command("python3", { args: [script, file], stdout: "inherit", stderr: "inherit" }).outputSync();
    if (success) return JSON.parse(Deno.readTextFileSync(file));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  } finally {
    Deno.removeSync(file);
  }
  console.error(`no peers: python3 bench/peers/${name}.py did not run`);
  return [];
}

/** The fastest of `peers` in a case. */
export function fastest(peers: PeerTime[], name: string): { name: string; ms: number } | undefined {
  const able = peers.filter((p): p is PeerTime & { ms: number } => p.case === name && p.ms !== null);
  return able.sort((a, b) => a.ms - b.ms)[0];
}

/** What a benchmark wrote: no rows where it has not run. */
export function resultOf(name: string): Findings {
  try {
    return JSON.parse(Deno.readTextFileSync(new URL(`results/${name}.json`, import.meta.url)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { rows: [] };
    throw error;
  }
}

/** Rows that another benchmark wrote, by their case; none where it has not run. */
export function rowsOf(name: string, cases: RegExp): Row[] {
  return resultOf(name).rows.filter((r) => cases.test(r.case)).map((r) => ({ ...r, case: `${r.case} (${name}.json)` }));
}

/** The rows of a benchmark, and what else it found. */
export interface Findings {
  rows: Row[];
  [name: string]: unknown;
}

/**
 * Registers a benchmark with `deno bench`: it measures once and writes bench/results/<name>.json; a long one may `save` what it has so far. Ignored
 * where there is no GPU.
 */
export function benchmark(
  name: string,
  measure: (save: (found: Row[] | Findings) => void) => Row[] | Findings | Promise<Row[] | Findings>,
  options: DeviceOptions = {},
): void {
  let done = false;
  Deno.bench({
    name: hasCuda() ? name : `${name} (needs a CUDA GPU)`,
    ignore: !hasCuda(),
    n: 1,
    warmup: 0,
    async fn() {
      if (done) return;
      done = true;
      openDevice("cuda", options);
      const folder = new URL("results/", import.meta.url).pathname;
      Deno.mkdirSync(folder, { recursive: true });
      const save = (found: Row[] | Findings): void => {
        const result = {
          bench: name,
          date: new Date().toISOString().slice(0, 10),
          gpu: readDriver().gpus[0]?.name,
          command: `deno task bench bench/${name}_bench.ts`,
          ...(Array.isArray(found) ? { rows: found } : found),
        };
        writeFileAtomic(`${folder}${name}.json`, new TextEncoder().encode(JSON.stringify(result, null, 2) + "\n"));
      };
      save(await measure(save));
    },
  });
}
