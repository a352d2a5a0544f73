// Written by scripts/gen_symbols.ts from kernels/include/*.h. Do not edit.

export const OPS = {
  k_cast_fwd: { parameters: ["u64", "u64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_accumulate_fwd: { parameters: ["u64", "u64", "u64", "i64", "i32", "i32", "u64"], result: "i32" },
  k_fill_fwd: { parameters: ["u64", "i64", "f32", "i32", "u64"], result: "i32" },
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
  k_gate_add_fwd: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_gate_add_bwd_workspace: { parameters: ["buffer", "i32", "i32", "i32"], result: "i32" },
  k_gate_add_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_group_norm_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "f32", "i32", "u64"], result: "i32" },
  k_group_norm_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_group_norm_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
  k_matmul_fwd: { parameters: ["u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i64", "i64", "i32", "u64"], result: "i32", optional: true },
  k_copy_fwd: { parameters: ["u64", "u64", "buffer", "buffer", "buffer", "i32", "i32", "u64"], result: "i32" },
  k_gather_rows_fwd: { parameters: ["u64", "u64", "u64", "i64", "i64", "i64", "i32", "u64"], result: "i32" },
  k_gather_rows_bwd: { parameters: ["u64", "u64", "u64", "u64", "i64", "i64", "i32", "u64"], result: "i32" },
  k_layer_norm_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "f32", "i32", "u64"], result: "i32" },
  k_layer_norm_bwd_workspace: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  k_layer_norm_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
  k_layer_norm_modulate_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "f32", "i32", "u64"], result: "i32" },
  k_layer_norm_modulate_bwd_workspace: { parameters: ["buffer", "i32", "i32", "i32"], result: "i32" },
  k_layer_norm_modulate_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_grad_norm_workspace: { parameters: ["buffer", "i64"], result: "i32" },
  k_grad_norm_fwd: { parameters: ["u64", "u64", "u64", "i64", "f64", "u64"], result: "i32" },
  k_adamw_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i64", "i64", "i64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64", "i32", "i32", "u64"], result: "i32" },
  k_ema_fwd: { parameters: ["u64", "u64", "i64", "f64", "u64"], result: "i32" },
  k_random_normal_fwd: { parameters: ["u64", "i64", "u64", "u64", "i32", "u64"], result: "i32" },
  k_random_uniform_fwd: { parameters: ["u64", "i64", "u64", "u64", "f32", "f32", "i32", "u64"], result: "i32" },
  k_sum_fwd: { parameters: ["u64", "u64", "u64", "i64", "i64", "i64", "f32", "i32", "i32", "u64"], result: "i32" },
  k_sum_workspace: { parameters: ["buffer", "i64", "i64", "i64"], result: "i32" },
  k_sum_bwd: { parameters: ["u64", "u64", "i64", "i64", "i64", "f32", "i32", "i32", "u64"], result: "i32" },
  k_head_rms_norm_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_head_rms_norm_bwd_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_head_rms_norm_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
} as const;

