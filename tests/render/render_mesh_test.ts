import assert from "node:assert/strict";
import { type Camera, orbitCamera } from "../../lib/render/camera.ts";
import { type RenderMesh, type Texture, vertexNormals } from "../../lib/render/mesh.ts";
import { type Lights, type RenderedView, renderMesh, STUDIO_LIGHTS } from "../../lib/render/render_mesh.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";
import { random } from "../check.ts";

const WHITE: RenderMesh["materials"] = [{ baseColor: [1, 1, 1, 1] }];
const CAMERA = orbitCamera({ yaw: 0.5, pitch: 0.3 }, 2, 0.7);

const dot = (a: number[], b: number[]) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a: number[], b: number[]) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const minus = (a: number[], b: number[]) => a.map((x, d) => x - b[d]);
const unit = (a: number[]) => a.map((x) => x / Math.hypot(...a));
const clamp = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);
const toLinear = (v: number) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const toSrgb = (v: number) => v <= 0.0031308 ? v * 12.92 : 1.055 * v ** (1 / 2.4) - 0.055;

interface Hit {
  t: number;
  depth: number;
  weights: number[];
}

function bilinear({ width: W, height: H, data, wrap }: Texture, u: number, v: number): number[] {
  const inside = (i: number, n: number) => wrap === "clamp" ? clamp(i, 0, n - 1) : (i % n + n) % n;
  const x = (wrap === "clamp" ? clamp(u, 0, 1) : u) * W - 0.5, y = (wrap === "clamp" ? clamp(v, 0, 1) : v) * H - 0.5;
  const fx = x - Math.floor(x), fy = y - Math.floor(y), out = [0, 0, 0, 0];
  for (const [dx, dy, weight] of [[0, 0, (1 - fx) * (1 - fy)], [1, 0, fx * (1 - fy)], [0, 1, (1 - fx) * fy], [1, 1, fx * fy]]) {
    const at = (inside(Math.floor(y) + dy, H) * W + inside(Math.floor(x) + dx, W)) * 4;
    for (let c = 0; c < 4; c++) out[c] += weight * (c < 3 ? toLinear(data[at + c] / 255) : data[at + c] / 255);
  }
  return out;
}

/** Casts rays against every triangle in f64. */
class Tracer {
  readonly T: number;
  constructor(readonly mesh: RenderMesh, readonly camera: Camera, readonly size: number, readonly near = 0.01) {
    this.T = mesh.triangles.length / 3;
  }

  corners(values: Float32Array, width: number, t: number): number[][] {
    return [0, 1, 2].map((k) =>
      Array.from(values.subarray(this.mesh.triangles[t * 3 + k] * width, (this.mesh.triangles[t * 3 + k] + 1) * width))
    );
  }

  mix(values: Float32Array, width: number, { t, weights }: Hit): number[] {
    const corners = this.corners(values, width, t);
    return Array.from({ length: width }, (_, c) => corners.reduce((sum, corner, k) => sum + corner[c] * weights[k], 0));
  }

  albedo(hit: Hit): number[] {
    const { materials, materialOfTriangle, uvs, colors } = this.mesh, material = materials[materialOfTriangle?.[hit.t] ?? 0];
    let out = [...material.baseColor];
    if (material.texture && uvs) {
      const [u, v] = this.mix(uvs, 2, hit), texel = bilinear(material.texture, u, v);
      out = out.map((x, c) => x * texel[c]);
    }
    if (colors) {
      const color = this.mix(colors, 4, hit);
      out = out.map((x, c) => x * color[c]);
    }
    return out;
  }

