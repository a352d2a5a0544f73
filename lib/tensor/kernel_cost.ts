/** What a call of a kernel must move and compute at the least, from its arguments: the table behind profiles. */
import type { MatmulProblem } from "../../ffi/cublaslt.ts";
import type { Fields } from "../../ffi/struct.ts";
import { K_ATTENTION, K_NORM } from "../../ffi/symbols.ts";

/** The least work of a call. */
export interface KernelCost {
  /** The extents that the cost depends on, for people. */
  what: string;
  /** Bytes read and written where each operand is moved once. */
  bytes?: number;
  /** Multiplications and additions on tensor cores. */
  flops?: number;
  /** The element type of the products. */
  type?: string;
}

type Args = readonly unknown[];

const BYTES = [4, 2, 2, 4, 8, 1], NAMES = ["f32", "f16", "bf16", "i32", "i64", "u8"];
const TYPE_BYTES: Record<string, number> = { f32: 4, f16: 2, bf16: 2, e4m3: 1 };

const numbers = (args: Args, from: number, count: number): number[] => args.slice(from, from + count).map(Number);

/** `passes` reads and writes of `n` elements of the dtype with this code. */
function passes(n: number, code: unknown, count: number): KernelCost {
  return { what: `${n} ${NAMES[Number(code)]}`, bytes: n * BYTES[Number(code)] * count };
}

/** Of [N, C] rows. */
function rows(N: unknown, C: unknown, code: unknown, count: number): KernelCost {
  return { what: `[${N}, ${C}] ${NAMES[Number(code)]}`, bytes: Number(N) * Number(C) * BYTES[Number(code)] * count };
}

function binary(args: Args, from: number, count: number): KernelCost {
  const n = numbers(args, from, 4), a = numbers(args, from + 4, 4), b = numbers(args, from + 8, 4), code = Number(args[from + 13]);
  const touched = (strides: number[]): number => n.reduce((size, extent, d) => strides[d] ? size * extent : size, 1);
  const size = n.reduce((x, y) => x * y), bytes = (count * size + touched(a) + touched(b)) * BYTES[code];
  return { what: `[${n.filter((v, d) => v > 1 || d === 3)}] op ${args[from + 12]} ${NAMES[code]}`, bytes };
}

function product({ batch, M, N, K, transposeA, transposeB, type, outType, epilogue, adds }: MatmulProblem): KernelCost {
  const s = TYPE_BYTES[type] ?? 1, out = (TYPE_BYTES[outType] ?? 1) * (epilogue === "gelu" || adds ? 2 : 1);
  return {
    what: `${batch > 1 ? `${batch} x ` : ""}[${M}, ${K}]${transposeA ? "ᵀ" : ""} [${K}, ${N}]${
      transposeB ? "ᵀ" : ""
    } ${type} to ${outType} ${epilogue}${adds ? " +=" : ""}`,
    bytes: batch * ((M * K + K * N) * s + M * N * out),
    flops: 2 * batch * M * N * K,
    type,
  };
}

/** Reads whole numbers and addresses out of a packed struct. */
function reader(fields: Fields, words: BigUint64Array): (name: string) => number {
  return (name) => Number(BigInt.asIntN(64, words[1 + fields.findIndex(([n]) => n === name)]));
}

/** `passes` reads and writes, and one for each of `more` that is there. */
function norm(words: BigUint64Array, passes: number, more: string[]): KernelCost {
  const field = reader(K_NORM, words), there = more.filter((name) => field(name) !== 0);
  const cost = rows(field("N"), field("C"), field("dtype"), passes + there.length);
  return { ...cost, what: [cost.what, ...there].join(" ") };
}

function attention(words: BigUint64Array, products: number, moved: number): KernelCost {
  const field = reader(K_ATTENTION, words);
  const [B, L, M, H, D, code] = ["B", "L", "M", "H", "D", "dtype"].map(field), qTotal = field("q_total"), kTotal = field("k_total");
  const queries = field("q_offsets") ? qTotal : B * L, keys = field("k_offsets") ? kTotal : B * M;
  const windows = field("q_rows") !== 0; // lengths are on the device
  return {
    what: `${windows ? "windows, " : ""}B ${B} H ${H} D ${D} ${queries} x ${keys} ${NAMES[code]}`,
    bytes: (queries * moved + keys * moved) * H * D * BYTES[code],
    flops: windows ? undefined : products * 2 * queries * (keys / Math.max(1, B)) * H * D,
    type: NAMES[code],
  };
}

