/** Passes of the large flow models in which allocations fail: whether each is run again to the same gradients. */
import { plannedMemory } from "../lib/memory/elastic.ts";
import { leaves } from "../lib/nn/parameters.ts";
import { device } from "../lib/tensor/device.ts";
import type { Tensor } from "../lib/tensor/tensor.ts";
import { withFailure } from "./capped_memory.ts";
import { freeSamples, slatFlowWork, sparseSamples, ssFlowWork, type Work } from "./flow_models.ts";
import { measured, type Row } from "./harness.ts";
import { shellOfVoxels } from "./memory_sparse.ts";

const FAILURES = 12;

/** Gradients of parameters in some of the blocks after one pass. */
export function gradients(work: Work, pass: () => Tensor): Float32Array[] {
  const params = leaves<Tensor>(work.optimizer.params);
  for (const [, p] of params) if (p.grad) device().memory.zero(p.grad.addr, p.grad.bytes);
  pass().free();
  return params.filter(([name]) => /^(input_layer|blocks\.(0|11|23)\.(self_attn|mlp))/.test(name)).map(([, p]) => p.grad!.read());
}

/** Whether two lists of gradients are equal to the bit. */
export function equal(a: Float32Array[], b: Float32Array[]): boolean {
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

/** Rows of both models; for SLat-Flow also whether plans, whole blocks and no recomputation give the same gradients. */
export function failures(): Row[] {
  const dense = survived(ssFlowWork({ batch: 1 }), [1]), places = [shellOfVoxels(8000), shellOfVoxels(16000)], set = sparseSamples(places);
  const work = slatFlowWork({ batch: 2 }, set), sizes = places.map((p) => p.length / 3);
  const want = gradients(work, () => work.pass()), rows: Row[] = [];
  const tight = plannedMemory({ budget: 15 * 2 ** 30 });
  for (
    const [what, pass] of [
      ["whole blocks made again", () => work.pass({ recompute: 24 })],
      ["a budget of 15 GiB", () => tight.run((o) => work.pass(o), sizes)],
    ] as const
  ) {
    const ours = Number(equal(gradients(work, pass), want));
    rows.push(measured({ case: `${work.name}, ${what}: gradients equal to the bit`, metric: "equal", unit: "", ours }));
  }
  console.error(`${work.name}: ${tight.describe()}`);
  rows.push(...survived(work, sizes));
  freeSamples(set);
  device().memory.trim();
  return [...dense, ...rows];
}
