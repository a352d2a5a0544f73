/** How well a SLat-VAE gives objects back: PSNR, SSIM and contact sheets, and the batches that it is trained and measured on. */
import * as e from "../mod.ts";

/** The features of objects as one sparse tensor, in the colours given for each. */
export function inputOf(objects: e.LoadedObject[], colors?: e.Recolor[], voxels: e.Voxels = voxelsOf(objects)): e.SparseTensor {
  const rows = objects.map((o) => o.rows());
  const recolored = (r: e.VoxelRows, k: number) =>
    colors ? e.recolorFeatures(r.feats, 3 * r.feats.length / r.coords.length, colors[k]) : r.feats;
  const feats = e.joinFloats(rows.map(recolored));
  return { features: e.tensor(feats, [voxels.N, feats.length / Math.max(1, voxels.N)]), voxels };
}

/** The voxels of objects, for as long as the enclosing step. */
export function voxelsOf(objects: e.LoadedObject[]): e.Voxels {
  return e.makeVoxels(e.batchCoords(objects.map((o) => o.rows().coords)), { B: objects.length });
}

/** The two networks. */
export interface SlatVae {
  encoder: e.SlatEncoder;
  decoder: e.SlatGaussianDecoder;
}

/** Pictures [V, 4, S, S] in bytes, straight, their colours times `gains` [V, 3], over a background for each: [V, 3, S, S] f32. */
export function compose(pictures: Uint8Array[], S: number, backgrounds: number[], gains?: number[]): e.Tensor {
  const V = pictures.length, rgba = e.bytesTensor(pictures, [V, 4, S, S]), alpha = e.slice(rgba, 1, 3, 4);
  const behind = e.mul(e.affine(alpha, { scale: -1, shift: 1 }), e.tensor(backgrounds, [V, 1, 1, 1]));
  const shown = e.mul(e.slice(rgba, 1, 0, 3), alpha);
  return e.add(gains ? e.mul(shown, e.tensor(gains, [V, 3, 1, 1])) : shown, behind);
}

/** Colour planes [V, 3, S, S] one by one, as `ssim` takes them. */
export function planes(pictures: e.Tensor): e.Tensor {
  const [V, C, H, W] = pictures.shape;
  return e.reshape(pictures, [V * C, H, W, 1]);
}

/** How well objects come back through the posterior's mean: means over their pictures on black, in decibels and from -1 to 1. */
export interface SlatVaeQuality {
  psnr: number;
  ssim: number;
  objects: number;
}

/** Training views `views` of an object drawn from its reconstruction, and as they are: [V, 3, S, S] each, in the caller's step. */
function reconstruct(
  { encoder, decoder }: SlatVae,
  object: e.LoadedObject,
  views: number[],
  S: number,
): { made: e.Tensor; truth: e.Tensor } {
  const x = inputOf([object]), cameras = object.cameras(), blur = decoder.args.representation_config["2d_filter_kernel_size"];
  const splats = e.splatsOfLatents(decoder, { features: e.slatEncode(encoder, x).mean, voxels: x.voxels });
  const { color } = e.renderSplats(splats, [views.map((v) => cameras[v])], { size: S, blur });
  return { made: e.minimum(color, e.tensor([1], [1])), truth: compose(views.map((v) => object.picture(v)), S, views.map(() => 0)) };
}

/** PSNR and SSIM over up to 8 views of each object. */
export function measureQuality(models: SlatVae, objects: e.LoadedObject[], S: number): SlatVaeQuality {
  const psnr: number[] = [], similar: number[] = [];
  for (const object of objects) {
    const count = object.cameras().length,
      views = Array.from({ length: Math.min(8, count) }, (_, k, n = Math.min(8, count)) => Math.floor(k * count / n));
    e.step(() =>
      e.noGrad(() => {
        const { made, truth } = reconstruct(models, object, views, S);
        psnr.push(...e.mseRows(made, truth).read().map((error) => -10 * Math.log10(Math.max(error, 1e-10))));
        similar.push(e.ssim(planes(made), planes(truth)).item());
      })
    );
  }
  const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length;
  return { psnr: mean(psnr), ssim: mean(similar), objects: objects.length };
}

/** Four sides of each object, above as it is, below as it comes back. */
export function contactSheet(models: SlatVae, objects: e.LoadedObject[], S: number): e.Image {
  const columns = objects.flatMap((object) =>
    e.step(() =>
      e.noGrad(() => {
        const { made, truth } = reconstruct(models, object, e.fourSides(object.cameras()), S), [ours, theirs] = [made.read(), truth.read()];
        const picture = (values: Float32Array, v: number) => e.conditionPicture(values.subarray(v * 3 * S * S, (v + 1) * 3 * S * S), S, S);
        return [0, 1, 2, 3].map((v) => [picture(theirs, v), picture(ours, v)]);
      })
    )
  );
  const rows = Array.from({ length: Math.ceil(columns.length / 8) }, (_, r) => e.columnsOf(columns.slice(8 * r, 8 * r + 8)));
  return rows.length > 1 && columns.length % 8 === 0 ? e.imageGrid(rows, { columns: 1, padding: 4 }) : e.columnsOf(columns);
}
