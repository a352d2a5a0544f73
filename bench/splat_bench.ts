/**
 * Times Gaussian splatting on CUDA at 512 x 512, forward and backward, in medians of CUDA events, beside gsplat in the same run (where python3
 * has torch and gsplat), and writes bench/results/splat.json. The limit is what has to be moved at 4.3 TB/s, each byte once: a Gaussian's 56
 * bytes and a splat's 48 forward, with the pictures; backward those, the gradients, and 40 bytes for each pair of splat and tile that is seen.
 *
 *   deno task bench bench/splat_bench.ts
 */
import { orbitCamera } from "../lib/render/camera.ts";
import { rasterize, type Splats } from "../lib/render/splat.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { Generator } from "../lib/tensor/random.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, time, timePeers } from "./harness.ts";

const SIZE = 512, FOV = 40 * Math.PI / 180, BANDWIDTH = 4.3e12;

/** Reproducible numbers in [0, 1). */
function createRandom(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Shell {
  perVoxel: number;
  opacity: [least: number, most: number];
  scale: number;
  objects?: number;
}

/** Gaussians around the voxels of spherical shells in 64³, as a decoder places them: 0.75 voxels around their centres. */
function shells({ perVoxel, opacity: [least, most], scale, objects = 1 }: Shell): Splats {
  const random = createRandom(1), between = (a: number, b: number) => a + (b - a) * random(), centres: number[] = [];
  for (let x = 0; x < 64; x++) {
    for (let y = 0; y < 64; y++) {
      for (let z = 0; z < 64; z++) {
        const far = Math.hypot(x - 31.5, y - 31.5, z - 31.5);
        if (far >= 28.23 && far <= 30) centres.push(x - 31.5, y - 31.5, z - 31.5);
      }
    }
  }
  const each = centres.length / 3 * perVoxel, N = each * objects;
  const fill = (width: number, value: (i: number, n: number) => number): Float32Array =>
    Float32Array.from({ length: N * width }, (_, i) => value(i % width, Math.floor(i / width)));
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return {
    positions: tensor(fill(3, (d, n) => (centres[3 * Math.floor(n % each / perVoxel) + d] + between(-0.75, 0.75)) / 64), [N, 3]),
    colors: tensor(fill(3, random), [N, 3]),
    opacities: tensor(fill(1, () => between(least, most)), [N]),
    scales: tensor(fill(3, () => scale * between(0.4, 1.6)), [N, 3]),
    rotations: tensor(fill(4, normal), [N, 4]),
    starts: Array.from({ length: objects + 1 }, (_, b) => b * each),
  };
}

function rows(peers: PeerTime[], name: string, scene: Shell, views: number): Row[] {
  return step(() => {
    const splats = shells(scene), objects = scene.objects ?? 1, N = splats.positions.shape[0];
    const cameras = Array.from(
      { length: objects },
      (_, b) => Array.from({ length: views }, (_, v) => orbitCamera({ yaw: 0.4 + b + 1.9 * v, pitch: 0.35 - 0.2 * v }, 2, FOV)),
    );
    const inputs = [splats.positions, splats.colors, splats.opacities, splats.scales, splats.rotations];
    for (const t of inputs) t.requiresGrad = true;
    const room = 4 * N * views + 65536, draw = (pairs?: number): Tensor => rasterize(splats, cameras, { size: SIZE, pairs });
    const dy = noGrad(() => new Generator(2).normal(draw(room).shape));
    const fresh = (): void => {
      for (const t of inputs) t.grad = null;
    };
    const begin = (): Tensor => {
      fresh();
      return draw(room);
    };
    const times = {
      forward: time(() => {}, () => void noGrad(() => draw(room))),
      backward: time(begin, (y) => backward(y, dy)),
      "forward and backward": time(fresh, () => backward(draw(room), dy)),
      "forward and backward, room asked for": time(fresh, () => backward(draw(), dy)),
    };
    const pixels = objects * views * SIZE ** 2 * 20,
      forward = N * 56 + N * views * 96 + pixels,
      back = N * 112 + N * views * (48 + 2 * 80) + 2 * pixels;
    const bytes = {
      forward,
      backward: back,
      "forward and backward": forward + back,
      "forward and backward, room asked for": forward + back,
    };
    return (Object.keys(times) as (keyof typeof times)[]).map((pass) => {
      const peer = fastest(peers, `${name} ${pass.split(",")[0]}`), ours = times[pass], limit = 1e3 * bytes[pass] / BANDWIDTH;
      const beside = peer && { peer: peer.ms, peer_name: peer.name, ratio: peer.ms / ours };
      return measured({ case: `${name} ${pass}`, metric: "time", unit: "ms", ours, limit, fraction_of_limit: limit / ours, ...beside });
    });
  });
}

benchmark("splat", () => {
  const peers = timePeers("splat");
  return [
    ...rows(peers, "640k Gaussians", { perVoxel: 32, opacity: [0.1, 1], scale: 0.004 }, 1),
    ...rows(peers, "640k dim Gaussians", { perVoxel: 32, opacity: [0.02, 0.2], scale: 0.004 }, 1),
    ...rows(peers, "160k Gaussians in 8 views", { perVoxel: 8, opacity: [0.1, 1], scale: 0.004 }, 8),
    ...rows(peers, "8 scenes of 640k Gaussians", { perVoxel: 32, opacity: [0.1, 1], scale: 0.004, objects: 8 }, 1),
  ];
});
