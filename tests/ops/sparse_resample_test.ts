import assert from "node:assert/strict";
import {
  type Family,
  type Pooling,
  poolVoxels,
  repeatRows,
  stridedPlaces,
  subdivideCoords,
  upsampleVoxels,
} from "../../lib/ops/sparse_resample.ts";
import { spconvTable, type Window } from "../../lib/ops/spconv.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";
import { scatter, shell, shuffle } from "../voxels.ts";

const SIDE = 6;

const SETS: Record<string, Int32Array<ArrayBuffer>> = {
  "no voxels": new Int32Array(0),
  "one voxel": Int32Array.of(2, 5, 0, 3),
  "a ragged batch": scatter(1, [9, 0, 14], SIDE),
  "a batch in any order": shuffle(4, scatter(2, [9, 5, 6], SIDE)),
  "a full cube": scatter(3, [64], 4),
};

function upload(coords: Int32Array<ArrayBuffer>): Tensor {
  return tensor(coords, [coords.length / 4, 4], { dtype: "i32" });
}

/** The places that a strided convolution reaches, by trying every tap of every voxel. */
function plainStrided(coords: Int32Array, { kernel, stride = 1, padding = 0 }: Window, side: number): number[][] {
  const found = new Map<string, number[]>(), along = Math.floor((side + 2 * padding - kernel) / stride) + 1;
  for (let n = 0; n < coords.length; n += 4) {
    for (let t = 0; t < kernel ** 3; t++) {
      const tap = [Math.floor(t / kernel ** 2), Math.floor(t / kernel) % kernel, t % kernel];
      const q = tap.map((d, a) => (coords[n + 1 + a] + padding - d) / stride);
      if (q.every((c) => Number.isInteger(c) && c >= 0 && c < along)) found.set(`${[coords[n], ...q]}`, [coords[n], ...q]);
    }
  }
  return [...found.values()].sort((p, q) => p.reduce((order, c, i) => order || c - q[i], 0));
}

Deno.test("stridedPlaces() gives each place that a window reaches once, in order, and each voxel's parent", () => {
  for (const coords of Object.values(SETS)) {
    for (
      const window of [{ kernel: 2, stride: 2 }, { kernel: 3, stride: 3 }, { kernel: 3, stride: 2, padding: 1 }, {
        kernel: 5,
        stride: 1,
        padding: 2,
      }]
    ) {
      const want = plainStrided(coords, window, SIDE);
      const { places, parent } = step(() => {
        const { coords: out, count, parent } = stridedPlaces({ coords: upload(coords), B: 3, side: SIDE }, window);
        const M = count.item(), all = [...out.read()];
        assert.ok(all.slice(4 * M).every((v) => v === -1));
        return { places: all.slice(0, 4 * M), parent: parent && [...parent.read()] };
      });
      assert.deepEqual(places, want.flat());
      assert.equal(parent === null, window.kernel !== window.stride);
      parent?.forEach((m, n) => {
        const cell = [...coords.subarray(4 * n, 4 * n + 4)].map((c, a) => a ? Math.floor(c / window.kernel) : c);
        assert.deepEqual(want[m], cell);
      });
    }
  }
});

/** The coarser places of `coords` by a factor, and each one's parent. */
function plainFamily(coords: Int32Array, factor: number): { coarse: Int32Array<ArrayBuffer>; parent: number[] } {
  const rows = plainStrided(coords, { kernel: factor, stride: factor }, SIDE), index = new Map(rows.map((row, m) => [`${row}`, m]));
  const parent = Array.from({ length: coords.length / 4 }, (_, n) => {
    return index.get(`${[...coords.subarray(4 * n, 4 * n + 4)].map((c, a) => a ? Math.floor(c / factor) : c)}`)!;
  });
  return { coarse: Int32Array.from(rows.flat()), parent };
}

function familyOf(coords: Int32Array<ArrayBuffer>, factor: number): Family {
  const { coarse, parent } = plainFamily(coords, factor), side = SIDE / factor;
  const children = spconvTable({ coords: upload(coarse), B: 3, side }, { coords: upload(coords), B: 3, side: SIDE }, {
    kernel: factor,
    stride: factor,
  });
  return { parent: tensor(parent, [parent.length], { dtype: "i32" }), children };
}

function plainPool(x: Float64Array, parent: number[], M: number, C: number, mode: Pooling): Float64Array {
  const y = new Float64Array(M * C), counts = new Array<number>(M).fill(0);
  parent.forEach((m, n) => {
    counts[m]++;
    for (let c = 0; c < C; c++) y[m * C + c] += x[n * C + c];
  });
  return y.map((v, i) => v / (mode === "sum" ? 1 : counts[Math.floor(i / C)] + (mode === "mean" ? 0 : 1)));
}