export interface OpsKernels {
  k_cast_fwd(y: bigint, x: bigint, n: bigint, y_dtype: number, x_dtype: number, stream: bigint): void;
  k_accumulate_fwd(y: bigint, a: bigint, b: bigint, n: bigint, dtype_a: number, dtype_b: number, stream: bigint): void;
  k_fill_fwd(y: bigint, n: bigint, value: number, dtype: number, stream: bigint): void;
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
  k_gate_add_fwd(y: bigint, x: bigint, h: bigint, gate: bigint, B: number, L: number, C: number, dtype: number, stream: bigint): void;
  k_gate_add_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, B: number, L: number, C: number): void;
  k_gate_add_bwd(dh: bigint, dgate: bigint, dy: bigint, h: bigint, gate: bigint, scratch: bigint, B: number, L: number, C: number, dtype: number, stream: bigint): void;
  k_group_norm_fwd(y: bigint, mean: bigint, rstd: bigint, x: bigint, w: bigint, b: bigint, scratch: bigint, B: number, L: number, C: number, G: number, eps: number, dtype: number, stream: bigint): void;
  k_group_norm_workspace(bytes: BigUint64Array<ArrayBuffer>, B: number, L: number, C: number, G: number): void;
  k_group_norm_bwd(dx: bigint, dw: bigint, db: bigint, dy: bigint, x: bigint, w: bigint, mean: bigint, rstd: bigint, scratch: bigint, B: number, L: number, C: number, G: number, dtype: number, stream: bigint): void;
  k_matmul_fwd(y: bigint, a: bigint, b: bigint, bias: bigint, batch: number, M: number, N: number, K: number, trans_a: number, trans_b: number, stride_a: bigint, stride_b: bigint, dtype: number, stream: bigint): void;
  k_copy_fwd(y: bigint, x: bigint, extents: BigUint64Array<ArrayBuffer>, y_strides: BigUint64Array<ArrayBuffer>, x_strides: BigUint64Array<ArrayBuffer>, rank: number, element_bytes: number, stream: bigint): void;
  k_gather_rows_fwd(y: bigint, x: bigint, index: bigint, M: bigint, N: bigint, C: bigint, element_bytes: number, stream: bigint): void;
  k_gather_rows_bwd(dx: bigint, dy: bigint, offsets: bigint, order: bigint, N: bigint, C: bigint, dtype: number, stream: bigint): void;
  k_layer_norm_fwd(y: bigint, mean: bigint, rstd: bigint, x: bigint, w: bigint, b: bigint, N: number, C: number, eps: number, dtype: number, stream: bigint): void;
  k_layer_norm_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, C: number): void;
  k_layer_norm_bwd(dx: bigint, dw: bigint, db: bigint, dy: bigint, x: bigint, w: bigint, mean: bigint, rstd: bigint, scratch: bigint, N: number, C: number, dtype: number, stream: bigint): void;
  k_layer_norm_modulate_fwd(y: bigint, mean: bigint, rstd: bigint, x: bigint, shift: bigint, scale: bigint, B: number, L: number, C: number, eps: number, dtype: number, stream: bigint): void;
  k_layer_norm_modulate_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, B: number, L: number, C: number): void;
  k_layer_norm_modulate_bwd(dx: bigint, dshift: bigint, dscale: bigint, dy: bigint, x: bigint, scale: bigint, mean: bigint, rstd: bigint, scratch: bigint, B: number, L: number, C: number, dtype: number, stream: bigint): void;
  k_grad_norm_workspace(bytes: BigUint64Array<ArrayBuffer>, n: bigint): void;
  k_grad_norm_fwd(stats: bigint, grad: bigint, scratch: bigint, n: bigint, unscale: number, stream: bigint): void;
  k_adamw_fwd(p: bigint, m: bigint, v: bigint, ema: bigint, copy: bigint, grad: bigint, stats: bigint, n: bigint, n_copy: bigint, t: bigint, lr: number, beta1: number, beta2: number, eps: number, weight_decay: number, unscale: number, max_norm: number, ema_rate: number, zero_grad: number, copy_dtype: number, stream: bigint): void;
  k_ema_fwd(ema: bigint, p: bigint, n: bigint, rate: number, stream: bigint): void;
  k_random_normal_fwd(y: bigint, n: bigint, seed: bigint, offset: bigint, dtype: number, stream: bigint): void;
  k_random_uniform_fwd(y: bigint, n: bigint, seed: bigint, offset: bigint, low: number, high: number, dtype: number, stream: bigint): void;
  k_sum_fwd(y: bigint, x: bigint, workspace: bigint, O: bigint, R: bigint, I: bigint, scale: number, y_dtype: number, x_dtype: number, stream: bigint): void;
  k_sum_workspace(bytes: BigUint64Array<ArrayBuffer>, O: bigint, R: bigint, I: bigint): void;
  k_sum_bwd(dx: bigint, dy: bigint, O: bigint, R: bigint, I: bigint, scale: number, y_dtype: number, x_dtype: number, stream: bigint): void;
  k_head_rms_norm_fwd(y: bigint, x: bigint, gamma_0: bigint, gamma_1: bigint, gamma_2: bigint, N: number, G: number, H: number, D: number, dtype: number, stream: bigint): void;
  k_head_rms_norm_bwd_workspace(bytes: BigUint64Array<ArrayBuffer>, N: number, G: number, H: number, D: number): void;
  k_head_rms_norm_bwd(dx: bigint, dgamma_0: bigint, dgamma_1: bigint, dgamma_2: bigint, dy: bigint, x: bigint, gamma_0: bigint, gamma_1: bigint, gamma_2: bigint, scratch: bigint, N: number, G: number, H: number, D: number, dtype: number, stream: bigint): void;
}

export const FLASH_ATTN = {
  k_attention_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "f32", "i32", "u64"], result: "i32" },
  k_attention_bwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64", "f32", "i32", "u64"], result: "i32" },
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
} as const;

export interface FlashAttnKernels {
  k_attention_fwd(o: bigint, lse: bigint, q: bigint, k: bigint, v: bigint, B: number, L: number, M: number, H: number, D: number, o_batch: bigint, o_token: bigint, o_head: bigint, q_batch: bigint, q_token: bigint, q_head: bigint, k_batch: bigint, k_token: bigint, k_head: bigint, v_batch: bigint, v_token: bigint, v_head: bigint, scale: number, dtype: number, stream: bigint): void;
  k_attention_bwd(dq: bigint, dk: bigint, dv: bigint, d_o: bigint, o: bigint, lse: bigint, q: bigint, k: bigint, v: bigint, delta: bigint, B: number, L: number, M: number, H: number, D: number, dq_batch: bigint, dq_token: bigint, dq_head: bigint, dk_batch: bigint, dk_token: bigint, dk_head: bigint, dv_batch: bigint, dv_token: bigint, dv_head: bigint, d_o_batch: bigint, d_o_token: bigint, d_o_head: bigint, o_batch: bigint, o_token: bigint, o_head: bigint, q_batch: bigint, q_token: bigint, q_head: bigint, k_batch: bigint, k_token: bigint, k_head: bigint, v_batch: bigint, v_token: bigint, v_head: bigint, scale: number, dtype: number, stream: bigint): void;
}

export const RENDER = {
  k_abi_version: { parameters: [], result: "i32" },
  k_last_error: { parameters: [], result: "pointer" },
  k_render_mesh_fwd: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "u64"], result: "i32" },
  k_render_mesh_fwd_workspace: { parameters: ["buffer", "i32", "i32", "i32", "i32"], result: "i32" },
  k_voxelize_fwd: { parameters: ["u64", "u64", "u64", "i32", "i32", "i32", "u64"], result: "i32" },
} as const;

export interface RenderKernels {
  k_render_mesh_fwd(rgba: bigint, depth: bigint, ids: bigint, positions: bigint, normals: bigint, uvs: bigint, colors: bigint, materials: bigint, texels: bigint, lights: bigint, cameras: bigint, triangles: bigint, material_of: bigint, images: bigint, workspace: bigint, views: number, V: number, T: number, M: number, L: number, S: number, samples: number, stream: bigint): void;
  k_render_mesh_fwd_workspace(bytes: BigUint64Array<ArrayBuffer>, views: number, V: number, S: number, samples: number): void;
  k_voxelize_fwd(occupancy: bigint, positions: bigint, triangles: bigint, V: number, T: number, R: number, stream: bigint): void;
}
