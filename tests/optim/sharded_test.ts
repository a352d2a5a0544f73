import assert from "node:assert/strict";
import { countGpus, runRanks } from "../dist/ranks.ts";

/** What the programs share: an optimizer of odd sizes in several buckets, its bits, and a step whose gradients differ from rank to rank. */
const SHARED = `
  import { createOptimizer, OPTIMIZER_DEFAULTS } from("lib/optim/optimizer.ts");
  import { initialize, leaves } from("lib/nn/parameters.ts");
  import { Generator } from("lib/tensor/random.ts");
  import { step } from("lib/tensor/scope.ts");
  import { backward } from("lib/tensor/tape.ts");
  import { add, mul } from("lib/ops/elementwise.ts");
  import { cast } from("lib/ops/cast.ts");
  import { sum } from("lib/ops/reduce.ts");
  import { tensorBytes } from("lib/tensor/snapshot.ts");
  import { sha256 } from("lib/train/manifest.ts");
  import { giveParts, loadCheckpoint, saveCheckpoint } from("lib/train/checkpoint.ts");
  const specsOf = (dtype) => ({
    a: { shape: [37, 23], dtype, init: { normal: 1 } },
    b: { shape: [1500], dtype: "f32", init: { normal: 1 } },
    c: { shape: [700, 3], dtype, init: { normal: 1 } },
    table: { shape: [2], dtype: "f32", init: { fill: 3 }, buffer: true },
  });
  const make = (shard, dtype, changes = {}) => {
    const specs = specsOf(dtype), config = { ...OPTIMIZER_DEFAULTS, lr: 0.01, weightDecay: 0.1, clip: { maxNorm: null, percentile: null }, emaRates: [0.5, 0.9], shard, ...changes };
    return createOptimizer(specs, initialize(specs, new Generator(1)), config, { bucketBytes: 4096 });
  };
  const train = (o, i, poison = false, watch = undefined) => {
    step(() => {
      const random = new Generator(1000 * i + rank), scale = 0.005 * o.lossScale();
      const parts = leaves(o.params).filter(([, t]) => t.requiresGrad).map(([, t]) => sum(mul(cast(t, "f32"), mul(random.normal(t.shape), poison ? NaN : scale))));
      backward(parts.reduce((x, y) => add(x, y)));
    });
    return o.stepLater(watch)();
  };
  const hash = (bytes) => { const h = sha256(); for (const chunk of bytes) h.update(chunk); return h.digest("hex"); };
  const bits = (o) => step(() => ({
    ...Object.fromEntries(Object.entries(o.tensors).map(([name, t]) => [name, hash(tensorBytes(t))])),
    ...Object.fromEntries(leaves(o.params).map(([name, t]) => ["model " + name, hash(tensorBytes(t))])),
    ...Object.fromEntries(leaves(o.averaged()).map(([name, t]) => ["averaged " + name, hash(tensorBytes(t))])),
    state: o.state(),
  }));
  const folder = Deno.args[0];
`;

/** What the ranks print as JSON; all must end well. */
async function said(world: number, code: string, { args, device }: { args?: string[]; device?: "cuda" } = {}): Promise<unknown[]> {
  const outcomes = await runRanks(world, SHARED + code + "\nranks.close();", { args, device });
  return outcomes.map(({ code, stdout, stderr }) => {
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  });
}

const GPUS = countGpus() > 1;
for (const [world, device] of [[2], [3], [4], [2, "cuda"]] as [number, "cuda"?][]) {
  const skipped = device && !GPUS,
    where = `${world} ${device ? "GPUs" : "ranks"}`,
    name = `an optimizer spread over ${where} equals a whole one to the bit`;
  Deno.test({
    name: `${name}, also where a gradient is not finite${skipped ? " (skipped: fewer than two GPUs are here)" : ""}`,
    ignore: skipped,
    fn: async () => {
      const found = await said(
        world,
        `const out = {};
      for (const dtype of ["f32", "bf16", "f16"]) {
        const [spread, whole] = [true, false].map((shard) => make(shard, dtype)), reports = [[], []], seen = [];
        for (let i = 0; i < 4; i++) [spread, whole].forEach((o, k) => reports[k].push(train(o, i, i === 2 && rank === world - 1, i === 1 ? (found) => seen[k] = JSON.stringify(found) : undefined)));
        const [a, b] = [bits(spread), bits(whole)], values = (o) => Object.values(o.held).reduce((n, t) => n + t.size, 0) - o.held.gradients.size;
        out[dtype] = { histograms: seen[0] === seen[1] && Object.keys(JSON.parse(seen[0])).length, differ: Object.keys(b).filter((k) => JSON.stringify(a[k]) !== JSON.stringify(b[k])), names: Object.keys(a).join() === Object.keys(b).join(),
          skipped: reports.map((r) => r.map((x) => x.skipped)), norms: reports.map((r) => r.map((x) => x.grad_norm)), share: values(spread) / values(whole) };
        spread.free();
        whole.free();
      }
      console.log(JSON.stringify(out));`,
        { device },
      ) as Record<
        string,
        { histograms: number; differ: string[]; names: boolean; skipped: number[][]; norms: number[][]; share: number }
      >[];
      for (const rank of found) {
        for (const [dtype, { histograms, differ, names, skipped, norms, share }] of Object.entries(rank)) {
          assert.deepEqual([differ, names, histograms], [[], true, 6], dtype);
          assert.deepEqual(skipped, [[0, 0, 1, 0], [0, 0, 1, 0]]);
          norms[0].forEach((norm, i) => assert.ok(Math.abs(norm - norms[1][i]) <= 1e-6 * norms[1][i], `${norm} and ${norms[1][i]}`));
          assert.ok(share < 1.4 / world, `a rank keeps ${share} of the values`); // rows are filled up to whole blocks
        }
      }
    },
  });
}

