/** Attention over sequences of different lengths and through row maps. */
import assert from "node:assert/strict";
import { attention, crossAttention, selfAttention, type Sequences } from "../../lib/ops/attention.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { checkDevices, checkOp, type Input, random } from "../check.ts";
import { runProgram } from "../program.ts";
import {
  type Lengths,
  offsets,
  permutation,
  reference,
  rowMap,
  sequenceSpans,
  SMALL,
  SMALL_ROWS,
  unpack,
  values,
  withFields,
} from "./attention_reference.ts";

const total = ({ lengths }: Lengths): number => lengths.reduce((a, b) => a + b, 0);
const longest = ({ lengths }: Lengths): number => Math.max(0, ...lengths);

/** A self-attention of H heads of D over sequences, from a packed projection. */
function selfCase(of: Lengths, H: number, D: number, size = 1) {
  const N = total(of),
    inputs: Record<"qkv" | "at", Input> & { rows?: Input } = {
      qkv: values(1, [N, 3, H, D], size),
      at: offsets(of.lengths),
      ...(of.rows && { rows: rowMap(of.rows) }),
    };
  return {
    inputs: inputs as Record<"qkv" | "at" | "rows", Input>,
    run: ({ qkv, at, rows }: Record<"qkv" | "at" | "rows", Tensor>) =>
      selfAttention(qkv, { sequences: { offsets: at, longest: longest(of), rows } }),
    reference: ({ qkv }: Record<"qkv" | "at" | "rows", Float64Array>) => {
      const [q, k, v] = [0, 1, 2].map((slot) => unpack(qkv, 3, slot, H * D));
      return reference(q, k, v, { spans: sequenceSpans(of), H, D });
    },
  };
}

type Cross = "q" | "kv" | "at" | "keysAt" | "rows" | "keyRows";

/** A cross-attention of sequences to others. */
function crossCase(of: Lengths, to: Lengths, H: number, D: number, size = 1) {
  const inputs = {
    q: values(2, [total(of), H, D], size),
    kv: values(3, [total(to), 2, H, D], size),
    at: offsets(of.lengths),
    keysAt: offsets(to.lengths),
    ...(of.rows && { rows: rowMap(of.rows) }),
    ...(to.rows && { keyRows: rowMap(to.rows) }),
  };
  return {
    inputs: inputs as Record<Cross, Input>,
    run: ({ q, kv, at, keysAt, rows, keyRows }: Record<Cross, Tensor>) =>
      crossAttention(q, kv, {
        sequences: { offsets: at, longest: longest(of), rows },
        keySequences: { offsets: keysAt, longest: longest(to), rows: keyRows },
      }),
    reference: ({ q, kv }: Record<Cross, Float64Array>) =>
      reference(q, unpack(kv, 2, 0, H * D), unpack(kv, 2, 1, H * D), { spans: sequenceSpans(of, to), H, D }),
  };
}

for (const lengths of [[3, 0, 1, 5], [1], [0, 0, 2, 0], [0, 0], []]) {
  Deno.test(`selfAttention() of sequences of [${lengths}] rows and its gradients match the definition`, () => {
    checkOp(selfCase({ lengths }, 2, 4));
  });
}

Deno.test("selfAttention() through a row map attends within windows, and its gradients match the definition", () => {
  checkOp(selfCase({ lengths: [4, 0, 1, 6], rows: permutation(11) }, 2, 4));
});

Deno.test("crossAttention() of sequences to others and its gradients match the definition", () => {
  checkOp(crossCase({ lengths: [2, 0, 3, 1] }, { lengths: [4, 2, 0, 1] }, 2, 4));
});

Deno.test("crossAttention() through row maps of queries, of keys and of both matches the definition", () => {
  const of = { lengths: [2, 3, 1] }, to = { lengths: [4, 0, 3] };
  checkOp(crossCase({ ...of, rows: permutation(6) }, to, 1, 4));
  checkOp(crossCase(of, { ...to, rows: permutation(7) }, 1, 4));
  checkOp(crossCase({ ...of, rows: permutation(6) }, { ...to, rows: permutation(7) }, 2, 4));
});

