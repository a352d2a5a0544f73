/** Sparse convolution where it is hard: hundreds of repeats, every way of walking a table, more than 2^31 elements. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readDriver } from "../../ffi/cuda_driver.ts";
import { broadcastTo, reshape, slice } from "../../lib/ops/movement.ts";
import { type Places, spconv, spconvMap, spconvTable } from "../../lib/ops/spconv.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertNear } from "../check.ts";
import { scatter, shell, shuffle } from "../voxels.ts";

const ON_CUDA = hasCuda() && device().name === "cuda", ON_LARGE = ON_CUDA && readDriver().gpus[0].memory > 40e9;
const DTYPE = ON_CUDA ? "f16" : "f32", WINDOW = { kernel: 3, padding: 1 };

function placesOf(coords: Int32Array<ArrayBuffer>, B: number, side: number): Places {
  return { coords: tensor(coords, [coords.length / 4, 4], { dtype: "i32" }), B, side };
}

const RUNS = ON_CUDA ? 250 : 3;
for (const [Cin, Cout] of ON_CUDA ? [[64, 64], [256, 128], [136, 328], [20, 6]] : [[8, 6]]) {
  Deno.test(`spconv() of ${Cin} to ${Cout} channels, ${RUNS} times agrees to the bit, with its map built anew`, () => {
    step(() => {
      const coords = shuffle(1, shell(2, 24)), N = coords.length / 4, random = new Generator(1), options = { dtype: DTYPE } as const;
      const at = placesOf(coords, 2, 24), x = random.normal([N, Cin], options), dy = random.normal([N, Cout], options);
      const w = random.normal([Cout, 3, 3, 3, Cin], options), b = random.normal([Cout]);
      for (const t of [x, w, b]) t.requiresGrad = true;
      let first: Buffer[] | undefined;
      for (let i = 0; i < RUNS; i++) {
        step(() => {
          const map = spconvMap(spconvTable(at, at, WINDOW)), y = spconv(x, w, b, map), { order, masks } = map.walk(1);
          backward(y, dy);
          const got = [map.table.entries, order, masks, y, x.grad!, w.grad!, b.grad!].map((t) => Buffer.from(t.readRaw().buffer));
          first ??= got;
          got.forEach((bytes, k) => assert.ok(bytes.equals(first![k]), `run ${i + 1}: tensor ${k} differs from the first run's`));
          for (const t of [x, w, b]) t.grad = null;
        });
      }
    });
  });
}

for (const [kernel, parts] of [[3, 1], [3, 3], [5, 1], [5, 5], [2, 1], [2, 2], [1, 1]]) {
  Deno.test(`the walk of a table of ${kernel}³ taps in ${parts} parts has every row once, and every tap that a tile's rows have`, () => {
    step(() => {
      const sets = [new Int32Array(0), Int32Array.of(0, 3, 3, 3), shuffle(2, scatter(1, [300, 0, 205], 12)), shell(1, 30)];
      for (const coords of ON_CUDA ? [...sets, shell(2, 90), shell(1, 190)] : sets) {
        const at = placesOf(coords, 3, 190), table = spconvTable(at, at, { kernel, padding: kernel - 1 >> 1 }), { rows, K } = table;
        const entries = table.entries.readRaw() as Int32Array, words = Math.ceil(K / 32), tiles = Math.ceil(rows / 64), own = K / parts;
        const walk = spconvMap(table).walk(parts), order = walk.order.readRaw() as Int32Array, masks = walk.masks.readRaw() as Int32Array;
        for (let part = 0; part < parts; part++) {
          const mine = order.subarray(part * rows, (part + 1) * rows);
          assert.deepEqual([...mine].sort((a, b) => a - b), Array.from({ length: rows }, (_, r) => r));
          for (let tile = 0; tile < tiles; tile++) {
            const want = new Int32Array(words);
            for (const r of mine.subarray(tile * 64, tile * 64 + 64)) {
              for (let t = part * own; t < (part + 1) * own; t++) if (entries[r * K + t] >= 0) want[t >> 5] |= 1 << (t & 31);
            }
            const at = (part * tiles + tile) * words;
            assert.deepEqual(masks.subarray(at, at + words), want, `part ${part}, tile ${tile}`);
          }
        }
      }
    });
  });
}

Deno.test("the pairs of a table are its entries, tap by tap", () => {
  step(() => {
    const sets = [new Int32Array(0), Int32Array.of(0, 3, 3, 3), shuffle(2, scatter(1, [300, 0, 205], 12)), shell(1, 30)];
    for (const coords of ON_CUDA ? [...sets, shell(2, 90), shell(1, 190)] : sets) {
      for (const kernel of [1, 3, 5]) {
        const at = placesOf(coords, 3, 190), table = spconvTable(at, at, { kernel, padding: kernel - 1 >> 1 }), { rows, K } = table;
        const entries = table.entries.readRaw() as Int32Array, taps = table.taps.readRaw() as Int32Array, words = Math.ceil(K / 32);
        const { pairs, offsets } = spconvMap(table).pairs(), got = pairs.readRaw() as Int32Array, starts = offsets.readRaw() as Int32Array;
        let count = 0;
        for (let t = 0; t < K; t++) {
          assert.equal(starts[t], count, `the start of tap ${t}`);
          for (let r = 0; r < rows; r++) {
            const has = entries[r * K + t] >= 0;
            if (has !== ((taps[r * words + (t >> 5)] >> (t & 31) & 1) === 1)) throw new Error(`row ${r}: the bit of tap ${t} is wrong`);
            if (!has) continue;
            if (got[count] !== r || got[rows * K + count] !== entries[r * K + t]) throw new Error(`pair ${count} of tap ${t} is wrong`);
            count++;
          }
        }
        assert.equal(starts[K], count);
      }
    }
  });
});

Deno.test("a table's walk refuses parts that its taps cannot be cut into", () => {
  step(() => {
    const at = placesOf(shell(1, 8), 1, 8), map = spconvMap(spconvTable(at, at, WINDOW));
    for (const parts of [0, 2, 4]) {
      assert.throws(() => map.walk(parts), new RegExp(`parts is ${parts}, it must be 1 or divide K = 27 into at most 27 taps each`));
    }
  });
});

Deno.test({
  name:
    "spconv() of more than 2^31 elements: each of 147 equal samples has the result of one alone, and the weight's gradient is their sum",
  ignore: !ON_LARGE,
  fn: () => {
    const side = 64, C = 1024, copies = 147, one = sphere(side), n = one.length / 4, N = n * copies, options = { dtype: "f16" } as const;
    assert.ok(N * C > 2 ** 31);
    const all = new Int32Array(4 * N);
    for (let i = 0; i < N; i++) {
      all.set(one.subarray(4 * (i % n), 4 * (i % n) + 4), 4 * i);
      all[4 * i] = Math.floor(i / n);
    }
    const made = (random: Generator, shape: number[], scale: number): Tensor => {
      const data = random.normal(shape).read();
      return tensor(data.map((v) => v * scale), shape, options);
    };
    const run = (coords: Int32Array<ArrayBuffer>, B: number): Record<"y" | "dx" | "dw", Float32Array> =>
      step(() => {
        const random = new Generator(1), w = made(random, [C, 3, 3, 3, C], 1 / Math.sqrt(13 * C)), at = placesOf(coords, B, side);
        const many = (t: Tensor): Tensor => B === 1 ? t : reshape(broadcastTo(reshape(t, [1, n, C]), [B, n, C]), [B * n, C]);
        const x = many(made(random, [n, C], 1)), dy = many(made(random, [n, C], 1 / 64));
        for (const t of [x, w]) t.requiresGrad = true;
        const y = spconv(x, w, null, spconvMap(spconvTable(at, at, WINDOW)));
        backward(y, dy);
        const last = (t: Tensor): Float32Array => slice(t, 0, (B - 1) * n, B * n).read();
        return { y: last(y), dx: last(x.grad!), dw: w.grad!.read() };
      });
    const want = run(one, 1), got = run(all, copies);
    assertNear("the last sample's y", got.y, want.y, 1e-3);
    assertNear("the last sample's dx", got.dx, want.dx, 1e-3);
    assertNear("dw", got.dw, want.dw.map((v) => v * copies), 1e-4);
  },
});

/** A shell with 15,192 voxels where the side is 64. */
function sphere(side: number): Int32Array<ArrayBuffer> {
  const rows: number[] = [], middle = (side - 1) / 2;
  for (let x = 0; x < side; x++) {
    for (let y = 0; y < side; y++) {
      for (let z = 0; z < side; z++) {
        const r = Math.hypot(x - middle, y - middle, z - middle);
        if (r <= side / 2 && r >= side / 2 - 1.25) rows.push(0, x, y, z);
      }
    }
  }
  return Int32Array.from(rows);
}
