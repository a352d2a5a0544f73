import assert from "node:assert/strict";
import { curveKeys } from "../../lib/ops/sparse_order.ts";
import { type AttentionPattern, type SequenceWindows, sparseCrossAttention, sparseSelfAttention } from "../../lib/sparse/attention.ts";
import { curveWindows } from "../../lib/sparse/curve_windows.ts";
import { makeVoxels, startsOf } from "../../lib/sparse/voxels.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, random } from "../check.ts";
import { attention, columns } from "../nn/plain.ts";
import { scatter, shell, shuffle } from "../voxels.ts";

const H = 2, D = 3, C = H * D, B = 3;

const SETS: Record<string, Int32Array<ArrayBuffer>> = {
  "no voxels": new Int32Array(0),
  "one voxel": Int32Array.of(1, 5, 0, 3),
  "a ragged batch": scatter(1, [9, 0, 13], 7),
  "a batch in any order": shuffle(4, scatter(2, [8, 5, 6], 6)),
};

/** Voxels that attend together: the rows that ask, and the rows that they see. */
type Group = { queries: number[]; keys: number[] };

function gathered(N: number, idOf: (n: number) => string): Group[] {
  const groups = new Map<string, number[]>();
  for (let n = 0; n < N; n++) groups.set(idOf(n), [...groups.get(idOf(n)) ?? [], n]);
  return [...groups.values()].map((rows) => ({ queries: rows, keys: rows }));
}

function alongCurve(coords: Int32Array<ArrayBuffer>, { curve, window, coordinateShift, sequenceShift }: SequenceWindows): Group[] {
  const N = coords.length / 4;
  const keys = step(() =>
    curveKeys(tensor(coords, [N, 4], { dtype: "i32" }), curve, { shift: coordinateShift }).readRaw() as BigInt64Array
  );
  const order = [...keys.keys()].sort((p, q) => Number(keys[p] - keys[q]));
  const at = curveWindows(startsOf(coords, B), { window, shift: sequenceShift });
  const rows = (list: Int32Array, offsets: Int32Array, i: number): number[] =>
    [...list.subarray(offsets[i], offsets[i + 1])].map((p) => order[p]);
  return Array.from({ length: at.keyOffsets.length - 1 }, (_, i) => ({
    queries: rows(at.queries, at.queryOffsets, i),
    keys: rows(at.keys, at.keyOffsets, i),
  }));
}

function groupsOf(coords: Int32Array<ArrayBuffer>, pattern: AttentionPattern): Group[] {
  const row = (n: number): number[] => [...coords.subarray(4 * n, 4 * n + 4)], N = coords.length / 4;
  if (pattern === "full") return gathered(N, (n) => `${row(n)[0]}`);
  if ("curve" in pattern) return alongCurve(coords, pattern);
  return gathered(N, (n) => `${row(n).map((c, a) => a ? Math.floor((c + pattern.shift) / pattern.window) : c)}`);
}

function plain(qkv: Float64Array, groups: Group[]): Float64Array {
  const y = new Float64Array(qkv.length / 3), parts = [0, 1, 2].map((part) => columns(qkv, 3 * C, part * C, C));
  const pick = (part: number, rows: number[]): Float64Array =>
    Float64Array.from(rows.flatMap((n) => [...parts[part].subarray(n * C, (n + 1) * C)]));
  for (const { queries, keys } of groups) {
    const o = attention(pick(0, queries), pick(1, keys), pick(2, keys), H, D);
    queries.forEach((n, i) => y.set(o.subarray(i * C, (i + 1) * C), n * C));
  }
  return y;
}

