/** Pictures of what a model makes, for a run's samples. */
import { type Image, imageGrid } from "../io/image.ts";
import { orbitCamera } from "../render/camera.ts";
import { renderVoxels } from "../render/render_voxels.ts";

const YAW = -Math.PI / 3, PITCH = 0.45, RADIUS = 2.4, FOV = 40 * Math.PI / 180;

/** One voxel list [N, 3] as a picture on white, seen from above the front; `colors` [N, 3] are sRGB in 0 to 1, by default by place. */
export function voxelPicture(voxels: Int32Array, resolution: number, size = 160, colors?: Float32Array): Image {
  const data = new Uint8Array(size * size * 3).fill(255);
  if (voxels.length) {
    const [{ rgba }] = renderVoxels(voxels, resolution, [orbitCamera({ yaw: YAW, pitch: PITCH }, RADIUS, FOV)], { size, colors });
    for (let i = 0; i < size * size; i++) {
      const alpha = rgba[i * 4 + 3] / 255;
      for (let c = 0; c < 3; c++) data[i * 3 + c] = rgba[i * 4 + c] * alpha + 255 * (1 - alpha);
    }
  }
  return { width: size, height: size, channels: 3, data };
}

/** A picture [3, S, S] in [0, 1] as an image of `size` pixels a side, by the nearest pixel. */
export function conditionPicture(values: Float32Array, S: number, size = 160): Image {
  const data = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const from = Math.floor(y * S / size) * S + Math.floor(x * S / size);
      for (let c = 0; c < 3; c++) data[(y * size + x) * 3 + c] = Math.round(values[c * S * S + from] * 255);
    }
  }
  return { width: size, height: size, channels: 3, data };
}

/** Rows of pictures as one: each inner list is a column from top to bottom. */
export function columnsOf(columns: Image[][]): Image {
  const rows = columns[0].map((_, r) => columns.map((column) => column[r]));
  return imageGrid(rows.flat(), { columns: columns.length });
}

/** Rows [N, C] as colours [N, 3] in 0 to 1: the first three channels (the last ones again where there are fewer), 0.5 where they are 0. */
export function channelColors(rows: Float32Array, C: number): Float32Array {
  return Float32Array.from({ length: rows.length / C * 3 }, (_, i) => {
    return 1 / (1 + Math.exp(-rows[Math.floor(i / 3) * C + Math.min(i % 3, C - 1)]));
  });
}
