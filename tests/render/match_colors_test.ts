import assert from "node:assert/strict";
import type { SplatArrays } from "../../lib/render/gaussians.ts";
import { type CutOut, matchColors } from "../../lib/render/match_colors.ts";

const HARMONIC = 0.28209479177387814, SIDE = 12;
type Rgb = readonly [number, number, number];

/** A board in the plane x = 0, `SIDE` x `SIDE` opaque Gaussians, and a narrow edge of another colour that juts out towards +x and -x. */
function board({ face, edge = face, K = 1 }: { face: Rgb; edge?: Rgb; K?: number }): SplatArrays {
  const places: number[][] = [], colors: Rgb[] = [];
  for (let i = 0; i < SIDE; i++) {
    for (let j = 0; j < SIDE; j++) places.push([0, 0.8 * ((i + 0.5) / SIDE - 0.5), 0.8 * ((j + 0.5) / SIDE - 0.5)]), colors.push(face);
  }
  for (const side of [-1, 1]) {
    for (let j = 0; j < SIDE; j++) {
      for (const x of [-0.1, 0, 0.1]) places.push([x, side * 0.4, 0.8 * ((j + 0.5) / SIDE - 0.5)]), colors.push(edge);
    }
  }
  const N = places.length;
  return {
    positions: Float32Array.from(places.flat()),
    colors: Float32Array.from(colors.flatMap((rgb) => [...rgb.map((v) => (v - 0.5) / HARMONIC), ...Array(3 * (K - 1)).fill(0.01)])),
    opacities: new Float32Array(N).fill(0.99),
    scales: new Float32Array(3 * N).fill(0.03),
    rotations: Float32Array.from({ length: 4 * N }, (_, i) => i % 4 === 0 ? 1 : 0),
  };
}

/** A rectangle of one colour in the middle of a transparent picture. */
function rectangle(color: Rgb, [width, height]: [number, number], size = 40): CutOut {
  const data = new Uint8Array(4 * size * size),
    inside = (at: number, extent: number): boolean => Math.abs(at + 0.5 - size / 2) < extent / 2;
  for (let i = 0; i < size * size; i++) {
    if (!inside(i % size, width) || !inside(Math.floor(i / size), height)) continue;
    data.set([...color.map((v) => Math.round(255 * v)), 255], 4 * i);
  }
  return { width: size, height: size, data };
}

/** The colour of Gaussian n. */
function colorOf({ colors, opacities }: SplatArrays, n: number): number[] {
  const K = colors.length / opacities.length / 3;
  return [0, 1, 2].map((c) => 0.5 + HARMONIC * colors[3 * K * n + c]);
}

function assertNear(got: number[], want: readonly number[], by: number): void {
  got.forEach((v, c) => assert.ok(Math.abs(v - want[c]) < by, `${got} is not ${want}`));
}

Deno.test("matchColors() gives Gaussians of one colour the picture's", () => {
  const made = matchColors(board({ face: [0.3, 0.3, 0.3] }), rectangle([0.8, 0.5, 0.1], [30, 30]));
  assertNear(colorOf(made, 0), [0.8, 0.5, 0.1], 0.03);
});

Deno.test("matchColors() compares the sides that have the picture's outline", () => {
  const scene = board({ face: [0.3, 0.3, 0.6], edge: [0.8, 0.8, 0.1] });
  const addedFor = (outline: [number, number]): number =>
    colorOf(matchColors(scene, rectangle([0.6, 0.6, 0.6], outline)), 0)[0] - colorOf(scene, 0)[0];
  const face = addedFor([32, 32]), edge = addedFor([8, 32]);
  assert.ok(face > edge + 0.1, `${face} was added for the board's dark face and ${edge} for its bright edge`);
});

Deno.test("matchColors() adds to the zeroth harmonic alone, and without others keeps to colours that can be shown", () => {
  const scene = board({ face: [0.5, 0.5, 0.5], K: 4 }), made = matchColors(scene, rectangle([0.9, 0.9, 0.9], [30, 30]));
  made.colors.forEach((value, i) => i % 12 < 3 ? assert.ok(value > scene.colors[i]) : assert.equal(value, scene.colors[i]));
  const bright = matchColors(board({ face: [0.2, 0.2, 0.2], edge: [0.95, 0.95, 0.95] }), rectangle([1, 1, 1], [30, 30]));
  assert.ok(bright.colors.every((v) => Math.abs(v) <= 0.5 / HARMONIC + 1e-6));
});

Deno.test("matchColors() leaves Gaussians alone where there is nothing to compare", () => {
  const scene = board({ face: [0.3, 0.3, 0.3] }), unseen = { ...scene, opacities: scene.opacities.map(() => 0) };
  const empty = board({ face: [0, 0, 0] }), none = Object.fromEntries(Object.keys(empty).map((name) => [name, new Float32Array(0)]));
  assert.equal(matchColors(scene, rectangle([1, 0, 0], [0, 0])), scene);
  assert.equal(matchColors(unseen, rectangle([1, 0, 0], [30, 30])), unseen);
  assert.equal(matchColors(none as unknown as SplatArrays, rectangle([1, 0, 0], [30, 30])), none);
});
