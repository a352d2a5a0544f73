/**
 * One rank of scaling_bench.ts: steps of SS-Flow image-L alone, joined with all other ranks, and with the optimizer spread over them, both also by NCCL,
 * a block of steps of each in turn, so that all see the same clocks; then the collectives alone. Rank 0 prints what all measured as JSON.
 */
import { openCudart } from "../ffi/cudart.ts";
import { type Communicator, joinRanks, openCommunicator } from "../lib/dist/communicator.ts";
import { findPlace } from "../lib/dist/place.ts";
import { device, openDevice } from "../lib/tensor/device.ts";
import { persist } from "../lib/tensor/scope.ts";
import { stream, zeros } from "../lib/tensor/tensor.ts";
import { ssFlowWork, type Work } from "./flow_models.ts";

const ROUNDS = 3,
  STEPS = 3,
  WARM_UP = 2,
  BATCH = 8,
  BUCKET = 64 * 2 ** 20,
  LARGE = 2 ** 26,
  MODES = ["alone", "joined", "spread", "joinedNccl", "spreadNccl"] as const;

/** How ranks work: each by itself, joined, or joined with a spread optimizer; by what collectives take by default, or by NCCL. */
export type Mode = typeof MODES[number];

type Kind = "alone" | "joined" | "spread";

/** What a rank measured in a mode. */
export interface ModeTimes {
  /** Medians over blocks of a step's milliseconds. */
  stepMs: number;
  /** Bytes of the device's memory at most, and for state and gradients. */
  peak: number;
  held: number;
  /** Of the mode's first step, which for NCCL's is not the model's. */
  gradNorm: number;
  /** Of a step, in ms after its beginning: when gradients of each bucket were ready, and when the backward pass ended; and the buckets' bytes. */
  ready: number[];
  bytes: number[];
  backwardEnds: number;
  /** Milliseconds that the device waited for each collective or group of them since. */
  waits: number[];
}

/** Milliseconds: of a bucket's sum, of its reduce-scatter, of gathering as many bytes, and of the sum of 256 MiB of f32. */
export interface CollectiveTimes {
  /** What does them. */
  by: string;
  allReduce: number;
  reduceScatter: number;
  allGather: number;
  large: number;
}

/** What one rank measured. */
export interface RankTimes {
  modes: Record<Mode, ModeTimes>;
  /** By default, and by NCCL. */
  collectives: [CollectiveTimes, CollectiveTimes];
}

const median = (all: number[]): number => all.toSorted((a, b) => a - b)[all.length >> 1];

/** Marks on the device's stream, read when all is done; the events are used again. */
function stopwatch(): { mark: () => bigint; between: (a: bigint, b: bigint) => number; restart: () => void } {
  const cuda = openCudart(), events: bigint[] = [], elapsed = new Float32Array(1);
  let used = 0;
  return {
    mark() {
      if (used === events.length) {
        const out = new BigUint64Array(1);
        cuda.cudaEventCreate(out);
        events.push(out[0]);
      }
      cuda.cudaEventRecord(events[used], stream());
      return events[used++];
    },
    between(a, b) {
      cuda.cudaEventElapsedTime(elapsed, a, b);
      return elapsed[0];
    },
    restart: () => used = 0,
  };
}

/** A model that trains by `by`, which its modes set, and marks when. */
class Model {
  readonly work: Work;
  readonly held: number;
  by: Communicator;
  marks: { kind: "begin" | "ready" | "backward" | "join" | "joined"; at: bigint; bytes: number }[] = [];

  constructor(kind: Kind, ranks: Communicator, readonly watch: ReturnType<typeof stopwatch>) {
    this.by = ranks;
    const bursts = () => this.by.bursts;
    const watched: Communicator = {
      ...ranks,
      ...(kind === "alone" && { rank: 0, world: 1 }),
      get bursts() {
        return bursts();
      },
      allReduce: (t) => {
        this.note("ready", t.bytes);
        this.by.allReduce(t);
      },
      reduceScatter: (y, x) => {
        this.note("ready", x.bytes);
        this.by.reduceScatter(y, x);
      },
      allGather: (y, x) => this.by.allGather(y, x),
      join: () => {
        this.note("join");
        this.by.join();
        this.note("joined");
      },
    };
    const { memory } = device(), before = memory.use().used;
    this.work = ssFlowWork({ batch: BATCH, optimizer: { ranks: watched, shard: kind === "spread", bucketBytes: BUCKET } });
    memory.synchronize();
    this.held = memory.use().used - before;
  }

