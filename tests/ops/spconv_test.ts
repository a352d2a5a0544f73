import assert from "node:assert/strict";
import { type Places, spconv, type SpconvMap, spconvMap, spconvTable, type Window } from "../../lib/ops/spconv.ts";
import { withWorkspace } from "../../lib/ops/workspace.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { empty, kernels, stream, type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, type Input, random } from "../check.ts";
import { indexOf, scatter, shell, shuffle } from "../voxels.ts";

const SIDE = 6;

function places(coords: Int32Array<ArrayBuffer>, side = SIDE): Places {
  return { coords: tensor(coords, [coords.length / 4, 4], { dtype: "i32" }), B: 3, side };
}

/** The table, by looking each place up. */
function plainTable(to: Int32Array, from: Int32Array, { kernel, stride = 1, padding = 0 }: Window, transposed = false): number[][] {
  const rows = indexOf(from),
    taps = Array.from({ length: kernel ** 3 }, (_, t) => [Math.floor(t / kernel ** 2), Math.floor(t / kernel) % kernel, t % kernel]);
  return Array.from({ length: to.length / 4 }, (_, r) => {
    const [b, ...place] = to.subarray(4 * r, 4 * r + 4);
    return taps.map((tap) => {
      const at = place.map((c, a) => transposed ? (c + padding - tap[a]) / stride : c * stride + tap[a] - padding);
      return rows.get(`${[b, ...at]}`) ?? -1;
    });
  });
}

function plainConv({ x, w, b }: Record<"x" | "w" | "b", Float64Array>, table: number[][], Cin: number, Cout: number): number[] {
  return table.flatMap((taps) =>
    Array.from({ length: Cout }, (_, o) => {
      let sum = b[o];
      taps.forEach((n, t) => {
        for (let i = 0; n >= 0 && i < Cin; i++) sum += w[(o * taps.length + t) * Cin + i] * x[n * Cin + i];
      });
      return sum;
    })
  );
}

function inputsOf(N: number, kernel: number, Cin: number, Cout: number): Record<"x" | "w" | "b", Input> {
  return {
    x: { shape: [N, Cin], data: random(1, N * Cin) },
    w: { shape: [Cout, kernel, kernel, kernel, Cin], data: random(2, Cout * kernel ** 3 * Cin) },
    b: { shape: [Cout], data: random(3, Cout) },
  };
}

const SETS: Record<string, Int32Array<ArrayBuffer>> = {
  "no voxels": new Int32Array(0),
  "one voxel": Int32Array.of(1, 5, 0, 2),
  "a ragged batch": scatter(1, [7, 0, 12], SIDE),
  "a batch in any order": shuffle(4, scatter(2, [9, 5, 6], SIDE)),
  "a dense corner": scatter(3, [8], 2),
};

for (const [name, coords] of Object.entries(SETS)) {
  for (const [kernel, Cin, Cout] of [[1, 3, 2], [3, 2, 3], [3, 1, 1], [5, 2, 1]]) {
    const window = { kernel, padding: (kernel - 1) / 2 };
    Deno.test(`spconv() of ${name} with ${kernel}³ taps, ${Cin} to ${Cout} channels, and its gradients match the definition`, () => {
      checkOp({
        inputs: inputsOf(coords.length / 4, kernel, Cin, Cout),
        run: ({ x, w, b }) => {
          const at = places(coords);
          return spconv(x, w, b, spconvMap(spconvTable(at, at, window)));
        },
        reference: (a) => plainConv(a, plainTable(coords, coords, window), Cin, Cout),
      });
    });
  }
}

const COARSE = scatter(5, [4, 0, 6], SIDE / 2);

for (const [kernel, stride, padding] of [[2, 2, 0], [3, 2, 1], [3, 3, 1]]) {
  const window = { kernel, stride, padding }, coords = SETS["a ragged batch"];
  for (const transposed of [false, true]) {
    const [to, from] = transposed ? [coords, COARSE] : [COARSE, coords];
    Deno.test(`spconv() ${transposed ? "back " : ""}with stride ${stride}, ${kernel}³ taps, and its gradients match the definition`, () => {
      checkOp({
        inputs: inputsOf(from.length / 4, kernel, 2, 3),
        run: ({ x, w, b }) => {
          const fine = places(coords), coarse = places(COARSE);
          const there = spconvTable(coarse, fine, window), back = spconvTable(fine, coarse, window, { transposed: true });
          const maps: SpconvMap[] = [spconvMap(there, () => maps[1]), spconvMap(back, () => maps[0])];
          return spconv(x, w, b, maps[Number(transposed)]);
        },
        reference: (a) => plainConv(a, plainTable(to, from, window, transposed), 2, 3),
      });
    });
  }
}