  /** What the ray through image point (x, y), in pixels, hits first. */
  cast(x: number, y: number): Hit | undefined {
    const m = this.camera.cameraToWorld, f = Math.tan(this.camera.fov / 2), eye = [m[0][3], m[1][3], m[2][3]];
    const [a, b] = [(2 * x / this.size - 1) * f, (1 - 2 * y / this.size) * f];
    const ray = [0, 1, 2].map((d) => m[d][0] * a + m[d][1] * b - m[d][2]);
    let first: Hit | undefined;
    for (let t = 0; t < this.T; t++) {
      const [p, q, r] = this.corners(this.mesh.positions, 3, t), e1 = minus(q, p), e2 = minus(r, p), h = cross(ray, e2), area = dot(e1, h);
      if (area === 0) continue;
      const s = minus(eye, p), u = dot(s, h) / area, g = cross(s, e1), v = dot(ray, g) / area, depth = dot(e2, g) / area;
      if (u < 0 || v < 0 || u + v > 1 || depth < this.near || (first && depth >= first.depth)) continue;
      const hit = { t, depth, weights: [1 - u - v, u, v] }, material = this.mesh.materials[this.mesh.materialOfTriangle?.[t] ?? 0];
      if (!(material.alphaCutoff! > 0 && this.albedo(hit)[3] < material.alphaCutoff!)) first = hit;
    }
    return first;
  }

  shade(hit: Hit, lights: Lights): number[] {
    const at = this.mix(this.mesh.positions, 3, hit), [p, q, r] = this.corners(this.mesh.positions, 3, hit.t);
    let face = unit(cross(minus(q, p), minus(r, p)));
    if (dot(face, minus(this.camera.cameraToWorld.slice(0, 3).map((row) => row[3]), p)) < 0) face = face.map((x) => -x);
    let n = this.mesh.normals ? unit(this.mix(this.mesh.normals, 3, hit)) : face;
    if (dot(n, face) < 0) n = n.map((x) => -x);
    const albedo = this.albedo(hit);
    return [0, 1, 2].map((c) => {
      let light = lights.below[c] + (lights.above[c] - lights.below[c]) * (n[2] + 1) / 2;
      for (const { position, color } of lights.points) light += color[c] * Math.max(0, dot(n, unit(minus([...position], at))));
      return toSrgb(clamp(albedo[c] * light, 0, 1)) * 255;
    });
  }
}

/** Compares every pixel (one sample each) whose ray hits the same triangle as the rays 1/50 pixel around it; returns how many those are. */
function compare(
  mesh: RenderMesh,
  camera: Camera,
  size: number,
  { near, shaded = true }: { near?: number; shaded?: boolean } = {},
): number {
  const [{ rgba, depth, ids }] = renderMesh(mesh, [camera], { size, samples: 1, depth: true, ids: true, near, device: "cpu" });
  const tracer = new Tracer(mesh, camera, size, near);
  let clear = 0;
  for (let i = 0; i < size * size; i++) {
    const x = i % size + 0.5, y = Math.floor(i / size) + 0.5, hit = tracer.cast(x, y);
    const around = [[-1, -1], [1, -1], [-1, 1], [1, 1]].map(([dx, dy]) => tracer.cast(x + dx / 50, y + dy / 50));
    if (around.some((other) => other?.t !== hit?.t)) continue;
    clear++;
    assert.equal(ids![i], hit?.t ?? -1, `triangle at pixel ${i}`);
    assert.equal(rgba[i * 4 + 3], hit ? 255 : 0);
    if (!hit) continue;
    const depths = around.map((other) => other!.depth), slack = 1e-4 * hit.depth;
    assert.ok(
      depth![i] > Math.min(...depths) - slack && depth![i] < Math.max(...depths) + slack,
      `depth at pixel ${i} is ${depth![i]}, it must be ${hit.depth}`,
    );
    if (shaded) {
      tracer.shade(hit, STUDIO_LIGHTS).forEach((want, c) => {
        assert.ok(Math.abs(rgba[i * 4 + c] - want) < 1.6, `channel ${c} at pixel ${i} is ${rgba[i * 4 + c]}, it must be ${want}`);
      });
    }
  }
  return clear;
}

function texture(seed: number, width: number, height: number, wrap: "repeat" | "clamp"): Texture {
  return { width, height, wrap, data: new Uint8Array(random(seed, width * height * 4).map((x) => (x + 1) * 127)) };
}

