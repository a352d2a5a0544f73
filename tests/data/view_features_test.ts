import assert from "node:assert/strict";
import { openDataset } from "../../lib/data/dataset.ts";
import { bilinearTaps, extractViewFeatures, sampleMap, seenVoxels, type ViewEncoder, viewFeatures } from "../../lib/data/view_features.ts";
import { readFeatures } from "../../lib/data/latents.ts";
import { assetPaths } from "../../lib/data/layout.ts";
import { readMetadata } from "../../lib/data/metadata.ts";
import { prepareDataset } from "../../lib/data/prepare.ts";
import type { Image } from "../../lib/io/image.ts";
import { readVoxels } from "../../lib/io/ply.ts";
import { type Dino, type DinoArgs, dinoPatches, dinoSpec } from "../../lib/models/image_encoder.ts";
import { initialize } from "../../lib/nn/parameters.ts";
import { orbitCamera, projectPoint, renderCameras } from "../../lib/render/camera.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { noGrad } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, random } from "../check.ts";
import { randomize } from "../gradients.ts";
import { withFolder } from "./assets.ts";

const ARGS: DinoArgs = { img_size: 20, patch_size: 4, embed_dim: 6, depth: 1, num_heads: 2, mlp_ratio: 2, num_register_tokens: 2 },
  S = 20,
  P = 5;

function smallDino(): Dino {
  const spec = dinoSpec(ARGS), params = initialize(spec, new Generator(1));
  randomize(params, spec);
  return { args: ARGS, params };
}

function encoderOf(model: Dino): ViewEncoder {
  return { channels: ARGS.embed_dim, encode: (pictures) => dinoPatches(model, pictures) };
}

/** Bilinear sampling as defined: pixel centres at half integers, 0 outside. */
function sample(map: Float32Array, C: number, u: number, v: number): number[] {
  const x = u * P - 0.5, y = v * P - 0.5, out = new Array(C).fill(0);
  for (let j = 0; j < P; j++) {
    for (let i = 0; i < P; i++) {
      const w = Math.max(0, 1 - Math.abs(x - i)) * Math.max(0, 1 - Math.abs(y - j));
      for (let c = 0; c < C; c++) out[c] += w * map[(j * P + i) * C + c];
    }
  }
  return out;
}

Deno.test("sampleMap() is bilinear between pixel centres, with zeros outside", () => {
  const places = [[0.5, 0.5], [0.31, 0.77], [0, 0], [1, 0.4], [1.05, 0.5], [-0.3, 2], [0.1, 0.9]].map(([u, v]) => ({ u, v })), C = 3;
  const map = random(1, P * P * C), factor = random(2, places.length);
  step(() => {
    const got = sampleMap(tensor(map, [P * P, C]), places, factor).read();
    assertClose("samples", got, places.flatMap(({ u, v }, n) => sample(map, C, u, v).map((x) => x * factor[n])));
  });
  assert.equal(bilinearTaps([{ u: 5, v: 5 }], P).every(({ rows }) => rows[0] === -1), true);
});

Deno.test("viewFeatures() are the patches' tokens where voxels lie, averaged over views", () => {
  const model = smallDino(), coords = Int32Array.of(0, 0, 0, 3, 7, 2, 7, 7, 7), R = 8, cameras = renderCameras(3, () => 0.3);
  const images = cameras.map((_, i): Image => ({
    width: S,
    height: S,
    channels: 4,
    data: Uint8Array.from(random(i, S * S * 4), (v) => 128 + 127 * v),
  }));
  const tokens = images.map(({ data }) =>
    step(() =>
      noGrad(() => {
        const planes = Float32Array.from({ length: 3 * S * S }, (_, at) => {
          const i = at % (S * S), c = Math.floor(at / S / S);
          return data[i * 4 + c] / 255 * data[i * 4 + 3] / 255;
        });
        return dinoPatches(model, tensor(planes, [1, 3, S, S])).read();
      })
    )
  );
  const want = [0, 1, 2].flatMap((n) => {
    const centre = [0, 1, 2].map((d) => (coords[3 * n + d] + 0.5) / R - 0.5), sum = new Array(6).fill(0);
    cameras.forEach((camera, i) => {
      const { u, v } = projectPoint(camera, centre);
      sample(tokens[i], 6, u, v).forEach((x, c) => sum[c] += x / 3);
    });
    return sum;
  });
  for (const together of [1, 2, 8]) {
    const got = viewFeatures(encoderOf(model), coords, cameras, (i) => images[i], { resolution: R, imageSize: S, together });
    assertClose(`${together} at a time`, got, want, { rtol: 1e-4, atol: 1e-5 });
  }
  assert.notDeepEqual(
    viewFeatures(encoderOf(model), coords, cameras, (i) => images[i], { resolution: R, imageSize: S, visible: true }),
    want,
  );
});

Deno.test("seenVoxels() tells what others hide", () => {
  const wall: number[] = [];
  for (let y = 0; y < 8; y++) for (let z = 0; z < 8; z++) wall.push(6, y, z);
  const coords = Int32Array.from([...wall, 2, 4, 4]),
    front = orbitCamera({ yaw: 0, pitch: 0 }, 2, 0.7),
    back = orbitCamera({ yaw: Math.PI, pitch: 0 }, 2, 0.7);
  const [before, behind] = seenVoxels(coords, 8, [front, back]);
  assert.deepEqual([before.slice(0, 64).every((s) => s === 1), before[64], behind[64]], [true, 0, 1]);
  assert.equal(behind[4 * 8 + 4], 0);
});

Deno.test("extractViewFeatures() makes what is missing, marks it, and names what is unusable", async () => {
  await withFolder({}, async (root) => {
    await prepareDataset({ output: root, objects: 3, views: 0, renders: 3, renderSize: 24, resolution: 16, workers: 0, device: "cpu" });
    const { items } = openDataset(root), model = smallDino(), options = { resolution: 16, name: "small", imageSize: S };
    const bad = assetPaths(root, items[1].sha256).renders.view(1), faults: string[] = [], seen: number[] = [];
    Deno.writeFileSync(bad, new Uint8Array(5));
    const made = await extractViewFeatures(encoderOf(model), items, {
      ...options,
      onFault: (item, error) => faults.push(`${item.name} ${error.message}`),
      onProgress: (done) => seen.push(done),
    });
    assert.deepEqual([made, seen, faults.length], [2, [1, 3], 1]);
    assert.match(faults[0], /001\.png/);
    assert.deepEqual([...readMetadata(root).values()].map((row) => row.feature_small ?? ""), ["True", "", "True"]);
    const { coords, feats } = readFeatures(assetPaths(root, items[0].sha256).features("small"));
    assert.deepEqual([coords, feats.length], [readVoxels(assetPaths(root, items[0].sha256).voxels, 16), coords.length * 2]);
    assert.equal(await extractViewFeatures(encoderOf(model), [items[0], items[2]], options), 0);
    await assert.rejects(() => extractViewFeatures(encoderOf(model), items, options), /001\.png/);
  });
});
