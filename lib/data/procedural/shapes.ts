/** Closed solids for the procedural objects: Z up, faces counter-clockwise from outside, one unit about the size of the object. */

/** A point or a direction. */
export type Vec3 = [number, number, number];

/** A closed triangle mesh with texture coordinates at its corners. */
export interface Shape {
  points: Vec3[];
  /** Three point indices each. */
  faces: [number, number, number][];
  /** One (u, v) for each corner of each face, in units. */
  uvs: [number, number][][];
  /** Faces that meet at less than this angle, in degrees, are shaded as one smooth surface. */
  crease: number;
}

/** Options of {@linkcode loft}. */
export interface LoftOptions {
  /** Joins the last ring with the first (a torus) in place of closing both ends. */
  loop?: boolean;
  /** See {@linkcode Shape}. */
  crease?: number;
}

function subtract(a: Vec3, b: Vec3): Vec3 {
  return [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
}

function cross(a: Vec3, b: Vec3): Vec3 {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function distance(a: Vec3, b: Vec3): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

function unit(a: Vec3): Vec3 {
  const length = Math.hypot(...a) || 1;
  return [a[0] / length, a[1] / length, a[2] / length];
}

/** Twice the area of a ring times its normal (Newell). */
function ringNormal(ring: Vec3[]): Vec3 {
  const sum: Vec3 = [0, 0, 0];
  ring.forEach((p, i) => {
    const n = cross(p, ring[(i + 1) % ring.length]);
    for (let k = 0; k < 3; k++) sum[k] += n[k];
  });
  return sum;
}

/** Ear clipping: triangles of a simple polygon, in the ring's own direction; `flat` holds its points in the plane. */
function clipEars(flat: [number, number][]): [number, number, number][] {
  const area = (a: number, b: number, c: number): number =>
    (flat[b][0] - flat[a][0]) * (flat[c][1] - flat[a][1]) - (flat[b][1] - flat[a][1]) * (flat[c][0] - flat[a][0]);
  const left = flat.map((_, i) => i), out: [number, number, number][] = [];
  while (left.length > 2) {
    let ear = left.findIndex((b, i) => {
      const a = left[(i + left.length - 1) % left.length], c = left[(i + 1) % left.length];
      if (area(a, b, c) <= 1e-12) return false;
      return !left.some((p) => p !== a && p !== b && p !== c && area(a, b, p) >= 0 && area(b, c, p) >= 0 && area(c, a, p) >= 0);
    });
    if (ear < 0) ear = 0; // only slivers are left
    out.push([left[(ear + left.length - 1) % left.length], left[ear], left[(ear + 1) % left.length]]);
    left.splice(ear, 1);
  }
  return out;
}

function addFace(shape: Shape, corners: [number, number, number], uvs: [number, number][]): void {
  const [a, b, c] = corners.map((i) => shape.points[i]);
  if (Math.hypot(...cross(subtract(b, a), subtract(c, a))) > 1e-10) {
    shape.faces.push(corners);
    shape.uvs.push(uvs);
  }
}

function addCap(shape: Shape, ring: Vec3[], base: number, front: boolean): void {
  const normal = ringNormal(ring), axis = normal.map(Math.abs).indexOf(Math.max(...normal.map(Math.abs)));
  if (Math.hypot(...normal) < 1e-9) return;
  const flat = ring.map((p): [number, number] => [p[(axis + 1) % 3], p[(axis + 2) % 3]]);
  const turned = normal[axis] < 0;
  const ears = clipEars(turned ? flat.map(([x, y]) => [-x, y]) : flat);
  for (const [a, b, c] of ears) {
    const corners: [number, number, number] = front ? [a, b, c] : [a, c, b];
    addFace(shape, corners.map((i) => i + base) as [number, number, number], corners.map((i) => flat[i]));
  }
}

/**
 * The solid whose skin passes through rings of equally many points, each counter-clockwise seen from where the skin goes.
 * u runs once (or a whole number of times) around, v along, both in units.
 */
export function loft(rings: Vec3[][], { loop = false, crease = 35 }: LoftOptions = {}): Shape {
  const n = rings[0].length, shape: Shape = { points: rings.flat(), faces: [], uvs: [], crease };
  const around = (ring: Vec3[]): number => ring.reduce((sum, p, i) => sum + distance(p, ring[(i + 1) % n]), 0);
  const perimeters = rings.map(around), widest = rings[perimeters.indexOf(Math.max(...perimeters))];
  const turns = Math.max(1, Math.round(around(widest))), u = [0];
  widest.forEach((p, i) => u.push(u[i] + distance(p, widest[(i + 1) % n]) / (around(widest) || 1) * turns));
  let v = 0;
  for (let k = 0; k + 1 < rings.length + (loop ? 1 : 0); k++) {
    const next = (k + 1) % rings.length;
    const step = rings[k].reduce((sum, p, i) => sum + distance(p, rings[next][i]), 0) / n;
    for (let i = 0; i < n; i++) {
      const j = (i + 1) % n, a = k * n + i, b = k * n + j, c = next * n + j, d = next * n + i;
      addFace(shape, [a, b, c], [[u[i], v], [u[i + 1], v], [u[i + 1], v + step]]);
      addFace(shape, [a, c, d], [[u[i], v], [u[i + 1], v + step], [u[i], v + step]]);
    }
    v += step;
  }
  if (!loop) {
    addCap(shape, rings[0], 0, false);
    addCap(shape, rings.at(-1)!, (rings.length - 1) * n, true);
  }
  const volume = shape.faces.reduce((sum, [a, b, c]) => {
    const n = cross(shape.points[b], shape.points[c]), p = shape.points[a];
    return sum + p[0] * n[0] + p[1] * n[1] + p[2] * n[2];
  }, 0);
  return volume < 0 ? turnInsideOut(shape) : shape;
}

function turnInsideOut(shape: Shape): Shape {
  return { ...shape, faces: shape.faces.map(([a, b, c]) => [a, c, b]), uvs: shape.uvs.map(([a, b, c]) => [a, c, b]) };
}

/** A surface of revolution around Z through (radius, z) points; a profile that comes back inside makes a hollow vessel. */
export function lathe(profile: [number, number][], { segments = 24, crease = 35 }: { segments?: number; crease?: number } = {}): Shape {
  const turn = (i: number): number => 2 * Math.PI * i / segments;
  const ring = ([r, z]: [number, number]): Vec3[] =>
    Array.from({ length: segments }, (_, i) => [r * Math.cos(turn(i)), r * Math.sin(turn(i)), z]);
  return loft(profile.map(ring), { crease });
}

/** A round bar along a path; the radius may change from point to point. */
export function tube(
  path: Vec3[],
  radius: number | number[],
  { segments = 10, loop = false }: { segments?: number; loop?: boolean } = {},
): Shape {
  const last = path.length - 1;
  const tangent = (i: number): Vec3 => {
    const before = loop ? (i + last) % path.length : Math.max(0, i - 1), after = loop ? (i + 1) % path.length : Math.min(last, i + 1);
    return unit(subtract(path[after], path[before]));
  };
  const t0 = tangent(0);
  let side: Vec3 = unit(cross(t0, Math.abs(t0[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0]));
  const rings = path.map((p, i): Vec3[] => {
    const t = tangent(i), up = unit(cross(t, side)), r = typeof radius === "number" ? radius : radius[i];
    side = unit(cross(up, t));
    return Array.from({ length: segments }, (_, k) => {
      const c = r * Math.cos(2 * Math.PI * k / segments), s = r * Math.sin(2 * Math.PI * k / segments);
      return [p[0] + side[0] * c + up[0] * s, p[1] + side[1] * c + up[1] * s, p[2] + side[2] * c + up[2] * s];
    });
  });
  return loft(rings, { loop });
}

/** A flat polygon in x, z (counter-clockwise seen from -y) made `depth` thick along y, centred on y = 0. */
export function prism(outline: [number, number][], depth: number, crease = 35): Shape {
  const ring = (y: number): Vec3[] => outline.map(([x, z]) => [x, y, z]);
  return loft([ring(depth / 2), ring(-depth / 2)], { crease });
}

/** A box [sx, sy, sz] standing on z = 0; `top` scales its upper face (1 keeps it straight). */
export function box(sx: number, sy: number, sz: number, top = 1): Shape {
  const ring = (
    k: number,
    z: number,
  ): Vec3[] => [[k * sx / 2, -k * sy / 2, z], [k * sx / 2, k * sy / 2, z], [-k * sx / 2, k * sy / 2, z], [-k * sx / 2, -k * sy / 2, z]];
  return loft([ring(1, 0), ring(top, sz)]);
}

/** A box [sx, sy, sz] standing on z = 0 with edges rounded by `round`. */
export function roundedBox(sx: number, sy: number, sz: number, round: number): Shape {
  const r = Math.min(round, sx / 2.01, sy / 2.01, sz / 2.01), steps = 3;
  const ring = (inset: number, z: number): Vec3[] =>
    [[1, -1], [1, 1], [-1, 1], [-1, -1]].flatMap(([cx, cy], quarter) =>
      Array.from({ length: steps + 1 }, (_, i): Vec3 => {
        const angle = Math.PI / 2 * (quarter - 1 + i / steps);
        return [cx * (sx / 2 - r) + (r - inset) * Math.cos(angle), cy * (sy / 2 - r) + (r - inset) * Math.sin(angle), z];
      })
    );
  const quarter = Array.from({ length: steps + 1 }, (_, i) => Math.PI / 2 * i / steps);
  const low = quarter.map((a) => ring(r * (1 - Math.sin(a)), r * (1 - Math.cos(a))));
  const high = quarter.map((a) => ring(r * (1 - Math.cos(a)), sz - r * (1 - Math.sin(a))));
  return loft([...low, ...high], { crease: 50 });
}

/** An ellipsoid around the origin. */
export function ellipsoid(rx: number, ry: number, rz: number, segments = 20): Shape {
  const steps = Math.max(4, Math.round(segments / 2)), turn = (i: number): number => 2 * Math.PI * i / segments;
  const rings = Array.from({ length: steps + 1 }, (_, k) => {
    const r = Math.sin(Math.PI * k / steps), z = -rz * Math.cos(Math.PI * k / steps);
    return Array.from({ length: segments }, (_, i): Vec3 => [rx * r * Math.cos(turn(i)), ry * r * Math.sin(turn(i)), z]);
  });
  return loft(rings);
}

/** A cylinder or cone standing on z = 0. */
export function cylinder(radius: number, height: number, { top = radius, segments = 20 }: { top?: number; segments?: number } = {}): Shape {
  return lathe([[radius, 0], [top, height]], { segments });
}

/** A ring around Z at z = 0. */
export function torus(radius: number, thickness: number, segments = 28): Shape {
  const path = Array.from(
    { length: segments },
    (_, i): Vec3 => [radius * Math.cos(2 * Math.PI * i / segments), radius * Math.sin(2 * Math.PI * i / segments), 0],
  );
  return tube(path, thickness, { loop: true });
}

/** The shape with each point replaced; the map must not turn it inside out. */
export function warp(shape: Shape, f: (p: Vec3) => Vec3): Shape {
  return { ...shape, points: shape.points.map(f) };
}

/** The shape moved. */
export function move(shape: Shape, x: number, y: number, z: number): Shape {
  return warp(shape, (p) => [p[0] + x, p[1] + y, p[2] + z]);
}

/** The shape scaled around the origin; a mirroring scale keeps the faces outward. */
export function scale(shape: Shape, x: number, y: number, z: number): Shape {
  const scaled = warp(shape, (p) => [p[0] * x, p[1] * y, p[2] * z]);
  return x * y * z < 0 ? turnInsideOut(scaled) : scaled;
}

/** The shape turned around an axis through the origin, in degrees, counter-clockwise seen from the axis's end. */
export function turn(shape: Shape, axis: "x" | "y" | "z", degrees: number): Shape {
  const i = ("xyz".indexOf(axis) + 1) % 3, j = (i + 1) % 3, c = Math.cos(degrees * Math.PI / 180), s = Math.sin(degrees * Math.PI / 180);
  return warp(shape, (p) => {
    const q: Vec3 = [...p];
    q[i] = p[i] * c - p[j] * s;
    q[j] = p[i] * s + p[j] * c;
    return q;
  });
}
