/**
 * Times data parallel training steps of SS-Flow image-L (555.5 M parameters, bf16, batch 8 a GPU) on all GPUs of this machine, each alone and joined,
 * with the optimizer whole and spread over them, by copies and by NCCL, beside PyTorch's DDP, and says what to expect of more: by copies on the eight
 * GPUs of a machine, by NCCL on several machines. Writes bench/results/scaling.json.
 *
 *   NCCL_NVLS_ENABLE=0 deno task bench bench/scaling_bench.ts
 */
import { openCudart } from "../ffi/cudart.ts";
import { benchmark, measured, type PeerTime, type Row, timePeers } from "./harness.ts";
import type { CollectiveTimes, Mode, ModeTimes, RankTimes } from "./scaling_rank.ts";

const ROOT = new URL("../", import.meta.url).pathname, GIB = 2 ** 30;
const NAME = "SS-Flow image-L bf16 batch 8", LARGE = 2 ** 28;
/** Bytes of 16-bit parameters that a spread optimizer gathers. */
const GATHERED = 2 * 555.5e6;
/** Bytes a second of a network card a GPU (400 Gbit/s, nine tenths of it used), for machines of eight GPUs joined by a network. An assumption. */
const NETWORK = 45e9;
/** Seconds that a collective takes a doubling of the machines besides, by trees. An assumption. */
const HOP = 20e-6;

/**
 * The part of its time that a long collective takes from the computation at most: kernels that keep a block on every multiprocessor do the blocks that
 * found no place when the first are done, which is twice their time. An assumption.
 */
const SLOWED = 0.5;

