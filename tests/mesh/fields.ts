import { isoSurface } from "../../lib/mesh/iso_surface.ts";
import type { Mesh } from "../../lib/mesh/mesh.ts";

/** A field [R,R,R] from a function of the voxel centres. */
export function fieldOf(R: number, value: (x: number, y: number, z: number) => number): Float32Array {
  const at = (i: number): number => (i + 0.5) / R - 0.5;
  return Float32Array.from({ length: R ** 3 }, (_, i) => value(at(Math.floor(i / (R * R))), at(Math.floor(i / R) % R), at(i % R)));
}

/** Positive within `radius` of `center`, in world units. */
export function ballField(R: number, radius: number, center: readonly number[] = [0, 0, 0]): Float32Array {
  return fieldOf(R, (x, y, z) => radius - Math.hypot(x - center[0], y - center[1], z - center[2]));
}

/** A ball's surface. */
export function ballMesh(R: number, radius: number): Mesh {
  return isoSurface(ballField(R, radius));
}

/** Unlike itself from every side: a bar along x with a tower at one end and a foot to one side of the other. */
export function oddMesh(R = 32): Mesh {
  const inBox = (p: number[], low: number[], high: number[]): boolean => p.every((c, k) => c > low[k] && c < high[k]);
  return isoSurface(
    fieldOf(R, (x, y, z) => {
      const p = [x, y, z];
      const inside = inBox(p, [-0.45, -0.1, -0.3], [0.45, 0.1, -0.1]) || inBox(p, [0.2, -0.1, -0.3], [0.45, 0.1, 0.45]) ||
        inBox(p, [-0.45, -0.1, -0.3], [-0.25, 0.4, 0]);
      return inside ? 1 : -1;
    }),
  );
}
