/** Gaussian splatting, differentiable by everything that a Gaussian is: many views of many scenes a call. */
import { pack } from "../../ffi/struct.ts";
import { K_SPLAT, type KSplat } from "../../ffi/symbols.ts";
import { withWorkspace } from "../ops/workspace.ts";
import { reshape, split } from "../ops/movement.ts";
import { device } from "../tensor/device.ts";
import { tidy } from "../tensor/scope.ts";
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor, tensor } from "../tensor/tensor.ts";
import { type Camera, extrinsicsOf } from "./camera.ts";

type Rgb = readonly [number, number, number];

/** N Gaussians in f32, those of a scene together, as they are drawn: activated, in the world's units. */
export interface Splats {
  /** Means [N, 3]. */
  positions: Tensor;
  /** [N, 3]: drawn as it is, or [N, K, 3]: coefficients of spherical harmonics, K = 1, 4, 9 or 16, in the order of 3DGS files. */
  colors: Tensor;
  /** [N] or [N, 1], from 0 to 1. */
  opacities: Tensor;
  /** Standard deviations along the axes [N, 3]. */
  scales: Tensor;
  /** Quaternions w, x, y, z [N, 4] of any length above 0. */
  rotations: Tensor;
  /** Scene b has the Gaussians from starts[b] to starts[b + 1]: B + 1 numbers from 0 to N. */
  starts: readonly number[];
}

/** Options of {@linkcode rasterize}. */
export interface SplatOptions {
  /** Pixels across and down, 1 to 8192. */
  size: number;
  /** One colour for all, or one for each view; by default black. */
  background?: Rgb | readonly Rgb[];
  /** What lies nearer to a camera is left out; by default 0.2. */
  near?: number;
  /** The variance in pixels² that every splat gains on the screen; by default 0.1. */
  blur?: number;
  /**
   * Room for this many pairs of splat and tile of 16 x 16 pixels, a small Gaussian has two or three. Nothing then waits for the device; where
   * it is too little, or a Gaussian is not finite, the pictures and all gradients are NaN. By default the device is asked, once.
   */
  pairs?: number;
}

/** What {@linkcode renderSplats} returns, V views in the order of their scenes. */
export interface SplatPictures {
  /** [V, 3, S, S] before its background. */
  color: Tensor;
  /** [V, S, S]: 1 - what is seen of the background. */
  alpha: Tensor;
  /** [V, S, S]: the sum of the splats' distances along the view axis, each times what is seen of it; divided by alpha it is a mean. */
  depth: Tensor;
}