  note(kind: Model["marks"][number]["kind"], bytes = 0): void {
    this.marks.push({ kind, at: this.watch.mark(), bytes });
  }
}

/** A mode, and what blocks of its steps took. */
class Runner {
  readonly blocks: number[] = [];
  gradNorm = 0;
  peak = 0;

  constructor(readonly mode: Mode, readonly model: Model, readonly by: Communicator) {}

  run(steps: number, ranks: Communicator): void {
    const { memory } = device(), { model } = this, before = memory.use().used - model.held;
    model.by = this.by;
    memory.synchronize();
    memory.resetPeak();
    ranks.exchange(0);
    const began = performance.now();
    for (let i = 0; i < steps; i++) {
      model.watch.restart();
      model.marks = [];
      model.note("begin");
      model.work.pass().free();
      model.note("backward");
      const report = model.work.optimizer.stepLater();
      if (!this.gradNorm) this.gradNorm = report().grad_norm;
    }
    memory.synchronize();
    this.blocks.push((performance.now() - began) / steps);
    this.peak = Math.max(this.peak, memory.use().peak - before);
  }

  times(): ModeTimes {
    const { watch: { between }, marks, held } = this.model,
      [begin] = marks,
      of = (wanted: string) => marks.filter(({ kind }) => kind === wanted);
    const joined = of("joined");
    return {
      stepMs: median(this.blocks),
      ...{ peak: this.peak, held, gradNorm: this.gradNorm },
      ready: of("ready").map(({ at }) => between(begin.at, at)),
      bytes: of("ready").map(({ bytes }) => bytes),
      backwardEnds: between(begin.at, of("backward")[0].at),
      waits: of("join").map(({ at }, i) => between(at, joined[i].at)),
    };
  }
}

/** What the collectives of `ranks` take. */
function timeCollectives(ranks: Communicator, watch: ReturnType<typeof stopwatch>): CollectiveTimes {
  const { memory } = device(), row = BUCKET / 4 / ranks.world, large = persist(() => zeros([LARGE]));
  const x = persist(() => large.view([BUCKET / 4])), y = persist(() => x.view([row], { offset: ranks.rank * row }));
  const timed = (call: () => void, count: number): number =>
    median(Array.from({ length: 9 }, () => {
      memory.synchronize();
      ranks.exchange(0);
      watch.restart();
      const begin = watch.mark();
      for (let k = 0; k < count; k++) call();
      ranks.join();
      const end = watch.mark();
      memory.synchronize();
      return watch.between(begin, end) / count;
    }));
  const times = {
    by: ranks.by,
    allReduce: timed(() => ranks.allReduce(x), 4),
    reduceScatter: timed(() => ranks.reduceScatter(y, x), 4),
    allGather: timed(() => ranks.allGather(x, y), 4),
    large: timed(() => ranks.allReduce(large), 1),
  };
  for (const t of [x, y, large]) t.free();
  return times;
}

if (import.meta.main) {
  const place = findPlace();
  openDevice("cuda", { ordinal: place.localRank });
  const ranks = openCommunicator(), { memory } = device(), watch = stopwatch();
  const nccl = ranks.world > 1 ? joinRanks({ ...place, file: `${place.file}.nccl` }, { collectives: "nccl" }) : ranks;
  const modes = ranks.world > 1 ? MODES : MODES.slice(0, 1);
  const models = new Map<Kind, Model>();
  const modelOf = (kind: Kind): Model => models.get(kind) ?? models.set(kind, new Model(kind, ranks, watch)).get(kind)!;
  const runners = modes.map((mode) => new Runner(mode, modelOf(mode.replace("Nccl", "") as Kind), mode.endsWith("Nccl") ? nccl : ranks));
  const measured: Partial<Record<Mode, ModeTimes>> = {};
  for (const runner of runners) {
    runner.run(WARM_UP, ranks);
    runner.blocks.length = runner.peak = 0;
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const runner of runners) {
      runner.run(STEPS, ranks);
      measured[runner.mode] = runner.times();
    }
  }
  for (const { work } of models.values()) work.free();
  memory.trim();
  const collectives: [CollectiveTimes, CollectiveTimes] = [timeCollectives(ranks, watch), timeCollectives(nccl, watch)];
  const all = ranks.exchange<RankTimes>({ modes: measured as Record<Mode, ModeTimes>, collectives });
  if (ranks.rank === 0) console.log(JSON.stringify(all));
  if (nccl !== ranks) nccl.close();
  ranks.close();
}
