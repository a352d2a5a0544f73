/** Attention where it is hard: accuracy in 16 bits, hundreds of repeats, addresses and counts beyond 32 bits, every kernel that a card has. */
import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { readDriver } from "../../ffi/cuda_driver.ts";
import { K_ATTENTION_SM80 } from "../../ffi/symbols.ts";
import { attention, crossAttention, selfAttention, type SelfAttentionOptions } from "../../lib/ops/attention.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";
import { type FloatDType, fromBf16, toBf16 } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertNear, type DeviceCase, random, runCase } from "../check.ts";
import { denseSpans, offsets, permutation, reference, rowMap, SMALL, SMALL_ROWS, values, withFields } from "./attention_reference.ts";

const ON_CUDA = hasCuda() && device().name === "cuda", ON_LARGE = ON_CUDA && readDriver().gpus[0].memory > 40e9;
const DTYPES: readonly FloatDType[] = ON_CUDA ? ["f16", "bf16"] : ["f32"], DTYPE = ON_CUDA ? "bf16" : "f32";
const NEAR: Record<FloatDType, number> = { f32: 1e-5, f16: 4e-3, bf16: 3e-2 };
const ROUND: Record<FloatDType, (x: number) => number> = { f32: Math.fround, f16: Math.f16round, bf16: (x) => fromBf16(toBf16([x]))[0] };

/** Values of one head: q and y [L, D], k and v [M, D]; the same letters for their gradients. */
type Head = Record<"q" | "k" | "v" | "y", Float64Array>;

/**
 * One head's y and gradients of q, k, v from q, k, v and y's gradient, in f64. With `stored` it rounds all that PyTorch's plain attention,
 * `softmax(q @ k.T * scale) @ v` and its backward pass, stores: its products and its softmax are summed more exactly than that.
 */
function plain(x: Head, D: number, stored: (x: number) => number = (x) => x): Head {
  const L = x.q.length / D, M = x.k.length / D, scale = 1 / Math.sqrt(D);
  const dot = (a: Float64Array, i: number, b: Float64Array, j: number): number => {
    let s = 0;
    for (let d = 0; d < D; d++) s += a[i * D + d] * b[j * D + d];
    return s;
  };
  const add = (to: Float64Array, i: number, by: number, from: Float64Array, j: number): void => {
    for (let d = 0; d < D; d++) to[i * D + d] += by * from[j * D + d];
  };
  const out = { q: new Float64Array(L * D), k: new Float64Array(M * D), v: new Float64Array(M * D), y: new Float64Array(L * D) };
  for (let l = 0; l < L; l++) {
    const scores = Float64Array.from({ length: M }, (_, m) => stored(scale * stored(dot(x.q, l, x.k, m)))), top = Math.max(...scores);
    const sum = scores.reduce((s, v) => s + Math.exp(v - top), 0), p = scores.map((s) => stored(Math.exp(s - top) / sum));
    const dp = p.map((_, m) => stored(dot(x.y, l, x.v, m))), delta = p.reduce((s, v, m) => s + v * dp[m], 0);
    for (let m = 0; m < M; m++) {
      const ds = stored(scale * stored(p[m] * (dp[m] - delta)));
      add(out.y, l, p[m], x.v, m);
      add(out.v, m, p[m], x.y, l);
      add(out.q, l, ds, x.k, m);
      add(out.k, m, ds, x.q, l);
    }
  }
  for (const a of Object.values(out)) a.forEach((v, i) => a[i] = stored(v));
  return out;
}

function greatestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i] - b[i]));
  return worst;
}

Deno.test("plain() is the definition", () => {
  const [q, k, v, y] = [3, 7, 7, 3].map((rows, seed) => Float64Array.from(random(seed, rows * 8)));
  assertNear("y", plain({ q, k, v, y }, 8).y, reference(q, k, v, { spans: denseSpans(1, 3, 7), H: 1, D: 8 }), 1e-12);
});

for (const dtype of ["f16", "bf16"] as const) {
  for (const D of [32, 64, 80, 96, 128]) {
    for (const size of [2, 8]) {
      Deno.test(`attention() of width ${D} and values up to ${size} errs at most twice as much as plain attention in ${dtype}`, () => {
        const L = ON_CUDA ? 129 : 9, M = ON_CUDA ? 1000 : 70, round = ROUND[dtype], used = ON_CUDA ? dtype : "f32";
        const inputs = { q: values(1, [1, L, 1, D], size), k: values(2, [1, M, 1, D], size), v: values(3, [1, M, 1, D]) };
        for (const { data } of Object.values(inputs)) data.forEach((v, i) => data[i] = round(v));
        const [q, k, v, y] = [inputs.q.data, inputs.k.data, inputs.v.data, random(7, L * D).map(ROUND[used])].map((a) =>
          Float64Array.from(a)
        );
        const exact = plain({ q, k, v, y }, D), low = plain({ q, k, v, y }, D, round);
        const outcome = runCase({ inputs, run: (t) => attention(t.q, t.k, t.v) }, used),
          got: Record<string, Float32Array> = { y: outcome.y, ...outcome.grads };
        for (const name of ["y", "q", "k", "v"] as const) {
          const ours = greatestDifference(got[name], exact[name]), most = 2 * greatestDifference(low[name], exact[name]);
          assert.ok(ours <= most, `${name === "y" ? "y" : `d${name}`} errs by ${ours}, it must be at most ${most}`);
        }
      });
    }
  }
}

