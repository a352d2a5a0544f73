/** The SLat models against the reference's own outputs and gradients. */
import { slatDecodeGaussians, type SlatGaussianDecoderArgs, slatGaussianDecoderSpec } from "../../lib/models/slat_decoder_gaussian.ts";
import { slatDecodeMesh, type SlatMeshDecoderArgs, slatMeshDecoderSpec } from "../../lib/models/slat_decoder_mesh.ts";
import { slatDecodeRadiance, type SlatRadianceDecoderArgs, slatRadianceDecoderSpec } from "../../lib/models/slat_decoder_radiance.ts";
import { slatEncode, type SlatEncoderArgs, slatEncoderSpec } from "../../lib/models/slat_encoder.ts";
import { slatFlow, type SlatFlowArgs, slatFlowSpec } from "../../lib/models/slat_flow.ts";
import { add, mul, square } from "../../lib/ops/elementwise.ts";
import { mean } from "../../lib/ops/reduce.ts";
import { makeVoxels, type SparseTensor } from "../../lib/sparse/voxels.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import type { Tensor } from "../../lib/tensor/tensor.ts";
import { assertClose } from "../check.ts";
import { type Reference, referenceTest } from "../reference.ts";

function inputOf(r: Reference): SparseTensor {
  const coords = new Int32Array(r.file.tensors.get("inputs/coords")!.bytes.slice().buffer);
  return { features: r.tensor("inputs/feats", true), voxels: makeVoxels(coords) };
}

/** Compares the loss, and after its backward pass the gradients; those of `zero` are zero in exact arithmetic. */
function expectLoss(r: Reference, loss: Tensor, params: unknown, x: SparseTensor, zero: string[] = []): void {
  r.expect("loss", loss);
  backward(loss);
  r.expectGradients(params, 1e-3, zero);
  r.expect("input_grads/feats", x.features.grad!, 1e-3);
}

for (const file of ["slat_encoder_full.safetensors", "slat_encoder_swin.safetensors"]) {
  for (const recompute of [0, 3]) {
    referenceTest(`slatEncode() equals ${file} with ${recompute} blocks recomputed`, file, (r) => {
      const args = r.meta<SlatEncoderArgs>("args"), params = r.parameters(slatEncoderSpec(args));
      step(() => {
        const x = inputOf(r), z = slatEncode({ args, dtype: "f32", params }, x, { recompute });
        r.expect("outputs/mean", z.mean);
        r.expect("outputs/logvar", z.logvar);
        expectLoss(r, mean(mul(add(z.mean, mul(z.logvar, 0.5)), r.tensor("inputs/probe"))), params, x);
      });
    });
  }
}

referenceTest("slatDecodeGaussians() equals slat_decoder_gs.safetensors", "slat_decoder_gs.safetensors", (r) => {
  const args = r.meta<SlatGaussianDecoderArgs>("args"), params = r.parameters(slatGaussianDecoderSpec(args));
  step(() => {
    const x = inputOf(r), y = slatDecodeGaussians({ args, dtype: "f32", params }, x);
    r.expect("outputs/raw", y.raw);
    r.expect("outputs/xyz", y.xyz);
    r.expect("outputs/features_dc", y.featuresDc);
    r.expect("outputs/scaling", y.scaling);
    r.expect("outputs/rotation", y.rotation);
    r.expect("outputs/opacity", y.opacity);
    const probed = (t: Tensor, name: string): Tensor => mean(mul(t, r.tensor(`inputs/probe_${name}`)));
    const squares = [y.featuresDc, y.scaling, y.opacity].map((t) => mean(square(t)));
    expectLoss(r, squares.reduce(add, add(probed(y.xyz, "xyz"), probed(y.rotation, "rotation"))), params, x);
  });
});

referenceTest("slatDecodeRadiance() equals slat_decoder_rf.safetensors", "slat_decoder_rf.safetensors", (r) => {
  const args = r.meta<SlatRadianceDecoderArgs>("args"), params = r.parameters(slatRadianceDecoderSpec(args));
  step(() => {
    const x = inputOf(r), { raw } = slatDecodeRadiance({ args, dtype: "f32", params }, x);
    r.expect("outputs/raw", raw);
    expectLoss(r, mean(mul(raw, r.tensor("inputs/probe"))), params, x);
  });
});

referenceTest("slatDecodeMesh() equals slat_decoder_mesh.safetensors", "slat_decoder_mesh.safetensors", (r) => {
  const args = r.meta<SlatMeshDecoderArgs>("args"), params = r.parameters(slatMeshDecoderSpec(args));
  step(() => {
    const x = inputOf(r), y = slatDecodeMesh({ args, dtype: "f32", params }, x);
    const coords = new Int32Array(r.file.tensors.get("outputs/raw_coords")!.bytes.slice().buffer);
    assertClose("coords", y.voxels.coords.read(), coords, { rtol: 0, atol: 0.1 });
    r.expect("outputs/raw", y.features);
    expectLoss(r, mean(mul(y.features, r.tensor("inputs/probe"))), params, x, ["upsample.1.out_layers.0.conv.bias"]); // groups of 1
  });
});

for (const recompute of [0, 2]) {
  referenceTest(`slatFlow() equals slat_flow_p2_io.safetensors with ${recompute} blocks recomputed`, "slat_flow_p2_io.safetensors", (r) => {
    const args = r.meta<SlatFlowArgs>("args"), params = r.parameters(slatFlowSpec(args));
    step(() => {
      const x = inputOf(r), cond = r.tensor("inputs/cond", true);
      const v = slatFlow({ args, dtype: "f32", params }, x, r.tensor("inputs/t"), cond, { recompute });
      r.expect("outputs/v", v);
      expectLoss(r, mean(mul(v, r.tensor("inputs/probe"))), params, x);
      r.expect("input_grads/cond", cond.grad!, 1e-3);
    });
  });
}
