/** The tape: which op made a tensor from which inputs, and the walk that runs it backward. */
import { device } from "./device.ts";
import { DTYPE, isFloat } from "./dtype.ts";
import { tidy } from "./scope.ts";
import { chooseLeast, rebuildable, type Recipe, withChoice } from "./storage.ts";
import { empty, expectShape, kernels, stream, type Tensor } from "./tensor.ts";

/**
 * The gradients that an op's inputs have so far, for an op that adds to one of them as it writes its own: what it returns for an input that it asked
 * for must be the sum.
 */
export interface SoFar {
  /** That of an input, to be read; null where it has none yet, and for a {@linkcode parameter}. */
  read(input: Tensor): Tensor | null;
  /**
   * That of an input where it may be overwritten and returned: a parameter's own, or memory that nobody else sees; else null. A parameter's counts
   * as added to from here on: take memory for all else before, so that nothing can fail in between. Where it is `outdated`, nothing is added to it.
   */
  write(input: Tensor): { grad: Tensor; outdated: boolean } | null;
  /** Memory for an f32 gradient that is written and returned: that of a parameter itself where it is outdated, else new memory. */
  fresh(input: Tensor): Tensor;
}

/** Gradients of an op's inputs, in their order, given the gradient of its output; null where an input needs none. */
export type Backward = (dy: Tensor, soFar: SoFar) => (Tensor | null)[];

/** One recorded op. */
export interface Node {
  op: string;
  order: number;
  inputs: Tensor[];
  saved: Tensor[];
  backward: Backward;
}

let recording = true;
let count = 0;

/** Whether ops are being recorded. */
export function isRecording(): boolean {
  return recording;
}

/** Runs `body` without recording: for inference and inside optimizers. */
export function noGrad<T>(body: () => T): T {
  const before = recording;
  recording = false;
  try {
    return body();
  } finally {
    recording = before;
  }
}

let watching = false;

/** What {@linkcode firstNonFinite} looks for. */
class NonFinite extends Error {}

/**
 * Runs `body` again to find out why it went wrong: the first op inside whose result is not finite, or else the first of its backward pass that gives a
 * gradient that is not; null where all are. Slow: it reads every result. Gradients of parameters stay as they are.
 */
export function firstNonFinite(body: () => unknown): string | null {
  watching = true;
  try {
    body();
    return null;
  } catch (error) {
    if (error instanceof NonFinite) return error.message;
    throw error;
  } finally {
    watching = false;
  }
}

function watch(op: string, y: Tensor): void {
  const values = y.read(), at = values.findIndex((v) => !Number.isFinite(v));
  if (at >= 0) throw new NonFinite(`${op} [${y.shape}] ${y.dtype}, whose element ${at} is ${values[at]}`);
}

/**
 * Ties `y` to the inputs it was made from. `saved` are the tensors that `backward` reads: they outlive {@linkcode tidy}. Inputs that are absent
 * (undefined or null) may be listed; `backward` returns one gradient for each entry of `inputs`. Throws where a differentiable input has no backward.
 * `recipe` says how y can be made again, for ops that keep it.
 */
export function record(
  op: string,
  y: Tensor,
  inputs: (Tensor | null | undefined)[],
  saved: (Tensor | null | undefined)[],
  backward?: Backward,
  recipe?: Recipe,
): Tensor {
  if (watching && isFloat(y.dtype)) watch(op, y);
  if (!recording || !inputs.some((t) => t?.requiresGrad)) return y;
  if (!backward) throw new TypeError(`Cannot record ${op}: it has no backward pass, its inputs must not require gradients`);
  const present = inputs.map((t, i) => [t, i] as const).filter((e): e is readonly [Tensor, number] => !!e[0]);
  const held = saved.filter((t): t is Tensor => !!t);
  for (const t of held) t.hold();
  if (recipe) rebuildable(y, recipe);
  y.requiresGrad = true;
  y.node = {
    op,
    order: count++,
    inputs: present.map(([t]) => t),
    saved: held,
    backward: (dy, soFar) => {
      const grads = backward(dy, soFar);
      if (grads.length !== inputs.length) {
        throw new Error(`Cannot run ${op} backward: it gave ${grads.length} gradients, it must be ${inputs.length}`);
      }
      return present.map(([, i]) => grads[i]);
    },
  };
  return y;
}

/** All nodes below `y`, the last recorded first; none may be older than `first`. */
function walk(y: Tensor, first: number): Tensor[] {
  const seen = new Set<Tensor>(), stack = [y];
  for (let t = stack.pop(); t; t = stack.pop()) {
    if (seen.has(t) || !t.node) continue;
    if (t.node.order < first) {
      throw new Error(
        `Cannot run checkpoint backward: its function reads the [${t.shape}] that ${t.node.op} made outside of it, it must be among the inputs`,
      );
    }
    seen.add(t);
    stack.push(...t.node.inputs);
  }
  return [...seen].sort((a, b) => b.node!.order - a.node!.order);
}

