import assert from "node:assert/strict";
import { simulate } from "../../lib/memory/simulate.ts";
import { mean } from "../../lib/ops/reduce.ts";
import { type Camera, lookAt, orbitCamera } from "../../lib/render/camera.ts";
import { rasterize, renderSplats, type Splats } from "../../lib/render/splat.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkOp, type Input, type OpCase, random } from "../check.ts";
import { Decisions, drawPlain, harmonicsOf } from "./splat_reference.ts";

type Name = "positions" | "colors" | "opacities" | "scales" | "rotations";

interface Scene {
  N: number;
  K?: number;
  /** Of the standard deviations, and how far they spread around it. */
  scale?: number;
  spread?: number;
  opacity?: [least: number, most: number];
  /** Half the side of the cube that they lie in. */
  room?: number;
  seed?: number;
}

function inputsOf({ N, K = 0, scale = 0.05, spread = 0.6, opacity = [0.2, 0.9], room = 0.4, seed = 1 }: Scene): Record<Name, Input> {
  const values = (at: number, width: number, map: (v: number, i: number) => number): Float32Array<ArrayBuffer> =>
    random(97 * seed + at, N * width).map(map);
  const k = Math.max(1, K), [least, most] = opacity;
  return {
    positions: { shape: [N, 3], data: values(1, 3, (v) => room * v) },
    colors: {
      shape: K ? [N, K, 3] : [N, 3],
      data: values(2, 3 * k, (v, i) => K ? (i % (3 * k) < 3 ? 1.2 * v + 0.6 : 0.4 * v) : 0.5 + 0.5 * v),
    },
    opacities: { shape: [N], data: values(3, 1, (v) => least + (most - least) * (0.5 + 0.5 * v)) },
    scales: { shape: [N, 3], data: values(4, 3, (v) => scale * (1 + spread * v)) },
    rotations: { shape: [N, 4], data: values(5, 4, (v) => v + 0.1) },
  };
}

const FOV = 40 * Math.PI / 180, S = 24;
const FRONT = orbitCamera({ yaw: 0.3, pitch: 0.4 }, 2, FOV), BACK = orbitCamera({ yaw: 3, pitch: -0.8 }, 1.6, FOV);

interface Views {
  views: Camera[][];
  starts: number[];
  background?: [number, number, number][];
  size?: number;
}

function caseOf(scene: Scene, { views, starts, background, size = S }: Views): OpCase<Name> {
  const decide = new Decisions(), cameras = views.flatMap((list, b) => list.map((camera) => ({ camera, b })));
  return {
    inputs: inputsOf(scene),
    run: (t) => rasterize({ ...t, starts }, views, { size, background }),
    reference: (a) => {
      decide.start();
      return cameras.flatMap(({ camera, b }, v) => [
        ...drawPlain(a, [starts[b], starts[b + 1]], { K: scene.K ?? 0, camera, S: size, background: background?.[v] ?? [0, 0, 0], decide }),
      ]);
    },
    rtol: 2e-5,
    atol: 2e-6,
  };
}

