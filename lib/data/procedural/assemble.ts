/** From solids and surfaces to a mesh that the renderer takes. */
import type { Material, RenderMesh } from "../../render/mesh.ts";
import { srgbToLinear } from "../../render/srgb.ts";
import { joinParts, type MeshPart } from "../mesh_parts.ts";
import type { Picture, Rgb } from "./pictures.ts";
import type { Shape, Vec3 } from "./shapes.ts";

/** What a solid is covered with. */
export interface Surface {
  /** A plain colour (sRGB), or a picture. */
  paint: Rgb | Picture;
  /** Whole number of times that the picture repeats in a unit. */
  repeat?: number;
}

/** Solids with one surface. */
export interface Layer {
  surface: Surface;
  shapes: Shape[];
}

function toMaterial({ paint }: Surface): Material {
  if (Array.isArray(paint)) return { baseColor: [...paint.map(srgbToLinear), 1] as [number, number, number, number], doubleSided: false };
  return { baseColor: [1, 1, 1, 1], doubleSided: false, texture: paint };
}

/** Area-weighted normals of each corner: of the faces around its point, those that lie flatter than the crease. */
function toPart(shape: Shape, material: number, repeat: number): MeshPart {
  const normals = shape.faces.map((face): Vec3 => {
    const [a, b, c] = face.map((i) => shape.points[i]);
    const [ux, uy, uz, vx, vy, vz] = [b[0] - a[0], b[1] - a[1], b[2] - a[2], c[0] - a[0], c[1] - a[1], c[2] - a[2]];
    return [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
  });
  const areas = normals.map((n) => Math.hypot(...n) || 1);
  const around: number[][] = shape.points.map(() => []);
  shape.faces.forEach((face, f) => face.forEach((i) => around[i].push(f)));
  const limit = Math.cos(shape.crease * Math.PI / 180);
  const corners = shape.faces.length * 3;
  const part = { positions: new Float32Array(corners * 3), normals: new Float32Array(corners * 3), uvs: new Float32Array(corners * 2) };
  for (let i = 0; i < corners; i++) {
    const f = Math.floor(i / 3), point = shape.faces[f][i % 3], sum: Vec3 = [0, 0, 0], n = normals[f];
    for (const g of around[point]) {
      const m = normals[g];
      if (n[0] * m[0] + n[1] * m[1] + n[2] * m[2] >= limit * areas[f] * areas[g]) { for (let k = 0; k < 3; k++) sum[k] += m[k]; }
    }
    const length = Math.hypot(...sum) || 1;
    for (let k = 0; k < 3; k++) {
      part.positions[i * 3 + k] = shape.points[point][k];
      part.normals[i * 3 + k] = sum[k] / length;
    }
    part.uvs[i * 2] = shape.uvs[f][i % 3][0] * repeat;
    part.uvs[i * 2 + 1] = -shape.uvs[f][i % 3][1] * repeat;
  }
  return { ...part, triangles: Uint32Array.from({ length: corners }, (_, i) => i), material };
}

/** One mesh of all layers, with a material for each. */
export function assemble(layers: Layer[]): RenderMesh {
  const parts = layers.flatMap(({ surface, shapes }, i) => shapes.map((shape) => toPart(shape, i, surface.repeat ?? 1)));
  return joinParts(parts, layers.map(({ surface }) => toMaterial(surface)));
}