Deno.test("crossAttention() of sequences longer than a block matches the definition", () => {
  checkOp(crossCase({ lengths: [70, 1, 2] }, { lengths: [3, 259, 1] }, 1, 2));
});

Deno.test("attention() takes sequences of separate q, k and v, with the keys' own or the queries'", () => {
  const lengths = [3, 2],
    H = 2,
    D = 4,
    shape = [5, H, D],
    inputs = {
      ...{ q: values(4, shape), k: values(5, shape), v: values(6, shape) },
      at: offsets(lengths),
    };
  for (const own of [false, true]) {
    checkOp({
      inputs,
      run: ({ q, k, v, at }) => {
        const sequences = { offsets: at, longest: 3 };
        return attention(q, k, v, own ? { sequences, keySequences: { ...sequences, longest: 5 } } : { sequences });
      },
      reference: ({ q, k, v }) => reference(q, k, v, { spans: sequenceSpans({ lengths }), H, D }),
    });
  }
});

Deno.test("selfAttention() of sequences of one length equals the dense one to the bit, and so does any number of threads", () => {
  const code = (threads: string): string => {
    const { stdout, stderr } = runProgram(
      `import { selfAttention } from("lib/ops/attention.ts"); import { backward } from("lib/tensor/tape.ts");
      import { tensor } from("lib/tensor/tensor.ts"); import { random } from("tests/check.ts");
      const B = 3, L = 150, H = 2, D = 16, values = random(1, B * L * 3 * H * D), dy = random(2, B * L * H * D), all = [];
      for (const sequences of [undefined, { offsets: tensor([0, L, 2 * L, 3 * L], [4], { dtype: "i32" }), longest: L }]) {
        const rows = sequences ? [B * L] : [B, L], qkv = tensor(values, [...rows, 3, H, D], { requiresGrad: true });
        const y = selfAttention(qkv, { sequences });
        all.push(y.read());
        backward(y, tensor(dy, y.shape));
        all.push(qkv.grad.read());
      }
      const same = (a, b) => a.every((v, i) => Object.is(v, b[i]));
      let hash = 0;
      for (const x of new Uint32Array(all[1].buffer)) hash = Math.imul(hash ^ x, 0x01000193) >>> 0;
      console.log(same(all[0], all[2]), same(all[1], all[3]), hash);`,
      { env: { DEVICE: "cpu", OMP_NUM_THREADS: threads } },
    );
    return stdout + stderr;
  };
  const one = code("1");
  assert.match(one, /^true true \d+\n$/);
  assert.equal(code("5"), one);
});

Deno.test("selfAttention() of sequences keeps its maps for the backward pass", () => {
  step(() => {
    const i32 = { dtype: "i32" } as const, at = tensor([0, 2, 3], [3], i32), rows = tensor([2, 0, 1], [3], i32);
    const qkv = tensor(random(8, 3 * 3 * 8), [3, 3, 1, 8], { requiresGrad: true });
    const y = selfAttention(qkv, { sequences: { offsets: at, longest: 2, rows } });
    assert.deepEqual(y.shape, [3, 1, 8]);
    assert.deepEqual(y.node!.saved.map((t) => t.shape), [[3, 3, 1, 8], [3, 1, 8], [1, 3], [3], [3], [3], [3]]);
    backward(y, zeros(y.shape));
    assert.deepEqual(qkv.grad!.read(), new Float32Array(72));
  });
});

function says(run: () => unknown, message: string): void {
  assert.throws(() => step(run), (error: Error) => (assert.equal(error.message, message), true));
}

const i32 = (data: number[]): Tensor => tensor(data, [data.length], { dtype: "i32" });