/** `a + b` in a's dtype; b is of any float dtype. */
function sum(a: Tensor, b: Tensor): Tensor {
  const y = empty(a.shape, a.dtype);
  kernels().k_accumulate_fwd(y.addr, a.addr, b.addr, BigInt(a.size), DTYPE[a.dtype], DTYPE[b.dtype], stream());
  return y;
}

/** How often an attempt at a pass has added to the gradient of each parameter. */
export class Ledger {
  #before = new Map<Tensor, number>();
  #now = new Map<Tensor, number>();

  /** Books one addition to `leaf`; true where an earlier attempt has made it. */
  book(leaf: Tensor): boolean {
    const n = (this.#now.get(leaf) ?? 0) + 1;
    this.#now.set(leaf, n);
    return n <= (this.#before.get(leaf) ?? 0);
  }

  /** Whether the next addition to `leaf` is one that an earlier attempt has made. */
  has(leaf: Tensor): boolean {
    return (this.#now.get(leaf) ?? 0) < (this.#before.get(leaf) ?? 0);
  }

  /** Starts another attempt. */
  again(): void {
    for (const [leaf, n] of this.#now) this.#before.set(leaf, Math.max(n, this.#before.get(leaf) ?? 0));
    this.#now.clear();
  }
}

let ledger: Ledger | undefined;

/**
 * Runs `body`, a pass that may fail half-way for want of memory, so that it can be run again: what an earlier attempt added to the gradients of
 * parameters is not added again. Attempts add in one order, so gradients are those of a pass that did not fail, to the bit.
 */
export function booked<T>(book: Ledger, body: () => T): T {
  const before = ledger;
  ledger = book;
  try {
    return body();
  } finally {
    ledger = before;
  }
}

/** Tells who waits for a parameter's gradient that one more part of it is there. */
function arrive(leaf: Tensor): void {
  if (!device().simulated) leaf.arrived?.();
}

/** Whether a parameter's gradient is outdated; from here on it is not. */
function begin(leaf: Tensor): boolean {
  const { outdated } = leaf;
  if (!device().simulated) leaf.outdated = false;
  return outdated;
}

/** Adds `dy` to a leaf's gradient: in place for a {@linkcode parameter}, whose gradient is nobody else's memory. */
function accumulate(leaf: Tensor, dy: Tensor): void {
  if (watching && leaf.accumulates) return dy.free();
  const g = leaf.grad?.freed ? null : leaf.grad; // freed: with an attempt that failed
  if (leaf.accumulates ? ledger?.book(leaf) : leaf.storage.device !== device()) return dy.free(); // added before, or in a simulation
  if (!g) {
    dy.hold(); // the leaf's claim: the gradient lives as long as the enclosing step
    leaf.grad = dy;
  } else if (leaf.accumulates) {
    const n = BigInt(g.size), types = [DTYPE[g.dtype], DTYPE[dy.dtype]] as const;
    if (begin(leaf)) kernels().k_cast_fwd(g.addr, dy.addr, n, ...types, stream());
    else kernels().k_accumulate_fwd(g.addr, g.addr, dy.addr, n, ...types, stream());
    dy.free();
    arrive(leaf);
  } else {
    leaf.grad = sum(g, dy);
    leaf.grad.hold();
    g.free();
    dy.free();
  }
}

/**
 * Runs the tape from `y`, whose gradient is `dy` (by default 1, for a single element), into the `grad` of every leaf that requires one: added
 * to a gradient that is there, set otherwise. Frees intermediate gradients and what the recorded ops kept; a tape runs once.
 */
export function backward(y: Tensor, dy?: Tensor): void {
  runTape(y, dy, 0);
}

function runTape(y: Tensor, dy: Tensor | undefined, first: number): void {
  if (!y.requiresGrad) throw new Error(`Cannot run backward: the tensor [${y.shape}] does not depend on any that requires a gradient`);
  if (!dy && y.size !== 1) {
    throw new RangeError(`Cannot run backward from [${y.shape}] without its gradient: it must have one element, or dy must be given`);
  }
  expectShape("backward", "dy", dy, y.shape);
  expectTape(y);
  const order = walk(y, first), start = dy ? dy.view(dy.shape) : empty(y.shape, y.dtype).write([1]);
  if (!y.node) return accumulate(y, start);
  const grads = new Map<Tensor, Tensor>([[y, start]]);
  noGrad(() => {
    for (const t of order) {
      const node = t.node!, g = grads.get(t);
      grads.delete(t);
      t.node = null;
      t.spent = true;
      if (g) {
        for (const t of node.saved) t.storage.restore();
        const taken: Taken = new Map(), soFar = gradientsSoFar(node, grads, taken), made = own(g, tidy(() => node.backward(g, soFar)));
        node.inputs.forEach((input, i) => {
          const d = made[i];
          if (!d) return;
          if (watching) watch(`${node.op}'s gradient of its input ${i}`, d);
          if (!input.requiresGrad) return d.free();
          expectTape(input);
          expectShape(`${node.op} backward`, `the gradient of input ${i}`, d, input.shape);
          const how = taken.get(input);
          taken.delete(input);
          if (how === "fresh" && d === input.grad) {
            ledger?.book(input);
            begin(input);
          }
          if (how === "so far" || (how === "fresh" && d === input.grad)) return replace(grads, input, d);
          if (!input.node) return accumulate(input, d);
          const before = grads.get(input);
          grads.set(input, before ? sum(before, d) : d);
          if (before) before.free(), d.free();
        });
        g.free();
      }
      release(node);
    }
  });
}

/** The inputs whose gradients an op asked for: as they are so far, or as memory to be written. */
type Taken = Map<Tensor, "so far" | "fresh">;

/** What `node` may ask of the tape; those asked for are put into `taken`. */
function gradientsSoFar({ inputs }: Node, grads: Map<Tensor, Tensor>, taken: Taken): SoFar {
  const find = (input: Tensor): Tensor | null => {
    if (taken.has(input)) return null;
    if (input.node) return grads.get(input) ?? null;
    if (input.accumulates) return watching || ledger?.has(input) ? null : input.grad;
    return input.storage.device !== device() || input.grad?.freed ? null : input.grad;
  };
  const take = (input: Tensor, g: Tensor | null): Tensor | null => {
    if (g) taken.set(input, "so far");
    return g;
  };
  return {
    read: (input) => take(input, input.accumulates ? null : find(input)),
    write(input) {
      const g = find(input), free = input.node ? g && !g.storage.shared : input.accumulates;
      if (g && input.accumulates) ledger?.book(input);
      const grad = take(input, free ? g : null);
      return grad && { grad, outdated: input.accumulates && begin(input) };
    },
    fresh(input) {
      const once = inputs.indexOf(input) === inputs.lastIndexOf(input),
        g = input.accumulates && input.outdated && once ? find(input) : null;
      if (g) taken.set(input, "fresh");
      return g ?? empty(input.shape);
    },
  };
}

/** `d`, which includes the gradient that `input` had, in its place. */
function replace(grads: Map<Tensor, Tensor>, input: Tensor, d: Tensor): void {
  const before = input.node ? grads.get(input)! : input.grad!;
  if (input.accumulates) arrive(input);
  if (d === before) return;
  if (input.node) grads.set(input, d);
  else {
    d.hold();
    input.grad = d;
  }
  before.free();
}

/** Throws where the op that made `t` is no longer known, so that gradients would end at `t` in silence. */
function expectTape(t: Tensor): void {
  if (t.spent) {
    throw new Error(
      `Cannot run backward: the tape below [${t.shape}] ran already, a tape must run once (add losses up first), or its step() ended`,
    );
  }
}

/** Gradients that may be freed one by one: a tensor that stands twice in `made`, or is `g` itself, becomes a view. */
function own(g: Tensor, made: (Tensor | null)[]): (Tensor | null)[] {
  const seen = new Set<Tensor>([g]);
  return made.map((d) => {
    if (!d) return null;
    if (seen.has(d)) return d.view(d.shape);
    seen.add(d);
    return d;
  });
}

/** Drops a node's claim on what it kept. */
function release(node: Node): void {
  for (const t of node.saved) t.unhold();
}

/** State that {@linkcode checkpoint} puts back before it computes again, such as a random generator's. */
export interface Replayable<S = unknown> {
  state(): S;
  restore(state: S): void;
}

/**
 * `fn(...inputs)` without keeping anything inside it: the backward pass computes it again. `replay` lists the random generators it draws from;
 * they are set back for the second run, so both runs agree to the bit. Parameters used inside get their gradients as usual.
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, inputs: Tensor[], { replay = [] }: { replay?: Replayable[] } = {}): Tensor {
  const states = replay.map((r) => r.state());
  if (!recording) return fn(...inputs);
  for (const t of inputs) t.hold(); // before fn, which may free what it was given where nobody holds it
  const y = tidy(() => noGrad(() => fn(...inputs)));
  y.requiresGrad = true;
  y.node = {
    op: "checkpoint",
    order: count++,
    inputs,
    saved: inputs,
    backward: (dy) => {
      const now = replay.map((r) => r.state());
      replay.forEach((r, i) => r.restore(states[i]));
      const leaves = inputs.map((t) => {
        const leaf = t.view(t.shape);
        leaf.requiresGrad = t.requiresGrad;
        return leaf;
      });
      const before = recording, first = count;
      recording = true;
      try {
        const again = withChoice(chooseLeast, () => fn(...leaves));
        if (again.requiresGrad) runTape(again, dy, first);
      } finally {
        recording = before;
      }
      replay.forEach((r, i) => r.restore(now[i]));
      return leaves.map((leaf) => leaf.grad);
    },
  };
  return y;
}

/** Makes `t` a leaf whose backward passes add to `grad` in place: [as t] f32, which its owner sets to 0 or calls `outdated` after each step. */
export function parameter(t: Tensor, grad: Tensor): Tensor {
  expectShape("parameter", "grad", grad, t.shape);
  t.requiresGrad = t.accumulates = true;
  t.grad = grad;
  return t;
}