/** `T` triangles of edge about `size` with everything a mesh can have. */
function soup(seed: number, T: number, size: number): RenderMesh {
  const middles = random(seed, T * 3), corners = random(seed + 100, T * 9), colors = random(seed + 1, T * 12).map((x) => 0.7 + 0.3 * x);
  return {
    positions: corners.map((x, i) => middles[Math.floor(i / 9) * 3 + i % 3] * 0.4 + x * size),
    triangles: new Uint32Array(T * 3).map((_, i) => i),
    normals: random(seed + 2, T * 9),
    uvs: random(seed + 3, T * 6).map((x) => x * 2),
    colors,
    materialOfTriangle: new Uint16Array(T).map((_, t) => t % 4),
    materials: [
      { baseColor: [1, 0.8, 0.6, 1], texture: texture(seed + 4, 5, 3, "repeat") },
      { baseColor: [0.5, 1, 0.9, 1], texture: texture(seed + 5, 2, 4, "clamp") },
      { baseColor: [0.9, 0.5, 0.4, 1] },
      { baseColor: [1, 1, 1, 1], texture: texture(seed + 6, 4, 4, "repeat"), alphaCutoff: 0.4 },
    ],
  };
}

for (const [size, T, edge] of [[1, 4, 0.5], [2, 6, 0.5], [7, 10, 0.4], [32, 40, 0.3], [33, 3, 0.8]]) {
  Deno.test(`renderMesh() shows what rays see: ${T} triangles of about ${edge} at ${size} x ${size}`, () => {
    const clear = compare(soup(size, T, edge), CAMERA, size);
    assert.ok(clear > size * size * 0.6, `only ${clear} pixels could be compared`);
  });
}

Deno.test("renderMesh() without normals, uvs, colours and materials of triangles", () => {
  const { positions, triangles } = soup(3, 30, 0.3);
  compare({ positions, triangles, materials: WHITE }, CAMERA, 24);
});

function ground(half: number, z: number): RenderMesh {
  const positions = new Float32Array([-half, -half, z, half, -half, z, half, half, z, -half, half, z]),
    uvs = new Float32Array([0, 0, 4, 0, 4, 4, 0, 4]);
  const materials = [{ baseColor: [1, 1, 1, 1] as const, texture: texture(9, 4, 4, "repeat") }];
  return { positions, triangles: new Uint32Array([0, 1, 2, 0, 2, 3]), uvs, materials };
}

Deno.test("renderMesh() cuts triangles that reach behind the camera", () => {
  for (const [half, near] of [[3, 0.01], [3, 0.5], [40, 0.01], [1000, 0.01], [4000, 0.001]]) {
    const clear = compare(ground(half, -0.2), orbitCamera({ yaw: 0.4, pitch: 0.1 }, 2, 1.2), 40, { near, shaded: half < 100 });
    assert.ok(clear > 1500, `only ${clear} pixels could be compared`);
  }
});

Deno.test("renderMesh() shows nothing that is wholly in front of the near plane or behind", () => {
  const mesh = soup(4, 20, 0.2), behind = { ...CAMERA, cameraToWorld: CAMERA.cameraToWorld.map((r) => [r[0], -r[1], -r[2], r[3]]) };
  for (const view of renderMesh(mesh, [behind], { size: 16, device: "cpu" })) assert.ok(view.rgba.every((x) => x === 0));
  for (const view of renderMesh(mesh, [CAMERA], { size: 16, near: 4, device: "cpu" })) assert.ok(view.rgba.every((x) => x === 0));
});