const WINDOWS = Array.from({ length: 60 }, (_, i) => 48 + i * 29 % 76), VOXELS = WINDOWS.reduce((a, b) => a + b, 0);

/** The sequences of `lengths` through a row map. */
function mapped(lengths: number[], rows: ArrayLike<number>): SelfAttentionOptions {
  const at = offsets(lengths), i32 = { dtype: "i32" } as const;
  return {
    sequences: {
      offsets: tensor(at.data, at.shape, i32),
      longest: lengths.reduce((a, b) => Math.max(a, b), 0),
      rows: tensor(rows, [rows.length], i32),
    },
  };
}

for (const D of [64, 128]) {
  const several: Record<string, [shape: number[], options: () => SelfAttentionOptions]> = {
    dense: [[2, 700, 3, 3, D], () => ({})],
    windowed: [[VOXELS, 3, 3, D], () => mapped(WINDOWS, permutation(VOXELS))],
    "in small windows": [[SMALL_ROWS, 3, 3, D], () => mapped(SMALL, permutation(SMALL_ROWS))],
  };
  for (const [kind, [shape, options]] of Object.entries(several)) {
    const runs = ON_CUDA ? 250 : 3;
    Deno.test(`selfAttention(), ${kind} and of width ${D}, ${runs} times agrees to the bit, forward and backward`, () => {
      step(() => {
        const qkv = new Generator(1).normal(shape, { dtype: DTYPE }), fixed = options();
        const dy = new Generator(2).normal([...shape.slice(0, -3), ...shape.slice(-2)], { dtype: DTYPE });
        qkv.requiresGrad = true;
        let first: Buffer[] | undefined;
        for (let i = 0; i < runs; i++) {
          step(() => {
            const y = selfAttention(qkv, fixed);
            backward(y, dy);
            const got = [y, qkv.grad!].map((t) => Buffer.from(t.readRaw().buffer));
            first ??= got;
            assert.deepEqual(got.map((bytes, k) => bytes.equals(first![k])), [true, true], `run ${i + 1} of y and its gradient`);
            qkv.grad = null;
          });
        }
      });
    });
  }
}

/** Sizes that every kernel takes, dense, cross and windowed. */
function cases(D: number): DeviceCase[] {
  return [
    { inputs: { qkv: values(1, [2, 300, 3, 3, D], 2) }, run: ({ qkv }) => selfAttention(qkv) },
    {
      inputs: { q: values(2, [2, 130, 3, D], 2), kv: values(3, [2, 333, 2, 3, D], 2) },
      run: ({ q, kv }) => crossAttention(q, kv),
    },
    {
      inputs: { qkv: values(4, [VOXELS, 3, 2, D], 2), rows: rowMap(permutation(VOXELS)), at: offsets(WINDOWS) },
      run: ({ qkv, rows, at }) => selfAttention(qkv, { sequences: { offsets: at, longest: 123, rows } }),
    },
    {
      inputs: { qkv: values(5, [SMALL_ROWS, 3, 2, D], 2), rows: rowMap(permutation(SMALL_ROWS)), at: offsets(SMALL) },
      run: ({ qkv, rows, at }) => selfAttention(qkv, { sequences: { offsets: at, longest: 96, rows } }),
    },
  ];
}

function expectSame(a: ReturnType<typeof runCase>, b: ReturnType<typeof runCase>, dtype: FloatDType): void {
  assertNear("forward", a.y, b.y, NEAR[dtype]);
  for (const name of Object.keys(b.grads)) assertNear(`d${name}`, a.grads[name], b.grads[name], NEAR[dtype]);
}

for (const dtype of DTYPES) {
  for (const D of ON_CUDA ? [64, 80, 128] : [32]) {
    Deno.test(`attention() of width ${D} in ${dtype} is the same by the kernels for any card`, () => {
      for (const op of cases(D)) {
        expectSame(withFields({ flags: BigInt(K_ATTENTION_SM80) }, () => runCase(op, dtype)), runCase(op, dtype), dtype);
      }
    });
  }
}