Deno.test("spconvTable() finds what lies where, and nothing outside", () => {
  for (const coords of Object.values(SETS)) {
    for (const window of [{ kernel: 1 }, { kernel: 2, stride: 2 }, { kernel: 3, padding: 1 }, { kernel: 5, stride: 2, padding: 4 }]) {
      for (const transposed of [false, true]) {
        const [got, K] = step(() => {
          const { entries, K } = spconvTable(places(COARSE), places(coords), window, { transposed });
          return [[...entries.read()], K];
        });
        assert.equal(K, window.kernel ** 3);
        assert.deepEqual(got, plainTable(COARSE, coords, window, transposed).flat());
      }
    }
  }
});

Deno.test("spconv() without a bias, and with only the gradients that are wanted", () => {
  const coords = SETS["a ragged batch"],
    { x, w } = inputsOf(coords.length / 4, 3, 2, 2),
    table = plainTable(coords, coords, { kernel: 3, padding: 1 });
  const run = (t: Record<"x" | "w", Tensor>): Tensor => {
    const at = places(coords);
    return spconv(t.x, t.w, null, spconvMap(spconvTable(at, at, { kernel: 3, padding: 1 })));
  };
  const reference = (a: Record<"x" | "w", Float64Array>): number[] => plainConv({ ...a, b: new Float64Array(2) }, table, 2, 2);
  checkOp({ inputs: { x, w: { ...w, grad: false } }, run, reference });
  checkOp({ inputs: { x: { ...x, grad: false }, w }, run, reference });
});

Deno.test("spconv() through one map, twice and again in the backward pass, adds its gradients", () => {
  const coords = SETS["a ragged batch"], N = coords.length / 4;
  step(() => {
    const at = places(coords), map = spconvMap(spconvTable(at, at, { kernel: 3, padding: 1 }));
    const x = tensor(random(1, N), [N, 1], { requiresGrad: true }), w = tensor(random(2, 27), [1, 3, 3, 3, 1], { requiresGrad: true });
    const y = spconv(spconv(x, w, null, map), w, null, map);
    assert.equal(map.pairs(), map.pairs());
    backward(y, tensor(random(3, N), [N, 1]));
    assert.ok(x.grad && w.grad);
  });
});

Deno.test("spconv() says what does not fit", () => {
  const coords = SETS["one voxel"];
  step(() => {
    const at = places(coords), map = spconvMap(spconvTable(at, at, { kernel: 3, padding: 1 }));
    const x = tensor([1, 2], [1, 2]), w = tensor(random(2, 3 * 27 * 2), [3, 3, 3, 3, 2]);
    const run = (x: Tensor, w: Tensor, b: Tensor | null = null) => () => void spconv(x, w, b, map);
    assert.throws(run(tensor([1, 2, 3, 4], [2, 2]), w), { message: "Cannot run spconv: x is [2,2], it must be [1,2]" });
    assert.throws(run(tensor([1, 2, 3], [1, 3]), w), { message: "Cannot run spconv: x is [1,3], it must be [1,2]" });
    assert.throws(run(x, tensor(random(2, 16), [1, 2, 2, 2, 2])), {
      message: "Cannot run spconv: weight is [1,2,2,2,2], it must be [Cout, k, k, k, Cin] with k³ = 27, the map's taps",
    });
    assert.throws(run(x, w, x), { message: "Cannot run spconv: bias is [1,2], it must be [3]" });
    assert.throws(run(x, tensor(random(2, 162), [3, 3, 3, 3, 2], { dtype: "f16" })), {
      message: "Cannot run spconv: weight is f16, it must be f32 or x's f32",
    });
    assert.throws(run(tensor([1, 2], [1, 2], { dtype: "i32" }), w), {
      message: "Cannot run spconv: x is i32, it must be f32, f16 or bf16",
    });
    assert.throws(() => spconvTable(at, { ...at, coords: x }, { kernel: 3 }), {
      message: "Cannot run spconvTable: from is f32, it must be i32",
    });
    assert.throws(() => spconvTable(at, at, { kernel: 6 }), /kernel/);
  });
});

