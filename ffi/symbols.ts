// Written by scripts/gen_symbols.ts from kernels/include/*.h. Do not edit.

export const OPS = {
  k_cast_fwd: { parameters: ["u64", "u64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_accumulate_fwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_fill_fwd: { parameters: ["u64", "i64", "f32", "i32", "u64"], result: "i32" },
  k_collective_listen: { parameters: ["buffer", "u64", "i32", "i32", "u64", "f64"], result: "i32", optional: true },
  k_collective_accept: { parameters: ["u64"], result: "i32", optional: true },
  k_collective_connect: { parameters: ["buffer", "u64", "i32", "i32", "i32", "u64", "f64"], result: "i32", optional: true },
  k_collective_close: { parameters: ["u64"], result: "i32", optional: true },
  k_all_reduce_fwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "i32", "u64"], result: "i32", optional: true },
  k_reduce_scatter_fwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "i32", "u64"], result: "i32", optional: true },
  k_all_gather_fwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "u64"], result: "i32", optional: true },
  k_broadcast_fwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "i32", "u64"], result: "i32", optional: true },
  k_conv3d_fwd_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_conv3d_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_conv3d_bwd_input_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_conv3d_bwd_input: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_conv3d_bwd_weight_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_conv3d_bwd_weight: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_binary_fwd: { parameters: ["u64", "u64", "u64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_binary_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_unary_fwd: { parameters: ["u64", "u64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_unary_bwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_affine_fwd: { parameters: ["u64", "u64", "i64", "f32", "f32", "i32", "u64"], result: "i32" },
  k_fp8_quantize_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_fp8_quantize_workspace: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  k_fp8_dequantize_fwd: { parameters: ["u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_fp8_gelu_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_fp8_gelu_bwd_workspace: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  k_fp8_transpose_fwd: { parameters: ["u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_fp8_operands_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_gate_add_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i64", "i32", "u64"], result: "i32" },
  k_gate_add_bwd_workspace: { parameters: ["buffer", "i32", "i32", "i32"], result: "i32" },
  k_gate_add_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i64", "i32", "i32", "u64"], result: "i32" },
  k_gelu_layer_bwd_workspace: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  k_gelu_layer_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_group_norm_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "f32", "i32", "u64"], result: "i32" },
  k_group_norm_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_group_norm_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_histogram_fwd: { parameters: ["u64", "u64", "i64", "i32", "u64"], result: "i32" },
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
  k_matmul_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i64", "i64", "i32", "u64"], result: "i32", optional: true },
  k_copy_fwd: { parameters: ["u64", "u64", "buffer", "buffer", "buffer", "i32", "i32", "u64"], result: "i32" },
  k_gather_rows_fwd: { parameters: ["u64", "u64", "u64", "i64", "i64", "i64", "i32", "u64"], result: "i32" },
  k_gather_rows_bwd: { parameters: ["u64", "u64", "u64", "u64", "i64", "i64", "i32", "u64"], result: "i32" },
  k_norm_fwd: { parameters: ["buffer", "u64"], result: "i32" },
  k_norm_bwd_workspace: { parameters: ["buffer", "buffer"], result: "i32" },
  k_norm_bwd: { parameters: ["buffer", "u64"], result: "i32" },
  k_fp8_norm_fwd: { parameters: ["u64", "u64", "buffer", "u64"], result: "i32" },
  k_grad_norm_workspace: { parameters: ["buffer", "i64"], result: "i32" },
  k_grad_norm_fwd: { parameters: ["u64", "u64", "u64", "i64", "f64", "u64"], result: "i32" },
  k_adamw_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i64", "i64", "i64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "i32", "i32", "u64"], result: "i32" },
  k_ema_fwd: { parameters: ["u64", "u64", "i64", "f64", "u64"], result: "i32" },
  k_adamw8_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i64", "i64", "i64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "i32", "i32", "u64"], result: "i32" },
  k_max_pool2d_fwd: { parameters: ["u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_max_pool2d_bwd: { parameters: ["u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_unit_distance_fwd: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_unit_distance_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_random_normal_fwd: { parameters: ["u64", "i64", "u64", "u64", "i32", "u64"], result: "i32" },
  k_random_uniform_fwd: { parameters: ["u64", "i64", "u64", "u64", "f32", "f32", "i32", "u64"], result: "i32" },
  k_sum_fwd: { parameters: ["u64", "u64", "u64", "i64", "i64", "i64", "f32", "i32", "i32", "u64"], result: "i32" },
  k_sum_workspace: { parameters: ["buffer", "i64", "i64", "i64"], result: "i32" },
  k_sum_bwd: { parameters: ["u64", "u64", "i64", "i64", "i64", "f32", "i32", "i32", "u64"], result: "i32" },
  k_head_rms_norm_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_head_rms_norm_bwd_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_head_rms_norm_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_ssim_fwd: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_ssim_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
} as const;

export interface OpsKernels {
  k_cast_fwd(y: bigint, x: bigint, n: bigint, y_dtype: number, x_dtype: number, stream: bigint): void;
  k_accumulate_fwd(y: bigint, a: bigint, b: bigint, n: bigint, dtype_a: number, dtype_b: number, stream: bigint): void;
  k_fill_fwd(y: bigint, n: bigint, value: number, dtype: number, stream: bigint): void;
  k_collective_listen(out: BigUint64Array<ArrayBuffer>, host: bigint, port: number, world: number, token: bigint, timeout: number): void;
  k_collective_accept(comm: bigint): void;
  k_collective_connect(out: BigUint64Array<ArrayBuffer>, host: bigint, port: number, rank: number, world: number, token: bigint, timeout: number): void;
  k_collective_close(comm: bigint): void;
  k_all_reduce_fwd(y: bigint, x: bigint, comm: bigint, n: bigint, op: number, dtype: number, stream: bigint): void;
  k_reduce_scatter_fwd(y: bigint, x: bigint, comm: bigint, n: bigint, op: number, dtype: number, stream: bigint): void;
  k_all_gather_fwd(y: bigint, x: bigint, comm: bigint, n: bigint, dtype: number, stream: bigint): void;
  k_broadcast_fwd(y: bigint, x: bigint, comm: bigint, n: bigint, root: number, dtype: number, stream: bigint): void;
  k_conv3d_fwd_workspace(bytes: BigUint64Array<ArrayBuffer>, B: number, X: number, Y: number, Z: number, Cin: number, Cout: number, kernel: number, stride: number, padding: number, dtype: number): void;
  k_conv3d_fwd(y: bigint, x: bigint, w: bigint, bias: bigint, scratch: bigint, B: number, X: number, Y: number, Z: number, Cin: number, Cout: number, kernel: number, stride: number, padding: number, dtype: number, weight_dtype: number, bias_dtype: number, stream: bigint): void;
  k_conv3d_bwd_input_workspace(bytes: BigUint64Array<ArrayBuffer>, B: number, X: number, Y: number, Z: number, Cin: number, Cout: number, kernel: number, stride: number, padding: number, dtype: number): void;
  k_conv3d_bwd_input(dx: bigint, dy: bigint, w: bigint, scratch: bigint, B: number, X: number, Y: number, Z: number, Cin: number, Cout: number, kernel: number, stride: number, padding: number, dtype: number, weight_dtype: number, stream: bigint): void;
  k_conv3d_bwd_weight_workspace(bytes: BigUint64Array<ArrayBuffer>, B: number, X: number, Y: number, Z: number, Cin: number, Cout: number, kernel: number, stride: number, padding: number, dtype: number): void;
  k_conv3d_bwd_weight(dw: bigint, dy: bigint, x: bigint, scratch: bigint, B: number, X: number, Y: number, Z: number, Cin: number, Cout: number, kernel: number, stride: number, padding: number, dtype: number, stream: bigint): void;
  k_binary_fwd(y: bigint, a: bigint, b: bigint, n0: bigint, n1: bigint, n2: bigint, n3: bigint, a0: bigint, a1: bigint, a2: bigint, a3: bigint, b0: bigint, b1: bigint, b2: bigint, b3: bigint, op: number, dtype: number, stream: bigint): void;
  k_binary_bwd(da: bigint, db: bigint, dy: bigint, a: bigint, b: bigint, n0: bigint, n1: bigint, n2: bigint, n3: bigint, a0: bigint, a1: bigint, a2: bigint, a3: bigint, b0: bigint, b1: bigint, b2: bigint, b3: bigint, op: number, dtype: number, stream: bigint): void;
  k_unary_fwd(y: bigint, x: bigint, n: bigint, op: number, dtype: number, stream: bigint): void;
  k_unary_bwd(dx: bigint, dy: bigint, x: bigint, n: bigint, op: number, dtype: number, stream: bigint): void;
  k_affine_fwd(y: bigint, x: bigint, n: bigint, scale: number, shift: number, dtype: number, stream: bigint): void;
  k_fp8_quantize_fwd(y: bigint, scale: bigint, sums: bigint, x: bigint, columns: bigint, scratch: bigint, N: number, C: number, act: number, dtype: number, stream: bigint): void;
  k_fp8_quantize_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, C: number): void;
  k_fp8_dequantize_fwd(y: bigint, x: bigint, scale: bigint, N: number, C: number, dtype: number, stream: bigint): void;
  k_fp8_gelu_bwd(dz: bigint, dz_scale: bigint, g: bigint, g_scale: bigint, db: bigint, dg: bigint, z: bigint, columns: bigint, scratch: bigint, N: number, C: number, dtype: number, stream: bigint): void;
  k_fp8_gelu_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, C: number): void;
  k_fp8_transpose_fwd(y: bigint, x: bigint, N: number, C: number, P: number, stream: bigint): void;
  k_fp8_operands_fwd(xt: bigint, dyt: bigint, wt: bigint, scale: bigint, cells: bigint, x: bigint, x_scale: bigint, dy: bigint, dy_scale: bigint, columns: bigint, w: bigint, M: number, N: number, K: number, P: number, stream: bigint): void;
  k_gate_add_fwd(y: bigint, x: bigint, h: bigint, gate: bigint, offsets: bigint, N: number, B: number, C: number, gate_stride: bigint, dtype: number, stream: bigint): void;
  k_gate_add_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, B: number, C: number): void;
  k_gate_add_bwd(dh: bigint, dgate: bigint, dbias: bigint, dy: bigint, h: bigint, gate: bigint, offsets: bigint, scratch: bigint, N: number, B: number, C: number, gate_stride: bigint, adds: number, dtype: number, stream: bigint): void;
  k_gelu_layer_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, C: number): void;
  k_gelu_layer_bwd(dz: bigint, g: bigint, db: bigint, dg: bigint, z: bigint, scratch: bigint, N: number, C: number, dtype: number, stream: bigint): void;
  k_group_norm_fwd(y: bigint, mean: bigint, rstd: bigint, x: bigint, w: bigint, b: bigint, offsets: bigint, scratch: bigint, N: number, B: number, C: number, G: number, eps: number, dtype: number, stream: bigint): void;
  k_group_norm_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, B: number, C: number, G: number): void;
  k_group_norm_bwd(dx: bigint, dw: bigint, db: bigint, dy: bigint, x: bigint, w: bigint, mean: bigint, rstd: bigint, offsets: bigint, scratch: bigint, N: number, B: number, C: number, G: number, dtype: number, stream: bigint): void;
  k_histogram_fwd(counts: bigint, x: bigint, n: bigint, dtype: number, stream: bigint): void;
  k_matmul_fwd(y: bigint, a: bigint, b: bigint, bias: bigint, c: bigint, batch: number, M: number, N: number, K: number, trans_a: number, trans_b: number, stride_a: bigint, stride_b: bigint, dtype: number, stream: bigint): void;
  k_copy_fwd(y: bigint, x: bigint, extents: BigUint64Array<ArrayBuffer>, y_strides: BigUint64Array<ArrayBuffer>, x_strides: BigUint64Array<ArrayBuffer>, rank: number, element_bytes: number, stream: bigint): void;
  k_gather_rows_fwd(y: bigint, x: bigint, index: bigint, M: bigint, N: bigint, C: bigint, element_bytes: number, stream: bigint): void;
  k_gather_rows_bwd(dx: bigint, dy: bigint, offsets: bigint, order: bigint, N: bigint, C: bigint, dtype: number, stream: bigint): void;
  k_norm_fwd(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_norm_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, problem: BigUint64Array<ArrayBuffer>): void;
  k_norm_bwd(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_fp8_norm_fwd(values: bigint, scale: bigint, problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_grad_norm_workspace(bytes: BigUint64Array<ArrayBuffer>, n: bigint): void;
  k_grad_norm_fwd(stats: bigint, grad: bigint, scratch: bigint, n: bigint, unscale: number, stream: bigint): void;
  k_adamw_fwd(p: bigint, m: bigint, v: bigint, ema: bigint, copy: bigint, grad: bigint, stats: bigint, n: bigint, n_copy: bigint, t: bigint, lr: number, beta1: number, beta2: number, eps: number, weight_decay: number, unscale: number, max_norm: number, ema_rate: number, zero_grad: number, copy_dtype: number, stream: bigint): void;
  k_ema_fwd(ema: bigint, p: bigint, n: bigint, rate: number, stream: bigint): void;
  k_adamw8_fwd(p: bigint, m: bigint, v: bigint, m_scale: bigint, v_scale: bigint, ema: bigint, copy: bigint, grad: bigint, stats: bigint, n: bigint, n_copy: bigint, t: bigint, lr: number, beta1: number, beta2: number, eps: number, weight_decay: number, unscale: number, max_norm: number, ema_rate: number, zero_grad: number, copy_dtype: number, stream: bigint): void;
  k_max_pool2d_fwd(y: bigint, x: bigint, B: number, H: number, W: number, C: number, dtype: number, stream: bigint): void;
  k_max_pool2d_bwd(dx: bigint, dy: bigint, x: bigint, B: number, H: number, W: number, C: number, dtype: number, stream: bigint): void;
  k_unit_distance_fwd(d: bigint, a: bigint, b: bigint, w: bigint, N: number, C: number, dtype: number, stream: bigint): void;
  k_unit_distance_bwd(da: bigint, dd: bigint, a: bigint, b: bigint, w: bigint, N: number, C: number, dtype: number, stream: bigint): void;
  k_random_normal_fwd(y: bigint, n: bigint, seed: bigint, offset: bigint, dtype: number, stream: bigint): void;
  k_random_uniform_fwd(y: bigint, n: bigint, seed: bigint, offset: bigint, low: number, high: number, dtype: number, stream: bigint): void;
  k_sum_fwd(y: bigint, x: bigint, workspace: bigint, O: bigint, R: bigint, I: bigint, scale: number, y_dtype: number, x_dtype: number, stream: bigint): void;
  k_sum_workspace(bytes: BigUint64Array<ArrayBuffer>, O: bigint, R: bigint, I: bigint): void;
  k_sum_bwd(dx: bigint, dy: bigint, O: bigint, R: bigint, I: bigint, scale: number, y_dtype: number, x_dtype: number, stream: bigint): void;
  k_head_rms_norm_fwd(y: bigint, x: bigint, gamma_0: bigint, gamma_1: bigint, gamma_2: bigint, N: number, G: number, H: number, D: number, y_groups: number, x_groups: number, dtype: number, stream: bigint): void;
  k_head_rms_norm_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, G: number, H: number, D: number): void;
  k_head_rms_norm_bwd(dx: bigint, dgamma_0: bigint, dgamma_1: bigint, dgamma_2: bigint, dy: bigint, x: bigint, gamma_0: bigint, gamma_1: bigint, gamma_2: bigint, scratch: bigint, N: number, G: number, H: number, D: number, dy_groups: number, x_groups: number, dtype: number, stream: bigint): void;
  k_ssim_fwd(map: bigint, partials: bigint, x: bigint, y: bigint, B: number, H: number, W: number, C: number, stream: bigint): void;
  k_ssim_bwd(dx: bigint, dmap: bigint, partials: bigint, x: bigint, y: bigint, B: number, H: number, W: number, C: number, stream: bigint): void;
}

