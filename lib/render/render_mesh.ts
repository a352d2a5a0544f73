/** Pictures of a mesh. */
import type { Device } from "../../ffi/kernels.ts";
import { type Camera, clipMatrix } from "./camera.ts";
import { expectMesh, type RenderMesh, type Texture } from "./mesh.ts";
import { type Call, runOn } from "./run.ts";

type Rgb = readonly [number, number, number];

/** What lights a scene; colours are linear, and a colour of 1 lights a white surface that faces the light to white. */
export interface Lights {
  /** Ambient light on what faces up (+z) and, fading over between the two, on what faces down. */
  above: Rgb;
  below: Rgb;
  /** Point lights. Their distance does not weaken them, and nothing casts a shadow. */
  points: readonly { position: Rgb; color: Rgb }[];
}

/** A key light at the upper right front, a weak fill light opposite, a bright sky and a dim ground. */
export const STUDIO_LIGHTS: Lights = {
  above: [0.5, 0.5, 0.52],
  below: [0.2, 0.19, 0.18],
  points: [{ position: [4, 1, 6], color: [0.6, 0.59, 0.57] }, { position: [-5, -4, 2], color: [0.18, 0.19, 0.21] }],
};

/** Options of {@linkcode renderMesh}. */
export interface RenderOptions {
  /** Pixels across and down. */
  size: number;
  /** Samples a pixel across and down, 1 to 4; by default 2. */
  samples?: number;
  /** By default {@linkcode STUDIO_LIGHTS}. */
  lights?: Lights;
  /** Whether to return the distances along the view axis; by default false. */
  depth?: boolean;
  /** Whether to return the visible triangles; by default false. */
  ids?: boolean;
  /** What lies nearer is cut away; by default 0.01. */
  near?: number;
  /** By default the open device. */
  device?: Device;
}

/** One view of {@linkcode renderMesh}, S pixels across and down. */
export interface RenderedView {
  /** [S, S, 4] sRGB, straight alpha, transparent where nothing is. */
  rgba: Uint8Array<ArrayBuffer>;
  /** [S, S]: the distance along the view axis of the pixel's nearest sample, 0 where nothing is. */
  depth?: Float32Array<ArrayBuffer>;
  /** [S, S]: the triangle of that sample, -1 where nothing is. */
  ids?: Int32Array<ArrayBuffer>;
}

const WORKSPACE_LIMIT = 2 ** 28;

/**
 * Renders `mesh` once a camera. Textures are filtered bilinearly, edges are smoothed by `samples`^2 samples a pixel, and equal inputs give equal
 * bits. Throws a RangeError on a mesh with sizes that do not fit, values that are not finite or indices out of range.
 */
export function renderMesh(mesh: RenderMesh, cameras: readonly Camera[], options: RenderOptions): RenderedView[] {
  const { size, samples = 2, near = 0.01 } = options;
  expectMesh("render", mesh);
  if (!Number.isInteger(samples) || samples < 1 || samples > 4) {
    throw new RangeError(`Cannot render the mesh: samples is ${samples}, it must be 1, 2, 3 or 4`);
  }
  if (!Number.isInteger(size) || size < 1 || size * samples > 8192) {
    throw new RangeError(`Cannot render the mesh: size is ${size}, it must be a whole number from 1 to ${Math.floor(8192 / samples)}`);
  }
  if (!(near > 0)) throw new RangeError(`Cannot render the mesh: near is ${near}, it must be above 0`);
  const arrays = pack(mesh, options.lights ?? STUDIO_LIGHTS), views: RenderedView[] = [];
  const perView = mesh.positions.length / 3 * 16 + (size * samples) ** 2 * 8, chunk = Math.max(1, Math.floor(WORKSPACE_LIMIT / perView));
  runOn(options.device, ({ input }) => {
    const scene = addressesOf(mesh, arrays, input); // copied once for all views
    for (let first = 0; first < cameras.length; first += chunk) {
      const some = cameras.slice(first, first + chunk), area = size * size, n = some.length;
      const rgba = new Uint8Array(n * area * 4);
      const depth = options.depth ? new Float32Array(n * area) : undefined, ids = options.ids ? new Int32Array(n * area) : undefined;
      runOn(options.device, (call) => launch(call, scene, { rgba, depth, ids }, packCameras(some, near), size, samples));
      for (let i = 0; i < n; i++) {
        const view: RenderedView = { rgba: rgba.subarray(i * area * 4, (i + 1) * area * 4) };
        if (depth) view.depth = depth.subarray(i * area, (i + 1) * area);
        if (ids) view.ids = ids.subarray(i * area, (i + 1) * area);
        views.push(view);
      }
    }
  });
  return views;
}