Deno.test("renderMesh() leaves no gap and no double sample between neighbours", () => {
  const n = 13, offsets = random(5, (n + 1) ** 2 * 2), grid = new Float32Array((n + 1) ** 2 * 3), triangles: number[] = [];
  for (let i = 0; i <= n; i++) {
    for (let j = 0; j <= n; j++) {
      const at = i * (n + 1) + j, inside = i > 0 && j > 0 && i < n && j < n ? 0.2 : 0;
      grid.set([0, (i + offsets[at * 2] * inside) / n - 0.5, (j + offsets[at * 2 + 1] * inside) / n - 0.5].map((x) => x * 2), at * 3);
      if (i < n && j < n) triangles.push(at, at + 1, at + n + 2, at, at + n + 2, at + n + 1);
    }
  }
  const mesh = { positions: grid, triangles: new Uint32Array(triangles), materials: WHITE };
  const front = orbitCamera({ yaw: 0, pitch: 0 }, 2, 0.7), [all] = renderMesh(mesh, [front], { size: 64, device: "cpu" });
  assert.ok(all.rgba.every((x, i) => i % 4 !== 3 || x === 255));
  // Each triangle alone covers just the samples that it shows among its neighbours, which lie side by side at equal depth.
  const [{ ids }] = renderMesh(mesh, [front], { size: 64, samples: 1, ids: true, device: "cpu" }), counts = new Map<number, number>();
  ids!.forEach((id) => counts.set(id, (counts.get(id) ?? 0) + 1));
  for (const [id, count] of counts) {
    const alone = { ...mesh, triangles: mesh.triangles.slice(id * 3, id * 3 + 3) };
    const [{ rgba }] = renderMesh(alone, [front], { size: 64, samples: 1, device: "cpu" });
    assert.equal(rgba.filter((x, i) => i % 4 === 3 && x === 255).length, count);
  }
});

Deno.test("renderMesh() turns covered samples into alpha and averages their light", () => {
  const mesh = soup(6, 20, 0.3);
  for (const samples of [2, 3, 4]) {
    const size = 15, side = size * samples;
    const [view] = renderMesh(mesh, [CAMERA], { size, samples, depth: true, device: "cpu" });
    const [fine] = renderMesh(mesh, [CAMERA], { size: side, samples: 1, depth: true, device: "cpu" });
    for (let i = 0; i < size * size; i++) {
      const block = Array.from(
        { length: samples ** 2 },
        (_, k) => (Math.floor(i / size) * samples + Math.floor(k / samples)) * side + i % size * samples + k % samples,
      );
      const covered = block.filter((k) => fine.rgba[k * 4 + 3]), n = covered.length;
      assert.equal(view.rgba[i * 4 + 3], Math.floor((n * 255 + samples ** 2 / 2) / samples ** 2));
      assert.equal(view.depth![i], n ? Math.min(...covered.map((k) => fine.depth![k])) : 0);
      for (let c = 0; c < 3; c++) {
        const mean = n ? covered.reduce((sum, k) => sum + toLinear(fine.rgba[k * 4 + c] / 255), 0) / n : 0;
        assert.ok(Math.abs(view.rgba[i * 4 + c] - toSrgb(mean) * 255) < 1.6 || mean > 0.99);
      }
    }
  }
});

Deno.test("renderMesh() gives the lower triangle the sample at equal depth", () => {
  const { positions } = soup(7, 1, 0.5), mesh = { positions, triangles: new Uint32Array([0, 1, 2, 2, 1, 0, 0, 1, 2]), materials: WHITE };
  const [{ ids }] = renderMesh(mesh, [CAMERA], { size: 20, ids: true, device: "cpu" });
  assert.deepEqual([...new Set(ids)].sort(), [-1, 0]);
});

Deno.test("renderMesh() lights both sides alike, and smooth normals by the side that is seen", () => {
  const mesh = soup(8, 12, 0.3), flipped = { ...mesh, triangles: mesh.triangles.map((_, i) => i - i % 3 + 2 - i % 3) };
  const smooth = { ...mesh, normals: vertexNormals(mesh) }, inward = { ...smooth, normals: smooth.normals.map((x) => -x) };
  for (const [a, b] of [[{ ...mesh, normals: undefined }, { ...flipped, normals: undefined }], [smooth, inward]]) {
    const [x, y] = [a, b].map((m) => renderMesh(m, [CAMERA], { size: 32, device: "cpu" })[0].rgba);
    x.forEach((v, i) => assert.ok(Math.abs(v - y[i]) <= 1));
  }
});

