/** Copies between the processes of a machine, without GPUs. */
import assert from "node:assert/strict";
import { HOST_CUDA } from "./host_cuda.ts";
import { runRanks } from "./ranks.ts";

/** What a rank finds of collectives by copies. */
const COPIES = `
  import { copyCollectives } from("lib/dist/copies.ts");
  import { empty, tensor } from("lib/tensor/tensor.ts");
  import { Generator } from("lib/tensor/random.ts");
  const copies = copyCollectives(ranks, (t) => ranks.allReduce(t), { turnBytes: 4096 }), fault = copies.fault ?? null, wrong = [];
  const valuesOf = (r, n) => new Generator(r).normal([n]).read();
  const sums = (n) => { const all = valuesOf(0, n); for (let r = 1; r < world; r++) valuesOf(r, n).forEach((v, i) => all[i] = Math.fround(all[i] + v)); return all; };
  const same = (what, t, wanted) => { if (!t.read().every((v, i) => v === wanted[i])) wrong.push(what); };
  if (!fault) {
    for (const n of [0, 1, 5, 257, 3001, 20_003]) {
      const t = tensor(valuesOf(rank, n), [n]);
      copies.allReduce(t);
      same("all-reduce of " + n, t, sums(n));
      t.free();
    }
    for (const n of [0, 1, 64, 1000, 7001]) {
      const x = tensor(valuesOf(rank, world * n), [world, n]), apart = empty([n]), own = x.view([n], { offset: rank * n }), all = sums(world * n);
      copies.reduceScatter(apart, x);
      same("reduce-scatter of " + n, apart, all.subarray(rank * n, (rank + 1) * n));
      copies.reduceScatter(own, x);
      same("reduce-scatter in place of " + n, own, all.subarray(rank * n, (rank + 1) * n));
      const y = empty([world, n]), inPlace = y.view([n], { offset: rank * n }), each = Array.from({ length: world }, (_, r) => [...valuesOf(r, n)]).flat();
      copies.allGather(y, tensor(valuesOf(rank, n), [n]));
      same("all-gather of " + n, y, each);
      y.write(Array(world * n).fill(0));
      inPlace.write(valuesOf(rank, n));
      copies.allGather(y, inPlace);
      same("all-gather in place of " + n, y, each);
      const first = tensor(valuesOf(rank, n), [n]);
      copies.broadcast(first);
      same("broadcast of " + n, first, valuesOf(0, n));
      for (const t of [x, apart, own, y, inPlace, first]) t.free();
    }
    for (let i = 0; i < 100; i++) {
      const t = tensor([rank + i, 2 * rank], [2]);
      copies.allReduce(t);
      same("sum " + i, t, [world * i + world * (world - 1) / 2, world * (world - 1)]);
    }
    copies.close(() => ranks.exchange(null));
  }
  console.log(JSON.stringify({ fault, wrong }));
  ranks.close();`;

async function said(world: number, refuses = ""): Promise<{ fault: string | null; wrong: string[] }[]> {
  const outcomes = await runRanks(world, COPIES, { env: { LD_LIBRARY_PATH: HOST_CUDA!, HOST_CUDA_REFUSES: refuses } });
  return outcomes.map(({ code, stdout, stderr }) => {
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  });
}

const skipped = HOST_CUDA ? "" : " (skipped: no g++ is here)";
for (const world of [2, 3, 4]) {
  Deno.test({
    name: `collectives by copies between ${world} ranks are sums in their order, to the bit${skipped}`,
    ignore: !HOST_CUDA,
    fn: async () => assert.deepEqual(await said(world), Array(world).fill({ fault: null, wrong: [] })),
  });
}

Deno.test({
  name: `ranks that cannot reach each other's memory all learn why${skipped}`,
  ignore: !HOST_CUDA,
  fn: async () => {
    for (const [refused, call] of [["handle", "cudaIpcGetMemHandle"], ["open", "cudaIpcOpenMemHandle"], ["wait", "cuStreamWaitValue32"]]) {
      for (const { fault } of await said(3, refused)) assert.match(fault!, new RegExp(`^Cannot run ${call}: `));
    }
  },
});
