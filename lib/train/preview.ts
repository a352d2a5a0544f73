/** Pictures of a mesh, for previews. */
import type { Image } from "../io/image.ts";
import { srgbToLinear } from "../render/srgb.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { type Direction, orbitCamera } from "../render/camera.ts";
import { renderMesh } from "../render/render_mesh.ts";

const RADIUS = 2.4, FOV = 36 * Math.PI / 180, CLAY = 0.6;

/** Views of a mesh on white, evenly around it from `from` on, `size` pixels a side; grey where it has no colours. */
export function meshPictures(mesh: Mesh, { count, from, size }: { count: number; from: Direction; size: number }): Image[] {
  const { positions, triangles, normals, colors } = mesh, linear = Float32Array.from({ length: 256 }, (_, c) => srgbToLinear(c / 255));
  const rgba = colors &&
    Float32Array.from({ length: colors.length / 3 * 4 }, (_, i) => i % 4 === 3 ? 1 : linear[colors[Math.floor(i / 4) * 3 + i % 4]]);
  const grey = colors ? 1 : CLAY, materials = [{ baseColor: [grey, grey, grey, 1] as const }];
  const cameras = Array.from(
    { length: count },
    (_, k) => orbitCamera({ yaw: from.yaw + 2 * Math.PI * k / count, pitch: from.pitch }, RADIUS, FOV),
  );
  return renderMesh({ positions, triangles, normals, colors: rgba, materials }, cameras, { size }).map((view) => onWhite(view.rgba, size));
}

function onWhite(rgba: Uint8Array, size: number): Image {
  const data = new Uint8Array(size * size * 3);
  for (let i = 0; i < size * size; i++) {
    const alpha = rgba[i * 4 + 3] / 255;
    for (let c = 0; c < 3; c++) data[i * 3 + c] = Math.round(rgba[i * 4 + c] * alpha + 255 * (1 - alpha));
  }
  return { width: size, height: size, channels: 3, data };
}
