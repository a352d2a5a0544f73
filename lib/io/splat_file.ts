/** Gaussians in the 32 bytes that web viewers read (`.splat`): smaller than PLY, at 8 bits for colour, opacity and rotation. */
import type { GaussianCloud } from "./ply_gaussians.ts";

/** The first coefficient of spherical harmonics: 1 / (2 sqrt(pi)). */
const DEGREE_0 = 0.28209479177387814;
const BYTES = 32;

/**
 * A `.splat` file: per Gaussian position and scale (3 float32 each), red, green, blue and opacity (4 bytes), rotation w, x, y, z (4 bytes, 128 (q + 1)),
 * in the world's own axes. Of spherical harmonics the constant part is kept. The most visible Gaussians come first.
 */
export function splatFile({ positions, colors, opacities, scales, rotations }: GaussianCloud): Uint8Array<ArrayBuffer> {
  const N = opacities.length, K = N ? colors.length / N / 3 : 1, out = new Uint8Array(N * BYTES), view = new DataView(out.buffer);
  const byte = (x: number): number => Math.round(255 * Math.min(1, Math.max(0, x)));
  const seen = Float32Array.from(opacities, (o, n) => o * scales[3 * n] * scales[3 * n + 1] * scales[3 * n + 2]);
  const order = Uint32Array.from(opacities, (_, n) => n).sort((a, b) => seen[b] - seen[a] || a - b);
  order.forEach((n, i) => {
    const at = i * BYTES, length = Math.hypot(...rotations.subarray(4 * n, 4 * n + 4)) || 1;
    for (let d = 0; d < 3; d++) {
      view.setFloat32(at + 4 * d, positions[3 * n + d], true);
      view.setFloat32(at + 12 + 4 * d, scales[3 * n + d], true);
      out[at + 24 + d] = byte(0.5 + DEGREE_0 * colors[3 * K * n + d]);
    }
    out[at + 27] = byte(opacities[n]);
    for (let k = 0; k < 4; k++) out[at + 28 + k] = Math.min(255, Math.round(128 * (rotations[4 * n + k] / length + 1)));
  });
  return out;
}
