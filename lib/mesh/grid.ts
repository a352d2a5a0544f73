/** Volumes before they become surfaces: blurring a field and filling what its shell encloses. Fields are [R,R,R], x slowest, z fastest. */

/** Options of {@linkcode fillInterior}. */
export interface FillOptions {
  /** Voxels over it are solid. */
  level?: number;
  /** Holes in the shell up to about twice as many voxels wide do not let the outside in. */
  close?: number;
}

/** R of a field [R,R,R] of so many values. Throws a RangeError where that is no cube. */
export function gridSide(length: number): number {
  const R = Math.round(Math.cbrt(length));
  if (R < 1 || R ** 3 !== length) throw new RangeError(`Cannot take a field as a grid: it has ${length} values, it must be [R,R,R]`);
  return R;
}

/** A field convolved with a Gaussian of width `sigma` voxels, cut off at 3 sigma; beyond the border the field goes on as at the border. */
export function blurGrid(field: Float32Array, sigma: number): Float32Array {
  const R = gridSide(field.length), radius = Math.ceil(3 * sigma);
  const weights = Float64Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / sigma) ** 2));
  const total = weights.reduce((sum, w) => sum + w, 0);
  let from = field;
  for (const stride of [R * R, R, 1]) {
    const to = new Float32Array(field.length), line = new Float64Array(R + 2 * radius);
    for (let start = 0; start < field.length; start++) {
      if (Math.floor(start / stride) % R !== 0) continue;
      for (let i = 0; i < line.length; i++) line[i] = from[start + Math.min(Math.max(i - radius, 0), R - 1) * stride];
      for (let i = 0; i < R; i++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * line[i + k];
        to[start + i * stride] = sum / total;
      }
    }
    from = to;
  }
  return from;
}

/**
 * A field whose hollows are solid: a shell of voxels along a surface becomes the body inside. Voxels at most at `level` that no path of
 * neighbouring such voxels joins with the outside become as solid as they were empty, and at least half as solid as the mean solid voxel.
 * With `close` the shell is first made thicker by that many voxels, and the body thinner again, so that a leaky shell fills as well.
 */
export function fillInterior(field: Float32Array, { level = 0, close = 0 }: FillOptions = {}): Float32Array {
  const R = gridSide(field.length), margin = close + 1, P = R + 2 * margin;
  const solid = new Uint8Array(P ** 3), at = new Uint32Array(field.length);
  let count = 0, excess = 0;
  for (let i = 0; i < field.length; i++) {
    const z = i % R, y = Math.floor(i / R) % R, x = Math.floor(i / (R * R));
    at[i] = ((x + margin) * P + y + margin) * P + z + margin;
    if (!(field[i] > level)) continue;
    solid[at[i]] = 1;
    count++;
    excess += field[i] - level;
  }
  const wall = spread(solid, P, { value: 1, radius: close });
  const body = spread(floodOutside(wall, P), P, { value: 0, radius: close });
  const least = excess / Math.max(count, 1) / 2;
  return field.map((value, i) => body[at[i]] === 1 && !(value > level) ? level + Math.max(level - value, least) : value);
}

/** 0 for the empty voxels of [P,P,P] that hang together with voxel 0, 1 for all others. */
function floodOutside(wall: Uint8Array, P: number): Uint8Array {
  const filled = new Uint8Array(wall.length).fill(1), queue = new Uint32Array(wall.length);
  let head = 0, tail = 1;
  filled[0] = 0;
  while (head < tail) {
    const i = queue[head++], z = i % P, y = Math.floor(i / P) % P, x = Math.floor(i / (P * P));
    for (let side = 0; side < 6; side++) {
      const along = side < 2 ? z : side < 4 ? y : x, step = (side & 1) === 1 ? 1 : -1;
      if (along + step < 0 || along + step >= P) continue;
      const next = i + step * (side < 2 ? 1 : side < 4 ? P : P * P);
      if (filled[next] === 0 || wall[next] === 1) continue;
      filled[next] = 0;
      queue[tail++] = next;
    }
  }
  return filled;
}

/** A mask [P,P,P] in which `value` has grown by a cube of `radius` voxels to each side. */
function spread(mask: Uint8Array, P: number, { value, radius }: { value: 0 | 1; radius: number }): Uint8Array {
  let from = mask;
  for (const stride of radius > 0 ? [P * P, P, 1] : []) {
    const to = from.slice();
    for (let i = 0; i < from.length; i++) {
      if (from[i] !== value) continue;
      const along = Math.floor(i / stride) % P;
      for (let k = Math.max(-radius, -along); k <= Math.min(radius, P - 1 - along); k++) to[i + k * stride] = value;
    }
    from = to;
  }
  return from;
}
