import { extname } from "node:path";
import type { RenderMesh } from "../render/mesh.ts";
import { DEFAULT_IMPORT_LIMITS, type ImportLimits, openAssetFolder } from "./import_files.ts";
import { importGltf } from "./import_gltf.ts";
import { importObj } from "./import_obj.ts";

/** The file endings that {@linkcode importMesh} reads. */
export const MESH_ENDINGS: string[] = [".glb", ".gltf", ".obj"];

/**
 * Reads a GLB, glTF 2 or OBJ file, with the `.bin`, picture and MTL files next to it, as one mesh in a Z-up world
 * ((x, y, z) of the file becomes (x, -z, y)): node transforms and instances applied, skins in their bind pose, v = 0 of a picture at its top.
 * The file may come from anywhere: whatever leads out of its folder, is cut short, inconsistent or beyond `limits` throws an
 * Error `Cannot import <path>: ...`. Normals, texture coordinates and colours that are not finite become 0.
 */
export async function importMesh(path: string, limits: ImportLimits = DEFAULT_IMPORT_LIMITS): Promise<RenderMesh> {
  const ending = extname(path).toLowerCase();
  try {
    if (!MESH_ENDINGS.includes(ending)) throw new Error(`its ending is "${ending}", it must be one of ${MESH_ENDINGS.join(" ")}`);
    const folder = openAssetFolder(path, limits);
    const mesh = ending === ".obj" ? await importObj(folder) : await importGltf(folder);
    if (mesh.triangles.length === 0) throw new Error("it has no triangles");
    for (let i = 0; i < mesh.positions.length; i++) {
      if (!Number.isFinite(mesh.positions[i])) {
        throw new Error(`vertex ${Math.floor(i / 3)} has a coordinate ${mesh.positions[i]}, it must be finite`);
      }
    }
    for (const values of [mesh.normals, mesh.uvs, mesh.colors]) values?.forEach((x, i) => Number.isFinite(x) || (values[i] = 0));
    return mesh;
  } catch (error) {
    throw new Error(`Cannot import ${path}: ${(error as Error).message}`, { cause: error });
  }
}
