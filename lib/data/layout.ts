/** Where things lie in a dataset root (the layout of TRELLIS). */
import { join } from "node:path";

/** The paths of one object's parts. */
export interface AssetPaths {
  /** `voxels/<sha256>.ply` */
  voxels: string;
  /** `renders_cond/<sha256>` */
  views: string;
  /** Its `transforms.json`, written after the views. */
  transforms: string;
  /** Its view `i`. */
  view(i: number): string;
  /** `features/<name>/<sha256>.npz` */
  features(name: string): string;
  /** `latents/<name>/<sha256>.npz` */
  latents(name: string): string;
  /** `ss_latents/<name>/<sha256>.npz` */
  ssLatents(name: string): string;
}

/** The file name of view `i`. */
export function viewName(i: number): string {
  return `${String(i).padStart(3, "0")}.png`;
}

/** The paths of the object `sha256` in the dataset `root`. */
export function assetPaths(root: string, sha256: string): AssetPaths {
  const views = join(root, "renders_cond", sha256);
  return {
    voxels: join(root, "voxels", `${sha256}.ply`),
    views,
    transforms: join(views, "transforms.json"),
    view: (i) => join(views, viewName(i)),
    features: (name) => join(root, "features", name, `${sha256}.npz`),
    latents: (name) => join(root, "latents", name, `${sha256}.npz`),
    ssLatents: (name) => join(root, "ss_latents", name, `${sha256}.npz`),
  };
}
