/** SS-Flow as it is without flash attention: scores of all pairs of tokens in memory. To measure against. */
import { PUBLISHED_SS_FLOW } from "../lib/models/published.ts";
import { ssFlowSpec } from "../lib/models/ss_flow.ts";
import { type ModulatedCrossBlockSpec, runBlocks } from "../lib/nn/block.ts";
import { applyLinear, feedForward } from "../lib/nn/linear.ts";
import { initialize, type Parameters } from "../lib/nn/parameters.ts";
import { embedTimestep } from "../lib/nn/timestep.ts";
import { cast } from "../lib/ops/cast.ts";
import { add, affine, div, exp, mul, scale, silu, sub } from "../lib/ops/elementwise.ts";
import { layerNorm } from "../lib/ops/layer_norm.ts";
import { mse } from "../lib/ops/loss.ts";
import { matmul } from "../lib/ops/matmul.ts";
import { gateAdd, layerNormModulate } from "../lib/ops/modulate.ts";
import { modulationParts } from "../lib/ops/norm.ts";
import { permute, reshape, unbind } from "../lib/ops/movement.ts";
import { sum } from "../lib/ops/reduce.ts";
import { residualNorm } from "../lib/ops/residual_norm.ts";
import { headRmsNorm } from "../lib/ops/rms_norm.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../lib/optim/optimizer.ts";
import { Generator } from "../lib/tensor/random.ts";
import { persist, step, tidy } from "../lib/tensor/scope.ts";
import { backward, noGrad, record } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { startAtRandom, type Work } from "./flow_models.ts";

const EPS = 1e-6, TOKENS = 1374;

/** Softmax of `by` s over the last axis, which keeps its result alone. Scores must be small: the largest is not taken off. */
function softmax(s: Tensor, by: number): Tensor {
  const over = (t: Tensor): Tensor => sum(t, { axes: [-1], keepDims: true });
  const p = tidy(() =>
    noGrad(() => {
      const e = exp(affine(s, { scale: by }));
      return div(e, over(e));
    })
  );
  return record("softmax", p, [s], [p], (dp) => {
    const weighted = mul(dp, p), inner = sub(weighted, mul(p, over(weighted)));
    return [scale(inner, by)];
  });
}

/** q [B, L, H, D], k and v [B, M, H, D] give [B, L, H D], by way of scores [B, H, L, M]. */
function naiveAttention([q, k, v]: Tensor[]): Tensor {
  const [B, L, H, D] = q.shape, [qh, kh, vh] = [q, k, v].map((t) => permute(t, [0, 2, 1, 3]));
  const p = softmax(matmul(qh, kh, { transposeB: true }), 1 / Math.sqrt(D));
  return reshape(permute(matmul(p, vh), [0, 2, 1, 3]), [B, L, H * D]);
}

function naiveBlock(p: Parameters<ModulatedCrossBlockSpec>, x: Tensor, mod: Tensor, context: Tensor, H: number): Tensor {
  const [B, L, C] = x.shape, D = C / H, M = context.shape[1], { self_attn: self, cross_attn: cross } = p, at = { eps: EPS };
  const [shiftA, scaleA, gateA, shiftM, scaleM, gateM] = modulationParts(applyLinear(p.adaLN_modulation![1], silu(mod)), 6);
  const qkv = reshape(applyLinear(self.to_qkv, layerNormModulate(x, shiftA, scaleA, at)), [B, L, 3, H, D]);
  let h = applyLinear(self.to_out, naiveAttention(unbind(headRmsNorm(qkv, [self.q_rms_norm!.gamma, self.k_rms_norm!.gamma]), 2)));
  [x, h] = residualNorm(x, h, gateA, { w: p.norm2.weight, b: p.norm2.bias, ...at });
  const q = reshape(applyLinear(cross.to_q, h), [B, L, H, D]), kv = reshape(applyLinear(cross.to_kv, context), [B, M, 2, H, D]);
  h = applyLinear(cross.to_out, naiveAttention([q, ...unbind(kv, 2)]));
  [x, h] = residualNorm(x, h, null, { shift: shiftM, scale: scaleM, ...at });
  return gateAdd(x, feedForward(p.mlp, h), gateM);
}

/** SS-Flow image-L on tokens that are cut already. */
export function naiveSsFlowWork({ batch: B }: { batch: number }): Work {
  const args = { ...PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16, use_fp16: false }, specs = ssFlowSpec(args, "bf16");
  const { resolution: R, in_channels: C, cond_channels: X, num_heads, model_channels, num_head_channels = 64 } = args;
  const L = R ** 3, H = num_heads ?? model_channels / num_head_channels;
  startAtRandom(specs);
  return persist(() => {
    const optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS), p = optimizer.params;
    const random = new Generator(2), [x, target] = [1, 2].map(() => random.normal([B, L, C])), cond = random.normal([B, TOKENS, X]);
    const t = tensor(Float32Array.from({ length: B }, (_, i) => 1000 * (i + 0.5) / B), [B]);
    return {
      name: `SS-Flow image-L bf16 batch ${B}, naive attention`,
      optimizer,
      flops: 0,
      pass: ({ recompute = 0 } = {}) =>
        step(() => {
          const h = tidy(() => cast(add(applyLinear(p.input_layer, x), p.pos_emb), "bf16"));
          const mod = tidy(() => cast(embedTimestep(p.t_embedder, t), "bf16")), context = cast(cond, "bf16");
          const y = runBlocks(p.blocks, [h, mod, context], recompute, (block, _, h, mod, context) => naiveBlock(block, h, mod, context, H));
          const loss = tidy(() => mse(applyLinear(p.out_layer, layerNorm(cast(y, "f32"), { eps: 1e-5 })), target));
          backward(loss);
          return loss;
        }),
      free() {
        optimizer.free();
        for (const t of [x, target, cond]) t.free();
      },
    };
  });
}
