/** Lifetimes. A scope frees, at its end, what was made inside it; nothing depends on the garbage collector. */
import { Tensor } from "./tensor.ts";

let scope: Set<Tensor> | undefined;
const running: Set<Tensor>[] = []; // every scope that has not ended, the innermost last

/** Called by every new tensor. */
export function adopt(t: Tensor): void {
  scope?.add(t);
}

/** The tensors in what a scope returns: a tensor, an array or a plain record of them, to any depth. */
function tensorsIn(value: unknown, found: Set<Tensor> = new Set()): Set<Tensor> {
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return found;
  if (value instanceof Tensor) found.add(value);
  else if (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype) {
    for (const v of Object.values(value)) tensorsIn(v, found);
  }
  return found;
}

function run<T>(body: () => T, end: (mine: Set<Tensor>, kept: Set<Tensor>) => void): T {
  const outer = scope, mine = scope = new Set<Tensor>();
  let result: T;
  running.push(mine);
  try {
    result = body();
  } catch (error) {
    for (const t of mine) t.free();
    throw error;
  } finally {
    scope = outer;
    running.pop();
  }
  if (result instanceof Promise) {
    for (const t of mine) t.free();
    throw new TypeError("Cannot end a scope: its body returned a promise, it must be synchronous");
  }
  const kept = tensorsIn(result);
  end(mine, kept);
  return result;
}

/** Runs `body` and frees every tensor made inside except those it returns; what was recorded inside for a backward pass is gone too. */
export function step<T>(body: () => T): T {
  return run(body, (mine, kept) => {
    for (const t of mine) {
      if (!kept.has(t)) t.free();
      else {
        t.spent ||= t.node !== null;
        t.node = null;
        scope?.add(t);
      }
    }
  });
}

/**
 * Runs `body` and frees what it made except what it returns and what recorded ops keep for their backward pass (those are freed by
 * {@linkcode backward} or by the end of the enclosing step). Models wrap their blocks in it, so that temporaries do not pile up.
 */
export function tidy<T>(body: () => T): T {
  return run(body, (mine, kept) => {
    for (const t of mine) {
      if (!kept.has(t)) t.leave();
      if (!t.freed) scope?.add(t);
    }
  });
}

/** Runs `body` outside of every scope: what it makes lives until it is freed by hand. For parameters and optimizer state. */
export function persist<T>(body: () => T): T {
  return within(undefined, body);
}

/** Runs `body` in the scope that `t` lives in, so that what it makes lives as long as `t`: for maps that are built late, once, and kept with `t`. */
export function beside<T>(t: Tensor, body: () => T): T {
  return within(running.findLast((s) => s.has(t)), body);
}

function within<T>(other: Set<Tensor> | undefined, body: () => T): T {
  const outer = scope;
  scope = other;
  try {
    return body();
  } finally {
    scope = outer;
  }
}

/** Moves a living tensor out of every scope. */
export function keep(t: Tensor): Tensor {
  scope?.delete(t);
  return t;
}
