/**
 * What each technique buys on the half-billion-parameter flow models: attention with and without its scores in memory, sparse convolutions and those
 * of whole volumes, activations kept, blocks made again whole, and plans, on cards of 40, 80 and 140 GiB, at batch 1 to 32. Writes
 * bench/results/techniques.json and techniques.svg. TECHNIQUES_FILL=1 measures what that file lacks alone, and keeps the rest.
 *
 *   deno task bench bench/techniques_bench.ts
 */
import { readDriver } from "../ffi/cuda_driver.ts";
import { cardFor } from "../lib/memory/cards.ts";
import { plannedMemory } from "../lib/memory/elastic.ts";
import { device } from "../lib/tensor/device.ts";
import { OutOfMemoryError } from "../lib/tensor/memory.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { withCard } from "./capped_memory.ts";
import { slatFlowWork, ssFlowWork, type Work } from "./flow_models.ts";
import { benchmark, type Findings, resultOf, type Row, row } from "./harness.ts";
import { naiveSsFlowWork } from "./naive_attention.ts";
import { drawTechniques, type Point, pointsOf } from "./techniques_plot.ts";
import { wholeVolumeConv } from "./whole_volumes.ts";

const GIB = 2 ** 30, BLOCKS = 24;
/** The most telling batches first, and how long to go on with others. */
const ORDER = [8, 1, 32, 4, 16, 2], SECONDS = Number(Deno.env.get("TECHNIQUES_SECONDS") ?? 1000);
const KNOWN = Deno.env.get("TECHNIQUES_FILL") ? resultOf("techniques").rows : [];
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

/** The rows of a point. */
function rowsOfPoint({ model, technique, gib, batch, ms, peak }: Point): Row[] {
  const name = `${model}, ${gib} GiB, batch ${batch}, ${technique}`;
  if (ms === null || peak === null) return [row({ case: `${name}: out of memory`, metric: "fits", unit: "", ours: 0 })];
  return [
    row({ case: `${name}: training step`, metric: "time", unit: "ms", ours: ms }),
    row({ case: `${name}: samples`, metric: "rate", unit: "1/s", ours: 1e3 * batch / ms }),
    row({ case: `${name}: peak`, metric: "memory", unit: "GiB", ours: peak, limit: gib, fraction_of_limit: peak / gib }),
  ];
}

function measure(save: (found: Findings) => void): Findings {
  const whole = device().memory.limit,
    points = pointsOf(KNOWN),
    known = new Set(points.map(({ model, technique, batch }) => `${model} ${technique} ${batch}`));
  const cards = [40, 80, 140].map((gib) => ({ gib, bytes: Math.min(gib * GIB, whole) })).filter(({ gib }) => gib * GIB < 1.05 * whole);
  const add = (model: string, technique: string, gib: number, batch: number, got: Measured | null): void => {
    points.push({ model, technique, gib, batch, ms: got?.ms ?? null, peak: got ? got.peak / GIB : null });
    save(findings(points));
  };
  const lacks = (model: string, technique: string, batch: number): boolean => !known.has(`${model} ${technique} ${batch}`);
  const models: [string, (options: { batch: number }) => Work][] = [["SS-Flow image-L", ssFlowWork], ["SLat-Flow image-L", slatFlowWork]];
  const end = performance.now() + 1e3 * SECONDS;
  for (const [model, make] of models) {
    for (const batch of ORDER) {
      if (performance.now() > end) break;
      const wanted = Object.entries(TECHNIQUES).filter(([technique]) => lacks(model, technique, batch));
      if (!wanted.length) continue;
      const work = make({ batch });
      for (const [technique, pass] of wanted) {
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
  const apart = { add, lacks, cards };
  without(apart, "SS-Flow image-L", "scores of attention in memory", naiveSsFlowWork);
  without(apart, "SLat-Flow image-L", "convolutions of whole volumes", ({ batch }) => slatFlowWork({ batch }, undefined, wholeVolumeConv));
  const found = findings(points);
  printed(points.sort((a, b) => a.batch - b.batch));
  drawTechniques(points);
  return found;
}

/** The rows of all points and of what follows from them. */
function findings(points: Point[]): Findings {
  const filled = points.length - pointsOf(KNOWN).length,
    rows = [...points.flatMap(rowsOfPoint), ...["SS-Flow image-L", "SLat-Flow image-L"].flatMap((model) => study(points, model))];
  return {
    ...(KNOWN.length && { notes: [`The last ${filled} points were measured after the others, and put to them (TECHNIQUES_FILL=1).`] }),
    rows,
  };
}

/** A model without one of the techniques. */
function without(
  { add, lacks, cards }: {
    add: (model: string, technique: string, gib: number, batch: number, got: Measured | null) => void;
    lacks: (model: string, technique: string, batch: number) => boolean;
    cards: { gib: number; bytes: number }[];
  },
  model: string,
  technique: string,
  make: (options: { batch: number }) => Work,
): void {
  for (const batch of [2, 1, 4, 8].filter((batch) => lacks(model, technique, batch))) {
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
    row({
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
