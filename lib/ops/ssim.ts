/** Structural similarity of images (Wang et al. 2004). */
import { record } from "../tensor/tape.ts";
import { dim, empty, expectDtype, expectShape, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { cast } from "./cast.ts";
import { mean } from "./reduce.ts";

/**
 * The similarity at each pixel and channel: x and y [B, H, W, C] f32 in [0, 1] give [B, H, W, C]. Means, variances and covariance are under a
 * Gaussian window of 11 x 11, sigma 1.5, with zeros around the image; the constants are 0.01² and 0.03².
 */
export function ssimMap(x: Tensor, y: Tensor): Tensor {
  if (x.shape.length !== 4) throw new RangeError(`Cannot run ssimMap: x is [${x.shape}], it must be [B, H, W, C]`);
  expectShape("ssimMap", "y", y, x.shape);
  for (const [name, t] of [["x", x], ["y", y]] as const) expectDtype("ssimMap", name, t, "f32");
  const [B, H, W, C] = x.shape.map((n) => dim("ssimMap", "an extent of x", n)), k = kernels(), wanted = x.requiresGrad || y.requiresGrad;
  const map = empty(x.shape), partials = wanted ? empty([3, ...x.shape]) : null;
  k.k_ssim_fwd(map.addr, partials?.addr ?? 0n, x.addr, y.addr, B, H, W, C, stream());

  return record("ssimMap", map, [x, y], [x, y, partials], (dmap) => {
    const gradient = (of: Tensor, other: Tensor, p: Tensor): Tensor => {
      const d = empty(of.shape);
      k.k_ssim_bwd(d.addr, dmap.addr, p.addr, of.addr, other.addr, B, H, W, C, stream());
      return d;
    };
    const dx = x.requiresGrad ? gradient(x, y, partials!) : null;
    if (!y.requiresGrad) return [dx, null];
    const swapped = empty([3, ...x.shape]), unused = empty(x.shape); // the similarity is symmetric
    k.k_ssim_fwd(unused.addr, swapped.addr, y.addr, x.addr, B, H, W, C, stream());
    return [dx, gradient(y, x, swapped)];
  });
}

/** The mean of {@linkcode ssimMap}, in f32: 1 where both images are equal. */
export function ssim(x: Tensor, y: Tensor): Tensor {
  return mean(ssimMap(cast(x, "f32"), cast(y, "f32")));
}