Deno.test("a parameter that some ranks or all give no gradient in a step is stepped by the sums of the others, as one process does", async () => {
  const found = await said(
    2,
    `const alone = { ...ranks, rank: 0, world: 1 }, make1 = (shard, among) => { const specs = specsOf("f32");
      return createOptimizer(specs, initialize(specs, new Generator(1)), { ...OPTIMIZER_DEFAULTS, clip: { maxNorm: null, percentile: null }, shard }, { ranks: among, bucketBytes: 4096 }); };
    const all = [make1(true, ranks), make1(false, ranks), make1(false, alone)], uses = { a: () => true, b: (i, r) => i < 2 || (i + r) % 2 === 0, c: (i) => i < 2 || i === 4 };
    for (let i = 0; i < 6; i++) {
      for (const o of all) {
        for (const r of o === all[2] ? [0, 1] : [rank]) {
          step(() => {
            const random = new Generator(1000 * i + r);
            const parts = leaves(o.params).filter(([name, t]) => t.requiresGrad && uses[name](i, r)).map(([, t]) => sum(mul(t, random.normal(t.shape))));
            backward(parts.reduce((x, y) => add(x, y)));
          });
        }
        o.step();
      }
    }
    console.log(JSON.stringify(all.map((o) => leaves(o.params).map(([name, t]) => [name, hash(tensorBytes(t))]))));`,
  ) as unknown[][];
  for (const [spread, whole, alone] of found) assert.deepEqual([spread, whole], [alone, alone]);
});

Deno.test("clipped steps of a spread optimizer are those of a whole one within the rounding of the norm", async () => {
  const found = await said(
    3,
    `const [spread, whole] = [true, false].map((shard) => make(shard, "f32", { clip: { maxNorm: 1, percentile: 95 } }));
    for (let i = 0; i < 3; i++) [spread, whole].forEach((o) => train(o, i));
    const [a, b] = [spread, whole].map((o) => leaves(o.params).flatMap(([, t]) => [...t.read()]));
    console.log(JSON.stringify(a.reduce((most, v, i) => Math.max(most, Math.abs(v - b[i])), 0)));`,
  ) as number[];
  for (const error of found) assert.ok(error <= 1e-6, `${error}`);
});

for (const [momentBits, onHost] of [[32, "nothing"], [8, "state"]] as const) {
  Deno.test(`a checkpoint of a spread optimizer is that of any number of ranks: ${momentBits}-bit moments, ${onHost} on the host`, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "espalier_sharded_" }), changes = JSON.stringify({ momentBits, onHost });
    const from = (step: number, to?: number): string => `
        const o = make(true, "bf16", ${changes}), path = (at) => folder + "/ckpts/step000000" + at + ".json";
        if (${step}) o.restore(loadCheckpoint(path(${step}), o.tensors));
        const loaded = ${step} ? bits(o) : null;
        for (let i = ${step}; i < ${to ?? step}; i++) train(o, i);
        if (${to !== undefined}) {
          if (rank === 0) saveCheckpoint(folder, ${to}, { tensors: o.tensors, state: o.state(), keep: 9 });
          else giveParts(o.tensors);
        }
        console.log(JSON.stringify({ loaded, ended: bits(o) }));`;
    type Said = { loaded: unknown; ended: unknown }[];
    try {
      const first = await said(4, from(0, 2), { args: [folder] }) as Said;
      for (const world of [1, 2, 3, 4]) {
        for (const { loaded } of await said(world, from(2), { args: [folder] }) as Said) {
          assert.deepEqual(loaded, first[0].ended, `${world} ranks`);
        }
      }
      const uncut = await said(4, from(0, 4), { args: [folder] }) as Said,
        resumed = await said(4, from(2, 5).replace("i < 5", "i < 4"), { args: [folder] }) as Said;
      assert.deepEqual(resumed.map(({ ended }) => ended), uncut.map(({ ended }) => ended));
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });
}
