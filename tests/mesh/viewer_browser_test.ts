/** viewer.html in a headless Chromium, where one is installed. */
import assert from "node:assert/strict";
import type { Image } from "../../lib/io/image.ts";
import { glbBytes } from "../../lib/mesh/glb.ts";
import { viewerHtml } from "../../lib/mesh/viewer.ts";
import { findChromium, screenshot } from "../browser.ts";
import { ballMesh } from "./fields.ts";

const BALL = 0.4, MOST = 0.5 / 0.28209479177387814;

/** Gaussians on a ball: red where z > 0, blue below. */
function ballSplats(N = 2000) {
  const positions = new Float32Array(3 * N), colors = new Float32Array(3 * N);
  for (let n = 0; n < N; n++) {
    const z = 1 - (2 * n + 1) / N, angle = n * Math.PI * (3 - Math.sqrt(5)), side = Math.sqrt(1 - z * z);
    positions.set([side * Math.cos(angle), side * Math.sin(angle), z].map((x) => BALL * x), 3 * n);
    colors.set(z > 0 ? [MOST, -MOST, -MOST] : [-MOST, -MOST, MOST], 3 * n);
  }
  const opacities = new Float32Array(N).fill(0.95), scales = new Float32Array(3 * N).fill(0.02);
  return { positions, colors, opacities, scales, rotations: Float32Array.from({ length: 4 * N }, (_, i) => i % 4 === 0 ? 1 : 0) };
}

/** Red, green and blue at a part of a picture's width and height. */
function pixel({ width, height, channels, data }: Image, u: number, v: number): number[] {
  const at = (Math.floor(v * height) * width + Math.floor(u * width)) * channels;
  return [data[at], data[at + 1], data[at + 2]];
}

const found = findChromium();
Deno.test({
  name: found ? "viewer.html shows mesh and Gaussians in a browser" : "viewer.html shows mesh and Gaussians in a browser (needs Chromium)",
  ignore: !found,
  async fn() {
    const mesh = ballMesh(16, BALL), colors = Uint8Array.from(mesh.positions, (_, i) => [20, 160, 20][i % 3]);
    const html = viewerHtml({ glb: await glbBytes({ ...mesh, colors }), title: "ball", splats: ballSplats() });
    const isGreen = ([r, g, b]: number[]): boolean => g > 60 && g > 2 * r && g > 2 * b;
    const isSplit = (red: number[], blue: number[]): boolean => red[0] > 180 && red[2] < 60 && blue[2] > 180 && blue[0] < 60;
    const middle = (picture: Image): number[] => pixel(picture, 0.5, 0.5);
    const halves = (picture: Image): [number[], number[]] => [pixel(picture, 0.5, 0.35), pixel(picture, 0.5, 0.7)];
    const solid = await screenshot(html, { accept: (picture) => isGreen(middle(picture)) });
    const splats = await screenshot(html, { hash: "s", accept: (picture) => isSplit(...halves(picture)) });
    for (const { state, message } of [solid, splats]) assert.deepEqual([state, message], ["ready", ""]);
    assert.ok(isGreen(middle(solid.picture)), `the mesh is ${middle(solid.picture)}, it must be green`);
    assert.ok(isSplit(...halves(splats.picture)), `the halves are ${halves(splats.picture).join(" and ")}, they must be red and blue`);
    const corner = pixel(splats.picture, 0.02, 0.5);
    assert.ok(Math.min(...corner) > 150 || Math.max(...corner) < 100, `the ground is ${corner}`);
  },
});