export const K_REDUCE_SUM = 0;

export const K_REDUCE_MAX = 1;

export const K_REDUCE_MIN = 2;

export const K_HISTOGRAM_BINS = 2048;

export const K_NORM = [
  ["dtype", "i64"],
  ["N", "i64"],
  ["B", "i64"],
  ["C", "i64"],
  ["eps", "f64"],
  ["offsets", "u64"],
  ["x", "u64"],
  ["h", "u64"],
  ["gate", "u64"],
  ["w", "u64"],
  ["b", "u64"],
  ["scale", "u64"],
  ["shift", "u64"],
  ["gate_stride", "i64"],
  ["stride", "i64"],
  ["sum", "u64"],
  ["y", "u64"],
  ["mean", "u64"],
  ["rstd", "u64"],
  ["dy", "u64"],
  ["dsum", "u64"],
  ["dx", "u64"],
  ["dh", "u64"],
  ["dgate", "u64"],
  ["dw", "u64"],
  ["db", "u64"],
  ["dscale", "u64"],
  ["dshift", "u64"],
  ["adds", "i64"],
  ["workspace", "u64"],
  ["workspace_bytes", "i64"],
  ["dbias", "u64"],
] as const;

export interface KNorm {
  dtype: number;
  N: number;
  B: number;
  C: number;
  eps: number;
  offsets: bigint;
  x: bigint;
  h: bigint;
  gate: bigint;
  w: bigint;
  b: bigint;
  scale: bigint;
  shift: bigint;
  gate_stride: number;
  stride: number;
  sum: bigint;
  y: bigint;
  mean: bigint;
  rstd: bigint;
  dy: bigint;
  dsum: bigint;
  dx: bigint;
  dh: bigint;
  dgate: bigint;
  dw: bigint;
  db: bigint;
  dscale: bigint;
  dshift: bigint;
  adds: number;
  workspace: bigint;
  workspace_bytes: number;
  dbias: bigint;
}