for (
  const [side, kernel, Cin, Cout] of [
    [8, 3, 5, 3],
    [10, 3, 64, 64],
    [10, 3, 72, 128],
    [10, 3, 136, 328],
    [20, 3, 64, 64],
    [24, 3, 128, 48],
    [16, 5, 16, 8],
    [30, 1, 32, 96],
    [20, 3, 136, 328],
    [32, 3, 256, 256],
  ]
) {
  const coords = shell(2, side),
    window = { kernel, padding: (kernel - 1) / 2 },
    { x, w, b } = inputsOf(coords.length / 4, kernel, Cin, Cout);
  checkDevices(`spconv() of ${coords.length / 4} voxels with ${kernel}³ taps, ${Cin} to ${Cout} channels`, import.meta.url, {
    inputs: { x, w: { ...w, data: w.data.map((v) => v / Math.sqrt(Cin * 9)) }, b },
    run: ({ x, w, b }) => {
      const at = places(coords, side);
      return spconv(x, w, b, spconvMap(spconvTable(at, at, window)));
    },
  });
}

const SHELL = shuffle(9, shell(3, 30));
// Side by side: a row number a cell, bits and ranks of every run of cells, and of those that have a voxel.
for (const side of [37, 190, 1024]) {
  for (const [axis, offset] of [[1, 0], [1, 7], [3, 5]]) {
    const coords = SHELL.map((v, i) => i % 4 === axis ? v + offset : v), N = coords.length / 4;
    checkDevices(`spconvTable() of ${N} voxels in ${side}³, ${offset} along axis ${axis}`, import.meta.url, {
      inputs: { coords: { shape: [N, 4], data: Float32Array.from(coords), dtype: "i32" } },
      run: ({ coords }) => spconvTable({ coords, B: 3, side }, { coords, B: 3, side }, { kernel: 3, padding: 1 }).entries,
      dtypes: ["f32"],
      tolerance: { f32: 0 },
    });
  }
}

for (const [samples, side] of [[3, 30], [2, 90], [2, 190]]) {
  const coords = shuffle(9, shell(samples, side)), N = coords.length / 4;
  for (const parts of [1, 3]) {
    checkDevices(`the order of ${N} voxels in ${parts} parts`, import.meta.url, {
      inputs: { coords: { shape: [N, 4], data: Float32Array.from(coords), dtype: "i32" } },
      run: ({ coords }) => {
        const at = { coords, B: samples, side };
        return spconvMap(spconvTable(at, at, { kernel: 3, padding: 1 })).walk(parts).order;
      },
      dtypes: ["f32"],
      tolerance: { f32: 0 },
    });
  }
}

{
  const coords = shell(2, 190), N = coords.length / 4;
  checkDevices(`the order of ${N} voxels in one group, which no cluster holds`, import.meta.url, {
    inputs: { coords: { shape: [N, 4], data: Float32Array.from(coords), dtype: "i32" } },
    run: ({ coords }) => {
      const at = { coords, B: 2, side: 190 }, { taps } = spconvTable(at, at, { kernel: 3, padding: 1 }), k = kernels();
      const order = empty([N], "i32"), masks = empty([Math.ceil(N / 64)], "i32");
      withWorkspace(
        (bytes) => k.k_spconv_plan_workspace(bytes, N, 27, 1),
        (scratch) => k.k_spconv_plan(order.addr, masks.addr, taps.addr, scratch, N, 27, 1, 0, stream()),
      );
      return order;
    },
    dtypes: ["f32"],
    tolerance: { f32: 0 },
  });
}

{
  const coords = shell(2, 20), N = coords.length / 4, { x, w, b } = inputsOf(N, 3, 64, 96);
  checkDevices(`spconv() of ${N} voxels with weights kept in f32`, import.meta.url, {
    inputs: { x, w: { ...w, data: w.data.map((v) => v / 24), dtype: "f32" }, b: { ...b, dtype: "f32" } },
    run: ({ x, w, b }) => {
      const at = places(coords, 20);
      return spconv(x, w, b, spconvMap(spconvTable(at, at, { kernel: 3, padding: 1 })));
    },
    dtypes: ["f16", "bf16"],
  });
}