/** By kernel, given its arguments; what is not here has no cost that its arguments tell. */
const COSTS: Record<string, (args: Args) => KernelCost> = {
  cublasLtMatmul: ([p]) => product(p as MatmulProblem),
  cudaMemsetAsync: ([, , bytes]) => ({ what: `${bytes} bytes`, bytes: Number(bytes) }),
  cudaMemcpyAsync: ([, , bytes, kind]) =>
    kind === 3 ? { what: `${bytes} bytes`, bytes: 2 * Number(bytes) } : { what: `${bytes} bytes ${kind === 1 ? "up" : "down"}` },
  k_attention_fwd: ([p]) => attention(p as BigUint64Array, 2, 2),
  k_attention_bwd: ([p]) => attention(p as BigUint64Array, 5, 4),
  k_matmul_fwd: (a) => {
    const [batch, M, N, K] = numbers(a, 5, 4);
    return { what: `${batch} x [${M}, ${K}] [${K}, ${N}]`, flops: 2 * batch * M * N * K, type: NAMES[Number(a[13])] };
  },
  k_norm_fwd: ([p]) => norm(p as BigUint64Array, 2, ["h", "sum"]),
  k_norm_bwd: ([p]) => norm(p as BigUint64Array, 3, ["dsum", "h", "dh"]),
  k_gate_add_fwd: (a) => rows(a[5], a[7], a[9], 3),
  k_gate_add_bwd: (a) => rows(a[8], a[10], a[13], 3),
  k_head_rms_norm_fwd: (a) => passes(Number(a[5]) * Number(a[6]) * Number(a[7]) * Number(a[8]), a[11], 2),
  k_head_rms_norm_bwd: (a) => passes(Number(a[10]) * Number(a[11]) * Number(a[12]) * Number(a[13]), a[16], 3),
  k_fp8_quantize_fwd: (a) => {
    const { what, bytes } = rows(a[6], a[7], a[9], 1);
    return { what: `${what}${a[2] ? " sums" : ""}${a[8] ? " gelu" : ""}`, bytes: bytes! + Number(a[6]) * Number(a[7]) };
  },
  k_fp8_norm_fwd: ([, , p]) => {
    const { what, bytes } = norm(p as BigUint64Array, 1, ["h", "sum", "y"]), field = reader(K_NORM, p as BigUint64Array);
    return { what, bytes: bytes! + field("N") * field("C") };
  },
  k_fp8_gelu_bwd: (a) => {
    const { what, bytes } = rows(a[9], a[10], a[11], 2);
    return { what, bytes: bytes! + 2 * Number(a[9]) * Number(a[10]) };
  },
  k_fp8_transpose_fwd: (a) => rows(a[2], a[3], 5, 2),
  k_fp8_operands_fwd: (a) => {
    const [M, N, K] = numbers(a, 11, 3), w = a[10] !== 0n;
    return { what: `[${M}, ${N}] [${M}, ${K}]${w ? ` [${N}, ${K}]` : ""}`, bytes: 2 * (M * (N + K) + (w ? N * K : 0)) };
  },
  k_gelu_layer_bwd: (a) => rows(a[6], a[7], a[8], a[1] ? 4 : 3),
  k_unary_fwd: (a) => passes(Number(a[2]), a[4], 2),
  k_unary_bwd: (a) => passes(Number(a[3]), a[5], 3),
  k_affine_fwd: (a) => passes(Number(a[2]), a[5], 2),
  k_binary_fwd: (a) => binary(a, 3, 1),
  k_binary_bwd: (a) => binary(a, 5, 3),
  k_cast_fwd: (a) => ({
    what: `${a[2]} ${NAMES[Number(a[4])]} to ${NAMES[Number(a[3])]}`,
    bytes: Number(a[2]) * (BYTES[Number(a[3])] + BYTES[Number(a[4])]),
  }),
  k_accumulate_fwd: (a) => ({
    what: `${a[3]} ${NAMES[Number(a[4])]} + ${NAMES[Number(a[5])]}`,
    bytes: Number(a[3]) * (2 * BYTES[Number(a[4])] + BYTES[Number(a[5])]),
  }),
  k_fill_fwd: (a) => passes(Number(a[1]), a[3], 1),
  k_sum_fwd: (a) => {
    const [O, R, I] = numbers(a, 3, 3);
    return {
      what: `[${O}, ${R}, ${I}] ${NAMES[Number(a[8])]} along ${R}`,
      bytes: O * I * (R * BYTES[Number(a[8])] + BYTES[Number(a[7])]),
    };
  },
  k_sum_bwd: (a) => {
    const [O, R, I] = numbers(a, 2, 3);
    return { what: `[${O}, ${R}, ${I}]`, bytes: O * I * (R * BYTES[Number(a[7])] + BYTES[Number(a[6])]) };
  },
  k_copy_fwd: (a) => {
    const n = [...(a[2] as BigUint64Array)].reduce((x, y) => x * Number(y), 1);
    return { what: `${n} of ${a[6]} bytes`, bytes: 2 * n * Number(a[6]) };
  },
  k_grad_norm_fwd: (a) => ({ what: `${a[3]}`, bytes: 4 * Number(a[3]) }),
  k_adamw_fwd: (a) => {
    const n = Number(a[7]), floats = 7 + (a[3] ? 2 : 0) + (a[18] ? 1 : 0); // p, m, v and ema read and written, grad read and set to 0
    return { what: `${n}`, bytes: 4 * floats * n + (a[4] ? 2 * Number(a[8]) : 0) };
  },
  k_ema_fwd: (a) => ({ what: `${a[2]}`, bytes: 12 * Number(a[2]) }),
};

/** The least work of the call `name(...args)`; only its name where its arguments do not tell. */
export function kernelCost(name: string, args: readonly unknown[]): KernelCost {
  return COSTS[name]?.(args) ?? { what: "" };
}
