/** Gaussian splatting pixel by pixel in f64, straight from the formulas: the reference of the tests. */
import { type Camera, extrinsicsOf } from "../../lib/render/camera.ts";

/** What a scene is made of. */
export interface PlainSplats {
  positions: ArrayLike<number>;
  colors: ArrayLike<number>;
  opacities: ArrayLike<number>;
  scales: ArrayLike<number>;
  rotations: ArrayLike<number>;
}

/** A Gaussian as a camera sees it. */
export interface Drawn {
  m: number[];
  conic: number[];
  opacity: number;
  depth: number;
  rgb: number[];
  tiles: number[];
}

/**
 * What was decided on the way: which splats are left out, which tiles they reach, the order, what pixels skip, where they end. A finite difference
 * is one of a smooth function only where the second time decides as the first.
 */
export class Decisions {
  #made: unknown[] = [];
  #at = 0;
  #known = false;

  start(): void {
    this.#known ||= this.#made.length > 0;
    this.#at = 0;
  }
  of<T>(make: () => T): T {
    if (!this.#known) this.#made.push(make());
    return this.#made[this.#at++] as T;
  }
}

const product = (a: number[][], b: number[][]): number[][] =>
  a.map((row) => b[0].map((_, j) => row.reduce((sum, v, k) => sum + v * b[k][j], 0)));
const transposed = (a: number[][]): number[][] => a[0].map((_, j) => a.map((row) => row[j]));

function rotationOf(q: number[]): number[][] {
  const [w, x, y, z] = q.map((v) => v / Math.hypot(...q));
  return [
    [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
  ];
}

/** Associated Legendre functions with the Condon-Shortley phase, by recurrence. */
function legendre(l: number, m: number, x: number): number {
  let value = 1;
  for (let i = 1; i <= m; i++) value *= -(2 * i - 1) * Math.sqrt(1 - x * x);
  if (l === m) return value;
  let next = x * (2 * m + 1) * value;
  for (let i = m + 2; i <= l; i++) [value, next] = [next, ((2 * i - 1) * x * next - (i + m - 1) * value) / (i - m)];
  return next;
}

const factorial = (n: number): number => n <= 1 ? 1 : n * factorial(n - 1);

/** The real spherical harmonics of degree l, m from -l to l, from their definition. */
export function harmonicsOf([x, y, z]: number[], K: number): number[] {
  const phi = Math.atan2(y, x), out: number[] = [];
  for (let l = 0; l * l < K; l++) {
    for (let m = -l; m <= l; m++) {
      const a = Math.abs(m),
        norm = Math.sqrt((2 * l + 1) / (4 * Math.PI) * factorial(l - a) / factorial(l + a)),
        P = norm * legendre(l, a, z);
      out.push(m === 0 ? P : Math.SQRT2 * P * (m > 0 ? Math.cos(a * phi) : Math.sin(a * phi)));
    }
  }
  return out;
}

/** Gaussian n in a view; null where it is left out. */
export function project(
  s: PlainSplats,
  n: number,
  K: number,
  camera: Camera,
  S: number,
  decide: Decisions,
  near: number,
  blur: number,
): Drawn | null {
  const row = (a: ArrayLike<number>, width: number): number[] => Array.from({ length: width }, (_, i) => a[width * n + i]);
  const E = extrinsicsOf(camera),
    p = row(s.positions, 3),
    t = [0, 1, 2].map((i) => E[i][0] * p[0] + E[i][1] * p[1] + E[i][2] * p[2] + E[i][3]);
  if (decide.of(() => !(t[2] > near))) return null;
  const f = S / 2 / Math.tan(camera.fov / 2), limit = 1.3 * Math.tan(camera.fov / 2), W = E.slice(0, 3).map((r) => r.slice(0, 3));
  const [u, v] = [0, 1].map((i) => {
    const held = decide.of(() => Math.abs(t[i] / t[2]) > limit ? Math.sign(t[i]) * limit : 0);
    return held || t[i] / t[2];
  });
  const J = [[f / t[2], 0, -f * u / t[2]], [0, f / t[2], -f * v / t[2]]];
  const M = product(rotationOf(row(s.rotations, 4)), row(s.scales, 3).map((v, i) => [0, 1, 2].map((j) => i === j ? v : 0)));
  const T = product(J, W), C = product(product(T, product(M, transposed(M))), transposed(T));
  const det = C[0][0] * C[1][1] - C[0][1] ** 2, X = C[0][0] + blur, Y = C[0][1], Z = C[1][1] + blur, blurred = X * Z - Y * Y;
  if (decide.of(() => det <= 1e-6 || blurred <= 1e-6)) return null;
  const opacity = s.opacities[n] * Math.sqrt(det / (blurred + 1e-6) + 1e-6), middle = (X + Z) / 2;
  if (decide.of(() => opacity < 1 / 255)) return null;
  const m = [f * t[0] / t[2] + (S - 1) / 2, f * t[1] / t[2] + (S - 1) / 2];
  const tiles = decide.of(() => {
    const radius = Math.ceil(3 * Math.sqrt(middle + Math.sqrt(Math.max(0.1, middle ** 2 - blurred))));
    return [...m.map((v) => Math.floor((v - radius) / 16)), ...m.map((v) => Math.floor((v + radius) / 16))];
  });
  const colors = Array.from({ length: 3 * Math.max(1, K) }, (_, i) => s.colors[3 * Math.max(1, K) * n + i]);
  let rgb = colors;
  if (K) {
    const eye = [0, 1, 2].map((d) => camera.cameraToWorld[d][3]), from = p.map((v, d) => v - eye[d]);
    const basis = harmonicsOf(from.map((v) => v / Math.hypot(...from)), K);
    rgb = [0, 1, 2].map((c) => {
      const value = basis.reduce((sum, b, k) => sum + b * colors[3 * k + c], 0.5);
      return decide.of(() => value > 0) ? value : 0;
    });
  }
  return { m, conic: [Z / blurred, -Y / blurred, X / blurred], opacity, depth: t[2], rgb, tiles };
}

/** [5, S, S] of the Gaussians from `first` to `end`; K = 0 is plain colours. */
export function drawPlain(
  s: PlainSplats,
  [first, end]: [first: number, end: number],
  { K, camera, S, background, decide, near = 0.2, blur = 0.1 }: {
    K: number;
    camera: Camera;
    S: number;
    background: readonly number[];
    decide: Decisions;
    near?: number;
    blur?: number;
  },
): Float64Array {
  const y = new Float64Array(5 * S * S), drawn: Drawn[] = [];
  for (let n = first; n < end; n++) {
    const d = project(s, n, K, camera, S, decide, near, blur);
    if (d) drawn.push(d);
  }
  const order = decide.of(() => drawn.map((_, i) => i).sort((a, b) => drawn[a].depth - drawn[b].depth || a - b));
  for (let j = 0; j < S; j++) {
    for (let i = 0; i < S; i++) {
      const seen = decide.of(() => [] as [splat: number, held: boolean][]), fresh = seen.length === 0;
      let T = 1;
      const sum = [0, 0, 0, 0];
      const falloff = (d: Drawn): number => {
        const dx = i - d.m[0], dy = j - d.m[1];
        return d.opacity * Math.exp(-0.5 * (d.conic[0] * dx * dx + d.conic[2] * dy * dy) - d.conic[1] * dx * dy);
      };
      if (fresh) {
        let left = 1;
        for (const at of order) {
          const d = drawn[at], tx = Math.floor(i / 16), ty = Math.floor(j / 16), a = falloff(d);
          if (tx < d.tiles[0] || ty < d.tiles[1] || tx > d.tiles[2] || ty > d.tiles[3] || a < 1 / 255) continue;
          left *= 1 - Math.min(0.99, a);
          if (left < 1e-4) break;
          seen.push([at, a > 0.99]);
        }
        if (!seen.length) seen.push([-1, false]);
      }
      for (const [at, held] of seen) {
        if (at < 0) continue;
        const d = drawn[at], a = held ? 0.99 : falloff(d), w = a * T;
        d.rgb.forEach((v, c) => sum[c] += w * v);
        sum[3] += w * d.depth;
        T *= 1 - a;
      }
      [...sum.slice(0, 3).map((v, c) => v + T * background[c]), 1 - T, sum[3]].forEach((v, c) => y[(c * S + j) * S + i] = v);
    }
  }
  return y;
}
