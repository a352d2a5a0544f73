/**
 * Passes that are recorded once and then run again without the host: where a step has many small kernels, telling the device about each takes longer
 * than running it. The bits are those of a pass that is not recorded.
 */
import { leaves } from "../nn/parameters.ts";
import { device } from "../tensor/device.ts";
import { addFlops, isWatched } from "../tensor/flops.ts";
import { persist, step } from "../tensor/scope.ts";
import { empty, Tensor } from "../tensor/tensor.ts";
import { logged, type PassLog, recorded, type Recording } from "./recording.ts";

/** What a pass is given: tensors, and some that are made when they are asked for, in passes that are not recorded after what was queued before. */
export type PassInputs = Record<string, Tensor | (() => Tensor)>;

/** Values of the outputs of a pass: asking for them waits for it. */
export type PassValues<O> = { [K in keyof O]: () => Float32Array<ArrayBuffer> };

/** Options of {@linkcode Replays.run}. */
export interface ReplayOptions<I, O> {
  /** What decides, beside the shapes of its inputs, what the pass does: two passes of one key differ in their inputs' values alone. */
  key: string;
  /** Makes the inputs. */
  inputs: () => I;
  /**
   * Forward and backward: a function of its inputs, of parameters and of what is the same in every step, such as a table that it brings from the host. It
   * reads nothing from the device.
   */
  pass: (inputs: I) => O;
}

/** Runs passes. */
export interface Replays {
  /** Runs a pass: as it is the first two times, recorded from then on, where it can be. */
  run<I extends PassInputs, O extends Record<string, Tensor>>(options: ReplayOptions<I, O>): PassValues<O>;
  /** Passes that were run from a recording. */
  readonly count: number;
  /** Gives the memory of all recordings back. */
  free(): void;
}

/** The part of the device's memory that recordings may keep where nobody asked for them: what else a run does must fit beside them. */
export const KEPT_BY_RECORDINGS = 1 / 4;

/** Recordings that were not used for so many runs are given up. */
const IDLE = 64;

/** A pass that was seen. */
interface Known {
  inputs?: Record<string, Tensor>;
  log?: PassLog;
  recording?: Recording<Record<string, Tensor>>;
  /** Parameters whose gradients it writes first. */
  begun: Tensor[];
  plain?: boolean;
  used: number;
}

const valueOf = (input: Tensor | (() => Tensor)): Tensor => input instanceof Tensor ? input : input();

/**
 * Replays of passes that add to the gradients of `params`. Where `enabled` says no every pass runs as it is, as it must where several processes share
 * gradients while it runs; also while a profile looks on, and passes with whose recordings all would keep more than `most` bytes.
 */
export function openReplays(
  params: unknown,
  { enabled, most = Infinity, say = () => {} }: { enabled: boolean; most?: number; say?: (text: string) => void },
): Replays {
  const trained = leaves<Tensor>(params).map(([, t]) => t).filter((t) => t.accumulates), known = new Map<string, Known>();
  let runs = 0, count = 0;
  const said = new Set<string>(),
    sayOnce = (text: string): void => {
      if (!said.has(text)) say(text);
      said.add(text);
    };
  const values = <O extends Record<string, Tensor>>(outputs: O): PassValues<O> =>
    Object.fromEntries(Object.entries(outputs).map(([name, t]) => [name, t.readLater()])) as PassValues<O>;
  const forget = (entry: Known): void => {
    entry.recording?.free();
    for (const t of Object.values(entry.inputs ?? {})) t.free();
    Object.assign(entry, { recording: undefined, inputs: undefined, log: undefined });
  };
  /** Inputs that stay where they are, with the values of these. */
  const fixedInputs = <I extends PassInputs>(entry: Known, given: I): I => {
    const values = Object.entries(given).map(([name, input]) => [name, valueOf(input)] as const);
    const fixed = entry.inputs ??= persist(() => Object.fromEntries(values.map(([name, { shape, dtype }]) => [name, empty(shape, dtype)])));
    for (const [name, { addr, bytes }] of values) device().memory.copy(fixed[name].addr, addr, bytes);
    return Object.fromEntries(values.map(([name]) => [name, given[name] instanceof Tensor ? fixed[name] : () => fixed[name]])) as I;
  };
  const record = <O extends Record<string, Tensor>>(entry: Known, pass: () => O): void => {
    const before = trained.filter((t) => t.outdated);
    try {
      device().memory.trim(); // what is kept for later passes has no later passes
      const kept = [...known.values()].reduce((sum, { recording }) => sum + (recording?.bytes ?? 0), 0);
      entry.recording = recorded(() => step(pass), entry.log!, most - kept);
      entry.begun = before.filter((t) => !t.outdated);
      sayOnce("a step's passes run from a recording from now on");
    } catch (error) {
      forget(entry);
      entry.plain = true;
      sayOnce(`a step's passes cannot be recorded and run as they are: ${(error as Error).message}`);
    } finally {
      for (const t of before) t.outdated = true; // it was not run
    }
  };
  return {
    get count() {
      return count;
    },
    run: ({ key, inputs, pass }) =>
      step(() => {
        const given = inputs();
        if (!enabled || isWatched()) return values(pass(given));
        const shapes = Object.entries(given).map(([name, t]) => `${name} ${t instanceof Tensor ? t.shape : ""}`);
        const name = `${key}; ${shapes}; ${trained.map((t) => Number(t.outdated)).join("")}`, entry = known.get(name);
        runs++;
        for (const [other, { used }] of known) {
          if (other !== name && runs - used > IDLE) forget(known.get(other)!), known.delete(other);
        }
        if (!entry) {
          known.set(name, { begun: [], used: runs });
          return values(pass(given));
        }
        entry.used = runs;
        if (entry.plain) return values(pass(given));
        if (!entry.log) {
          const fixed = fixedInputs(entry, given), { result, log } = logged(() => step(() => pass(fixed)));
          entry.log = log;
          return values(result);
        }
        const fixed = fixedInputs(entry, given);
        if (!entry.recording) record(entry, () => pass(fixed));
        if (!entry.recording) return values(pass(given));
        entry.recording.replay();
        addFlops(entry.recording.flops);
        for (const t of entry.begun) t.outdated = false;
        count++;
        return values(entry.recording.outputs) as PassValues<never>;
      }),
    free() {
      for (const entry of known.values()) forget(entry);
      known.clear();
    },
  };
}
