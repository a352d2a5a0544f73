/** Plans: which classes of tensors are made again, in how many blocks. Level 0 gives up nothing but what is free, each further one a tensor more. */
import { type Choice, type Choose, chooseFree, type Kind, withChoice } from "../tensor/storage.ts";
import { type Card, CARDS } from "./cards.ts";
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
  how: "drop" | "offload";
  /** Of how many blocks. */
  blocks: number;
  bytes: number;
  /** Seconds to make it again; none where it is on the host meanwhile. */
  seconds: number;
}

/** The names of what `level` gives up, with how and in how many blocks. */
function dropped({ classes }: Ladder, level: number): Map<string, { how: Choice; blocks: number }> {
  const blocks = new Map<string, { how: Choice; blocks: number }>();
  for (const c of classes) {
    const n = Math.min(level, c.blocks);
    if (n <= 0) break;
    level -= n;
    for (const key of [c.key, ...c.with]) blocks.set(key, { how: c.how, blocks: Math.max(n, blocks.get(key)?.blocks ?? 0) });
  }
  return blocks;
}

/** The choice that `level` of a ladder stands for; for one pass. */
export function chooseLevel(ladder: Ladder, level: number): Choose {
  const blocks = dropped(ladder, level), name = namer();
  return (t, recipe, block) => {
    const found = blocks.get(name(recipe, block));
    return found && (block ?? 0) < found.blocks ? found.how : chooseFree(t, recipe);
  };
}

/** What `level` gives up, class by class. */
export function givenUp({ classes }: Ladder, level: number): GivenUp[] {
  return classes.flatMap(({ kind, how, blocks, bytes, seconds }) => {
    const n = Math.max(0, Math.min(level, blocks));
    level -= blocks;
    return n ? [{ kind, how, blocks: n, bytes: n * bytes, seconds: n * seconds }] : [];
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

/** The part of a forward pass in which the bus may be busy, and how long a forward pass is of both. */
const BUSY = 0.7, FORWARD = 0.3;
const MIB = 2 ** 20;

/** What the bus takes to the host for nothing while the forward pass computes, what is dearest to make again first. */
function offloads(classes: TensorClass[], seconds: number, card: Card, leastCopy: number): TensorClass[] {
  let room = BUSY * FORWARD * seconds * card.host;
  return classes.filter((c) => c.blocks > 1 && c.bytes >= leastCopy && !c.with.length).reverse().flatMap((c): TensorClass[] => {
    const blocks = Math.min(c.blocks - 1, Math.floor(room / c.bytes)); // the last block needs its own at once
    room -= Math.max(0, blocks) * c.bytes;
    return blocks > 0 ? [{ ...c, how: "offload", blocks, seconds: 0, with: [] }] : [];
  });
}

/** Options of {@linkcode surveyPass}. */
export interface SurveyOptions {
  card?: Card;
  /** Whether tensors may be brought to the host; those of fewer bytes than `leastCopy` (by default a MiB) are not worth a copy of their own. */
  offload?: boolean;
  leastCopy?: number;
}

/** Finds what `pass` can give up, in the order of its price, and by how much each class lowers the peak; those that do not are left out. */
export function surveyPass(pass: () => unknown, { card = CARDS.H100, offload = false, leastCopy = MIB }: SurveyOptions = {}): Ladder {
  let survey: Survey | undefined;
  const { peak, atPeak, seconds } = simulate((at) => withChoice((survey = new Survey(at)).choose, pass), card),
    ladder: Ladder = { classes: [], peaks: [peak], levels: 0, tensors: survey!.tensors };
  const least = SMALL * (peak - (atPeak.other ?? 0));
  const found = survey!.classes(),
    first = offload ? offloads(found, seconds, card, leastCopy) : [],
    taken = new Set(first.map((c) => c.key));
  for (const c of [...first, ...found.filter(({ key }) => !taken.has(key))]) {
    if (c.bytes * c.blocks < least) continue;
    const tried = { ...ladder, classes: [...ladder.classes, c], levels: ladder.levels + c.blocks }, before = ladder.peaks.at(-1)!;
    const after = simulateLevel(pass, tried, tried.levels, card)?.peak ?? before;
    if (before - after < WORTHWHILE * c.bytes * Math.max(1, c.blocks - 1)) continue;
    Object.assign(ladder, tried);
    ladder.peaks.push(after);
  }
  return ladder;
}
