/**
 * How fast a dataset is made on the CPU, from a folder of assets or, without one, from the generator's objects: voxels alone, then views. Writes
 * bench/results/prepare.json.
 *
 *   deno run -P=train bench/prepare.ts [FOLDER]
 */
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { prepareDataset, type PrepareOptions } from "../lib/data/prepare.ts";
import { measured, type Row } from "./harness.ts";

const SIZE = 256, VIEWS = 8, OBJECTS = 64;
const [input] = Deno.args, cores = navigator.hardwareConcurrency;

/** Seconds that a dataset takes, processes started and files written included, and its objects. */
async function seconds(options: Omit<PrepareOptions, "output">): Promise<{ seconds: number; objects: number }> {
  const output = Deno.makeTempDirSync({ prefix: "espalier_prepare_" }), start = performance.now();
  try {
    const { made, failed } = await prepareDataset({ ...options, output, input, objects: OBJECTS, workers: cores, device: "cpu" });
    if (failed.length) {
      throw new Error(`Cannot time the preparation: ${failed.length} objects are unusable, the first is ${failed[0].name}`);
    }
    return { seconds: (performance.now() - start) / 1e3, objects: made };
  } finally {
    Deno.removeSync(output, { recursive: true });
  }
}

const voxels = await seconds({ views: 0 }), all = await seconds({ views: VIEWS, size: SIZE });
const where = `${voxels.objects} objects, CPU, ${cores} processes`;
const rows: Row[] = [
  measured({ case: `${where}: read, normalised, voxels at 64^3, written`, metric: "time", unit: "s", ours: voxels.seconds }),
  measured({
    case: `${where}: the same with ${VIEWS} views each at ${SIZE} x ${SIZE}, 4 samples a pixel, as PNG`,
    metric: "rate",
    unit: "views/s",
    ours: VIEWS * all.objects / all.seconds,
  }),
];
const result = {
  bench: "prepare",
  date: new Date().toISOString().slice(0, 10),
  machine: `${cores} cores, no GPU, beside other work (times are upper bounds)`,
  command: "deno run -P=train bench/prepare.ts FOLDER",
  rows,
};
const file = new URL("results/prepare.json", import.meta.url).pathname;
writeFileAtomic(file, new TextEncoder().encode(JSON.stringify(result, null, 2) + "\n"));
