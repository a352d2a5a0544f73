/** An object's pictures in a dataset: views from around it, and the transforms.json that says from where. */
import { writeFileAtomic } from "../io/atomic.ts";
import { writePng } from "../io/image.ts";
import { type Camera, frameOf } from "../render/camera.ts";
import type { Normalized, RenderMesh } from "../render/mesh.ts";
import { renderMesh, type RenderOptions } from "../render/render_mesh.ts";
import { viewName, type ViewPaths } from "./layout.ts";
import { writing } from "./output_error.ts";

/** Views rendered at a time, so that many large ones need little memory. */
const TOGETHER = 16;

/** Whether `views` views of `size` pixels are all there; transforms.json is written last, so it vouches for the pictures. */
export function hasViews(paths: ViewPaths, { views, size }: { views: number; size: number }): boolean {
  try {
    const { frames } = JSON.parse(Deno.readTextFileSync(paths.transforms));
    if (!Array.isArray(frames) || frames.length !== views) return false;
    using file = Deno.openSync(paths.view(0));
    const header = new Uint8Array(24);
    return file.readSync(header) === 24 && new DataView(header.buffer).getUint32(16) === size; // IHDR's width
  } catch {
    return false;
  }
}

/**
 * Renders `mesh` once a camera into the folder of `paths`, in place of what is there, and writes transforms.json when all is done. Throws an
 * OutputError where it cannot write.
 */
export function writeViews(
  paths: ViewPaths,
  { mesh, scale, offset }: Normalized<RenderMesh>,
  cameras: readonly Camera[],
  options: Pick<RenderOptions, "size" | "device">,
): void {
  const { size } = options;
  writing(() => {
    removeIfThere(paths.transforms);
    Deno.mkdirSync(paths.folder, { recursive: true });
  });
  for (let first = 0; first < cameras.length; first += TOGETHER) {
    renderMesh(mesh, cameras.slice(first, first + TOGETHER), options).forEach(({ rgba }, i) => {
      writing(() => writePng(paths.view(first + i), { width: size, height: size, channels: 4, data: rgba }));
    });
  }
  const frames = cameras.map((camera, i) => frameOf(camera, viewName(i)));
  const text = JSON.stringify({ aabb: [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]], scale, offset, frames }, null, 1);
  writing(() => {
    writeFileAtomic(paths.transforms, new TextEncoder().encode(text));
    for (let i = cameras.length; removeIfThere(paths.view(i)); i++);
  });
}

function removeIfThere(path: string): boolean {
  try {
    Deno.removeSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
