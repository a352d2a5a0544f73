/**
 * Cameras. The world has Z up and the object in [-0.5, 0.5]^3. A camera's matrix is camera-to-world with OpenGL axes (x right, y up, looking
 * along -z), as in `transforms.json`. Images are square.
 */

/** A 4 x 4 matrix, row by row. */
export type Matrix = readonly (readonly number[])[];

/** A pinhole camera with a square image. */
export interface Camera {
  /** The field of view, across and up, in radians. */
  fov: number;
  /** Camera to world, OpenGL axes, rotation and translation alone. */
  cameraToWorld: Matrix;
}

/** One view in `transforms.json`. */
export interface TransformFrame {
  file_path: string;
  camera_angle_x: number;
  transform_matrix: Matrix;
}

/** A direction on the sphere, in radians. */
export interface Direction {
  yaw: number;
  pitch: number;
}

/** The digits of `n` in base `base` mirrored at the point: the van der Corput sequence, in [0, 1). */
export function radicalInverse(base: number, n: number): number {
  let value = 0;
  for (let digit = 1 / base; n > 0; n = Math.floor(n / base), digit /= base) value += (n % base) * digit;
  return value;
}

/** Options of {@linkcode sphereHammersley}. */
export interface SphereHammersleyOptions {
  /** Added to the two coordinates of the sequence; by default 0 and 0. */
  offset?: readonly [number, number];
  /** Puts three quarters of the directions in the upper half; by default false. */
  remap?: boolean;
}

/**
 * Direction `n` of `total` of the Hammersley set on the sphere: u = n / total + o1, v = radicalInverse(2, n) + o2, with `remap` u becomes 2u
 * below 1/4 and 2u/3 + 1/3 above; pitch = acos(1 - 2u) - pi/2, yaw = 2 pi v. `offset[0]` is a part of one step, so in [0, 1).
 */
export function sphereHammersley(n: number, total: number, { offset = [0, 0], remap = false }: SphereHammersleyOptions = {}): Direction {
  let u = (n + offset[0]) / total;
  const v = radicalInverse(2, n) + offset[1];
  if (remap) u = u < 0.25 ? 2 * u : u * 2 / 3 + 1 / 3;
  return { yaw: 2 * Math.PI * v, pitch: Math.acos(1 - 2 * u) - Math.PI / 2 };
}

type Vector = readonly [number, number, number];

function cameraAt(eye: Vector, right: Vector, up: Vector, back: Vector, fov: number): Camera {
  return { fov, cameraToWorld: [...[0, 1, 2].map((d) => [right[d], up[d], back[d], eye[d]]), [0, 0, 0, 1]] };
}

/**
 * A camera at `radius` from the origin, looking at it, Z up: eye = radius (cos yaw cos pitch, sin yaw cos pitch, sin pitch). At the poles the
 * image is turned as it is just beside them.
 */
export function orbitCamera({ yaw, pitch }: Direction, radius: number, fov: number): Camera {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const back: Vector = [cy * cp, sy * cp, sp];
  return cameraAt([back[0] * radius, back[1] * radius, back[2] * radius], [-sy, cy, 0], [-cy * sp, -sy * sp, cp], back, fov);
}

/** A camera at `eye` looking at `target`, with `up` upward in the image. Throws where the view direction is parallel to `up`. */
export function lookAt(eye: Vector, target: Vector, { fov, up = [0, 0, 1] }: { fov: number; up?: Vector }): Camera {
  const unit = (v: Vector): Vector => {
    const length = Math.hypot(...v);
    if (!(length > 1e-12)) {
      throw new RangeError(`Cannot look from [${eye}] at [${target}]: up is [${up}], it must not be parallel to the view`);
    }
    return [v[0] / length, v[1] / length, v[2] / length];
  };
  const cross = (a: Vector, b: Vector): Vector => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const back = unit([eye[0] - target[0], eye[1] - target[1], eye[2] - target[2]]), right = unit(cross(up, back));
  return cameraAt(eye, right, cross(back, right), back, fov);
}

const RENDER_RADIUS = 2, RENDER_FOV = 40 * Math.PI / 180;

/** `count` views of a dataset's renders: remapped Hammersley directions with one random offset, radius 2, 40 degrees. */
export function renderCameras(count: number, random: () => number): Camera[] {
  const offset = [random(), random()] as const;
  return Array.from(
    { length: count },
    (_, n) => orbitCamera(sphereHammersley(n, count, { offset, remap: true }), RENDER_RADIUS, RENDER_FOV),
  );
}

