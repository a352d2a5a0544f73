/** The SLat encoder and decoders: what the reference files do not show. */
import assert from "node:assert/strict";
import { PUBLISHED_SLAT_GAUSSIAN_DECODER } from "../../lib/models/published.ts";
import { slatDecodeGaussians, type SlatGaussianDecoderArgs, slatGaussianDecoderSpec } from "../../lib/models/slat_decoder_gaussian.ts";
import { MESH_COLUMNS, slatDecodeMesh, type SlatMeshDecoderArgs, slatMeshDecoderSpec } from "../../lib/models/slat_decoder_mesh.ts";
import { slatDecodeRadiance, type SlatRadianceDecoderArgs, slatRadianceDecoderSpec } from "../../lib/models/slat_decoder_radiance.ts";
import { slatEncode, type SlatEncoderArgs, slatEncoderSpec } from "../../lib/models/slat_encoder.ts";
import { initialize, leaves, type Parameters, type ParameterSpec } from "../../lib/nn/parameters.ts";
import type { SparseTransformerArgs } from "../../lib/nn/sparse_transformer.ts";
import { concat, reshape } from "../../lib/ops/movement.ts";
import { makeVoxels, type SparseTensor } from "../../lib/sparse/voxels.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { persist, step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";
import { scatter } from "../voxels.ts";

const TRUNK: SparseTransformerArgs = { resolution: 8, model_channels: 12, num_blocks: 2, num_heads: 2, mlp_ratio: 2, window_size: 4 };
const ENCODER: SlatEncoderArgs = { ...TRUNK, in_channels: 3, latent_channels: 2 };
const GAUSSIAN: SlatGaussianDecoderArgs = {
  ...TRUNK,
  latent_channels: 2,
  representation_config: { ...PUBLISHED_SLAT_GAUSSIAN_DECODER.representation_config, num_gaussians: 4 },
};
const RADIANCE: SlatRadianceDecoderArgs = { ...TRUNK, latent_channels: 2, representation_config: { rank: 2, dim: 3 } };
const MESH: SlatMeshDecoderArgs = {
  ...TRUNK,
  model_channels: 256,
  num_blocks: 1,
  latent_channels: 2,
  representation_config: { use_color: false },
};

const COORDS = scatter(1, [4, 0, 6], 8), N = COORDS.length / 4;
const voxels = persist(() => makeVoxels(COORDS));

function input(C: number): SparseTensor {
  return { features: tensor(random(C, N * C), [N, C], { requiresGrad: true }), voxels };
}

/** A model with random parameters. */
function make<A, S>(args: A, spec: S): { args: A; dtype: "f32"; params: Parameters<S>; spec: S } {
  const params = initialize(spec, new Generator(1));
  randomize(params, spec);
  return { args, dtype: "f32", params, spec };
}

function free(params: unknown): void {
  for (const [, p] of leaves<Tensor>(params)) p.free();
}

/** All outputs in one. */
function joined(...parts: Tensor[]): Tensor {
  return concat(parts.map((t) => reshape(t, [t.size])), 0);
}

Deno.test("slatEncode() has a gradient that is its differences, and starts at zero", () => {
  const model = make(ENCODER, slatEncoderSpec(ENCODER)), x = input(3), fresh = initialize(slatEncoderSpec(ENCODER), new Generator(2));
  checkGradients({ ...trained(model.params, model.spec), x: x.features }, () => {
    const { mean, logvar } = slatEncode(model, x);
    return joined(mean, logvar);
  });
  const start = step(() => [...slatEncode({ ...model, params: fresh }, x).mean.read()]);
  assert.ok(start.length === 2 * N && start.every((v) => v === 0));
  free(model.params), free(fresh);
});

Deno.test("slatDecodeGaussians() has a gradient that is its differences", () => {
  const model = make(GAUSSIAN, slatGaussianDecoderSpec(GAUSSIAN)), x = input(2);
  checkGradients({ ...trained(model.params, model.spec), x: x.features }, () => {
    const { xyz, featuresDc, scaling, rotation, opacity } = slatDecodeGaussians(model, x);
    return joined(xyz, featuresDc, scaling, rotation, opacity);
  });
  free(model.params);
});

Deno.test("slatDecodeGaussians() starts around the voxels' centres, at most 3/4 of a voxel away", () => {
  const params = initialize(slatGaussianDecoderSpec(GAUSSIAN), new Generator(1)),
    at = (perturb_offset: boolean) => {
      const args = { ...GAUSSIAN, representation_config: { ...GAUSSIAN.representation_config, perturb_offset } };
      return step(() => slatDecodeGaussians({ args, dtype: "f32", params }, input(2)).xyz.read());
    };
  const centres = Array.from({ length: N * 12 }, (_, i) => (COORDS[4 * Math.floor(i / 12) + 1 + i % 3] + 0.5) / 8);
  assertClose("centres", at(false), centres);
  const offsets = at(true).map((v, i) => Math.abs(v - centres[i]) * 8);
  assert.ok(offsets.every((d) => d <= 0.75) && Math.max(...offsets) > 0.4);
  free(params);
});

Deno.test("the Gaussians' offset_perturbation is the published one", () => {
  const { init } = slatGaussianDecoderSpec(PUBLISHED_SLAT_GAUSSIAN_DECODER).offset_perturbation as ParameterSpec & {
    init: { values: () => Float32Array };
  };
  const values = init.values(),
    rows: Record<number, number[]> = {
      0: [-0.804719, -0.804719, -0.804719],
      1: [-0.7331685, 0, -0.2259925],
      2: [-0.6675005, -0.3465736, 0.2259926],
      3: [-0.6065114, 0.3465736, -0.5743113],
      16: [0, -0.7331685, 0.1240898],
      31: [0.7331685, 0.7331685, -0.05767705],
    };
  for (const [i, row] of Object.entries(rows)) {
    assertClose(`row ${i}`, values.subarray(3 * Number(i), 3 * Number(i) + 3), row, { atol: 2e-7 });
  }
  assertClose("their sum", [values.reduce((a, v) => a + v, 0)], [-3.764906], { rtol: 1e-6 });
});

