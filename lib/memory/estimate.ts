/** How long a kernel takes, from its arguments alone: the larger of its arithmetic and its bytes at a card's rates. */
import type { MatmulProblem } from "../../ffi/cublaslt.ts";
import { K_ATTENTION } from "../../ffi/symbols.ts";
import type { Card } from "./cards.ts";

/** Seconds between two kernels that depend on each other. */
const GAP = 2.5e-6;

/** Taps that have a voxel, of 27, on surfaces of objects. */
const SURFACE_TAPS = 12.7;

const FIELD = Object.fromEntries(K_ATTENTION.map(([name], i) => [name, i + 1])) as Record<typeof K_ATTENTION[number][0], number>;

/** Seconds of a product. */
export function matmulTime({ batch, M, N, K, type, outType }: MatmulProblem, card: Card): number {
  const size = { f32: 4, f16: 2, bf16: 2, e4m3: 1 }, moved = batch * ((M * K + K * N) * size[type] + M * N * size[outType]);
  const rate = type === "f32" ? card.products32 : type === "e4m3" ? 1.6 * card.products : card.products;
  return GAP + Math.max(2 * batch * M * N * K / rate, moved / card.bandwidth);
}

/** FLOPs of an attention pass, 4 B H L M D forward and 2.5 times that backward, whether it runs in f32, and the bytes of the sums of dq in f32. */
export function attentionWork(problem: BigUint64Array, pass: "fwd" | "bwd"): { flops: number; wide: boolean; sums: number } {
  const [B, L, M, H, D, queries, keys, dtype] = (["B", "L", "M", "H", "D", "q_total", "k_total", "dtype"] as const)
    .map((name) => Number(problem[FIELD[name]]));
  // of sequences only the sums and the longest are known: those of nearly equal length have sums / B, many short ones (windows) a part of the longest
  const pairs = queries ? (B > 256 ? queries * M * 0.5 : queries * Math.min(M, keys / Math.max(1, B))) : B * L * M;
  const rows = queries || B * L;
  return { flops: 4 * pairs * H * D * (pass === "fwd" ? 1 : 2.5), wide: dtype === 0, sums: rows * H * (D + 2) * 4 };
}

/** Seconds of the kernel `symbol`; `bytes` is how much memory its arguments show. */
export function kernelTime(symbol: string, args: readonly unknown[], bytes: number, card: Card): number {
  const memory = bytes / card.bandwidth;
  if (symbol === "k_attention_fwd" || symbol === "k_attention_bwd") {
    const pass = symbol === "k_attention_fwd" ? "fwd" : "bwd", { flops, wide } = attentionWork(args[0] as BigUint64Array, pass);
    const rate = wide ? card.products32 / 2 : pass === "fwd" ? card.attention.forward : card.attention.backward;
    return 2 * GAP + flops / rate;
  }
  const numbers = args.filter((a): a is number => typeof a === "number");
  if (symbol === "k_matmul_fwd") {
    const [batch, M, N, K] = numbers;
    return GAP + Math.max(2 * batch * M * N * K / card.products32, memory);
  }
  if (/^k_spconv_(fwd|bwd_input|bwd_weight)$/.test(symbol)) {
    const [rows, K, Cin, Cout] = numbers;
    return 2 * GAP + Math.max(2 * rows * (K === 27 ? SURFACE_TAPS : K / 2) * Cin * Cout / card.convolution, memory);
  }
  if (/^k_conv3d_(fwd|bwd_input|bwd_weight)$/.test(symbol)) {
    const [B, X, Y, Z, Cin, Cout, kernel, stride] = numbers;
    return 2 * GAP + Math.max(2 * B * X * Y * Z * Cin * Cout * kernel ** 3 / stride ** 3 / card.convolution, memory);
  }
  return GAP + memory;
}
