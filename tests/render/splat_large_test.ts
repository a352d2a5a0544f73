import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type Camera, orbitCamera } from "../../lib/render/camera.ts";
import { rasterize } from "../../lib/render/splat.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { checkDevices, type Input, random } from "../check.ts";
import { clearSplats } from "./splat_margins.ts";

type Name = "positions" | "colors" | "opacities" | "scales" | "rotations";

interface Scene {
  N: number;
  K?: number;
  scale: number;
  opacity?: [least: number, most: number];
  room?: number;
  /** The Gaussians lie on a sphere. */
  shell?: boolean;
}

function inputsOf({ N, K = 0, scale, opacity: [least, most] = [0.1, 1], room = 0.45, shell = false }: Scene): Record<Name, Input> {
  const k = Math.max(1, K), positions = random(1, 3 * N).map((v) => room * v);
  for (let n = 0; shell && n < N; n++) {
    const p = positions.subarray(3 * n, 3 * n + 3), length = Math.hypot(...p) || 1;
    p.forEach((v, d) => p[d] = v / length * room);
  }
  return {
    positions: { shape: [N, 3], data: positions },
    colors: { shape: K ? [N, K, 3] : [N, 3], data: random(2, 3 * N * k).map((v) => K ? 0.5 * v : 0.5 + 0.5 * v) },
    opacities: { shape: [N], data: random(3, N).map((v) => least + (most - least) * (0.5 + 0.5 * v)) },
    scales: { shape: [N, 3], data: random(4, 3 * N).map((v) => scale * (1 + 0.6 * v)) },
    rotations: { shape: [N, 4], data: random(5, 4 * N) },
  };
}

const FOV = 40 * Math.PI / 180;

function around(count: number, first = 0): Camera[] {
  return Array.from({ length: count }, (_, i) => orbitCamera({ yaw: 0.3 + 1.7 * (first + i), pitch: 0.4 - 0.3 * (first + i) }, 2, FOV));
}

const CASES: Record<string, [Scene, starts: number[], views: Camera[][], size: number]> = {
  "a shell": [{ N: 60000, scale: 0.006, shell: true }, [0, 60000], [around(1)], 256],
  "a shell in four views": [{ N: 20000, scale: 0.01, shell: true, K: 1 }, [0, 20000], [around(4)], 128],
  "a ragged batch": [{ N: 5000, scale: 0.02 }, [0, 1000, 1000, 4000, 5000], [around(1), around(2), [], around(3, 2)], 100],
  "dim splats, none of which hides another": [{ N: 30000, scale: 0.02, opacity: [0.01, 0.05] }, [0, 30000], [around(1)], 128],
  "opaque splats": [{ N: 3000, scale: 0.03, opacity: [0.98, 1] }, [0, 3000], [around(1)], 96],
  "huge splats": [{ N: 60, scale: 1, opacity: [0.05, 0.3] }, [0, 60], [around(2)], 200],
  "harmonics of degree 3": [{ N: 2000, scale: 0.02, K: 16 }, [0, 900, 2000], [around(1), around(2)], 80],
  "splats beyond the edges": [{ N: 5000, scale: 0.05, room: 1.5 }, [0, 5000], [around(1)], 75],
};

/** A case without the Gaussians that devices may decide differently on, a few in a hundred. */
function clearCase([scene, starts, views, size]: typeof CASES[string]) {
  const inputs = inputsOf(scene), plain = Object.fromEntries(Object.entries(inputs).map(([name, { data }]) => [name, data]));
  const kept = clearSplats(plain as Record<Name, Float32Array>, scene.K ?? 0, starts, views, size), all = kept.flat();
  let end = 0;
  const ends = kept.map((list) => end += list.length);
  const some = ({ shape: [N, ...rest], data }: Input): Input => {
    const width = data.length / N, out = new Float32Array(all.length * width);
    all.forEach((n, i) => out.set(data.subarray(n * width, (n + 1) * width), i * width));
    return { shape: [all.length, ...rest], data: out };
  };
  const clear = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, some(input)])) as Record<Name, Input>;
  return { inputs: clear, starts: [0, ...ends], left: all.length / scene.N };
}

for (const [name, values] of Object.entries(CASES)) {
  const [, , views, size] = values;
  let made: ReturnType<typeof clearCase> | undefined;
  const clear = () => made ??= clearCase(values);
  checkDevices<Name>(`rasterize() of ${name}`, import.meta.url, {
    get inputs() {
      return clear().inputs;
    },
    run: (t) => rasterize({ ...t, starts: clear().starts }, views, { size, background: [0.2, 0.5, 0.9] }),
    dtypes: ["f32"],
  });
}

Deno.test("of the large scenes nearly all Gaussians are clear of the bounds where devices may differ", () => {
  for (const [name, values] of Object.entries(CASES)) {
    const { left } = clearCase(values);
    assert.ok(left > 0.9, `${name}: ${left}`);
  }
});

Deno.test("rasterize() of two million Gaussians, and its gradients, are finite and twice the same", () => {
  const N = 2_000_000, inputs = inputsOf({ N, scale: 0.003 });
  const draw = (): Float32Array[] =>
    step(() => {
      const t = Object.fromEntries(
        (Object.entries(inputs) as [Name, Input][]).map(([name, { data, shape }]) => [name, tensor(data, shape, { requiresGrad: true })]),
      ) as Record<Name, ReturnType<typeof tensor>>;
      const y = rasterize({ ...t, starts: [0, N] }, [around(1)], { size: 96 });
      backward(y, tensor(random(6, y.size), y.shape));
      return [y.read(), ...Object.values(t).map(({ grad }) => grad!.read())];
    });
  const first = draw(), again = draw();
  first.forEach((values, i) => {
    assert.ok(values.every(Number.isFinite));
    assert.ok(values.some((v) => v !== 0));
    assert.ok(Buffer.from(values.buffer).equals(Buffer.from(again[i].buffer)));
  });
});