const PATTERNS: Record<string, AttentionPattern> = {
  "with all": "full",
  "in windows": { window: 4, shift: 0 },
  "in shifted windows": { window: 4, shift: 2 },
  "in windows of everything": { window: 8, shift: 0 },
  "along the Z-order curve": { curve: "zOrder", window: 4, coordinateShift: 0, sequenceShift: 0 },
  "along the Z-order curve, shifted in space": { curve: "zOrder", window: 4, coordinateShift: 16, sequenceShift: 0 },
  "along the Z-order curve, shifted by half a window": { curve: "zOrderTransposed", window: 4, coordinateShift: 0, sequenceShift: 2 },
  "along the Hilbert curve": { curve: "hilbert", window: 5, coordinateShift: 0, sequenceShift: 0 },
};

for (const [name, coords] of Object.entries(SETS)) {
  const N = coords.length / 4;
  for (const [how, pattern] of Object.entries(PATTERNS)) {
    Deno.test(`sparseSelfAttention() of ${name} ${how}, and its gradient match the definition`, () => {
      checkOp({
        inputs: { qkv: { shape: [N, 3, H, D], data: random(1, N * 3 * C) } },
        run: ({ qkv }) => sparseSelfAttention(qkv, makeVoxels(coords, { B }), pattern),
        reference: ({ qkv }) => plain(qkv, groupsOf(coords, pattern)),
      });
    });
  }

  Deno.test(`sparseCrossAttention() of ${name}, and its gradients match the definition`, () => {
    const M = 4;
    checkOp({
      inputs: { q: { shape: [N, H, D], data: random(1, N * C) }, kv: { shape: [B, M, 2, H, D], data: random(2, B * M * 2 * C) } },
      run: ({ q, kv }) => sparseCrossAttention(q, kv, makeVoxels(coords, { B })),
      reference: ({ q, kv }) =>
        gathered(N, (n) => `${coords[4 * n]}`).flatMap(({ queries: [first, ...more] }) => {
          const mine = kv.subarray(coords[4 * first] * M * 2 * C, (coords[4 * first] + 1) * M * 2 * C);
          const asked = q.subarray(first * C, (first + 1 + more.length) * C);
          return [...attention(asked, columns(mine, 2 * C, 0, C), columns(mine, 2 * C, C, C), H, D)];
        }),
    });
  });
}

Deno.test("the maps of a pattern are built once", () => {
  step(() => {
    const voxels = makeVoxels(SETS["a ragged batch"]), qkv = tensor(random(1, voxels.N * 3 * C), [voxels.N, 3, H, D]);
    for (const pattern of Object.values(PATTERNS)) {
      sparseSelfAttention(qkv, voxels, pattern);
      const built = Object.keys(voxels.maps).length;
      sparseSelfAttention(qkv, voxels, pattern);
      assert.equal(Object.keys(voxels.maps).length, built);
    }
    assert.equal(new Set(Object.values(voxels.maps)).size, Object.keys(PATTERNS).length - 1);
  });
});

Deno.test("sparseSelfAttention() refuses to shift voxels off the curve", () => {
  step(() => {
    const voxels = makeVoxels(Int32Array.of(0, 1010, 0, 0)),
      pattern: AttentionPattern = { curve: "zOrder", window: 4, coordinateShift: 16, sequenceShift: 0 };
    assert.throws(() => sparseSelfAttention(tensor(random(1, 18), [1, 3, 2, 3]), voxels, pattern), {
      message: "Cannot put voxels on a curve: they reach 1011 cells, it must be at most 1008 to be shifted by 16",
    });
  });
});

const SHELL = shell(3, 24), COUNT = SHELL.length / 4;
for (
  const [how, pattern] of Object.entries<AttentionPattern>({
    "with all": "full",
    "in shifted windows": { window: 8, shift: 4 },
    "along the Hilbert curve": { curve: "hilbert", window: 100, coordinateShift: 0, sequenceShift: 50 },
  })
) {
  checkDevices(`sparseSelfAttention() of ${COUNT} voxels ${how}`, import.meta.url, {
    inputs: { qkv: { shape: [COUNT, 3, 3, 32], data: random(1, COUNT * 288) } },
    run: ({ qkv }) => sparseSelfAttention(qkv, makeVoxels(SHELL), pattern),
  });
}