export const K_ADAMW8_BLOCK = 128;

export const FLASH_ATTN = {
  k_attention_workspace: { parameters: ["buffer", "buffer"], result: "i32" },
  k_attention_fwd: { parameters: ["buffer", "u64"], result: "i32" },
  k_attention_bwd: { parameters: ["buffer", "u64"], result: "i32" },
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
} as const;

export interface FlashAttnKernels {
  k_attention_workspace(bytes: BigUint64Array<ArrayBuffer>, problem: BigUint64Array<ArrayBuffer>): void;
  k_attention_fwd(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_attention_bwd(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
}

export const K_ATTENTION_CHECK = 2;

export const K_ATTENTION_SM80 = 4;

export const K_ATTENTION = [
  ["dtype", "i64"],
  ["flags", "i64"],
  ["B", "i64"],
  ["L", "i64"],
  ["M", "i64"],
  ["H", "i64"],
  ["D", "i64"],
  ["q_total", "i64"],
  ["k_total", "i64"],
  ["scale", "f64"],
  ["q_offsets", "u64"],
  ["k_offsets", "u64"],
  ["q_rows", "u64"],
  ["k_rows", "u64"],
  ["q", "u64"],
  ["q_batch", "i64"],
  ["q_token", "i64"],
  ["q_head", "i64"],
  ["k", "u64"],
  ["k_batch", "i64"],
  ["k_token", "i64"],
  ["k_head", "i64"],
  ["v", "u64"],
  ["v_batch", "i64"],
  ["v_token", "i64"],
  ["v_head", "i64"],
  ["o", "u64"],
  ["o_batch", "i64"],
  ["o_token", "i64"],
  ["o_head", "i64"],
  ["lse", "u64"],
  ["d_o", "u64"],
  ["d_o_batch", "i64"],
  ["d_o_token", "i64"],
  ["d_o_head", "i64"],
  ["dq", "u64"],
  ["dq_batch", "i64"],
  ["dq_token", "i64"],
  ["dq_head", "i64"],
  ["dk", "u64"],
  ["dk_batch", "i64"],
  ["dk_token", "i64"],
  ["dk_head", "i64"],
  ["dv", "u64"],
  ["dv_batch", "i64"],
  ["dv_token", "i64"],
  ["dv_head", "i64"],
  ["workspace", "u64"],
  ["workspace_bytes", "i64"],
] as const;

export interface KAttention {
  dtype: number;
  flags: number;
  B: number;
  L: number;
  M: number;
  H: number;
  D: number;
  q_total: number;
  k_total: number;
  scale: number;
  q_offsets: bigint;
  k_offsets: bigint;
  q_rows: bigint;
  k_rows: bigint;
  q: bigint;
  q_batch: number;
  q_token: number;
  q_head: number;
  k: bigint;
  k_batch: number;
  k_token: number;
  k_head: number;
  v: bigint;
  v_batch: number;
  v_token: number;
  v_head: number;
  o: bigint;
  o_batch: number;
  o_token: number;
  o_head: number;
  lse: bigint;
  d_o: bigint;
  d_o_batch: number;
  d_o_token: number;
  d_o_head: number;
  dq: bigint;
  dq_batch: number;
  dq_token: number;
  dq_head: number;
  dk: bigint;
  dk_batch: number;
  dk_token: number;
  dk_head: number;
  dv: bigint;
  dv_batch: number;
  dv_token: number;
  dv_head: number;
  workspace: bigint;
  workspace_bytes: number;
}

export const SPCONV = {
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
  k_sparse_strided_rows: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_sparse_strided_coords_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_sparse_strided_coords: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_sparse_subdivide_coords: { parameters: ["u64", "u64", "i32", "u64"], result: "i32" },
  k_sparse_pool_fwd: { parameters: ["u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_sparse_pool_bwd: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_sparse_window_keys: { parameters: ["u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_sparse_curve_keys: { parameters: ["u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_sparse_argsort_workspace: { parameters: ["buffer", "i32"], result: "i32" },
  k_sparse_argsort: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "u64"], result: "i32" },
  k_sparse_segments_workspace: { parameters: ["buffer", "i32"], result: "i32" },
  k_sparse_segments: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "u64"], result: "i32" },
  k_spconv_table_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_spconv_table: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_spconv_plan_workspace: { parameters: ["buffer", "i32", "i32", "i32"], result: "i32" },
  k_spconv_plan: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_spconv_pairs_workspace: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  k_spconv_pairs: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "u64"], result: "i32" },
  k_spconv_fwd_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_spconv_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_spconv_bwd_input_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_spconv_bwd_input: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_spconv_bwd_weight_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32", "i32"], result: "i32" },
  k_spconv_bwd_weight: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
} as const;

