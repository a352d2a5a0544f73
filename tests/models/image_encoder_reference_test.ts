import { type DinoArgs, dinoNorm, dinoSpec, dinoTokens } from "../../lib/models/image_encoder.ts";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { slice } from "../../lib/ops/movement.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { referenceTest } from "../reference.ts";

for (const size of [70, 98]) {
  referenceTest(`dinoTokens() equals dinov2_reg at ${size} pixels`, "dinov2_reg.safetensors", (r) => {
    const args = r.meta<DinoArgs>("args"), model = { args, params: r.parameters(dinoSpec(args)) };
    step(() =>
      noGrad(() => {
        const tokens = dinoTokens(model, r.tensor(`inputs/image_${size}`)), first = 1 + args.num_register_tokens;
        r.expect(`outputs/x_prenorm_${size}`, tokens);
        r.expect(`outputs/cond_${size}`, layerNorm(tokens, { eps: 1e-5 }));
        r.expect(`outputs/x_norm_patchtokens_${size}`, slice(dinoNorm(model, tokens), 1, first, tokens.shape[1]));
      })
    );
  });
}