Deno.test("renderMesh() of an empty or degenerate mesh is transparent", () => {
  const line = new Float32Array([0, 0, 0, 0.2, 0.1, 0.3, 0.4, 0.2, 0.6]);
  for (const positions of [new Float32Array(0), new Float32Array(9).fill(0.1), line]) {
    const triangles = new Uint32Array(positions.length / 3).map((_, i) => i);
    const [{ rgba, depth, ids }] = renderMesh({ positions, triangles, materials: WHITE }, [CAMERA], {
      size: 8,
      depth: true,
      ids: true,
      device: "cpu",
    });
    assert.ok(rgba.every((x) => x === 0) && depth!.every((x) => x === 0) && ids!.every((x) => x === -1));
  }
  assert.deepEqual(renderMesh(soup(1, 1, 1), [], { size: 8, device: "cpu" }), []);
});

Deno.test("renderMesh() says what is wrong", () => {
  const mesh = soup(1, 1, 1);
  assert.throws(
    () => renderMesh(mesh, [CAMERA], { size: 0 }),
    /^RangeError: Cannot render the mesh: size is 0, it must be a whole number from 1 to 4096/,
  );
  assert.throws(() => renderMesh(mesh, [CAMERA], { size: 8, samples: 5 }), /samples is 5, it must be 1, 2, 3 or 4/);
  assert.throws(() => renderMesh(mesh, [CAMERA], { size: 8, near: 0 }), /near is 0, it must be above 0/);
  assert.throws(
    () => renderMesh({ ...mesh, positions: mesh.positions.fill(NaN) }, [CAMERA], { size: 8 }),
    /positions\[0\] is NaN, it must be finite/,
  );
});

/** 40 views around the object: several bands and chunks of work. */
const ORBIT = Array.from({ length: 40 }, (_, i) => orbitCamera({ yaw: i, pitch: Math.sin(i) }, 1.2 + i % 3, 0.7));

function bits(views: RenderedView[]): Uint8Array[] {
  return views.flatMap(({ rgba, depth, ids }) => [rgba, new Uint8Array(depth!.slice().buffer), new Uint8Array(ids!.slice().buffer)]);
}

Deno.test("renderMesh() gives the same bits again, and for a view alone", () => {
  const mesh = soup(11, 200, 0.15), options = { size: 70, depth: true, ids: true, device: "cpu" } as const;
  const all = renderMesh(mesh, ORBIT, options);
  assert.deepEqual(bits(renderMesh(mesh, ORBIT, options)), bits(all));
  assert.deepEqual(bits(renderMesh(mesh, [ORBIT[7]], options)), bits([all[7]]));
});

Deno.test("STUDIO_LIGHTS do not burn out a white surface facing the key light by more than a fifth", () => {
  const { above, points: [{ position, color }] } = STUDIO_LIGHTS;
  const n = unit([...position]);
  color.forEach((x, c) => assert.ok(x + above[c] * (1 + n[2]) / 2 < 1.2));
});

Deno.test({
  name: "renderMesh() on CUDA shows the same as on the CPU, twice to the bit",
  ignore: !hasCuda() || device().name !== "cuda",
  fn: () => {
    for (
      const [mesh, size, samples] of [[soup(12, 300, 0.15), 65, 2], [soup(13, 5, 1), 33, 4], [ground(50, -0.2), 40, 1], [
        soup(14, 0, 1),
        9,
        3,
      ]] as const
    ) {
      const options = { size, samples, depth: true, ids: true };
      const got = renderMesh(mesh, ORBIT, { ...options, device: "cuda" }), want = renderMesh(mesh, ORBIT, { ...options, device: "cpu" });
      assert.deepEqual(bits(renderMesh(mesh, ORBIT, { ...options, device: "cuda" })), bits(got));
      got.forEach((view, v) => {
        assert.deepEqual(view.ids, want[v].ids);
        assert.deepEqual(view.depth, want[v].depth);
        const worst = view.rgba.reduce((most, x, i) => Math.max(most, Math.abs(x - want[v].rgba[i])), 0);
        assert.ok(worst <= 2, `a channel differs by ${worst} of 255 in view ${v}`);
      });
    }
  },
});
