/** The layers again, in f64 and as plain as can be, to compare with. */

/** Parameters of a tree by their paths. */
export type Named = Record<string, ArrayLike<number>>;

/** `x wᵀ + b`: x [N, K], w [M, K], b [M] give [N, M]. */
export function linear(x: ArrayLike<number>, w: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  const M = b.length, K = w.length / M, N = x.length / K, y = new Float64Array(N * M);
  for (let n = 0; n < N; n++) {
    for (let m = 0; m < M; m++) {
      let sum = b[m];
      for (let k = 0; k < K; k++) sum += x[n * K + k] * w[m * K + k];
      y[n * M + m] = sum;
    }
  }
  return y;
}

/** Layer norm of rows of C values, without scale and shift. */
export function layerNorm(x: ArrayLike<number>, C: number, eps: number): Float64Array {
  const y = Float64Array.from(x);
  for (let at = 0; at < y.length; at += C) {
    const row = y.subarray(at, at + C), mean = row.reduce((a, v) => a + v, 0) / C;
    const variance = row.reduce((a, v) => a + (v - mean) ** 2, 0) / C;
    row.forEach((v, i) => row[i] = (v - mean) / Math.sqrt(variance + eps));
  }
  return y;
}

/** `x sigmoid(x)`. */
export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** GELU in its tanh form. */
export function gelu(x: number): number {
  return x / 2 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/** Each vector of D values of rows [H, D] at unit length, times sqrt(D) and gamma [H, D]. */
export function headRmsNorm(x: ArrayLike<number>, gamma: ArrayLike<number>, D: number): Float64Array {
  return Float64Array.from(x, (v, i) => {
    const from = i - i % D;
    let squares = 0;
    for (let j = 0; j < D; j++) squares += x[from + j] ** 2;
    return v / Math.sqrt(squares) * gamma[i % gamma.length] * Math.sqrt(D);
  });
}

/** `softmax(q kᵀ / sqrt(D)) v` of one sample: q [L, H, D], k and v [M, H, D] give [L, H, D]. */
export function attention(q: ArrayLike<number>, k: ArrayLike<number>, v: ArrayLike<number>, H: number, D: number): Float64Array {
  const C = H * D, L = q.length / C, M = k.length / C, y = new Float64Array(L * C);
  for (let l = 0; l < L; l++) {
    for (let h = 0; h < H; h++) {
      const weights = Array.from({ length: M }, (_, m) => {
        let score = 0;
        for (let d = 0; d < D; d++) score += q[l * C + h * D + d] * k[m * C + h * D + d];
        return Math.exp(score / Math.sqrt(D));
      });
      const total = weights.reduce((a, w) => a + w, 0);
      for (let d = 0; d < D; d++) {
        for (let m = 0; m < M; m++) y[l * C + h * D + d] += weights[m] / total * v[m * C + h * D + d];
      }
    }
  }
  return y;
}

/** Columns `from` up to `from + count` of rows of `width`. */
export function columns(x: ArrayLike<number>, width: number, from: number, count: number): Float64Array {
  return Float64Array.from({ length: x.length / width * count }, (_, i) => x[Math.floor(i / count) * width + from + i % count]);
}

/** Multi-head self-attention of one sample x [L, C], parameters under `prefix`. */
export function selfAttention(p: Named, prefix: string, x: ArrayLike<number>, C: number, H: number): Float64Array {
  const qkv = linear(x, p[`${prefix}to_qkv.weight`], p[`${prefix}to_qkv.bias`]), part = (i: number) => columns(qkv, 3 * C, i * C, C);
  const normed = (i: number, name: string): Float64Array => {
    const gamma = p[`${prefix}${name}.gamma`];
    return gamma ? headRmsNorm(part(i), gamma, C / H) : part(i);
  };
  const y = attention(normed(0, "q_rms_norm"), normed(1, "k_rms_norm"), part(2), H, C / H);
  return linear(y, p[`${prefix}to_out.weight`], p[`${prefix}to_out.bias`]);
}

/** Multi-head attention of one sample x [L, C] to a context [M, X], parameters under `prefix`. */
export function crossAttention(
  p: Named,
  prefix: string,
  x: ArrayLike<number>,
  context: ArrayLike<number>,
  C: number,
  H: number,
): Float64Array {
  const kv = linear(context, p[`${prefix}to_kv.weight`], p[`${prefix}to_kv.bias`]),
    q = linear(x, p[`${prefix}to_q.weight`], p[`${prefix}to_q.bias`]);
  const normed = (values: Float64Array, name: string): Float64Array => {
    const gamma = p[`${prefix}${name}.gamma`];
    return gamma ? headRmsNorm(values, gamma, C / H) : values;
  };
  const y = attention(normed(q, "q_rms_norm"), normed(columns(kv, 2 * C, 0, C), "k_rms_norm"), columns(kv, 2 * C, C, C), H, C / H);
  return linear(y, p[`${prefix}to_out.weight`], p[`${prefix}to_out.bias`]);
}

/** Linear, GELU, linear, parameters under `prefix`. */
export function feedForward(p: Named, prefix: string, x: ArrayLike<number>): Float64Array {
  const h = linear(x, p[`${prefix}mlp.0.weight`], p[`${prefix}mlp.0.bias`]).map(gelu);
  return linear(h, p[`${prefix}mlp.2.weight`], p[`${prefix}mlp.2.bias`]);
}