/** The splats' part of each view, [V, 5, S, S]: red, green, blue, alpha, depth. `views[b]` are the cameras of scene b. See {@linkcode renderSplats}. */
export function rasterize(splats: Splats, views: readonly (readonly Camera[])[], options: SplatOptions): Tensor {
  const { positions, colors, opacities, scales, rotations } = splats, { size: S, near = 0.2, blur = 0.1 } = options;
  const N = expectSplats(splats, views.length), coefficients = colors.shape.length === 3 ? colors.shape[1] : 0;
  if (!Number.isInteger(S) || S < 1 || S > 8192) throw refuse(`size is ${S}, it must be a whole number from 1 to 8192`);
  if (!(near > 0 && near < Infinity)) throw refuse(`near is ${near}, it must be above 0`);
  if (!(blur >= 0 && blur < Infinity)) throw refuse(`blur is ${blur}, it must be 0 or more`);
  const cameras = views.flat(), V = cameras.length, scenes = sceneTable(splats.starts, views), k = kernels();
  const y = empty([V, 5, S, S]), inputs = [positions, colors, opacities, scales, rotations];
  return tidy(() => {
    const rows = cameras.flatMap((camera, i) => packCamera(camera, S, i)),
      backgrounds = packBackgrounds(options.background ?? [0, 0, 0], V);
    const words = new Int32Array(scenes.length + rows.length + backgrounds.length), status = empty([4], "i64"); // one upload for all three
    words.set(scenes);
    new Float32Array(words.buffer, 4 * scenes.length).set([...rows, ...backgrounds]);
    const tables = tensor(words, [words.length], { dtype: "i32" }), behind = (count: number): bigint => tables.addr + BigInt(4 * count);
    const problem: KSplat = {
      ...{ B: views.length, V, N, instances: dim("rasterize", "the number of splats", scenes.at(-1)!), height: S, width: S, coefficients },
      ...{ capacity: 0, near, blur, y: y.addr, status: status.addr },
      ...{ scenes: tables.addr, cameras: behind(scenes.length), backgrounds: behind(scenes.length + rows.length) },
      ...addresses("", inputs),
      ...{ projected: 0n, lists: 0n, scratch: 0n, d_y: 0n },
      ...addresses("d_", []),
    };
    const projected = bytes(sizesOf(problem)[0]);
    problem.projected = projected.addr;
    k.k_splat_project(pack(K_SPLAT, problem), stream());
    problem.capacity = options.pairs === undefined ? askPairs(status, scenes, N) : dim("rasterize", "pairs", options.pairs);
    const lists = bytes(sizesOf(problem)[1]);
    problem.lists = lists.addr;
    launch("fwd", problem);
    const saved = [...inputs, y, tables, status, projected, lists];
    return record("rasterize", y, inputs, saved, (dy) => {
      const grads = inputs.map((t) => t.requiresGrad ? empty(t.shape) : null);
      launch("bwd", { ...problem, d_y: dy.addr, ...addresses("d_", grads) });
      return grads;
    });
  });
}

/**
 * Pictures of Gaussians over a background: `views[b]` are the cameras of scene b. Gradients flow to positions, colours, opacities, scales and
 * rotations. The formulas are those of kernels/include/splat.h.
 */
export function renderSplats(splats: Splats, views: readonly (readonly Camera[])[], options: SplatOptions): SplatPictures {
  const y = rasterize(splats, views, options), [V, , S] = y.shape, [color, alpha, depth] = split(y, 1, [3, 1, 1]);
  return { color, alpha: reshape(alpha, [V, S, S]), depth: reshape(depth, [V, S, S]) };
}

function refuse(what: string): RangeError {
  return new RangeError(`Cannot run rasterize: ${what}`);
}

function bytes(count: number): Tensor {
  return empty([count], "u8");
}

const NAMES = ["means", "colors", "opacities", "scales", "rotations"] as const;

/** The fields `prefix + name` of the five inputs, or of their gradients. */
function addresses<P extends "" | "d_">(prefix: P, tensors: (Tensor | null)[]): Record<`${P}${typeof NAMES[number]}`, bigint> {
  return Object.fromEntries(NAMES.map((name, i) => [prefix + name, tensors[i]?.addr ?? 0n])) as Record<
    `${P}${typeof NAMES[number]}`,
    bigint
  >;
}

function sizesOf(problem: KSplat): number[] {
  const sizes = new BigUint64Array(4);
  kernels().k_splat_sizes(sizes, pack(K_SPLAT, problem));
  return Array.from(sizes, Number);
}

function launch(pass: "fwd" | "bwd", problem: KSplat): void {
  withWorkspace(
    (size) => size[0] = BigInt(sizesOf(problem)[pass === "fwd" ? 2 : 3]),
    (scratch) => kernels()[`k_splat_${pass}`](pack(K_SPLAT, { ...problem, scratch }), stream()),
  );
}

/** Pairs of a splat in the pictures that were drawn last. */
let pairsOfSplat = 3;

/** The pairs of the pictures; on a simulated device as many of each splat as the last pictures had. */
function askPairs(status: Tensor, scenes: number[], N: number): number {
  const splats = scenes.at(-1)!;
  if (device().simulated) return Math.ceil(pairsOfSplat * splats);
  const pairs = countPairs(status, scenes, N);
  if (splats) pairsOfSplat = pairs / splats;
  return pairs;
}

