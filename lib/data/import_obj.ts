import type { Material, RenderMesh } from "../render/mesh.ts";
import type { AssetFolder } from "./import_files.ts";
import { decodeTexture } from "./import_texture.ts";
import { srgbToLinear } from "../render/srgb.ts";
import { joinParts, type MeshPart } from "./mesh_parts.ts";

/** Options of map_Kd and how many values each may have; the file name follows them. */
const MAP_OPTIONS: Record<string, number> = {
  "-blendu": 1,
  "-blendv": 1,
  "-cc": 1,
  "-clamp": 1,
  "-mm": 2,
  "-o": 3,
  "-s": 3,
  "-t": 3,
  "-texres": 1,
};

function mapFileName(words: string[]): string {
  let i = 0;
  while (words[i] in MAP_OPTIONS) {
    const most = MAP_OPTIONS[words[i++]];
    for (let k = 0; k < most && i < words.length - 1 && (k === 0 || /^[-+.\d]/.test(words[i])); k++) i++;
  }
  return words.slice(i).join(" ");
}

/** Lines of a text with `\` continuations joined; comments and blanks left out. */
function* statements(text: string): Generator<[string, string]> {
  let held = "";
  for (const line of text.split("\n")) {
    const joined = held + line.trimEnd();
    if (joined.endsWith("\\")) {
      held = joined.slice(0, -1) + " ";
      continue;
    }
    held = "";
    const plain = joined.trimStart();
    if (plain === "" || plain[0] === "#") continue;
    const gap = plain.search(/\s/);
    yield gap < 0 ? [plain, ""] : [plain.slice(0, gap), plain.slice(gap + 1).trim()];
  }
}

async function readMtl(text: string, folder: AssetFolder, out: Map<string, Material>): Promise<void> {
  let material: Material | undefined;
  for (const [key, rest] of statements(text)) {
    if (key === "newmtl") {
      material = { baseColor: [0.8, 0.8, 0.8, 1], doubleSided: true };
      out.set(rest, material);
    } else if (!material) continue;
    else if (key === "Kd") {
      const rgb = rest.split(/\s+/).map(Number);
      // A picture takes the place of Kd, whichever comes first: exporters write any Kd beside it.
      if (rgb.length === 3 && rgb.every(Number.isFinite) && !material.texture) material.baseColor = [rgb[0], rgb[1], rgb[2], 1];
    } else if (key === "map_Kd") {
      const name = mapFileName(rest.split(/\s+/));
      material.texture = await decodeTexture(await folder.readRelative(name), `"${name}"`, folder.limits);
      material.baseColor = [1, 1, 1, 1];
    }
  }
}

interface ObjLists {
  v: number[]; // [x, y, z] each
  color: number[]; // [r, g, b] each, as long as v where every vertex has one
  vt: number[]; // [u, v] each
  vn: number[]; // [x, y, z] each
}

/** Corners of the faces of one material, as indices into the lists; -1 where absent. */
interface ObjGroup {
  corners: number[]; // [v, vt, vn] each
}

function indexOf(word: string, count: number, what: string): number {
  if (word === undefined || word === "") return -1;
  const n = Number(word), i = n < 0 ? count + n : n - 1;
  if (!Number.isInteger(n) || n === 0 || i < 0 || i >= count) throw new Error(`a face has ${what} ${word}, there are ${count}`);
  return i;
}

function addFace(rest: string, lists: ObjLists, group: ObjGroup): void {
  const face = rest.split(/\s+/).map((corner) => {
    const [v, vt, vn] = corner.split("/");
    return [
      indexOf(v, lists.v.length / 3, "vertex"),
      indexOf(vt, lists.vt.length / 2, "texture vertex"),
      indexOf(vn, lists.vn.length / 3, "normal"),
    ];
  });
  if (face.length < 3 || face.some(([v]) => v < 0)) {
    throw new Error(`a face has ${face.length} corners ("${rest.slice(0, 60)}"), it must have three or more vertices`);
  }
  for (let k = 2; k < face.length; k++) group.corners.push(...face[0], ...face[k - 1], ...face[k]);
}

