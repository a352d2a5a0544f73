import { ssDecode, type SsDecoderArgs, ssDecoderSpec, ssEncode, type SsEncoderArgs, ssEncoderSpec } from "../../lib/models/ss_vae.ts";
import { add, mul } from "../../lib/ops/elementwise.ts";
import { mean } from "../../lib/ops/reduce.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { referenceTest } from "../reference.ts";

for (const norm of ["layer", "group"]) {
  referenceTest(`ssEncode() equals ss_encoder_${norm}`, `ss_encoder_${norm}.safetensors`, (r) => {
    const args = r.meta<SsEncoderArgs>("args"), params = r.parameters(ssEncoderSpec(args));
    step(() => {
      const x = r.tensor("inputs/x", true), posterior = ssEncode({ args, dtype: "f32", params }, x);
      r.expect("outputs/mean", posterior.mean);
      r.expect("outputs/logvar", posterior.logvar);
      const loss = mean(mul(add(posterior.mean, mul(posterior.logvar, 0.5)), r.tensor("inputs/probe")));
      r.expect("loss", loss);
      backward(loss);
      r.expectGradients(params);
      r.expect("input_grads/x", x.grad!, 1e-3);
    });
  });
  referenceTest(`ssDecode() equals ss_decoder_${norm}`, `ss_decoder_${norm}.safetensors`, (r) => {
    const args = r.meta<SsDecoderArgs>("args"), params = r.parameters(ssDecoderSpec(args));
    step(() => {
      const z = r.tensor("inputs/z", true), logits = ssDecode({ args, dtype: "f32", params }, z);
      r.expect("outputs/logits", logits);
      const loss = mean(mul(logits, r.tensor("inputs/probe")));
      r.expect("loss", loss);
      backward(loss);
      r.expectGradients(params);
      r.expect("input_grads/z", z.grad!, 1e-3);
    });
  });
}
