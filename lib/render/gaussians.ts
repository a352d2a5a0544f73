/** The Gaussian representation: from a decoder's numbers to what is drawn, and to and from host arrays. */
import { add, affine, exp, sigmoid, softplus, sqrt, square } from "../ops/elementwise.ts";
import { tidy } from "../tensor/scope.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";
import type { Splats } from "./splat.ts";

/** What a decoder gives, before activations. N Gaussians, those of a sample together. */
export interface RawGaussians {
  /** Centres in the unit cube [N, 3]. */
  xyz: Tensor;
  /** Coefficients of spherical harmonics [N, K, 3]. */
  featuresDc: Tensor;
  /** [N, 3]. */
  scaling: Tensor;
  /** [N, 4]: w, x, y, z, to be added to the identity. */
  rotation: Tensor;
  /** [N, 1]. */
  opacity: Tensor;
}

/** The part of a decoder's `representation_config` that activates. */
export interface GaussianActivation {
  /** The scale that a zero stands for. */
  scaling_bias: number;
  /** The opacity that a zero stands for. */
  opacity_bias: number;
  /** What is added to every scale, as a root of squares. */
  "3d_filter_kernel_size": number;
  scaling_activation: "exp" | "softplus";
}

/**
 * What the raw numbers stand for, in a world that is the unit cube around 0: position = xyz - 1/2, scale = sqrt(act(s + act⁻¹(bias))² +
 * kernel²) with act = softplus or exp, rotation = q + (1, 0, 0, 0), opacity = sigmoid(o + logit(bias)). Sample b has the Gaussians from
 * starts[b] to starts[b + 1].
 */
export function activateGaussians(raw: RawGaussians, starts: readonly number[], config: GaussianActivation): Splats {
  const { scaling_bias: s, opacity_bias: o, "3d_filter_kernel_size": kernel, scaling_activation: name } = config;
  if (!(s > 0)) throw new RangeError(`Cannot activate Gaussians: scaling_bias is ${s}, it must be above 0`);
  if (!(o > 0 && o < 1)) throw new RangeError(`Cannot activate Gaussians: opacity_bias is ${o}, it must be between 0 and 1`);
  return tidy(() => {
    const softened = name === "softplus", shift = softened ? s + Math.log(-Math.expm1(-s)) : Math.log(s), act = softened ? softplus : exp;
    return {
      positions: add(raw.xyz, -0.5),
      colors: raw.featuresDc,
      opacities: sigmoid(add(raw.opacity, Math.log(o / (1 - o)))),
      scales: sqrt(affine(square(act(add(raw.scaling, shift))), { shift: kernel ** 2 })),
      rotations: add(raw.rotation, tensor([1, 0, 0, 0], [4])),
      starts,
    };
  });
}

/** The Gaussians of one scene in host arrays, activated. */
export interface SplatArrays {
  /** [N, 3]. */
  positions: Float32Array<ArrayBuffer>;
  /** Coefficients of spherical harmonics [N, K, 3]. */
  colors: Float32Array<ArrayBuffer>;
  /** [N]. */
  opacities: Float32Array<ArrayBuffer>;
  /** [N, 3]. */
  scales: Float32Array<ArrayBuffer>;
  /** [N, 4]: w, x, y, z. */
  rotations: Float32Array<ArrayBuffer>;
}

const WIDTHS = { positions: 3, opacities: 1, scales: 3, rotations: 4 } as const;

/** The scenes of `splats` on the host; colours must be coefficients of spherical harmonics. Waits for the device. */
export function readSplats(splats: Splats): SplatArrays[] {
  const { colors, starts } = splats;
  if (colors.shape.length !== 3) throw new RangeError(`Cannot read splats: colors is [${colors.shape}], it must be [N, K, 3]`);
  const widths = { ...WIDTHS, colors: 3 * colors.shape[1] }, names = Object.keys(widths) as (keyof typeof widths)[];
  const all = names.map((name) => [name, splats[name].read()] as const);
  return starts.slice(1).map((end, b) =>
    Object.fromEntries(
      all.map(([name, values]) => [name, values.slice(starts[b] * widths[name], end * widths[name])]),
    ) as unknown as SplatArrays
  );
}

/** Host arrays on the device, one scene each; all of one degree of spherical harmonics. */
export function splatsOf(scenes: readonly SplatArrays[]): Splats {
  const counts = scenes.map(({ opacities }) => opacities.length), N = counts.reduce((a, b) => a + b, 0);
  const K = N ? scenes.reduce((sum, { colors }) => sum + colors.length, 0) / N / 3 : 1;
  const join = (name: keyof SplatArrays, shape: number[]): Tensor => {
    const width = shape.slice(1).reduce((a, b) => a * b, 1), values = new Float32Array(N * width);
    let at = 0;
    scenes.forEach((scene, b) => {
      if (scene[name].length !== counts[b] * width) {
        throw new RangeError(
          `Cannot take splats: ${name} of scene ${b} has ${scene[name].length} values, it must have ${counts[b] * width}`,
        );
      }
      values.set(scene[name], at);
      at += scene[name].length;
    });
    return tensor(values, shape);
  };
  const starts = [0];
  for (const count of counts) starts.push(starts.at(-1)! + count);
  return {
    positions: join("positions", [N, 3]),
    colors: join("colors", [N, K, 3]),
    opacities: join("opacities", [N]),
    scales: join("scales", [N, 3]),
    rotations: join("rotations", [N, 4]),
    starts,
  };
}
