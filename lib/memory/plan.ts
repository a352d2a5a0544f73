/** Plans: which classes of tensors are made again, in how many blocks. Level 0 gives up nothing but what is free, each further one a tensor more. */
import { type Choose, chooseFree, type Kind, withChoice } from "../tensor/storage.ts";
import type { Card } from "./cards.ts";
import { namer, Survey, type TensorClass } from "./classes.ts";
import { simulate, type Simulation } from "./simulate.ts";

/** Classes that do not repay a simulation: below this part of what a pass takes. */
const SMALL = 1e-3;
/** The part of its bytes that a class must take off the peak. */
const WORTHWHILE = 0.5;

/** The plans of a pass, from a survey of it. */
export interface Ladder {
  /** In the order in which they are given up. */
  classes: TensorClass[];
  /** The peak before the first class, and after each: of the pass that was surveyed. */
  peaks: number[];
  /** The highest level. */
  levels: number;
  /** Tensors of the pass that have a recipe; -1 for a ladder of no pass. */
  tensors: number;
}

/** The ladder of a pass that was not surveyed. */
export const NO_LADDER: Ladder = { classes: [], peaks: [0], levels: 0, tensors: -1 };

/** What a level gives up. */
export interface GivenUp {
  kind: Kind;
  /** Of how many blocks. */
  blocks: number;
  bytes: number;
  /** Seconds to make it again. */
  seconds: number;
}

/** The names of what `level` gives up, with the number of blocks. */
function dropped({ classes }: Ladder, level: number): Map<string, number> {
  const blocks = new Map<string, number>();
  for (const c of classes) {
    const n = Math.min(level, c.blocks);
    if (n <= 0) break;
    level -= n;
    for (const key of [c.key, ...c.with]) blocks.set(key, Math.max(n, blocks.get(key) ?? 0));
  }
  return blocks;
}

/** The choice that `level` of a ladder stands for; for one pass. */
export function chooseLevel(ladder: Ladder, level: number): Choose {
  const blocks = dropped(ladder, level), name = namer();
  return (t, recipe, block) => {
    const key = name(recipe, block);
    return (block ?? 0) < (blocks.get(key) ?? 0) ? "drop" : chooseFree(t, recipe);
  };
}

/** What `level` gives up, class by class. */
export function givenUp({ classes }: Ladder, level: number): GivenUp[] {
  return classes.flatMap(({ kind, blocks, bytes, seconds }) => {
    const n = Math.max(0, Math.min(level, blocks));
    level -= blocks;
    return n ? [{ kind, blocks: n, bytes: n * bytes, seconds: n * seconds }] : [];
  });
}

/** Simulates `pass` as `level` of a ladder has it, and counts its tensors with a recipe; null where the ladder is another pass's. */
export function simulateLevel(
  pass: () => unknown,
  ladder: Ladder,
  level: number,
  card?: Card,
): Simulation & { tensors: number } | null {
  const choose = chooseLevel(ladder, level);
  let tensors = 0;
  const simulation = simulate((at) =>
    withChoice((t, recipe, block) => {
      tensors++;
      at.meter.label(t.storage.address, recipe.kind);
      return choose(t, recipe, block);
    }, pass), card);
  return tensors === ladder.tensors || ladder.tensors < 0 ? { ...simulation, tensors } : null;
}

/** Finds what `pass` can give up, in the order of its price, and by how much each class lowers the peak; those that do not are left out. */
export function surveyPass(pass: () => unknown, card?: Card): Ladder {
  let survey: Survey | undefined;
  const { peak, atPeak } = simulate((at) => withChoice((survey = new Survey(at)).choose, pass), card),
    ladder: Ladder = { classes: [], peaks: [peak], levels: 0, tensors: survey!.tensors };
  const least = SMALL * (peak - (atPeak.other ?? 0));
  for (const c of survey!.classes()) {
    if (c.bytes * c.blocks < least) continue;
    const tried = { ...ladder, classes: [...ladder.classes, c], levels: ladder.levels + c.blocks }, before = ladder.peaks.at(-1)!;
    const after = simulateLevel(pass, tried, tried.levels, card)?.peak ?? before;
    if (before - after < WORTHWHILE * c.bytes * Math.max(1, c.blocks - 1)) continue;
    Object.assign(ladder, tried);
    ladder.peaks.push(after);
  }
  return ladder;
}
