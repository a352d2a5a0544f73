import type { RenderMesh } from "../render/mesh.ts";
import { assemble, type Layer } from "./procedural/assemble.ts";
import { castle, house, mill, skyscraper } from "./procedural/buildings.ts";
import { bed, chair, lamp, shelf, sofa, table } from "./procedural/furniture.ts";
import { animal, cactus, conifer, mushroom, palm, robot, tree } from "./procedural/nature.ts";
import { boat, car, plane, rocket, truck } from "./procedural/vehicles.ts";
import { barrel, bottle, bowl, cake, cup, pot, vase } from "./procedural/vessels.ts";
import { createRandom, permutation, type Random } from "./random.ts";

const FAMILIES: Record<string, Record<string, (random: Random) => Layer[]>> = {
  furniture: { chair, table, shelf, bed, sofa, lamp },
  vessels: { vase, cup, bottle, pot, bowl, barrel, cake },
  buildings: { house, castle, skyscraper, mill },
  vehicles: { car, truck, boat, plane, rocket },
  nature: { tree, conifer, palm, mushroom, cactus },
  figures: { animal, robot },
};
const KINDS = Object.entries(FAMILIES).flatMap(([category, makers]) =>
  Object.entries(makers).map(([kind, make]) => ({ category, kind, make }))
);

/** The kinds of object that {@linkcode proceduralObject} makes. */
export const PROCEDURAL_KINDS: string[] = KINDS.map(({ kind }) => kind);

/** An object that no file holds. */
export interface ProceduralObject {
  /** `<index, six digits>_<kind>`: name order is index order. */
  name: string;
  /** chair, vase, house, ... */
  kind: string;
  /** furniture, vessels, buildings, vehicles, nature or figures. */
  category: string;
  mesh: RenderMesh;
}

/**
 * Object `index` of the endless row of `seed`: made of closed solids with small pictures on them, about a unit in size, Z up.
 * Equal (seed, index) give equal objects; each run of {@linkcode PROCEDURAL_KINDS}.length objects has every kind once, in a random order.
 */
export function proceduralObject(seed: number, index: number): ProceduralObject {
  if (!Number.isSafeInteger(index) || index < 0) {
    throw new Error(`Cannot make a procedural object: its index is ${index}, it must be a whole number from 0`);
  }
  const round = Math.floor(index / KINDS.length);
  const { category, kind, make } = KINDS[permutation(createRandom(seed, 1, round), KINDS.length)[index % KINDS.length]];
  const layers = make(createRandom(seed, 2, index)).filter(({ shapes }) => shapes.length > 0);
  return { name: `${String(index).padStart(6, "0")}_${kind}`, kind, category, mesh: assemble(layers) };
}

/** The first `count` objects of `seed`, one at a time. */
export function* proceduralObjects(count: number, seed: number): Generator<ProceduralObject> {
  for (let index = 0; index < count; index++) yield proceduralObject(seed, index);
}
