/**
 * What each technique buys on the half-billion-parameter flow models: attention with and without its scores in memory, sparse convolutions and those
 * of whole volumes, activations kept, blocks made again whole, and plans, on cards of 40, 80 and 140 GiB, at batch 1 to 32. Writes
 * bench/results/techniques.json and techniques.svg.
 *
 *   deno task bench bench/techniques_bench.ts
 */
import { readDriver } from "../ffi/cuda_driver.ts";
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { cardFor } from "../lib/memory/cards.ts";
import { plannedMemory } from "../lib/memory/elastic.ts";
import { device } from "../lib/tensor/device.ts";
import { OutOfMemoryError } from "../lib/tensor/memory.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { withCard } from "./capped_memory.ts";
import { slatFlowWork, ssFlowWork, type Work } from "./flow_models.ts";
import { benchmark, measured, type Row, row } from "./harness.ts";
import { naiveSsFlowWork } from "./naive_attention.ts";
import { type Point, techniquesSvg } from "./techniques_plot.ts";
import { wholeVolumeConv } from "./whole_volumes.ts";

const GIB = 2 ** 30, BLOCKS = 24;
/** The most telling batches first, and how long to go on with others. */
const ORDER = [8, 1, 32, 4, 16, 2], SECONDS = Number(Deno.env.get("TECHNIQUES_SECONDS") ?? 1000);
/** Iterations, and how the first study of these techniques put them. */
const ITERATIONS = 40_000, STUDY_HOURS = 26;
/** Of four GPUs over one, where gradients are added up while the backward pass runs. */
const EFFICIENCY = 0.97;

interface Measured {
  ms: number;
  peak: number;
}

/** Milliseconds of a training step (the better of two after a first one) and its peak, or null where it does not fit. */
function stepsOf(work: Work, pass: () => Tensor, card: number): Measured | null {
  const { memory } = device(), all: number[] = [];
  try {
    return withCard(card, () => {
      let peak = 0, slow = false;
      for (let i = 0; i < (slow ? 2 : 3); i++) {
        memory.synchronize();
        memory.resetPeak();
        const began = performance.now();
        pass().free();
        peak = memory.use().peak;
        work.optimizer.step();
        memory.synchronize();
        all.push(performance.now() - began);
        slow = all[i] > 500;
      }
      return { ms: Math.min(...all.slice(1)), peak };
    });
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    for (const t of [memory.synchronize, memory.trim]) t();
    return null;
  }
}

const TECHNIQUES: Record<string, (work: Work, batch: number, card: number) => () => Tensor> = {
  "everything kept but norms and activations": (work) => () => work.pass(),
  "whole blocks made again": (work) => () => work.pass({ recompute: BLOCKS }),
  "planned": (work, batch, card) => {
    const elastic = plannedMemory({ budget: card, card: cardFor(readDriver().gpus[0]?.name) });
    return () => elastic.run((options) => work.pass(options), [batch]);
  },
};

function measure(): Row[] {
  const whole = device().memory.limit, points: Point[] = [], rows: Row[] = [];
  const cards = [40, 80, 140].map((gib) => ({ gib, bytes: Math.min(gib * GIB, whole) })).filter(({ gib }) => gib * GIB < 1.05 * whole);
  const add = (model: string, technique: string, gib: number, batch: number, got: Measured | null): void => {
    points.push({ model, technique, gib, batch, ms: got?.ms ?? null, peak: got ? got.peak / GIB : null });
    const name = `${model}, ${gib} GiB, batch ${batch}, ${technique}`;
    if (!got) rows.push(row({ case: `${name}: out of memory`, metric: "fits", unit: "", ours: 0 }));
    else {
      rows.push(row({ case: `${name}: training step`, metric: "time", unit: "ms", ours: got.ms }));
      rows.push(row({ case: `${name}: samples`, metric: "rate", unit: "1/s", ours: 1e3 * batch / got.ms }));
      rows.push(
        row({
          case: `${name}: peak`,
          metric: "memory",
          unit: "GiB",
          ours: got.peak / GIB,
          limit: gib,
          fraction_of_limit: got.peak / GIB / gib,
        }),
      );
    }
  };
  const models: [string, (options: { batch: number }) => Work][] = [["SS-Flow image-L", ssFlowWork], ["SLat-Flow image-L", slatFlowWork]];
  const end = performance.now() + 1e3 * SECONDS;
  for (const [model, make] of models) {
    if (model !== models[0][0]) {
      without(add, cards, "SS-Flow image-L", "scores of attention in memory", naiveSsFlowWork);
      without(add, cards, model, "convolutions of whole volumes", ({ batch }) => slatFlowWork({ batch }, undefined, wholeVolumeConv));
    }
    for (const batch of ORDER) {
      if (performance.now() > end) break;
      const work = make({ batch });
      for (const [technique, pass] of Object.entries(TECHNIQUES)) {
        // what fits a small card is on a larger one the same
        let known: Measured | null = null;
        for (const { gib, bytes } of cards) {
          known = known && (technique !== "planned" || known.peak < 0.9 * bytes) ? known : stepsOf(work, pass(work, batch, bytes), bytes);
          add(model, technique, gib, batch, known);
          if (technique === "planned" && known && known.peak > 0.9 * bytes) known = null; // a larger card makes less again
        }
      }
      work.free();
      device().memory.trim();
    }
  }
  for (const [model] of models) rows.push(...study(points, model));
  printed(points.sort((a, b) => a.batch - b.batch));
  const file = new URL("results/techniques.svg", import.meta.url).pathname;
  Deno.mkdirSync(new URL("results/", import.meta.url).pathname, { recursive: true });
  writeFileAtomic(file, new TextEncoder().encode(techniquesSvg(points)));
  return rows;
}

/** A model without one of the techniques. */
function without(
  add: (model: string, technique: string, gib: number, batch: number, got: Measured | null) => void,
  cards: { gib: number; bytes: number }[],
  model: string,
  technique: string,
  make: (options: { batch: number }) => Work,
): void {
  for (const batch of [2, 1, 4, 8]) {
    const work = make({ batch });
    let known: Measured | null = null;
    for (const { gib, bytes } of cards) {
      known ??= stepsOf(work, () => work.pass(), bytes);
      add(model, technique, gib, batch, known);
    }
    work.free();
    device().memory.trim();
  }
}

/** The iterations of the first study on four of this card, batch 8 each. */
function study(points: Point[], model: string): Row[] {
  const at = points.findLast((p) => p.model === model && p.technique === "planned" && p.batch === 8 && p.ms !== null);
  if (!at) return [];
  const hours = ITERATIONS * at.ms! / EFFICIENCY / 3.6e6;
  return [
    measured({
      case:
        `${model}, bf16: ${ITERATIONS} iterations of batch 32 on four GPUs, from one's step at batch 8 and ${EFFICIENCY} of four times its rate`,
      metric: "time",
      unit: "h",
      ours: hours,
      peer: STUDY_HOURS,
      peer_name: "the first study's run on 4 A100 (its model and batch are not known to be these)",
      ratio: STUDY_HOURS / hours,
    }),
  ];
}

/** The points as a table. */
function printed(points: Point[]): void {
  const lines = Map.groupBy(points, (p) => `${p.model}, ${p.gib} GiB, ${p.technique}`);
  for (const [name, list] of lines) {
    const cells = list.map(({ batch, ms, peak }) => `${batch}: ${ms === null ? "OOM" : `${ms.toFixed(0)} ms ${peak!.toFixed(1)} GiB`}`);
    console.error(`${name} | ${cells.join(" | ")}`);
  }
}

benchmark("techniques", measure);