Deno.test("slatDecodeRadiance() has a gradient that is its differences, and its fields are the columns in order", () => {
  const model = make(RADIANCE, slatRadianceDecoderSpec(RADIANCE)), x = input(2);
  checkGradients({ ...trained(model.params, model.spec), x: x.features }, () => {
    const { trivec, density, featuresDc } = slatDecodeRadiance(model, x);
    return joined(trivec, density, featuresDc);
  });
  step(() => {
    const { raw, trivec, density, featuresDc, position } = slatDecodeRadiance(model, x), columns = raw.read();
    assert.deepEqual([raw.shape, trivec.shape, density.shape, featuresDc.shape], [[N, 26], [N, 2, 3, 3], [N, 2], [N, 2, 1, 3]]);
    assertClose("trivec", trivec.read().slice(0, 18), columns.slice(0, 18).map((v) => v + 1));
    assert.deepEqual(density.read().slice(2, 4), columns.slice(26 + 18, 26 + 20));
    assert.deepEqual(featuresDc.read().slice(0, 6), columns.slice(20, 26));
    assertClose("position", position.read(), COORDS.filter((_, i) => i % 4).map((c) => c).values().map((c) => (c + 0.5) / 8).toArray());
  });
  free(model.params);
});

Deno.test("slatDecodeMesh() has a gradient that is its differences, however its 1x1x1 convolutions are read", () => {
  const model = make(MESH, slatMeshDecoderSpec(MESH)), x = input(2), wrt = { ...behindTrunk(model), x: x.features };
  for (const pointwise of ["spconv", "plain"] as const) {
    checkGradients(wrt, () => slatDecodeMesh(model, x, { pointwise }).features);
  }
  const run = (pointwise?: "spconv" | "plain") => step(() => noGrad(() => slatDecodeMesh(model, x, { pointwise }).features.read()));
  assert.deepEqual(run(), run("spconv"));
  assert.notDeepEqual(run("plain"), run("spconv"));
  free(model.params);
});

/** The parameters behind the trunk that are small enough to difference. */
function behindTrunk(model: { params: unknown; spec: unknown }): Record<string, Tensor> {
  const zero = "upsample.1.out_layers.0.conv.bias"; // removed by the norm behind it
  const parts = Object.entries(trained(model.params, model.spec)).filter(([path, t]) => {
    return t.requiresGrad = path.startsWith("upsample") && path !== zero && t.size < 20000;
  });
  return Object.fromEntries(parts);
}

Deno.test("slatDecodeMesh() gives 64 cubes a voxel, 53 columns or 101 with color", () => {
  assert.deepEqual(MESH_COLUMNS, { sdf: [0, 8], deform: [8, 32], weights: [32, 53], color: [53, 101] });
  for (const [use_color, columns] of [[true, 101], [false, 53], [undefined, 53]] as const) {
    const args = { ...MESH, representation_config: { use_color } }, params = initialize(slatMeshDecoderSpec(args), new Generator(1));
    step(() => {
      const { features, voxels: fine } = slatDecodeMesh({ args, dtype: "f32", params }, input(2));
      assert.deepEqual([features.shape, fine.N, fine.side], [[64 * N, columns], 64 * N, 4 * voxels.side]);
    });
    free(params);
  }
});

Deno.test("the SLat models take one voxel and none", () => {
  const encoder = make(ENCODER, slatEncoderSpec(ENCODER)), gaussian = make(GAUSSIAN, slatGaussianDecoderSpec(GAUSSIAN));
  const radiance = make(RADIANCE, slatRadianceDecoderSpec(RADIANCE)), mesh = make(MESH, slatMeshDecoderSpec(MESH));
  for (const coords of [new Int32Array(0), Int32Array.of(0, 7, 0, 3)]) {
    step(() => {
      const at = makeVoxels(coords, { B: 2 }),
        x = (C: number): SparseTensor => ({ features: tensor(random(1, at.N * C), [at.N, C]), voxels: at });
      const all = [
        slatEncode(encoder, x(3)).mean,
        slatDecodeGaussians(gaussian, x(2)).xyz,
        slatDecodeRadiance(radiance, x(2)).raw,
        slatDecodeMesh(mesh, x(2)).features,
      ];
      assert.deepEqual(all.map((t) => t.shape), [[at.N, 2], [4 * at.N, 3], [at.N, 26], [64 * at.N, 53]]);
      for (const t of all) assert.ok(t.read().every(Number.isFinite));
    });
  }
  for (const { params } of [encoder, gaussian, radiance, mesh]) free(params);
});

Deno.test("the SLat models refuse options and inputs that do not fit", () => {
  assert.throws(() => slatMeshDecoderSpec({ ...MESH, model_channels: 128 }), {
    message: "Cannot make SLatMeshDecoder: model_channels is 128, it must be a multiple of 256",
  });
  assert.throws(() => slatEncoderSpec({ ...ENCODER, num_heads: 7 }), /^RangeError: Cannot make SLatEncoder: num_heads is 7/);
  const model = make(ENCODER, slatEncoderSpec(ENCODER));
  assert.throws(() => step(() => void slatEncode(model, input(4))), {
    message: `Cannot run sparseTransformer: features is [${N},4], it must be [${N},3]`,
  });
  free(model.params);
});