for (const [name, coords] of Object.entries(SETS)) {
  const N = coords.length / 4, C = 3;
  for (const factor of [2, 3]) {
    const { coarse, parent } = plainFamily(coords, factor), M = coarse.length / 4;
    for (const mode of ["sum", "mean", "meanWithZero"] as const) {
      Deno.test(`poolVoxels() to the ${mode} of ${name} by ${factor}, and its gradient match the definition`, () => {
        checkOp({
          inputs: { x: { shape: [N, C], data: random(1, N * C) } },
          run: ({ x }) => poolVoxels(x, familyOf(coords, factor), mode),
          reference: ({ x }) => plainPool(x, parent, M, C, mode),
        });
      });
    }
    Deno.test(`upsampleVoxels() to ${name} by ${factor}, and its gradient match the definition`, () => {
      checkOp({
        inputs: { x: { shape: [M, C], data: random(2, M * C) } },
        run: ({ x }) => upsampleVoxels(x, familyOf(coords, factor)),
        reference: ({ x }) => parent.flatMap((m) => [...x.subarray(m * C, (m + 1) * C)]),
      });
    });
  }
  Deno.test(`subdivideCoords() and repeatRows() of ${name} put eight halves together`, () => {
    const got = step(() => [...subdivideCoords(upload(coords)).read()]);
    const want = Array.from({ length: 8 * N }, (_, r) => {
      const [b, x, y, z] = coords.subarray(4 * Math.floor(r / 8)), m = r % 8;
      return [b, 2 * x + (m >> 2), 2 * y + (m >> 1 & 1), 2 * z + (m & 1)];
    });
    assert.deepEqual(got, want.flat());
    checkOp({
      inputs: { x: { shape: [N, C], data: random(3, N * C) } },
      run: ({ x }) => repeatRows(x),
      reference: ({ x }) => Array.from({ length: 8 * N * C }, (_, i) => x[Math.floor(i / C / 8) * C + i % C]),
    });
  });
}

Deno.test("poolVoxels() divides by n + 1 as the reference does: 3 and 6 give 3, 10 alone gives 5", () => {
  const coords = Int32Array.of(0, 0, 0, 0, 0, 1, 1, 1, 0, 2, 0, 0);
  step(() => {
    const family = familyOf(coords, 2), y = poolVoxels(tensor([3, 6, 10], [3, 1]), family, "meanWithZero");
    assert.deepEqual([...y.read()], [3, 5]);
    assert.deepEqual([...upsampleVoxels(y, family).read()], [3, 3, 5]);
  });
});

Deno.test("the ops between grids say what does not fit", () => {
  step(() => {
    const coords = SETS["a ragged batch"], family = familyOf(coords, 2), x = tensor([1, 2], [2, 1]);
    assert.throws(() => poolVoxels(x, family, "sum"), { message: "Cannot run poolVoxels: x is [2,1], it must be [23,1]" });
    assert.throws(() => upsampleVoxels(x, family), /^RangeError: Cannot run upsampleVoxels: x is \[2,1\], it must be \[\d+,1\]$/);
    assert.throws(() => poolVoxels(upload(coords), family, "sum"), {
      message: "Cannot run poolVoxels: x is i32, it must be f32, f16 or bf16",
    });
    assert.throws(() => subdivideCoords(x), { message: "Cannot run subdivideCoords: coords is f32, it must be i32" });
    assert.throws(() => stridedPlaces({ coords: x, B: 1, side: 4 }, { kernel: 2, stride: 2 }), {
      message: "Cannot run stridedPlaces: coords is f32, it must be i32",
    });
    assert.throws(() => stridedPlaces({ coords: upload(coords), B: 3, side: SIDE }, { kernel: 2, stride: 3 }), /stride/);
  });
});

for (const C of [1, 8, 130]) {
  const coords = shell(3, 24), N = coords.length / 4;
  const family = (): Family => {
    const fine = { coords: upload(coords), B: 3, side: 24 }, window = { kernel: 2, stride: 2 };
    const { coords: out, count, parent } = stridedPlaces(fine, window), coarse = { coords: out.view([count.item(), 4]), B: 3, side: 12 };
    return { parent: parent!, children: spconvTable(coarse, fine, window) };
  };
  for (const mode of ["sum", "mean", "meanWithZero"] as const) {
    checkDevices(`poolVoxels() to the ${mode} of ${N} voxels, ${C} channels`, import.meta.url, {
      inputs: { x: { shape: [N, C], data: random(1, N * C) } },
      run: ({ x }) => poolVoxels(x, family(), mode),
    });
  }
  checkDevices(`upsampleVoxels() to ${N} voxels, ${C} channels`, import.meta.url, {
    inputs: { x: { shape: [N, C], data: random(1, N * C) } },
    run: ({ x }) => {
      const at = family();
      return upsampleVoxels(poolVoxels(x, at, "sum"), at);
    },
  });
}

const SHELL = shuffle(9, shell(3, 30));
for (const [kernel, stride, padding] of [[2, 2, 0], [3, 2, 1]]) {
  checkDevices(`stridedPlaces() with ${kernel}³ taps, stride ${stride}`, import.meta.url, {
    inputs: { coords: { shape: [SHELL.length / 4, 4], data: Float32Array.from(SHELL), dtype: "i32" } },
    run: ({ coords }) => stridedPlaces({ coords, B: 3, side: 30 }, { kernel, stride, padding }).coords,
    dtypes: ["f32"],
    tolerance: { f32: 0 },
  });
}
