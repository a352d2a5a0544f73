/** Gaussians as PLY files of the layout that 3DGS viewers read. */
import { readPly, writePly } from "./ply.ts";
import type { PlyColumn } from "./ply_parse.ts";
import { type Source, sourceName } from "./read.ts";

/** N Gaussians, activated: as they are drawn. */
export interface GaussianCloud {
  /** [N, 3]. */
  positions: Float32Array<ArrayBuffer>;
  /** Coefficients of spherical harmonics [N, K, 3], K = 1, 4, 9 or 16. */
  colors: Float32Array<ArrayBuffer>;
  /** [N], from 0 to 1. */
  opacities: Float32Array<ArrayBuffer>;
  /** Standard deviations [N, 3], above 0. */
  scales: Float32Array<ArrayBuffer>;
  /** Quaternions w, x, y, z [N, 4]. */
  rotations: Float32Array<ArrayBuffer>;
}

/** Options of {@linkcode writeGaussians} and {@linkcode readGaussians}. */
export interface GaussianPlyOptions {
  /** Whether the file has Y down (x, -z, y), as TRELLIS writes them, or the world's own axes; by default it has. */
  turned?: boolean;
}

const HALF = Math.SQRT1_2;
/** Opacities are kept off 0 and 1, whose logits are not finite. */
const LEAST = 1e-7;

/** The product of two quaternions. */
function times([a, b, c, d]: number[], [w, x, y, z]: number[]): number[] {
  return [a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y, a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w];
}

/**
 * Writes x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3, all float32: opacity as logit, scales as logarithms, f_rest by channel.
 * With `turned` (the default) (x, y, z) becomes (x, -z, y); that is for K = 1, since higher coefficients do not turn with it.
 */
export function writeGaussians(path: string, cloud: GaussianCloud, { turned = true }: GaussianPlyOptions = {}): void {
  const { positions, colors, opacities, scales, rotations } = cloud, N = opacities.length, K = N ? colors.length / N / 3 : 1;
  for (const [name, width] of [["positions", 3], ["scales", 3], ["rotations", 4], ["colors", 3 * K]] as const) {
    const { length } = cloud[name];
    if (length !== N * width) throw new Error(`Cannot write ${path}: ${name} has ${length} values, it must have ${N * width}`);
    const at = cloud[name].findIndex((v) => !Number.isFinite(v));
    if (at >= 0) throw new Error(`Cannot write ${path}: ${name}[${at}] is ${cloud[name][at]}, it must be finite`);
  }
  if (![1, 4, 9, 16].includes(K)) throw new Error(`Cannot write ${path}: there are ${K} coefficients, it must be 1, 4, 9 or 16`);
  if (turned && K > 1) throw new Error(`Cannot write ${path}: there are ${K} coefficients, with \`turned\` it must be 1`);
  const thick = scales.findIndex((v) => !(v > 0));
  if (thick >= 0) throw new Error(`Cannot write ${path}: scales[${thick}] is ${scales[thick]}, it must be above 0`);
  const dull = opacities.findIndex((v) => !(v >= 0 && v <= 1));
  if (dull >= 0) throw new Error(`Cannot write ${path}: opacities[${dull}] is ${opacities[dull]}, it must be from 0 to 1`);
  const column = (value: (n: number) => number): PlyColumn => Float32Array.from({ length: N }, (_, n) => value(n));
  const turns = turned ? column4(rotations, N, (q) => times([HALF, HALF, 0, 0], q)) : rotations;
  const p = (axis: number) => column((n) => positions[3 * n + axis]), zero = column(() => 0);
  writePly(path, {
    vertex: {
      x: p(0),
      y: turned ? column((n) => -positions[3 * n + 2]) : p(1),
      z: turned ? p(1) : p(2),
      ...{ nx: zero, ny: zero, nz: zero },
      ...Object.fromEntries([0, 1, 2].map((c) => [`f_dc_${c}`, column((n) => colors[3 * K * n + c])])),
      ...Object.fromEntries(
        Array.from({ length: 3 * (K - 1) }, (_, i) => {
          const c = Math.floor(i / (K - 1)), k = 1 + i % (K - 1);
          return [`f_rest_${i}`, column((n) => colors[3 * (K * n + k) + c])];
        }),
      ),
      opacity: column((n) => {
        const o = Math.min(1 - LEAST, Math.max(LEAST, opacities[n]));
        return Math.log(o / (1 - o));
      }),
      ...Object.fromEntries([0, 1, 2].map((axis) => [`scale_${axis}`, column((n) => Math.log(scales[3 * n + axis]))])),
      ...Object.fromEntries([0, 1, 2, 3].map((i) => [`rot_${i}`, column((n) => turns[4 * n + i])])),
    },
  });
}

function column4(values: Float32Array, N: number, map: (q: number[]) => number[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(values.length);
  for (let n = 0; n < N; n++) {
    const q = map([...values.subarray(4 * n, 4 * n + 4)]), length = Math.hypot(...q);
    out.set(q.map((v) => v / (length || 1)), 4 * n);
  }
  return out;
}

/** Reads what {@linkcode writeGaussians} and 3DGS trainings write. Throws an `Error` that names the file and what it lacks. */
export function readGaussians(source: Source, { turned = true }: GaussianPlyOptions = {}): GaussianCloud {
  const name = sourceName(source, "PLY"), { vertex } = readPly(source).elements, N = vertex?.count ?? 0, columns = vertex?.columns ?? {};
  const rest = Object.keys(columns).filter((key) => /^f_rest_\d+$/.test(key)).length, K = 1 + rest / 3;
  if (![1, 4, 9, 16].includes(K)) throw new Error(`Cannot read ${name}: it has ${rest} f_rest properties, it must have 0, 9, 24 or 45`);
  if (turned && K > 1) {
    throw new Error(`Cannot read ${name}: it has ${rest} f_rest properties, with \`turned\` it must have 0 (read it as it is)`);
  }
  const take = (width: number, key: (i: number) => string, map = (v: number): number => v): Float32Array<ArrayBuffer> => {
    const out = new Float32Array(N * width);
    for (let i = 0; i < width; i++) {
      const values = columns[key(i)];
      if (!values) throw new Error(`Cannot read ${name}: it has no vertex ${key(i)}, it must be a file of Gaussians`);
      for (let n = 0; n < N; n++) {
        const value = map(values[n]);
        if (!Number.isFinite(value)) throw new Error(`Cannot read ${name}: ${key(i)} of vertex ${n} is ${values[n]}, it must be finite`);
        out[n * width + i] = value;
      }
    }
    return out;
  };
  const positions = take(3, (i) => "xyz"[i]), rotations = take(4, (i) => `rot_${i}`);
  for (let n = 0; turned && n < N; n++) {
    const [, y, z] = positions.subarray(3 * n, 3 * n + 3);
    positions[3 * n + 1] = z;
    positions[3 * n + 2] = -y;
  }
  return {
    positions,
    colors: take(3 * K, (i) => i < 3 ? `f_dc_${i}` : `f_rest_${i % 3 * (K - 1) + Math.floor(i / 3) - 1}`),
    opacities: take(1, () => "opacity", (v) => 1 / (1 + Math.exp(-v))),
    scales: take(3, (i) => `scale_${i}`, Math.exp),
    rotations: turned ? column4(rotations, N, (q) => times([HALF, -HALF, 0, 0], q)) : rotations,
  };
}
