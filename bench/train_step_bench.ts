/**
 * Times whole training steps (forward, backward, clipping, AdamW, mean of parameters) of the half-billion-parameter flow models on CUDA, beside
 * plain PyTorch models of the same shape, and profiles them; steps within budgets are put
 * beside them, as memory_bench and varying_bench found them. Passes of SS-Flow run from a recording, as the recipe's do where it keeps little memory.
 * Writes bench/results/train_step.json, and a table of every kernel for each model. ONLY is a part of the name of the models to run, as "SS-Flow fp8":
 * without PyTorch's.
 *
 *   deno task bench bench/train_step_bench.ts
 */
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { KEPT_BY_RECORDINGS, openReplays } from "../lib/memory/replay.ts";
import { tuneProducts, useChoices } from "../lib/memory/tune.ts";
import { device } from "../lib/tensor/device.ts";
import { profileTable, startProfile } from "../lib/tensor/profile.ts";
import { slatFlowWork, ssFlowWork, type Work } from "./flow_models.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, rowsOf, timePeers } from "./harness.ts";

const WARM_UP = 4, RUNS = 8, PROFILED = 2;
/** Dense 16-bit operations a second of an H100 or H200 by its data sheet. */
const PEAK = 989e12, GIB = 2 ** 30;

/** Rows of memory_bench that belong beside these: steps within a budget. */
const WITHIN_BUDGET = /^SS-Flow image-L bf16 batch 8, .*budget of 24 GiB.*: (training step|peak|step over)/;

/** What a work is compared with: PyTorch in bf16, also where ours is in fp8. */
function peerOf(name: string): string {
  return name.replace(/ fp8(-all)? /, " bf16 ");
}

/** `fixed`: whether all steps have the same kernels, so that they can be recorded. */
function measure(make: () => Work, peers: PeerTime[], fixed: boolean): Row[] {
  const work = make(), { memory } = device(), most = KEPT_BY_RECORDINGS * memory.limit, host: number[] = [];
  /** Milliseconds of a step among others, as in a training: what one found is read when the next one's passes are queued. */
  const timeSteps = (): number => {
    const replays = openReplays(work.optimizer.params, { enabled: fixed, most, say: console.error });
    const run = (): void => {
      const began = performance.now();
      replays.run({ key: "pass", inputs: () => ({}), pass: () => ({ loss: work.pass() }) });
      host.push(performance.now() - began);
      work.optimizer.stepLater();
    };
    for (let i = 0; i < WARM_UP; i++) run();
    memory.synchronize();
    memory.resetPeak();
    host.length = 0;
    const began = performance.now();
    for (let i = 0; i < RUNS; i++) run();
    memory.synchronize();
    const ms = (performance.now() - began) / RUNS;
    peak = memory.use().peak / GIB;
    replays.free();
    return ms;
  };
  let peak = 0;
  const untuned = timeSteps(), choices = tuneProducts(() => work.pass().free())!;
  useChoices(choices);
  const ms = timeSteps();
  const stop = startProfile();
  for (let i = 0; i < PROFILED; i++) {
    work.pass().free();
    work.optimizer.stepLater();
  }
  const table = profileTable(stop(), PROFILED), file = `${work.name.toLowerCase().replace(/[^a-z0-9]+/g, "_")}.txt`;
  const folder = new URL("results/train_step/", import.meta.url).pathname;
  Deno.mkdirSync(folder, { recursive: true });
  writeFileAtomic(folder + file, new TextEncoder().encode(table + "\n"));
  console.log(`${work.name}: a step's kernels\n${table}`);
  const { name, flops } = work, limit = 1e3 * flops / PEAK;
  work.free();
  const time = (what: string, ours: number, peer?: ReturnType<typeof fastest>): Row => {
    const beside = peer && { peer: peer.ms, peer_name: peer.name, ratio: peer.ms / ours };
    return measured({ case: `${name} ${what}`, metric: "time", unit: "ms", ours, limit, fraction_of_limit: limit / ours, ...beside });
  };
  const memoryPeer = fastest(peers, `${peerOf(name)} peak GiB`);
  return [
    time("training step", ms, fastest(peers, `${peerOf(name)} training step`)),
    ...(name.includes("fp8") ? [] : [time("training step, the heuristic's algorithms", untuned)]), // 8-bit products have one each
    measured({
      case: `${name} host until forward and backward are queued`,
      metric: "time",
      unit: "ms",
      ours: host.sort((a, b) => a - b)[host.length >> 1],
    }),
    measured({
      case: `${name} peak memory`,
      metric: "memory",
      unit: "GiB",
      ours: peak,
      ...(memoryPeer && { peer: memoryPeer.ms, peer_name: memoryPeer.name, ratio: memoryPeer.ms / peak }),
    }),
  ];
}

benchmark("train_step", (save) => {
  const only = Deno.env.get("ONLY"), peers = only ? [] : timePeers("ss_flow"), rows: Row[] = [];
  type Fp8 = boolean | "all";
  const models: [name: string, make: (fp8: Fp8) => Work, fixed: boolean][] = [
    ["SS-Flow", (fp8) => ssFlowWork({ batch: 8, fp8 }), true],
    ["SLat-Flow", (fp8) => slatFlowWork({ batch: 4, fp8 }), false],
  ];
  for (const [name, make, fixed] of models) {
    for (const [precision, fp8] of [["bf16", false], ["fp8", true], ["fp8-all", "all"]] as const) {
      if (!`${name} ${precision}`.includes(only ?? "")) continue;
      rows.push(...measure(() => make(fp8), peers, fixed));
      save(rows);
    }
  }
  return [...rows, ...rowsOf("memory", WITHIN_BUDGET), ...rowsOf("varying", /./)];
});