interface Arrays {
  materials: Float32Array<ArrayBuffer>;
  materialOf?: Int32Array<ArrayBuffer>;
  images: Int32Array<ArrayBuffer>;
  texels?: Uint32Array<ArrayBuffer>;
  lights: Float32Array<ArrayBuffer>;
}

/** Where a scene is on the device, and its sizes. */
type SceneAddresses = ReturnType<typeof addressesOf>;

function addressesOf(mesh: RenderMesh, arrays: Arrays, input: Call["input"]) {
  const V = mesh.positions.length / 3, T = mesh.triangles.length / 3, M = mesh.materials.length, L = arrays.lights.length / 6 - 1;
  return {
    ...{ V, T, M, L, positions: input(mesh.positions), normals: input(mesh.normals), uvs: input(mesh.uvs), colors: input(mesh.colors) },
    ...{ materials: input(arrays.materials), texels: input(arrays.texels), lights: input(arrays.lights), triangles: input(mesh.triangles) },
    ...{ materialOf: input(arrays.materialOf), images: input(arrays.images) },
  };
}

function launch(
  call: Call,
  scene: SceneAddresses,
  out: RenderedView,
  cameras: Float32Array<ArrayBuffer>,
  S: number,
  samples: number,
): void {
  const { input, output, kernels } = call, views = cameras.length / 19, bytes = new BigUint64Array(1);
  kernels.k_render_mesh_fwd_workspace(bytes, views, scene.V, S, samples);
  kernels.k_render_mesh_fwd(
    output(out.rgba),
    output(out.depth),
    output(out.ids),
    scene.positions,
    scene.normals,
    scene.uvs,
    scene.colors,
    scene.materials,
    scene.texels,
    scene.lights,
    input(cameras),
    scene.triangles,
    scene.materialOf,
    scene.images,
    call.scratch(Number(bytes[0])),
    views,
    scene.V,
    scene.T,
    scene.M,
    scene.L,
    S,
    samples,
    call.stream,
  );
}

/** The clip matrix and the eye of each camera, [views, 19]. */
function packCameras(cameras: readonly Camera[], near: number): Float32Array<ArrayBuffer> {
  return Float32Array.from(cameras.flatMap((c) => [...clipMatrix(c, near).flat(), ...[0, 1, 2].map((d) => c.cameraToWorld[d][3])]));
}

function pack({ materials, materialOfTriangle: of }: RenderMesh, lights: Lights): Arrays {
  const firstTexel = new Map<Uint8Array<ArrayBuffer>, number>();
  let total = 0;
  for (const { texture } of materials) {
    if (!texture || firstTexel.has(texture.data)) continue;
    firstTexel.set(texture.data, total);
    total += texture.width * texture.height;
  }
  return {
    materials: Float32Array.from(materials.flatMap((m) => [...m.baseColor, m.alphaCutoff ?? 0])),
    materialOf: of && (of instanceof Int32Array ? of : Int32Array.from(of)),
    images: Int32Array.from(materials.flatMap(({ texture }) => texture ? image(texture, firstTexel.get(texture.data)!) : [-1, 0, 0, 0])),
    texels: packTexels(firstTexel, total),
    lights: Float32Array.from([...lights.above, ...lights.below, ...lights.points.flatMap((p) => [...p.position, ...p.color])]),
  };
}

function image({ width, height, wrap }: Texture, first: number): number[] {
  return [first, width, height, wrap === "clamp" ? 1 : 0];
}

/** All textures one after another; a single one is not copied. */
function packTexels(firstTexel: Map<Uint8Array<ArrayBuffer>, number>, total: number): Uint32Array<ArrayBuffer> | undefined {
  if (total === 0) return undefined;
  const [only] = firstTexel.keys();
  if (firstTexel.size === 1 && only.byteOffset % 4 === 0) return new Uint32Array(only.buffer, only.byteOffset, total);
  const texels = new Uint8Array(total * 4);
  for (const [data, first] of firstTexel) texels.set(data, first * 4);
  return new Uint32Array(texels.buffer);
}