export interface SpconvKernels {
  k_sparse_strided_rows(rows: BigUint64Array<ArrayBuffer>, N: number, B: number, side: number, kernel: number, stride: number, padding: number): void;
  k_sparse_strided_coords_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, B: number, side: number, kernel: number, stride: number, padding: number): void;
  k_sparse_strided_coords(out: bigint, count: bigint, parent: bigint, coords: bigint, scratch: bigint, N: number, B: number, side: number, kernel: number, stride: number, padding: number, stream: bigint): void;
  k_sparse_subdivide_coords(out: bigint, coords: bigint, N: number, stream: bigint): void;
  k_sparse_pool_fwd(y: bigint, x: bigint, children: bigint, M: number, N: number, C: number, taps: number, mode: number, dtype: number, stream: bigint): void;
  k_sparse_pool_bwd(dx: bigint, dy: bigint, parent: bigint, children: bigint, M: number, N: number, C: number, taps: number, mode: number, dtype: number, stream: bigint): void;
  k_sparse_window_keys(keys: bigint, coords: bigint, N: number, window: number, shift: number, bits: number, stream: bigint): void;
  k_sparse_curve_keys(keys: bigint, coords: bigint, N: number, curve: number, shift: number, stream: bigint): void;
  k_sparse_argsort_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number): void;
  k_sparse_argsort(order: bigint, inverse: bigint, keys: bigint, scratch: bigint, N: number, bits: number, stream: bigint): void;
  k_sparse_segments_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number): void;
  k_sparse_segments(offsets: bigint, count: bigint, keys: bigint, order: bigint, scratch: bigint, N: number, stream: bigint): void;
  k_spconv_table_workspace(bytes: BigUint64Array<ArrayBuffer>, rows: number, N: number, B: number, side: number): void;
  k_spconv_table(table: bigint, taps: bigint, faults: bigint, to: bigint, from: bigint, scratch: bigint, rows: number, N: number, B: number, side: number, kernel: number, stride: number, padding: number, transposed: number, stream: bigint): void;
  k_spconv_plan_workspace(bytes: BigUint64Array<ArrayBuffer>, rows: number, K: number, parts: number): void;
  k_spconv_plan(order: bigint, masks: bigint, taps: bigint, scratch: bigint, rows: number, K: number, parts: number, group: number, stream: bigint): void;
  k_spconv_pairs_workspace(bytes: BigUint64Array<ArrayBuffer>, rows: number, K: number): void;
  k_spconv_pairs(pairs: bigint, offsets: bigint, table: bigint, taps: bigint, scratch: bigint, rows: number, K: number, stream: bigint): void;
  k_spconv_fwd_workspace(bytes: BigUint64Array<ArrayBuffer>, rows: number, K: number, Cin: number, Cout: number, parts: number, dtype: number): void;
  k_spconv_fwd(y: bigint, x: bigint, w: bigint, bias: bigint, table: bigint, order: bigint, masks: bigint, scratch: bigint, rows: number, K: number, Cin: number, Cout: number, parts: number, dtype: number, weight_dtype: number, bias_dtype: number, stream: bigint): void;
  k_spconv_bwd_input_workspace(bytes: BigUint64Array<ArrayBuffer>, rows: number, K: number, Cin: number, Cout: number, parts: number, dtype: number): void;
  k_spconv_bwd_input(dx: bigint, dy: bigint, w: bigint, table: bigint, order: bigint, masks: bigint, scratch: bigint, rows: number, K: number, Cin: number, Cout: number, parts: number, mirror: number, dtype: number, weight_dtype: number, stream: bigint): void;
  k_spconv_bwd_weight_workspace(bytes: BigUint64Array<ArrayBuffer>, rows: number, K: number, Cin: number, Cout: number, dtype: number): void;
  k_spconv_bwd_weight(dw: bigint, dy: bigint, x: bigint, pairs: bigint, offsets: bigint, scratch: bigint, rows: number, K: number, Cin: number, Cout: number, dtype: number, stream: bigint): void;
}