Deno.test("attention() refuses sequences that do not fit its inputs", () => {
  const x = () => zeros([5, 1, 8]), sequences = (change: Partial<Sequences> = {}) => ({ offsets: i32([0, 5]), longest: 5, ...change });
  says(
    () => attention(zeros([1, 5, 1, 8]), x(), x(), { sequences: sequences() }),
    "Cannot run attention: q is [1,5,1,8], it must be [N, H, D]",
  );
  says(
    () => crossAttention(x(), zeros([4, 2, 1, 8]), { sequences: sequences() }),
    "Cannot run crossAttention: kv is [4,2,1,8], it must be [5,2,1,8]",
  );
  says(
    () => attention(zeros([1, 5, 1, 8]), zeros([1, 5, 1, 8]), zeros([1, 5, 1, 8]), { keySequences: sequences() }),
    "Cannot run attention: sequences is absent, it must be given with keySequences",
  );
  says(
    () => attention(x(), x(), x(), { sequences: sequences({ offsets: zeros([2]) }) }),
    "Cannot run attention: the offsets of sequences is f32, it must be i32",
  );
  says(
    () => attention(x(), x(), x(), { sequences: sequences({ offsets: i32([]) }) }),
    "Cannot run attention: the offsets of sequences are [0], they must be [B + 1]",
  );
  says(
    () => attention(x(), x(), x(), { sequences: sequences(), keySequences: sequences({ offsets: i32([0, 2, 5]) }) }),
    "Cannot run attention: the offsets of keySequences is [3], it must be [2]",
  );
  says(
    () => attention(x(), x(), x(), { sequences: sequences({ rows: i32([0, 1]) }) }),
    "Cannot run attention: the rows of sequences is [2], it must be [5]",
  );
  says(
    () => attention(x(), x(), x(), { sequences: sequences({ longest: 1.5 }) }),
    "Cannot run attention: L is 1.5, it must be a whole number below 2^31",
  );
});

Deno.test("attention() with check refuses offsets and rows that no sequences have, and names them", () => {
  const x = () => zeros([5, 1, 8]),
    run = (sequences: Partial<Sequences>, keys: Partial<Sequences> = {}) =>
      attention(x(), x(), x(), {
        sequences: { offsets: i32([0, 2, 5]), longest: 3, ...sequences },
        keySequences: { offsets: i32([0, 2, 5]), longest: 3, ...keys },
        check: true,
      });
  says(() => run({ offsets: i32([1, 2, 5]) }), "Cannot run k_attention_fwd: q_offsets[0] is 1, it must be 0");
  says(() => run({ offsets: i32([0, 6, 5]), longest: 6 }), "Cannot run k_attention_fwd: q_offsets[2] is 5, it must be at least 6");
  says(() => run({ offsets: i32([0, 2, 4]) }), "Cannot run k_attention_fwd: q_offsets[2] is 4, it must be q_total = 5");
  says(() => run({ longest: 2 }), "Cannot run k_attention_fwd: sequence 1 has 3 rows of q, it must have at most L = 2");
  says(() => run({}, { longest: 1 }), "Cannot run k_attention_fwd: sequence 0 has 2 rows of k, it must have at most M = 1");
  says(() => run({}, { offsets: i32([0, -1, 5]) }), "Cannot run k_attention_fwd: k_offsets[1] is -1, it must be at least 0");
  says(() => run({ rows: i32([0, 1, 2, 3, 5]) }), "Cannot run k_attention_fwd: q_rows[4] is 5, it must be 0 to 4");
  says(() => run({}, { rows: i32([0, 1, -2, 3, 4]) }), "Cannot run k_attention_fwd: k_rows[2] is -2, it must be 0 to 4");
  says(() => run({}, { rows: i32([0, 1, 3, 3, 4]) }), "Cannot run k_attention_fwd: k_rows[3] is 3 as before, it must be another row");
  step(() => {
    const { shape } = run({ rows: i32([4, 3, 2, 1, 0]) });
    assert.deepEqual(shape, [5, 1, 8]);
  });
  says(
    () => withFields({ k_offsets: 0n }, () => run({})),
    "Cannot run k_attention_workspace: k_offsets is 0, it must be given like q_offsets",
  );
  says(
    () => withFields({ q_offsets: 0n, k_offsets: 0n }, () => run({ rows: i32([0, 1, 2, 3, 4]) })),
    "Cannot run k_attention_workspace: q_offsets is 0, with q_rows it must be given",
  );
});