/** One vertex for each different (v, vt, vn); OBJ's Y up becomes Z up and its v = 0 at the bottom becomes v = 0 at the top. */
function toPart(group: ObjGroup, lists: ObjLists, material: number): MeshPart {
  const { corners } = group, count = corners.length / 3;
  const vertexOf = new Map<string | number, number>(), first: number[] = [];
  const triangles = new Uint32Array(count);
  const vt1 = lists.vt.length / 2 + 1, vn1 = lists.vn.length / 3 + 1;
  const exact = (lists.v.length / 3) * vt1 * vn1 < Number.MAX_SAFE_INTEGER;
  for (let i = 0; i < count; i++) {
    const [a, b, c] = [corners[i * 3], corners[i * 3 + 1], corners[i * 3 + 2]];
    const key = exact ? (a * vt1 + b + 1) * vn1 + c + 1 : `${a}/${b}/${c}`;
    let vertex = vertexOf.get(key);
    if (vertex === undefined) {
      vertex = first.length;
      vertexOf.set(key, vertex);
      first.push(i);
    }
    triangles[i] = vertex;
  }
  const V = first.length, has = (slot: number): boolean => first.every((i) => corners[i * 3 + slot] >= 0);
  const positions = new Float32Array(V * 3),
    uvs = has(1) ? new Float32Array(V * 2) : undefined,
    normals = has(2) ? new Float32Array(V * 3) : undefined;
  const colors = lists.color.length === lists.v.length ? new Float32Array(V * 4).fill(1) : undefined;
  for (const [i, corner] of first.entries()) {
    const [v, vt, vn] = [corners[corner * 3] * 3, corners[corner * 3 + 1] * 2, corners[corner * 3 + 2] * 3];
    positions.set([lists.v[v], -lists.v[v + 2], lists.v[v + 1]], i * 3);
    colors?.set([srgbToLinear(lists.color[v]), srgbToLinear(lists.color[v + 1]), srgbToLinear(lists.color[v + 2])], i * 4);
    uvs?.set([lists.vt[vt], 1 - lists.vt[vt + 1]], i * 2);
    if (!normals) continue;
    const length = Math.hypot(lists.vn[vn], lists.vn[vn + 1], lists.vn[vn + 2]) || 1;
    normals.set([lists.vn[vn] / length, -lists.vn[vn + 2] / length, lists.vn[vn + 1] / length], i * 3);
  }
  return { positions, triangles, normals, uvs, colors, material };
}

/**
 * Reads an OBJ file with its MTL files (`Kd`, `map_Kd`) into one mesh, Z up; throws an Error for what is broken or beyond the limits.
 * Materials are double-sided, as OBJ says nothing of sides. Faces of more than three corners become fans.
 */
export async function importObj(folder: AssetFolder): Promise<RenderMesh> {
  const text = new TextDecoder().decode(await folder.readMain());
  const lists: ObjLists = { v: [], color: [], vt: [], vn: [] };
  const library = new Map<string, Material>(), groups = new Map<string, ObjGroup>();
  const { vertices, triangles } = folder.limits;
  let group: ObjGroup | undefined, name = "", T = 0;
  for (const [key, rest] of statements(text)) {
    if (key === "v" || key === "vn" || key === "vt") {
      const words = rest.split(/\s+/), need = key === "vt" ? 2 : 3;
      for (let k = 0; k < need; k++) lists[key].push(words.length > k ? Number(words[k]) : k === 1 && key === "vt" ? 0 : NaN);
      if (key === "v" && words.length >= 6) { for (let k = 3; k < 6; k++) lists.color.push(Number(words[k])); }
      if (lists[key].length > vertices * need) throw new Error(`it has more than ${vertices} vertices`);
    } else if (key === "f") {
      if (!group) {
        group = groups.get(name) ?? { corners: [] };
        groups.set(name, group);
      }
      addFace(rest, lists, group);
      T += rest.split(/\s+/).length - 2;
      if (T > triangles) throw new Error(`it has more than ${triangles} triangles`);
    } else if (key === "usemtl") {
      name = rest;
      group = undefined;
    } else if (key === "mtllib") {
      await readMtl(new TextDecoder().decode(await folder.readRelative(rest)), folder, library);
    }
  }
  const materials: Material[] = [], parts: MeshPart[] = [];
  for (const [used, made] of groups) {
    const material = library.get(used);
    if (!material && library.size > 0 && used !== "") throw new Error(`it uses the material "${used}", its MTL file has none of that name`);
    materials.push(material ?? { baseColor: [0.8, 0.8, 0.8, 1], doubleSided: true });
    parts.push(toPart(made, lists, materials.length - 1));
  }
  return joinParts(parts, materials);
}
