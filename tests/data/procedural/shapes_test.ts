import assert from "node:assert/strict";
import {
  box,
  cylinder,
  ellipsoid,
  lathe,
  loft,
  move,
  prism,
  roundedBox,
  scale,
  type Shape,
  torus,
  tube,
  turn,
  type Vec3,
  warp,
} from "../../../lib/data/procedural/shapes.ts";

/** Asserts that each edge has as many triangles on one side as on the other, and returns the volume inside. */
function volumeOf(shape: Shape): number {
  const key = (i: number): string => shape.points[i].map((x) => Math.round(x * 1e6)).join(" "), edges = new Map<string, number>();
  let volume = 0;
  for (const face of shape.faces) {
    const [a, b, c] = face.map((i) => shape.points[i]);
    volume += (a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])) / 6;
    face.forEach((i, k) => {
      const [from, to] = [key(i), key(face[(k + 1) % 3])], forward = from < to;
      const edge = forward ? `${from}|${to}` : `${to}|${from}`;
      edges.set(edge, (edges.get(edge) ?? 0) + (forward ? 1 : -1));
    });
  }
  for (const [edge, sum] of edges) assert.equal(sum, 0, `edge ${edge} is open`);
  return volume;
}

const SHAPES: [string, Shape, number][] = [
  ["box()", box(1, 2, 3), 6],
  ["box() with a point on top", box(1, 1, 3, 0), 1],
  ["cylinder()", cylinder(1, 2, { segments: 200 }), 2 * Math.PI],
  ["lathe() of a hollow cup", lathe([[0, 0], [1, 0], [1, 1], [0.5, 1], [0.5, 0.5], [0, 0.5]], { segments: 200 }), Math.PI * (1 - 0.125)],
  ["ellipsoid()", ellipsoid(1, 2, 0.5, 100), 4 / 3 * Math.PI],
  ["torus()", torus(2, 0.3, 100), 2 * Math.PI ** 2 * 2 * 0.09 * 0.935],
  ["tube()", tube([[0, 0, 0], [0, 0, 1], [0, 0, 3]], 0.5, { segments: 100 }), 0.75 * Math.PI],
  ["tube() round a corner", tube([[0, 0, 0], [0, 0, 1], [1, 0, 2]], [0.2, 0.1, 0.05]), 0.09],
  ["prism() of a concave outline", prism([[0, 0], [2, 0], [2, 2], [1, 0.5], [0, 2]], 2), 2 * (4 - 1.5)],
  ["prism() the other way round", prism([[0, 2], [1, 0.5], [2, 2], [2, 0], [0, 0]], 2), 5],
  ["roundedBox()", roundedBox(2, 2, 2, 0.01), 8],
  ["loft() of a wedge", loft([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1]]]), 0.5],
];
for (const [what, shape, volume] of SHAPES) {
  Deno.test(`${what} is closed, outward and as large as it should be`, () => {
    assert.ok(Math.abs(volumeOf(shape) / volume - 1) < 0.03, `${volumeOf(shape)}, not ${volume}`);
    assert.equal(shape.uvs.length, shape.faces.length);
    assert.ok(shape.uvs.flat(2).every(Number.isFinite));
  });
}

Deno.test("move(), turn() and scale() keep shapes outward, mirrored ones too", () => {
  const shape = turn(scale(move(box(1, 1, 1), 3, 0, 0), -1, 2, 1), "z", 90);
  assert.ok(Math.abs(volumeOf(shape) - 2) < 1e-9);
  assert.ok(shape.points.every(([, y]) => y < -2.4)); // x = 3 mirrored to -3, then turned to y = -3
  assert.ok(volumeOf(warp(box(1, 1, 1), ([x, y, z]): Vec3 => [x + z, y, z])) > 0.99);
});
