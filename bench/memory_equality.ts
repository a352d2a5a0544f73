/** Whether gradients of the large flow models are the same to the bit, whatever is made again, waits on the host, or does not fit at first. */
import type { Card } from "../lib/memory/cards.ts";
import { plannedMemory } from "../lib/memory/elastic.ts";
import { leaves } from "../lib/nn/parameters.ts";
import { device } from "../lib/tensor/device.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { withCard, withFailure } from "./capped_memory.ts";
import { freeSamples, slatFlowWork, sparseSamples, ssFlowWork, type Work } from "./flow_models.ts";
import { measured, type Row } from "./harness.ts";
import { shellOfVoxels } from "./memory_sparse.ts";

const FAILURES = 8, GIB = 2 ** 30;

/** Gradients of parameters in some of the blocks after one pass. */
function gradients(work: Work, pass: () => Tensor): Float32Array[] {
  const params = leaves<Tensor>(work.optimizer.params);
  for (const [, p] of params) if (p.grad) device().memory.zero(p.grad.addr, p.grad.bytes);
  pass().free();
  return params.filter(([name]) => /^(input_layer|blocks\.(0|11|23)\.(self_attn|mlp))/.test(name)).map(([, p]) => p.grad!.read());
}

/** Whether two lists of gradients are equal to the bit. */
function equal(a: Float32Array[], b: Float32Array[]): boolean {
  return a.every((x, i) => x.every((v, j) => Object.is(v, b[i][j])));
}

function survived(work: Work, sizes: number[]): Row[] {
  let allocations = 0, alike = 0, retries = 0;
  const elastic = plannedMemory(),
    run = (fails: number): Tensor => {
      let attempts = 0;
      return elastic.run((options) => {
        if (device().simulated || attempts++) return work.pass(options);
        return withFailure(fails, () => work.pass(options), (n) => allocations = Math.max(allocations, n));
      }, sizes);
    };
  const want = gradients(work, () => run(-1)), every = Math.floor(allocations / FAILURES);
  for (let i = 0; i < FAILURES; i++) {
    const got = gradients(work, () => run(Math.floor(every * (i + 0.5))));
    alike += Number(equal(got, want));
    retries = elastic.report.retries;
  }
  const name = `${work.name}, one of ${allocations} allocations fails, every ${every}th in its turn`;
  work.free();
  return [
    measured({ case: `${name}: micro-batches run again`, metric: "count", unit: "", ours: retries, limit: FAILURES }),
    measured({ case: `${name}: of these with gradients equal to the bit`, metric: "count", unit: "", ours: alike, limit: FAILURES }),
  ];
}

/** Whether a work has the same gradients under whole-block checkpoints and within each of these budgets (GiB, some on the host or not). */
function alike(work: Work, sizes: number[], card: Card, budgets: [gib: number, offload: boolean][]): Row[] {
  const want = gradients(work, () => work.pass());
  const planned = budgets.map(([gib, offload]) => {
    const elastic = plannedMemory({ budget: gib * GIB, card, offload, say: console.error });
    const pass = (): Tensor => withCard(gib * GIB, () => elastic.run((options) => work.pass(options), sizes));
    return [`a budget of ${gib} GiB${offload ? ", some on the host" : ""}`, pass] as const;
  });
  const others = [
    ["the same pass again", () => work.pass()] as const,
    ["whole blocks made again", () => work.pass({ recompute: 24 })] as const,
    ["these inside a checkpoint of the whole model", () => work.pass({ recompute: 24 }, true)] as const,
    ...planned,
  ];
  return others.map(([what, pass]) =>
    measured({
      case: `${work.name}, ${what}: gradients equal to the bit`,
      ...{ metric: "equal", unit: "", ours: Number(equal(gradients(work, pass), want)) },
    })
  );
}

/** Rows of both models. */
export function equality(card: Card, budgets: [gib: number, offload: boolean][]): Row[] {
  const dense = ssFlowWork({ batch: 8 }), rows = alike(dense, [8], card, budgets);
  dense.free();
  rows.push(...survived(ssFlowWork({ batch: 1 }), [1]));
  const places = [shellOfVoxels(8000), shellOfVoxels(16000)], set = sparseSamples(places), sizes = places.map((p) => p.length / 3);
  const sparse = slatFlowWork({ batch: 2 }, set);
  rows.push(...alike(sparse, sizes, card, [[15, false], [15, true]]), ...survived(sparse, sizes));
  freeSamples(set);
  device().memory.trim();
  return rows;
}