/** Waits for the device. Throws where Gaussians are faulty, or make more pairs than a call may have. */
function countPairs(status: Tensor, scenes: number[], N: number): number {
  const [pairs, faulty, first] = Array.from(status.readRaw() as BigInt64Array<ArrayBuffer>, Number);
  if (faulty) {
    const at = scenes.findLastIndex((start, i) => i % 3 === 2 && i < scenes.length - 1 && start <= first),
      [from, , before] = scenes.slice(at - 2);
    const gaussian = from + (first - before) % (scenes[at + 1] - from);
    throw refuse(
      `${faulty} splats of ${N} Gaussians cannot be drawn, the first is Gaussian ${gaussian}: all that it is made of must be finite, its ` +
        "rotation must not be 0, and its size on the screen must be below 10^9 pixels (a training with such Gaussians has diverged)",
    );
  }
  if (pairs >= 2 ** 31) throw refuse(`the Gaussians meet ${pairs} tiles, it must be fewer than 2^31: draw fewer views a call`);
  return pairs;
}

/** First Gaussian, first view and first splat of each scene, and their ends. */
function sceneTable(starts: readonly number[], views: readonly (readonly Camera[])[]): number[] {
  const table = [starts[0], 0, 0];
  views.forEach((cameras, b) => {
    const [, view, splat] = table.slice(-3);
    table.push(starts[b + 1], view + cameras.length, splat + cameras.length * (starts[b + 1] - starts[b]));
  });
  return table;
}

/** A row of `cameras` in splat.h. */
function packCamera(camera: Camera, S: number, i: number): number[] {
  const f = S / 2 / Math.tan(camera.fov / 2), row = extrinsicsOf(camera).slice(0, 3).flat();
  if (!(camera.fov > 0 && camera.fov < Math.PI)) throw refuse(`view ${i} has a fov of ${camera.fov}, it must be above 0 and below pi`);
  if (!row.every(Number.isFinite)) throw refuse(`the matrix of view ${i} is [${camera.cameraToWorld}], it must be finite`);
  return [...row, f, f, (S - 1) / 2, (S - 1) / 2];
}

function packBackgrounds(background: Rgb | readonly Rgb[], V: number): number[] {
  const each = typeof background[0] === "number" ? Array.from({ length: V }, () => background as Rgb) : background as readonly Rgb[];
  if (each.length !== V) throw refuse(`there are ${each.length} backgrounds, it must be 1 or one for each of the ${V} views`);
  return each.flat();
}

/** Throws unless shapes, dtypes and starts fit. Returns N. */
function expectSplats({ positions, colors, opacities, scales, rotations, starts }: Splats, B: number): number {
  const N = dim("rasterize", "N", positions.shape[0]), K = colors.shape.length === 3 ? colors.shape[1] : 1;
  const flat = opacities.shape.length === 1 ? [N] : [N, 1];
  const wanted = { positions: [N, 3], scales: [N, 3], rotations: [N, 4], opacities: flat };
  for (const [name, t] of Object.entries({ positions, scales, rotations, opacities, colors })) {
    expectDtype("rasterize", name, t, "f32");
    if (name !== "colors") expectShape("rasterize", name, t, wanted[name as keyof typeof wanted]);
  }
  if (colors.shape[0] !== N || colors.shape.at(-1) !== 3 || ![1, 4, 9, 16].includes(K) || ![2, 3].includes(colors.shape.length)) {
    throw refuse(`colors is [${colors.shape}], it must be [${N}, 3] or [${N}, 1, 4, 9 or 16, 3]`);
  }
  if (starts.length !== B + 1) throw refuse(`there are ${starts.length} starts, it must be ${B + 1}, one more than scenes have views`);
  if (starts[0] !== 0 || starts[B] !== N || starts.some((s, b) => !Number.isInteger(s) || (b > 0 && s < starts[b - 1]))) {
    throw refuse(`starts are [${starts}], they must be whole numbers from 0 to ${N} that never decrease`);
  }
  return N;
}
