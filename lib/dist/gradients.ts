/** Data parallel training: the gradients of all ranks added up in buckets while the backward pass still runs. */
import { persist } from "../tensor/scope.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Communicator } from "./communicator.ts";

/** A parameter and where its gradient lies in the flat buffer. */
export interface SharedParameter {
  name: string;
  tensor: Tensor;
  offset: number;
}

/** A part of a flat buffer whose gradients are on their way together. */
export interface Bucket {
  /** The first element, and how many. */
  offset: number;
  size: number;
}

/** Options of {@linkcode layOutBuckets}. */
export interface BucketOptions {
  /** Bytes of f32 gradients of a bucket; 64 MiB by default. */
  bucketBytes?: number;
  /** Where one part of the buffer ends and another begins, which no bucket has both of. */
  boundary?: number;
  /** What sizes must be multiples of; the boundary and the whole size are. */
  unit?: number;
}

/** Options of {@linkcode shareGradients}. */
export interface ShareOptions {
  buckets?: Bucket[];
  /** Adds up a bucket over the ranks, queued beside the device's work; all-reduces it by default. */
  send?: (view: Tensor, index: number) => void;
}

interface Sent {
  view: Tensor;
  parameters: Counted[];
  sent: boolean;
}

interface Counted {
  name: string;
  tensor: Tensor;
  /** Gradients that came in this step, and the most that came in one before. */
  came: number;
  expected: number;
  /** When the last one came, in the order of all that came in this step. */
  when: number;
  /** The buckets that have a part of it. */
  buckets: Sent[];
}

/** Gradients being shared. */
export interface GradientSharing {
  /** Sends what was not sent yet; the device's later work sees the sums of all ranks. Ends a step. */
  finish(): void;
  free(): void;
}

/** Cuts a flat buffer of `size` elements into buckets. */
export function layOutBuckets(size: number, { bucketBytes = 64 * 2 ** 20, boundary = 0, unit = 1 }: BucketOptions = {}): Bucket[] {
  const most = Math.ceil(bucketBytes / 4 / unit) * unit;
  return [[0, boundary], [boundary, size]].flatMap(([begin, end]) =>
    Array.from({ length: Math.ceil((end - begin) / most) }, (_, i) => {
      const offset = begin + i * most;
      return { offset, size: Math.min(most, end - offset) };
    })
  );
}

/**
 * Shares `grad` [n] f32, into which backward passes add the gradients of `parameters`. A bucket is sent once each of its parameters got as many
 * gradients as it ever got in a step (micro-batches and repeated uses count). The first step sends at its end; from then on buckets go in the order in
 * which they were whole in the last step that brought a gradient more than those before, as the first rank that says so saw it: all ranks send in one
 * order. A parameter that gets more after a bucket of it is gone is an error: its sum would be wrong.
 */
export function shareGradients(
  grad: Tensor,
  parameters: SharedParameter[],
  ranks: Communicator,
  { buckets = layOutBuckets(grad.size), send = (view) => ranks.allReduce(view) }: ShareOptions = {},
): GradientSharing {
  if (ranks.world === 1) return { finish: () => {}, free: () => {} };
  const counted = parameters.map(({ name, tensor, offset }) => ({ name, tensor, offset, came: 0, expected: 0, when: 0 }));
  const all = buckets.map(({ offset, size }): Sent => ({
    view: persist(() => grad.view([size], { offset })),
    parameters: [],
    sent: false,
  }));
  const shared = counted.map(({ offset, ...counts }): Counted => {
    const p = {
      ...counts,
      buckets: all.filter((_, i) => offset < buckets[i].offset + buckets[i].size && offset + counts.tensor.size > buckets[i].offset),
    };
    for (const bucket of p.buckets) bucket.parameters.push(p);
    return p;
  });
  const goAtOf = ({ bursts = [] }: Communicator): number[] => bursts.map((part) => Math.ceil(part * all.length));
  let goAt = goAtOf(ranks);
  let order = all.map((_, i) => all.length - 1 - i), next = 0, arrivals = 0;
  const complete = ({ parameters }: Sent): boolean => parameters.every(({ came, expected }) => expected > 0 && came >= expected);
  /** Sends the buckets that are whole, once there are enough of them. */
  const sendWhole = (): void => {
    let whole = next;
    while (whole < order.length && complete(all[order[whole]])) whole++;
    if (goAt.length && whole < (goAt.find((at) => at > next) ?? Infinity)) return;
    while (next < whole) sendNext();
  };
  const sendNext = (): void => {
    const bucket = all[order[next]];
    send(bucket.view, order[next++]);
    bucket.sent = true;
  };
  /** The buckets as they became whole in this step; those that did not come last. */
  const byArrival = (): number[] => {
    const whole = all.map(({ parameters }) => parameters.reduce((latest, p) => Math.max(latest, p.came ? p.when : Infinity), 0));
    return order.toSorted((a, b) => whole[a] === whole[b] ? b - a : whole[a] - whole[b]);
  };
  for (const p of shared) {
    p.tensor.arrived = () => {
      p.came++;
      p.when = ++arrivals;
      if (p.buckets.some(({ sent }) => sent)) {
        throw new Error(
          `Cannot share gradients: ${p.name} [${p.tensor.shape}] (${
            sizeOf(p.tensor.shape)
          } values) got ${p.came} in a step, it must be at most the ${p.expected} of earlier steps`,
        );
      }
      sendWhole();
    };
  }
  return {
    finish() {
      while (next < order.length) sendNext();
      ranks.join();
      const more = shared.some(({ came, expected }) => came > expected);
      order = ranks.exchange(more ? byArrival() : null).find((found) => found !== null) ?? order;
      for (const bucket of all) bucket.sent = false;
      for (const p of shared) {
        p.expected = Math.max(p.expected, p.came);
        p.came = 0;
      }
      goAt = goAtOf(ranks);
      next = arrivals = 0;
    },
    free() {
      for (const { view } of all) view.free();
      for (const { tensor } of shared) tensor.arrived = null;
    },
  };
}