/** A head's rows of x [.., slots, H, D], in f64. */
function readHead(x: Tensor, rows: number[], at: { slot?: number; h: number; slots?: number }): Float64Array {
  const { slot = 0, slots = 1, h } = at, [H, D] = x.shape.slice(-2);
  return Float64Array.from(rows.flatMap((row) => [...x.view([D], { offset: ((row * slots + slot) * H + h) * D }).read()]));
}

/** Compares head h of one sequence of a packed self-attention, its rows and their gradients, with plain(). */
function expectSequence(qkv: Tensor, y: Tensor, dy: Tensor, rows: number[], h: number): void {
  const slot = (x: Tensor, name: "q" | "k" | "v") => readHead(x, rows, { slot: "qkv".indexOf(name), slots: 3, h });
  const want = plain({ q: slot(qkv, "q"), k: slot(qkv, "k"), v: slot(qkv, "v"), y: readHead(dy, rows, { h }) }, qkv.shape.at(-1)!);
  assertNear(`y of rows ${rows[0]}, ...`, readHead(y, rows, { h }), want.y, NEAR[DTYPE]);
  for (const name of ["q", "k", "v"] as const) {
    assertNear(`d${name} of rows ${rows[0]}, ...`, slot(qkv.grad!, name), want[name], 2 * NEAR[DTYPE]);
  }
}

/** Rows in an order that jumps through all of memory: `by` and N have no common factor. */
function strided(N: number, by: number): Int32Array {
  return Int32Array.from({ length: N }, (_, r) => r * by % N);
}

Deno.test("selfAttention() takes more than a million sequences, through a row map too", () => {
  step(() => {
    const B = ON_CUDA ? 1_200_000 : 1200, lengths = Array.from({ length: B }, (_, b) => b % 3), N = B, H = 2, D = 8;
    const maps = mapped(lengths, strided(N, 7919)).sequences!, dy = new Generator(2).normal([N, H, D], { dtype: DTYPE });
    for (const rows of [undefined, maps.rows]) {
      const qkv = new Generator(1).normal([N, 3, H, D], { dtype: DTYPE }), order = rows ? rows.readRaw() as Int32Array : undefined;
      qkv.requiresGrad = true;
      const y = selfAttention(qkv, { sequences: { ...maps, rows } });
      backward(y, dy);
      for (const b of [1, 2, 4, B >> 1, B - 2, B - 1].filter((b) => b % 3)) {
        const from = Math.floor(b / 3) * 3 + (b % 3 === 2 ? 1 : 0);
        expectSequence(qkv, y, dy, Array.from({ length: b % 3 }, (_, i) => order ? order[from + i] : from + i), b % H);
      }
    }
  });
});

Deno.test({
  name: "selfAttention() takes windows in more than 2^31 elements (on a GPU of 40 GB)",
  ignore: !ON_LARGE,
  fn: () => [90, 100].forEach((length) => largeWindows(7801, length)),
});

/** Windows of more than 96 rows go another way than those of fewer. */
function largeWindows(B: number, length: number): void {
  step(() => {
    const H = 16, D = 64, N = B * length, rows = strided(N, 7919), random = new Generator(1);
    const qkv = random.normal([N, 3, H, D], { dtype: DTYPE }), dy = random.normal([N, H, D], { dtype: DTYPE });
    qkv.requiresGrad = true;
    const y = selfAttention(qkv, mapped(new Array<number>(B).fill(length), rows));
    backward(y, dy);
    for (const b of [0, B >> 1, B - 1]) expectSequence(qkv, y, dy, [...rows.subarray(b * length, (b + 1) * length)], b % H);
  });
}

Deno.test({
  name: "attention() takes queries of more than 2^31 elements (on a GPU of 40 GB)",
  ignore: !ON_LARGE,
  fn: () => largeDense(2 ** 22 + 130),
});

function largeDense(L: number): void {
  step(() => {
    const B = 2, H = 4, D = 64, M = 16, random = new Generator(1), options = { dtype: DTYPE } as const;
    const q = random.normal([B, L, H, D], options), k = random.normal([B, M, H, D], options), v = random.normal([B, M, H, D], options);
    const dy = random.normal(q.shape, options), h = H - 1;
    for (const t of [q, k, v]) t.requiresGrad = true;
    const y = attention(q, k, v);
    backward(y, dy);
    for (const [b, l] of [[0, 0], [0, L - 1], [1, 0], [1, L >> 1], [1, L - 1]]) {
      const row = [b * L + l], keys = Array.from({ length: M }, (_, m) => b * M + m);
      const want = plain({
        q: readHead(q, row, { h }),
        k: readHead(k, keys, { h }),
        v: readHead(v, keys, { h }),
        y: readHead(dy, row, { h }),
      }, D);
      assertNear(`y of row ${l} of ${b}`, readHead(y, row, { h }), want.y, NEAR[DTYPE]);
      assertNear(`dq of row ${l} of ${b}`, readHead(q.grad!, row, { h }), want.q, NEAR[DTYPE]);
    }
  });
}