const SCENES: Record<string, [Scene, Views]> = {
  "no splats": [{ N: 0 }, { views: [[FRONT]], starts: [0, 0], background: [[0.3, 0.5, 0.7]] }],
  "one splat": [{ N: 1, room: 0.1 }, { views: [[FRONT]], starts: [0, 1] }],
  "one small splat": [{ N: 1, room: 0.1, scale: 0.02 }, { views: [[FRONT]], starts: [0, 1] }],
  "a few, over a background": [{ N: 7 }, { views: [[FRONT]], starts: [0, 7], background: [[1, 0.5, 0.25]] }],
  "two views": [{ N: 5, scale: 0.08 }, { views: [[FRONT, BACK]], starts: [0, 5], background: [[1, 1, 1], [0, 0, 0]] }],
  "three scenes, one empty, one unseen": [{ N: 9 }, { views: [[FRONT], [BACK, FRONT], [], [BACK]], starts: [0, 4, 4, 6, 9] }],
  "opaque splats": [{ N: 12, opacity: [0.97, 1], scale: 0.12 }, { views: [[FRONT]], starts: [0, 12] }],
  "huge splats": [{ N: 4, scale: 1.5 }, { views: [[FRONT]], starts: [0, 4] }],
  "needles": [{ N: 5, scale: 0.1, spread: 0.97 }, { views: [[FRONT]], starts: [0, 5] }],
  "splats on and beyond the edges": [{ N: 10, room: 1.4, scale: 0.15 }, { views: [[FRONT]], starts: [0, 10] }],
  "a camera among them": [{ N: 8, room: 1 }, { views: [[lookAt([0, 0, 0], [1, 0.2, 0.1], { fov: 1.2 })]], starts: [0, 8] }],
  "harmonics of degree 0": [{ N: 3, K: 1 }, { views: [[FRONT]], starts: [0, 3] }],
  "harmonics of degree 1": [{ N: 3, K: 4 }, { views: [[FRONT]], starts: [0, 3] }],
  "harmonics of degree 2": [{ N: 2, K: 9 }, { views: [[FRONT, BACK]], starts: [0, 2] }],
  "harmonics of degree 3": [{ N: 2, K: 16 }, { views: [[BACK, FRONT]], starts: [0, 2] }],
  "one pixel": [{ N: 3 }, { views: [[FRONT]], starts: [0, 3], size: 1 }],
  "several tiles": [{ N: 3, scale: 0.1 }, { views: [[FRONT]], starts: [0, 3], size: 50 }],
};

for (const [name, [scene, views]] of Object.entries(SCENES)) {
  Deno.test(`rasterize() of ${name} and its gradients match the definition`, () => checkOp(caseOf(scene, views)));
}

Deno.test("rasterize() with 2 x 2 views gives each what it gives alone", () => {
  const { positions, colors, opacities, scales, rotations } = inputsOf({ N: 30 });
  const draw = (views: Camera[][], starts: number[], from: number, to: number): Float32Array =>
    step(() => {
      const part = ({ data, shape: [, ...rest] }: Input) => {
        const width = rest.reduce((a, b) => a * b, 1);
        return tensor(data.slice(from * width, to * width), [to - from, ...rest]);
      };
      const t = {
        positions: part(positions),
        colors: part(colors),
        opacities: part(opacities),
        scales: part(scales),
        rotations: part(rotations),
      };
      return rasterize({ ...t, starts }, views, { size: S }).read();
    });
  const all = draw([[FRONT, BACK], [BACK, FRONT]], [0, 13, 30], 0, 30), plane = 5 * S * S;
  const alone = [
    draw([[FRONT]], [0, 13], 0, 13),
    draw([[BACK]], [0, 13], 0, 13),
    draw([[BACK]], [0, 17], 13, 30),
    draw([[FRONT]], [0, 17], 13, 30),
  ];
  alone.forEach((want, v) => assert.deepEqual(all.slice(v * plane, (v + 1) * plane), want));
});

function splatsOf(inputs: Record<Name, Input>, starts: number[], requiresGrad = false): Splats {
  const t = Object.fromEntries(Object.entries(inputs).map(([name, { data, shape }]) => [name, tensor(data, shape, { requiresGrad })]));
  return { ...t as unknown as Splats, starts };
}

Deno.test("pictures on a simulated device take the memory of pictures that have as many pairs as the last ones", () => {
  const { memory } = device();
  step(() => {
    const splats = splatsOf(inputsOf({ N: 4000, scale: 0.01 }), [0, 4000], true), views = [[FRONT, BACK]];
    const draw = (): void => step(() => backward(mean(rasterize(splats, views, { size: 64 }))));
    draw();
    for (const t of [splats.positions, splats.colors, splats.opacities, splats.scales, splats.rotations]) t.grad = null;
    const { peak } = simulate(draw);
    memory.resetPeak();
    draw();
    const error = Math.abs(memory.use().peak / peak - 1);
    assert.ok(error <= (device().name === "cpu" ? 0 : 0.01), `${peak} predicted, ${memory.use().peak} measured`);
  });
});

