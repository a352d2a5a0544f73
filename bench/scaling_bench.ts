/**
 * Times data parallel training steps of SS-Flow image-L (555.5 M parameters, bf16, batch 8 a GPU) on one GPU and on all of this machine, beside
 * PyTorch's DDP, and says what to expect of more. Writes bench/results/scaling.json.
 *
 *   NCCL_NVLS_ENABLE=0 deno task bench bench/scaling_bench.ts
 */
import { openCudart } from "../ffi/cudart.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, timePeers } from "./harness.ts";
import type { ScalingTimes } from "./scaling_rank.ts";

const ROOT = new URL("../", import.meta.url).pathname, GIB = 2 ** 30;
const NAME = "SS-Flow image-L bf16 batch 8";
/** Bytes of f32 gradients that a step shares. */
const SHARED = 4 * 555.5e6;
/** Bytes a second of a network card a GPU (400 Gbit/s, nine tenths of it used), for machines of eight GPUs joined by a network. An assumption. */
const NETWORK = 45e9;
/** The part of a step in which gradients can be on their way: from the last block's backward pass to the end of the first one's. */
const HIDDEN = 0.6;

/** Runs `world` ranks of scaling_rank.ts. */
async function ranksOf(world: number): Promise<ScalingTimes> {
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

/**
 * The time of a step on `world` GPUs, eight a machine, in ms: as slow as measured where sums run beside the computation and take multiprocessors and
 * memory from it, in the measure of how long they run; and what a ring at the slower of both links takes longer than it can be hidden.
 */
function predicted(alone: number, together: number, world: number, link: number): number {
  const sharing = (n: number, rate: number): number => 1e3 * 2 * (n - 1) / n * SHARED / rate,
    rate = world > 8 ? Math.min(NETWORK, link) : link;
  const beside = (together - alone) * Math.min(sharing(world, link) / sharing(2, link), 2);
  return alone + beside + Math.max(0, sharing(world, rate) - HIDDEN * alone);
}

async function measure(): Promise<Row[]> {
  const count = new Int32Array(1);
  openCudart().cudaGetDeviceCount(count);
  const [world] = count, peers = world > 1 ? timePeers("scaling") : [], alone = await ranksOf(1);
  const step = `${NAME} training step on`, peer = (name: string) => fastest(peers, name) as (PeerTime & { ms: number }) | undefined;
  const beside = (ours: number, name: string) => {
    const p = peer(name);
    return p ? { ours, peer: p.ms, peer_name: p.name, ratio: p.ms / ours } : { ours };
  };
  const rows = [measured({ case: `${step} 1`, metric: "time", unit: "ms", ...beside(alone.stepMs, `${step} 1`) })];
  if (world === 1) return rows;
  const together = await ranksOf(world),
    speedup = world * alone.stepMs / together.stepMs,
    link = 2 * (world - 1) / world * 2 ** 28 / (together.allReduceMs / 1e3);
  const [peerAlone, peerTogether] = [peer(`${step} 1`), peer(`${step} ${world}`)];
  const peerSpeedup = peerAlone && peerTogether && world * peerAlone.ms / peerTogether.ms;
  rows.push(
    measured({ case: `${step} ${world}`, metric: "time", unit: "ms", ...beside(together.stepMs, `${step} ${world}`) }),
    measured({
      case: `${NAME} samples a second on ${world} over those on 1`,
      metric: "speedup",
      unit: "",
      ours: speedup,
      limit: world,
      fraction_of_limit: speedup / world,
      ...(peerSpeedup ? { peer: peerSpeedup, peer_name: peerTogether.name, ratio: speedup / peerSpeedup } : {}),
    }),
    measured({
      case: `${NAME} sums waited for after the backward pass on ${world}`,
      metric: "time",
      unit: "ms",
      ours: together.exposedMs,
      limit: 0,
    }),
    measured({ case: `${NAME} peak memory a GPU on ${world}`, metric: "memory", unit: "GiB", ours: together.peak / GIB }),
    measured({
      case: "gradient norm of the first step: sums of equal halves over twice those of one",
      metric: "ratio",
      unit: "",
      ours: together.gradNorms[0] / (world * alone.gradNorms[0]),
      limit: 1,
    }),
    measured({
      case: "all-reduce of 256 MiB bf16",
      metric: "bus bandwidth",
      unit: "GB/s",
      ours: link / 1e9,
      ...(peer("all-reduce of 256 MiB bf16")
        ? {
          peer: 2 * (world - 1) / world * 2 ** 28 / peer("all-reduce of 256 MiB bf16")!.ms / 1e6,
          peer_name: "PyTorch",
          ratio: peer("all-reduce of 256 MiB bf16")!.ms / together.allReduceMs,
        }
        : {}),
    }),
  );
  for (const n of [8, 64, 256]) {
    const ms = predicted(alone.stepMs, together.stepMs, n, link);
    rows.push(
      measured({
        case: `predicted efficiency on ${n} GPUs (ring at ${n > 8 ? "45 GB/s a GPU, assumed" : "the measured rate"}; not run)`,
        metric: "samples a second a GPU over those of one",
        unit: "",
        ours: alone.stepMs / ms,
        limit: 1,
        fraction_of_limit: alone.stepMs / ms,
      }),
    );
  }
  return rows;
}

benchmark("scaling", measure);