/** Half the diagonal of the unit cube: the radius of the sphere around any normalised object. */
const OBJECT_RADIUS = Math.sqrt(3) / 2;
const [NARROW, WIDE] = [10, 70].map((degrees) => OBJECT_RADIUS / Math.sin(degrees / 2 * Math.PI / 180));

/**
 * `count` views for image conditions: directions as {@linkcode renderCameras}; k uniform between the 1 / radius^2 of a 10 and of a 70 degree
 * field of view, radius = 1 / sqrt(k), fov = 2 asin(sqrt(3) / 2 / radius), so that the object's sphere always fills the image.
 */
export function conditionCameras(count: number, random: () => number): Camera[] {
  const offset = [random(), random()] as const;
  return Array.from({ length: count }, (_, n) => {
    const k = 1 / NARROW ** 2 + random() * (1 / WIDE ** 2 - 1 / NARROW ** 2), radius = 1 / Math.sqrt(k);
    return orbitCamera(sphereHammersley(n, count, { offset, remap: true }), radius, 2 * Math.asin(OBJECT_RADIUS / radius));
  });
}

/** The `transforms.json` record of a view. */
export function frameOf(camera: Camera, filePath: string): TransformFrame {
  return { file_path: filePath, camera_angle_x: camera.fov, transform_matrix: camera.cameraToWorld };
}

/** The camera of a `transforms.json` record. Throws unless the angle is in (0, pi) and the matrix is 4 x 4. */
export function cameraOf({ camera_angle_x, transform_matrix }: TransformFrame): Camera {
  if (!(camera_angle_x > 0 && camera_angle_x < Math.PI)) {
    throw new RangeError(`Cannot read a camera: camera_angle_x is ${camera_angle_x}, it must be between 0 and pi`);
  }
  if (transform_matrix.length !== 4 || transform_matrix.some((row) => row.length !== 4 || !row.every(Number.isFinite))) {
    throw new RangeError(`Cannot read a camera: transform_matrix is ${JSON.stringify(transform_matrix)}, it must be 4 rows of 4 numbers`);
  }
  return { fov: camera_angle_x, cameraToWorld: transform_matrix };
}

/** World to camera with OpenCV axes (x right, y down, z forward), 4 x 4. */
export function extrinsicsOf({ cameraToWorld: m }: Camera): number[][] {
  const rows = [[m[0][0], m[1][0], m[2][0]], [-m[0][1], -m[1][1], -m[2][1]], [-m[0][2], -m[1][2], -m[2][2]]];
  return [...rows.map((r) => [...r, -(r[0] * m[0][3] + r[1] * m[1][3] + r[2] * m[2][3])]), [0, 0, 0, 1]];
}

/** The 3 x 3 intrinsics of a unit image: focal length 0.5 / tan(fov / 2), centre 0.5. */
export function intrinsicsOf(fov: number): number[][] {
  const f = 0.5 / Math.tan(fov / 2);
  return [[f, 0, 0.5], [0, f, 0.5], [0, 0, 1]];
}

/**
 * World to clip space, 4 x 4: the perspective matrix (2f, 2f, near plane at `near`, far plane at infinity) times the extrinsics. clip w is the
 * distance along the view axis; clip.xy / w is -1 at the left and top edge of the image and 1 at the right and bottom.
 */
export function clipMatrix(camera: Camera, near: number): number[][] {
  const E = extrinsicsOf(camera), f = 1 / Math.tan(camera.fov / 2);
  return [E[0].map((x) => x * f), E[1].map((x) => x * f), E[2].map((x, i) => i === 3 ? x - near : x), E[2]];
}

/** A world point in the image: u to the right and v down, 0 to 1, and its distance along the view axis. Pixel i's centre is (i + 0.5) / size. */
export function projectPoint(camera: Camera, point: readonly number[]): { u: number; v: number; depth: number } {
  const [x, y, depth] = extrinsicsOf(camera).map((r) => r[0] * point[0] + r[1] * point[1] + r[2] * point[2] + r[3]);
  const f = 0.5 / Math.tan(camera.fov / 2);
  return { u: f * x / depth + 0.5, v: f * y / depth + 0.5, depth };
}