export const RENDER = {
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
  k_render_mesh_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_render_mesh_fwd_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_splat_sizes: { parameters: ["buffer", "buffer"], result: "i32" },
  k_splat_project: { parameters: ["buffer", "u64"], result: "i32" },
  k_splat_fwd: { parameters: ["buffer", "u64"], result: "i32" },
  k_splat_bwd: { parameters: ["buffer", "u64"], result: "i32" },
  k_voxelize_fwd: { parameters: ["u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
} as const;

export interface RenderKernels {
  k_render_mesh_fwd(rgba: bigint, depth: bigint, ids: bigint, positions: bigint, normals: bigint, uvs: bigint, colors: bigint, materials: bigint, texels: bigint, lights: bigint, cameras: bigint, triangles: bigint, material_of: bigint, images: bigint, workspace: bigint, views: number, V: number, T: number, M: number, L: number, S: number, samples: number, stream: bigint): void;
  k_render_mesh_fwd_workspace(bytes: BigUint64Array<ArrayBuffer>, views: number, V: number, S: number, samples: number): void;
  k_splat_sizes(bytes: BigUint64Array<ArrayBuffer>, problem: BigUint64Array<ArrayBuffer>): void;
  k_splat_project(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_splat_fwd(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_splat_bwd(problem: BigUint64Array<ArrayBuffer>, stream: bigint): void;
  k_voxelize_fwd(occupancy: bigint, positions: bigint, triangles: bigint, V: number, T: number, R: number, stream: bigint): void;
}

export const K_SPLAT = [
  ["B", "i64"],
  ["V", "i64"],
  ["N", "i64"],
  ["instances", "i64"],
  ["height", "i64"],
  ["width", "i64"],
  ["coefficients", "i64"],
  ["capacity", "i64"],
  ["near", "f64"],
  ["blur", "f64"],
  ["scenes", "u64"],
  ["cameras", "u64"],
  ["backgrounds", "u64"],
  ["means", "u64"],
  ["colors", "u64"],
  ["opacities", "u64"],
  ["scales", "u64"],
  ["rotations", "u64"],
  ["y", "u64"],
  ["status", "u64"],
  ["projected", "u64"],
  ["lists", "u64"],
  ["scratch", "u64"],
  ["d_y", "u64"],
  ["d_means", "u64"],
  ["d_colors", "u64"],
  ["d_opacities", "u64"],
  ["d_scales", "u64"],
  ["d_rotations", "u64"],
] as const;

export interface KSplat {
  B: number;
  V: number;
  N: number;
  instances: number;
  height: number;
  width: number;
  coefficients: number;
  capacity: number;
  near: number;
  blur: number;
  scenes: bigint;
  cameras: bigint;
  backgrounds: bigint;
  means: bigint;
  colors: bigint;
  opacities: bigint;
  scales: bigint;
  rotations: bigint;
  y: bigint;
  status: bigint;
  projected: bigint;
  lists: bigint;
  scratch: bigint;
  d_y: bigint;
  d_means: bigint;
  d_colors: bigint;
  d_opacities: bigint;
  d_scales: bigint;
  d_rotations: bigint;
}
