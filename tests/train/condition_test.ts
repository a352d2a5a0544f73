import assert from "node:assert/strict";
import { latentHead, openCondition } from "../../lib/train/condition.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";
import { assertRefused } from "../io/corrupt.ts";

const ARGS = { image_size: 8, patch_size: 4, channels: 8, num_blocks: 1, num_heads: 2 };

Deno.test("openCondition() makes a patch encoder, which encodes once it has parameters", () => {
  const bare = openCondition({ encoder: "patch", ...ARGS }), picture = random(3, 3 * 64);
  assert.deepEqual([bare.channels, bare.config.image_size, bare.trained], [8, 8, undefined]);
  const tokens = (c: typeof bare) => step(() => [...c.encode(tensor(picture, [1, 3, 8, 8])).read()]);
  assertRefused(() => tokens(bare), "it has no parameters, withParameters() must give them");
  const [a, b] = [1, 2].map((seed) => initialize(bare.spec!, new Generator(seed)));
  const first = bare.withParameters(a), second = first.withParameters(b), before = tokens(first);
  assert.equal(before.length, 4 * 8);
  assert.notDeepEqual(tokens(second), before);
  assert.deepEqual(tokens(first), before, "the first one stays as it is");
  assert.equal(second.trained, b);
  for (const tree of [a, b]) for (const [, t] of leaves<Tensor>(tree)) t.free();
});

Deno.test("openCondition() says where the weights of DINOv2 should be", () => {
  const config = { encoder: "dinov2_vitl14_reg", weights: "/nowhere/dino.safetensors", image_size: 518 } as const;
  assertRefused(() => openCondition(config), "/nowhere/dino.safetensors: there is no such file");
});

Deno.test("latentHead() is for encoders with a grid of tokens", () => {
  const latent = { channels: 2, resolution: 4 }, dino = { encoder: "dinov2_vitl14_reg", weights: "", image_size: 518 } as const;
  assert.deepEqual(latentHead({ encoder: "patch", ...ARGS, grid_size: 2 }, latent).spec.weight.shape, [16, 8]);
  assertRefused(() => latentHead({ encoder: "patch", ...ARGS }, latent), "grid_size is 0, it must be above 0");
  assertRefused(() => latentHead(dino, latent), "the encoder is dinov2_vitl14_reg, it must be patch with a grid_size");
});
