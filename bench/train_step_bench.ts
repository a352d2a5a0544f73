/**
 * Times whole training steps (forward, backward, clipping, AdamW, mean of parameters) of the half-billion-parameter flow models on CUDA, beside
 * plain PyTorch models of the same shape, and profiles them; steps within budgets are put
 * beside them, as memory_bench and varying_bench found them. Writes bench/results/train_step.json, and a table of every kernel for each model.
 *
 *   deno task bench bench/train_step_bench.ts
 */
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { tuneProducts, useChoices } from "../lib/memory/tune.ts";
import { device } from "../lib/tensor/device.ts";
import { profileTable, startProfile } from "../lib/tensor/profile.ts";
import { slatFlowWork, ssFlowWork, type Work } from "./flow_models.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, rowsOf, timePeers } from "./harness.ts";

const WARM_UP = 2, RUNS = 8, PROFILED = 2;
/** Dense 16-bit operations a second of an H100 or H200 by its data sheet. */
const PEAK = 989e12, GIB = 2 ** 30;

/** Rows of memory_bench that belong beside these: steps within a budget. */
const WITHIN_BUDGET = /^SS-Flow image-L bf16 batch 8, .*budget of 24 GiB.*: (training step|peak|step over)/;

/** What a work is compared with: PyTorch in bf16, also where ours is in fp8. */
function peerOf(name: string): string {
  return name.replace(/ fp8(-all)? /, " bf16 ");
}

function measure(make: () => Work, peers: PeerTime[]): Row[] {
  const work = make(), { memory } = device(), host: number[] = [];
  const run = (): void => {
    const began = performance.now();
    work.pass().free();
    host.push(performance.now() - began);
    work.optimizer.stepLater();
  };
  /** Milliseconds of a step among others, as in a training: what one found is read when the next one's passes are queued. */
  const timeSteps = (): number => {
    for (let i = 0; i < WARM_UP; i++) run();
    memory.synchronize();
    memory.resetPeak();
    const began = performance.now();
    for (let i = 0; i < RUNS; i++) run();
    memory.synchronize();
    return (performance.now() - began) / RUNS;
  };
  const untuned = timeSteps(), choices = tuneProducts(() => work.pass().free())!;
  useChoices(choices);
  const ms = timeSteps();
  const peak = memory.use().peak / GIB;
  const stop = startProfile();
  for (let i = 0; i < PROFILED; i++) run();
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
  const peers = timePeers("ss_flow"), rows: Row[] = [];
  type Fp8 = boolean | "all";
  for (const make of [(fp8: Fp8) => ssFlowWork({ batch: 8, fp8 }), (fp8: Fp8) => slatFlowWork({ batch: 4, fp8 })]) {
    for (const fp8 of [false, true, "all"] as const) {
      rows.push(...measure(() => make(fp8), peers));
      save(rows);
    }
  }
  return [...rows, ...rowsOf("memory", WITHIN_BUDGET), ...rowsOf("varying", /./)];
});