const RAGGED = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 0, 200], SHIFTED = [...RAGGED.slice(4), ...RAGGED.slice(0, 4)];
for (const D of [8, 32, 64, 80, 96, 128]) {
  checkDevices(`selfAttention() of ragged sequences of width ${D}`, import.meta.url, selfCase({ lengths: RAGGED }, 2, D, 2));
  checkDevices(
    `crossAttention() of ragged sequences of width ${D}`,
    import.meta.url,
    crossCase({ lengths: RAGGED }, { lengths: SHIFTED }, 2, D, 2),
  );
}
for (const D of [32, 64, 128]) {
  const lengths = Array.from({ length: 40 }, (_, i) => 48 + i * 29 % 76);
  const rows = permutation(lengths.reduce((a, b) => a + b, 0));
  checkDevices(`selfAttention() of windows of width ${D}`, import.meta.url, selfCase({ lengths, rows }, 3, D, 2));
}
const OTHERS = [...SMALL.slice(40), ...SMALL.slice(0, 40)];
for (const D of [8, 40, 64]) {
  const of = { lengths: SMALL, rows: permutation(SMALL_ROWS) }, to = { ...of, lengths: OTHERS };
  checkDevices(`selfAttention() of windows of 0 to 96 rows and width ${D}`, import.meta.url, selfCase(of, 7, D, 2));
  checkDevices(`selfAttention() of sequences of 0 to 96 rows and width ${D}`, import.meta.url, selfCase({ lengths: SMALL }, 7, D, 2));
  checkDevices(`crossAttention() of windows of 0 to 96 rows to others and width ${D}`, import.meta.url, crossCase(of, to, 7, D, 2));
}
for (const L of [1, 33, 80, 96]) {
  checkDevices(`selfAttention() of a batch of sequences of ${L} rows`, import.meta.url, {
    inputs: { qkv: values(1, [5, L, 3, 7, 64], 2) },
    run: ({ qkv }) => selfAttention(qkv),
  });
}
for (const [L, M] of [[90, 35], [17, 81]]) {
  checkDevices(`crossAttention() of a batch of sequences of ${L} rows to ${M}`, import.meta.url, {
    inputs: { q: values(2, [5, L, 7, 64], 2), kv: values(3, [5, M, 2, 7, 64], 2) },
    run: ({ q, kv }) => crossAttention(q, kv),
  });
}
checkDevices("selfAttention() of windows of very different sizes", import.meta.url, {
  ...selfCase({ lengths: [...RAGGED, 512, 300], rows: permutation(RAGGED.reduce((a, b) => a + b, 812)) }, 2, 64, 2),
});
checkDevices(
  "crossAttention() through row maps",
  import.meta.url,
  crossCase({ lengths: RAGGED, rows: permutation(825) }, { lengths: SHIFTED, rows: permutation(825) }, 2, 64, 2),
);
checkDevices("selfAttention() of an odd width in sequences", import.meta.url, {
  ...selfCase({ lengths: [70, 3, 65], rows: permutation(138) }, 2, 97),
  dtypes: ["f32"],
});
checkDevices("crossAttention() of very long sequences", import.meta.url, {
  get inputs() {
    return crossCase({ lengths: [53_000, 65, 1000, 4096] }, { lengths: [65, 65_537, 1374, 100] }, 1, 64).inputs;
  },
  run: ({ q, kv, at, keysAt }) =>
    crossAttention(q, kv, { sequences: { offsets: at, longest: 53_000 }, keySequences: { offsets: keysAt, longest: 65_537 } }),
});
