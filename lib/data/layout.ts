/** Where things lie in a dataset root (the layout of TRELLIS). */
import { join } from "node:path";

/** A folder of views. */
export interface ViewPaths {
  folder: string;
  /** Its `transforms.json`, written after the views. */
  transforms: string;
  /** Its view `i`. */
  view(i: number): string;
}

/** A folder of views with a mesh. */
export interface RenderPaths extends ViewPaths {
  mesh: string;
}

/** The paths of one object's parts. */
export interface AssetPaths {
  /** `voxels/<sha256>.ply` */
  voxels: string;
  /** `renders/<sha256>`: views to train decoders on, and `mesh.ply`: the normalised mesh, Z up. */
  renders: RenderPaths;
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

function viewPaths(folder: string): ViewPaths {
  return { folder, transforms: join(folder, "transforms.json"), view: (i) => join(folder, viewName(i)) };
}

/** The paths of the object `sha256` in the dataset `root`. */
export function assetPaths(root: string, sha256: string): AssetPaths {
  const { folder: views, transforms, view } = viewPaths(join(root, "renders_cond", sha256)),
    renders = viewPaths(join(root, "renders", sha256));
  return {
    voxels: join(root, "voxels", `${sha256}.ply`),
    renders: { ...renders, mesh: join(renders.folder, "mesh.ply") },
    views,
    transforms,
    view,
    features: (name) => join(root, "features", name, `${sha256}.npz`),
    latents: (name) => join(root, "latents", name, `${sha256}.npz`),
    ssLatents: (name) => join(root, "ss_latents", name, `${sha256}.npz`),
  };
}
