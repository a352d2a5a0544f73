/** Cubes of voxels as channels and back. */
import type { Tensor } from "../tensor/tensor.ts";
import { permute, reshape } from "./movement.ts";

function whole(op: string, x: Tensor, extents: readonly number[], by: number): void {
  if (x.shape.length !== 5 || !Number.isInteger(by) || by < 1 || extents.some((n) => n % by !== 0)) {
    throw new RangeError(`Cannot run ${op}: x is [${x.shape}], it must have 5 axes with [${extents}] multiples of ${by}`);
  }
}

/** Cubes of p³ voxels as channels: x [B, C, X, Y, Z] gives [B, C p³, X/p, Y/p, Z/p], channel ((c p + i) p + j) p + k. */
export function patchify(x: Tensor, p: number): Tensor {
  const [B, C, X, Y, Z] = x.shape;
  whole("patchify", x, [X, Y, Z], p);
  if (p === 1) return x;
  const cells = permute(reshape(x, [B, C, X / p, p, Y / p, p, Z / p, p]), [0, 1, 3, 5, 7, 2, 4, 6]); // [B, C, p, p, p, X/p, Y/p, Z/p]
  return reshape(cells, [B, C * p ** 3, X / p, Y / p, Z / p]);
}

/** The inverse of {@linkcode patchify}: x [B, C p³, X, Y, Z] gives [B, C, X p, Y p, Z p]. */
export function unpatchify(x: Tensor, p: number): Tensor {
  const [B, CP, X, Y, Z] = x.shape;
  whole("unpatchify", x, [CP], p ** 3);
  if (p === 1) return x;
  const cells = permute(reshape(x, [B, CP / p ** 3, p, p, p, X, Y, Z]), [0, 1, 5, 2, 6, 3, 7, 4]); // [B, C, X, p, Y, p, Z, p]
  return reshape(cells, [B, CP / p ** 3, X * p, Y * p, Z * p]);
}

/** Channels as cubes of s³ voxels, channels last: x [B, X, Y, Z, C s³] with channel ((c s + i) s + j) s + k gives [B, X s, Y s, Z s, C]. */
export function pixelShuffle3d(x: Tensor, s: number): Tensor {
  const [B, X, Y, Z, CS] = x.shape;
  whole("pixelShuffle3d", x, [CS], s ** 3);
  if (s === 1) return x;
  const cells = permute(reshape(x, [B, X, Y, Z, CS / s ** 3, s, s, s]), [0, 1, 5, 2, 6, 3, 7, 4]); // [B, X, s, Y, s, Z, s, C]
  return reshape(cells, [B, X * s, Y * s, Z * s, CS / s ** 3]);
}