/** Runs `world` ranks of scaling_rank.ts. */
async function ranksOf(world: number): Promise<RankTimes[]> {
  const folder = Deno.makeTempDirSync(), decoder = new TextDecoder();
  try {
    const outcomes = await Promise.all(Array.from({ length: world }, (_, rank) =>
      new Deno.Command(Deno.execPath(), {
        args: ["run", "-q", "-P=train", "--no-check", "--config", `${ROOT}deno.json`, `${ROOT}bench/scaling_rank.ts`],
        env: {
          ...{ RANK: `${rank}`, WORLD_SIZE: `${world}`, LOCAL_RANK: `${rank}`, NCCL_NVLS_ENABLE: "0" },
          ...{ TORCHELASTIC_RUN_ID: folder, ESPALIER_RENDEZVOUS: `${folder}/meet` },
        },
      }).output()));
    const failed = outcomes.find(({ success }) => !success);
    if (failed) throw new Error(`Cannot measure ${world} ranks: ${decoder.decode(failed.stderr)}`);
    return JSON.parse(decoder.decode(outcomes[0].stdout));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const largest = (list: number[]): number => list.reduce((a, b) => Math.max(a, b));
const total = (list: number[]): number => list.reduce((a, b) => a + b, 0);

/** Milliseconds that collectives of these bytes keep the device after the backward pass: each begins when its gradients are ready and the one before is done. */
export function exposed({ ready, backwardEnds }: Pick<ModeTimes, "ready" | "backwardEnds">, took: number[]): number {
  return Math.max(0, ready.reduce((done, at, i) => Math.max(done, at) + took[i], 0) - backwardEnds);
}

/** Bytes a second that a rank's ring moves on `n` GPUs, eight a machine, where the links within one give `link`; and seconds a collective takes besides. */
export function ring(n: number, link: number): { rate: number; latency: number } {
  return n > 8 ? { rate: Math.min(NETWORK, link), latency: HOP * Math.ceil(Math.log2(n / 8)) } : { rate: link, latency: 0 };
}

/** What a prediction starts from: the step measured on a few GPUs. */
export interface Measured {
  world: number;
  aloneMs: number;
  joinedMs: number;
  times: Pick<ModeTimes, "ready" | "bytes" | "backwardEnds">;
  /** Passes over the bytes of a gradient that its collective sends: 2 for a sum, 1 for a reduce-scatter. */
  passes: 1 | 2;
  /** Bytes a second within a machine, sent and received by each. */
  link: number;
  /** Bytes gathered after the step. */
  gathered: number;
}

/**
 * The time of a step on `n` GPUs in ms. What collectives of `n` are too long to hide comes from when gradients were ready; what they take from the
 * computation beside them (multiprocessors, memory) grows as their time, up to {@linkcode SLOWED} of it; what is gathered after the step waits for the part that exceeds the measured.
 */
export function predicted({ world, aloneMs, joinedMs, times, passes, link, gathered }: Measured, n: number): number {
  const took = (count: number): number[] => {
    const { rate, latency } = ring(count, link);
    return times.bytes.map((bytes) => 1e3 * (passes * (count - 1) / count * bytes / rate + latency));
  };
  const gather = (count: number): number => 1e3 * ((count - 1) / count * gathered / ring(count, link).rate);
  const [here, there] = [took(world), took(n)], beside = Math.max(0, joinedMs - aloneMs - exposed(times, here));
  const grown = Math.min(beside * total(there) / total(here), Math.max(beside, SLOWED * total(there)));
  return aloneMs + grown + exposed(times, there) + Math.max(0, gather(n) - gather(world));
}

/** What the ranks measured, beside the peers' times. */
function rowsOf(ranks: RankTimes[], peers: PeerTime[]): Row[] {
  const world = ranks.length, step = `${NAME} training step`;
  const peer = (name: string) => peers.find((p): p is PeerTime & { ms: number } => p.case === name && p.ms !== null);
  const beside = (ours: number, name: string) => {
    const p = peer(name);
    return p ? { ours, peer: p.ms, peer_name: p.name, ratio: p.ms / ours } : { ours };
  };
  const of = (mode: Mode): ModeTimes[] => ranks.map(({ modes }) => modes[mode]), aloneMs = of("alone").map(({ stepMs }) => stepMs);
  const rows = aloneMs.map((ms, i) =>
    measured({ case: `${step}, GPU ${i} alone`, metric: "time", unit: "ms", ...beside(ms, `GPU ${i} alone`) })
  );
  if (world === 1) return rows;
  /** Samples a second of the GPUs together over the mean of each alone. */
  const speedup = (ms: number, alone: number[]): number => world / ms / (total(alone.map((t) => 1 / t)) / world);
  const peersAlone = aloneMs.map((_, i) => peer(`GPU ${i} alone`)?.ms), peerMs = peer(`on ${world}`)?.ms;
  const peerSpeedup = peerMs && peersAlone.every((ms) => ms !== undefined) ? speedup(peerMs, peersAlone) : undefined;
  const { collectives } = ranks[0],
    spread = ", optimizer spread over them",
    byNccl = collectives[0].by === collectives[1].by ? "" : ", by NCCL";
  const runs: [Mode, string][] = [
    ["joined", `on ${world}`],
    ["spread", `on ${world}${spread}`],
    ["joinedNccl", `on ${world}${byNccl}`],
    ["spreadNccl", `on ${world}${spread}${byNccl}`],
  ];
  for (const [mode, what] of byNccl ? runs : runs.slice(0, 2)) {
    const ms = largest(of(mode).map(({ stepMs }) => stepMs)), ours = speedup(ms, aloneMs);
    rows.push(
      measured({ case: `${step} ${what}`, metric: "time", unit: "ms", ...beside(ms, `on ${world}`) }),
      measured({
        case: `${NAME} samples a second ${what} over the mean of each alone`,
        metric: "speedup",
        unit: "",
        ...{ ours, limit: world, fraction_of_limit: ours / world },
        ...(peerSpeedup ? { peer: peerSpeedup, peer_name: peer(`on ${world}`)!.name, ratio: ours / peerSpeedup } : {}),
      }),
      measured({
        case: `${NAME} samples a second ${what} over the fastest alone`,
        metric: "speedup",
        unit: "",
        ...{ ours: world * Math.min(...aloneMs) / ms, limit: world, fraction_of_limit: Math.min(...aloneMs) / ms },
      }),
      measured({
        case: `${NAME} sums waited for after the backward pass ${what}, by the GPU that waits least`,
        metric: "time",
        unit: "ms",
        ours: Math.min(...of(mode).map(({ waits }) => waits[0])),
        limit: 0,
      }),
      measured({
        case: `${NAME} peak memory a GPU ${what}`,
        metric: "memory",
        unit: "GiB",
        ours: largest(of(mode).map(({ peak }) => peak)) / GIB,
      }),
    );
    if (mode.endsWith("Nccl")) continue;
    rows.push(
      measured({
        case: `gradient norm of the first step ${what}: sums of equal halves over those of one`,
        metric: "ratio",
        unit: "",
        ours: of(mode)[0].gradNorm / (world * of("alone")[0].gradNorm),
        limit: 1,
      }),
    );
  }
  const bucket = largest(of("joined")[0].bytes), large = peer("all-reduce of 256 MiB bf16");
  const busOf = (ms: number, bytes: number): number => 2 * (world - 1) / world * bytes / ms / 1e6;
  const linkOf = ({ allReduce }: CollectiveTimes): number => 1e9 * busOf(allReduce, bucket);
  for (const times of byNccl ? collectives : collectives.slice(0, 1)) {
    const by = byNccl && `, by ${times.by}`;
    rows.push(
      measured({
        case: `all-reduce of 256 MiB f32${by}`,
        metric: "bus bandwidth",
        unit: "GB/s",
        ours: busOf(times.large, LARGE),
        ...(large ? { peer: busOf(large.ms, LARGE), peer_name: `${large.name}, bf16`, ratio: large.ms / times.large } : {}),
      }),
      measured({
        case: `all-reduce of ${bucket / 2 ** 20} MiB f32, a bucket of gradients${by}`,
        metric: "bus bandwidth",
        unit: "GB/s",
        ours: linkOf(times) / 1e9,
      }),
    );
  }
  for (const [mode, what, passes, gathered] of [["joined", "", 2, 0], ["spread", spread, 1, GATHERED]] as const) {
    for (const n of [8, 64, 256]) {
      const far = n > 8, used = of(far ? `${mode}Nccl` : mode), link = linkOf(collectives[far ? 1 : 0]), alone = largest(aloneMs);
      const joinedMs = largest(used.map(({ stepMs }) => stepMs));
      const ms = predicted({ world, aloneMs: alone, joinedMs, times: used[0], passes, link, gathered }, n);
      rows.push(
        measured({
          case: `predicted efficiency on ${n} GPUs${what} (${
            far ? "ring at 45 GB/s a GPU between machines, assumed" : "at the measured rate"
          }; not run)`,
          metric: "samples a second a GPU over those of the slowest alone",
          unit: "",
          ...{ ours: alone / ms, limit: 1, fraction_of_limit: alone / ms },
        }),
      );
    }
  }
  return rows;
}

benchmark("scaling", async (save) => {
  const count = new Int32Array(1);
  openCudart().cudaGetDeviceCount(count);
  const ranks = await ranksOf(count[0]);
  save({ rows: rowsOf(ranks, []), ranks });
  return { rows: rowsOf(ranks, timePeers("scaling")), ranks };
});
