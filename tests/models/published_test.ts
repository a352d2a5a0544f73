/** The published models: counts from closed forms here, names, shapes and dtypes against the reference tables where they are. */
import assert from "node:assert/strict";
import { ssFlowSpec } from "../../lib/models/ss_flow.ts";
import { ssDecoderSpec, ssEncoderSpec } from "../../lib/models/ss_vae.ts";
import { dinoSpec, DINOV2_VITL14_REG } from "../../lib/models/image_encoder.ts";
import { countParameters, leaves, type ParameterSpec } from "../../lib/nn/parameters.ts";
import {
  PUBLISHED_SLAT_ENCODER,
  PUBLISHED_SLAT_FLOW,
  PUBLISHED_SLAT_GAUSSIAN_DECODER,
  PUBLISHED_SLAT_MESH_DECODER,
  PUBLISHED_SLAT_RADIANCE_DECODER,
  PUBLISHED_SS_DECODER,
  PUBLISHED_SS_ENCODER,
  PUBLISHED_SS_FLOW,
} from "../../lib/models/published.ts";
import { slatGaussianDecoderSpec } from "../../lib/models/slat_decoder_gaussian.ts";
import { slatMeshDecoderSpec } from "../../lib/models/slat_decoder_mesh.ts";
import { slatRadianceDecoderSpec } from "../../lib/models/slat_decoder_radiance.ts";
import { slatEncoderSpec } from "../../lib/models/slat_encoder.ts";
import { slatFlowSpec } from "../../lib/models/slat_flow.ts";

const TABLES = Deno.env.get("ESPALIER_STATE_DICTS") ?? new URL("../../../shared/spec/state_dicts", import.meta.url).pathname;

const MODELS: [name: string, spec: unknown, tensors: number, parameters: number][] = [
  ["ss_flow_img_dit_L_16l8_fp16.denoiser", ssFlowSpec(PUBLISHED_SS_FLOW.ss_flow_img_dit_L_16l8_fp16), 489, 555_543_560],
  ["ss_flow_txt_dit_B_16l8_fp16.denoiser", ssFlowSpec(PUBLISHED_SS_FLOW.ss_flow_txt_dit_B_16l8_fp16), 249, 156_726_536],
  ["ss_flow_txt_dit_L_16l8_fp16.denoiser", ssFlowSpec(PUBLISHED_SS_FLOW.ss_flow_txt_dit_L_16l8_fp16), 489, 542_960_648],
  ["ss_flow_txt_dit_XL_16l8_fp16.denoiser", ssFlowSpec(PUBLISHED_SS_FLOW.ss_flow_txt_dit_XL_16l8_fp16), 625, 975_440_648],
  ["ss_vae_conv3d_16l8_fp16.encoder", ssEncoderSpec(PUBLISHED_SS_ENCODER), 74, 59_298_192],
  ["ss_vae_conv3d_16l8_fp16.decoder", ssDecoderSpec(PUBLISHED_SS_DECODER), 74, 73_671_201],
  ["slat_flow_img_dit_L_64l8p2_fp16.denoiser", slatFlowSpec(PUBLISHED_SLAT_FLOW.slat_flow_img_dit_L_64l8p2_fp16), 526, 600_432_520],
  ["slat_flow_txt_dit_B_64l8p2_fp16.denoiser", slatFlowSpec(PUBLISHED_SLAT_FLOW.slat_flow_txt_dit_B_64l8p2_fp16), 286, 185_364_616],
  ["slat_flow_txt_dit_L_64l8p2_fp16.denoiser", slatFlowSpec(PUBLISHED_SLAT_FLOW.slat_flow_txt_dit_L_64l8p2_fp16), 526, 587_849_608],
  ["slat_flow_txt_dit_XL_64l8p2_fp16.denoiser", slatFlowSpec(PUBLISHED_SLAT_FLOW.slat_flow_txt_dit_XL_64l8p2_fp16), 624, 1_073_414_408],
  ["slat_vae_enc_dec_gs_swin8_B_64l8_fp16.encoder", slatEncoderSpec(PUBLISHED_SLAT_ENCODER), 100, 85_817_104],
  ["slat_vae_enc_dec_gs_swin8_B_64l8_fp16.decoder", slatGaussianDecoderSpec(PUBLISHED_SLAT_GAUSSIAN_DECODER), 101, 85_369_024],
  ["slat_vae_dec_rf_swin8_B_64l8_fp16.decoder", slatRadianceDecoderSpec(PUBLISHED_SLAT_RADIANCE_DECODER), 100, 85_369_024],
  ["slat_vae_dec_mesh_swin8_B_64l8_fp16.decoder", slatMeshDecoderSpec(PUBLISHED_SLAT_MESH_DECODER), 120, 90_926_693],
];

for (const [name, spec, tensors, parameters] of MODELS) {
  Deno.test(`${name} has the published number of tensors and parameters`, () => {
    assert.equal(leaves(spec).length, tensors);
    assert.equal(countParameters(spec), parameters);
  });

  let table: string | undefined;
  try {
    table = Deno.readTextFileSync(`${TABLES}/${name}.tsv`);
  } catch { /* skipped below */ }
  Deno.test({
    name: `${name} has the reference's names, shapes and dtypes${table ? "" : " (skipped: the tables are not here)"}`,
    ignore: !table,
    fn: () => {
      const code = { f32: "F32", f16: "F16", bf16: "BF16" };
      const ours = leaves<ParameterSpec>(spec).map(([path, s]) =>
        [path, `[${s.shape.join(", ")}]`, code[s.dtype], s.buffer ? "buffer" : "param"].join("\t")
      );
      assert.deepEqual(ours.sort(), table!.trim().split("\n").sort());
    },
  });
}

Deno.test("dinov2_vitl14_reg has the published number of parameters", () => {
  assert.equal(countParameters(dinoSpec(DINOV2_VITL14_REG)), 304_372_736);
});