Deno.test("renderSplats() names the parts of rasterize()", () => {
  step(() => {
    const splats = splatsOf(inputsOf({ N: 6, K: 1 }), [0, 6]), options = { size: S, background: [0.2, 0.4, 0.6] as const };
    const y = rasterize(splats, [[FRONT, BACK]], options).read(), { color, alpha, depth } = renderSplats(splats, [[FRONT, BACK]], options);
    assert.deepEqual([color.shape, alpha.shape, depth.shape], [[2, 3, S, S], [2, S, S], [2, S, S]]);
    const plane = S * S, part = (v: number, from: number, to: number) => [...y.slice((5 * v + from) * plane, (5 * v + to) * plane)];
    assert.deepEqual([...color.read()], [...part(0, 0, 3), ...part(1, 0, 3)]);
    assert.deepEqual([...alpha.read()], [...part(0, 3, 4), ...part(1, 3, 4)]);
    assert.deepEqual([...depth.read()], [...part(0, 4, 5), ...part(1, 4, 5)]);
  });
});

Deno.test("rasterize() leaves out what is behind the camera, too near, beside the picture, too dim or too thin", () => {
  const camera = lookAt([0, 0, 0], [1, 0, 0], { fov: FOV }), one = inputsOf({ N: 1 });
  const draw = (change: Partial<Record<Name, number[]>>, options = {}): number => {
    const inputs = Object.fromEntries(
      Object.entries({ ...one, opacities: { shape: [1], data: Float32Array.of(1) } }).map((
        [name, input],
      ) => [name, { ...input, data: Float32Array.from(change[name as Name] ?? input.data) }]),
    ) as Record<Name, Input>;
    return step(() => {
      const splats = splatsOf(inputs, [0, 1], true),
        y = rasterize(splats, [[camera]], { size: S, ...options }),
        sum = y.read().reduce((a, b) => a + b);
      backward(y, tensor(random(1, y.size), y.shape));
      const gradient = splats.opacities.grad!.read()[0];
      assert.equal(gradient === 0, sum === 0);
      return sum;
    });
  };
  assert.ok(draw({ positions: [1, 0, 0] }) > 0);
  assert.equal(draw({ positions: [-1, 0, 0] }), 0);
  assert.equal(draw({ positions: [0.2, 0, 0] }), 0);
  assert.ok(draw({ positions: [0.21, 0, 0] }) > 0);
  assert.ok(draw({ positions: [0.2, 0, 0] }, { near: 0.1 }) > 0);
  assert.equal(draw({ positions: [1, 3, 0] }), 0);
  assert.equal(draw({ positions: [1, 0, 0], opacities: [0.003] }), 0);
  assert.equal(draw({ positions: [1, 0, 0], scales: [1e-9, 1e-9, 1e-9] }), 0);
});

Deno.test("rasterize() says which Gaussian cannot be drawn, and with `pairs` gives NaN instead of waiting", () => {
  const bad: [Name, number, number][] = [["positions", 7, NaN], ["colors", 6, Infinity], ["opacities", 2, NaN], ["scales", 8, 1e30], [
    "rotations",
    8,
    NaN,
  ]];
  for (const [name, at, value] of bad) {
    const inputs = inputsOf({ N: 4 });
    inputs[name].data[at] = value;
    step(() => {
      const splats = splatsOf(inputs, [0, 1, 4], true), views = [[FRONT], [BACK, FRONT]];
      assert.throws(() => void rasterize(splats, views, { size: S }), {
        message: /^Cannot run rasterize: 2 splats of 4 Gaussians cannot be drawn, the first is Gaussian 2: /,
      });
      const y = rasterize(splats, views, { size: S, pairs: 1000 });
      assert.ok(y.read().every(Number.isNaN), name);
      backward(y, tensor(random(1, y.size), y.shape));
      assert.ok(splats.scales.grad!.read().every(Number.isNaN), name);
    });
  }
  const still = inputsOf({ N: 4 });
  still.rotations.data.fill(0, 4, 8);
  step(() =>
    assert.throws(
      () => void rasterize(splatsOf(still, [0, 4]), [[FRONT]], { size: S }),
      /the first is Gaussian 1: .* rotation must not be 0/,
    )
  );
});

Deno.test("rasterize() with room for exactly the pairs there are is the same, and NaN with one less", () => {
  step(() => {
    const splats = splatsOf(inputsOf({ N: 1, scale: 0.3, opacity: [1, 1], room: 0.01 }), [0, 1]), views = [[FRONT]], size = 64;
    const want = rasterize(splats, views, { size }).read();
    assert.deepEqual(rasterize(splats, views, { size, pairs: 16 }).read(), want);
    assert.ok(rasterize(splats, views, { size, pairs: 15 }).read().every(Number.isNaN));
  });
});

Deno.test("rasterize() says what does not fit", () => {
  step(() => {
    const splats = splatsOf(inputsOf({ N: 4 }), [0, 4]),
      run = (change: object, views = [[FRONT]], options: object = {}) => () =>
        void rasterize({ ...splats, ...change }, views, { size: S, ...options });
    const fails = (message: string | RegExp, ...args: Parameters<typeof run>) =>
      assert.throws(run(...args), { message: typeof message === "string" ? `Cannot run rasterize: ${message}` : message });
    fails("scales is [4,2], it must be [4,3]", { scales: tensor(random(1, 8), [4, 2]) });
    fails("colors is [4,2,3], it must be [4, 3] or [4, 1, 4, 9 or 16, 3]", { colors: tensor(random(1, 24), [4, 2, 3]) });
    fails("opacities is f16, it must be f32", { opacities: tensor(random(1, 4), [4], { dtype: "f16" }) });
    fails("there are 2 starts, it must be 3, one more than scenes have views", {}, [[FRONT], [BACK]]);
    fails("starts are [0,3], they must be whole numbers from 0 to 4 that never decrease", { starts: [0, 3] });
    fails("starts are [0,3,2,4], they must be whole numbers from 0 to 4 that never decrease", { starts: [0, 3, 2, 4] }, [[], [], []]);
    for (const size of [0, 2.5, 8193]) fails(`size is ${size}, it must be a whole number from 1 to 8192`, {}, [[FRONT]], { size });
    fails("near is 0, it must be above 0", {}, [[FRONT]], { near: 0 });
    fails("blur is -1, it must be 0 or more", {}, [[FRONT]], { blur: -1 });
    fails("there are 1 backgrounds, it must be 1 or one for each of the 2 views", {}, [[FRONT, BACK]], { background: [[1, 1, 1]] });
    fails("view 0 has a fov of 0, it must be above 0 and below pi", {}, [[{ ...FRONT, fov: 0 }]]);
    fails(/^Cannot run rasterize: the matrix of view 0 is .*, it must be finite$/, {}, [[{
      ...FRONT,
      cameraToWorld: FRONT.cameraToWorld.map((r) => r.map(() => NaN)),
    }]]);
    fails("pairs is -1, it must be a whole number below 2^31", {}, [[FRONT]], { pairs: -1 });
  });
});

Deno.test("the harmonics of the reference are orthonormal", () => {
  const sums = Array.from({ length: 16 }, () => new Array<number>(16).fill(0)), steps = 64;
  for (let i = 0; i < steps; i++) {
    for (let j = 0; j < 2 * steps; j++) {
      const theta = (i + 0.5) * Math.PI / steps, phi = (j + 0.5) * Math.PI / steps, area = Math.sin(theta) * (Math.PI / steps) ** 2;
      const Y = harmonicsOf([Math.sin(theta) * Math.cos(phi), Math.sin(theta) * Math.sin(phi), Math.cos(theta)], 16);
      Y.forEach((a, k) => Y.forEach((b, l) => sums[k][l] += a * b * area));
    }
  }
  sums.forEach((row, k) => assertClose(`row ${k}`, row, row.map((_, l) => Number(k === l)), { rtol: 0, atol: 2e-3 }));
});
