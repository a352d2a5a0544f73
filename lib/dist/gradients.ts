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

/** Options of {@linkcode shareGradients}. */
export interface ShareOptions {
  /** Bytes of a bucket at least; 64 MiB by default. */
  bucketBytes?: number;
}

interface Bucket {
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
  bucket: number;
}

/** Gradients being shared. */
export interface GradientSharing {
  /** Sends what was not sent yet; the device's later work sees the sums of all ranks. Ends a step. */
  finish(): void;
  free(): void;
}

/**
 * Shares `grad` [n] f32, into which backward passes add the gradients of `parameters`. A bucket is sent once each of its parameters got as many
 * gradients as it ever got in a step (micro-batches and repeated uses count), the last bucket of the buffer first, so all ranks send in one order;
 * the first step sends at its end. A parameter that gets more after its bucket is gone is an error: its sum would be wrong.
 */
export function shareGradients(
  grad: Tensor,
  parameters: SharedParameter[],
  ranks: Communicator,
  { bucketBytes = 64 * 2 ** 20 }: ShareOptions = {},
): GradientSharing {
  if (ranks.world === 1) return { finish: () => {}, free: () => {} };
  const buckets: Bucket[] = [], sorted = [...parameters].sort((a, b) => a.offset - b.offset);
  for (let first = 0; first < sorted.length;) {
    let last = first;
    const endOf = (i: number): number => i + 1 < sorted.length ? sorted[i + 1].offset : grad.size;
    const begin = first === 0 ? 0 : sorted[first].offset;
    while (last + 1 < sorted.length && 4 * (endOf(last) - begin) < bucketBytes) last++;
    const view = persist(() => grad.view([endOf(last) - begin], { offset: begin }));
    const counted = sorted.slice(first, last + 1).map(({ name, tensor }): Counted => ({
      name,
      tensor,
      came: 0,
      expected: 0,
      bucket: buckets.length,
    }));
    buckets.push({ view, parameters: counted, sent: false });
    first = last + 1;
  }
  let next = buckets.length - 1;
  const send = (bucket: Bucket): void => {
    ranks.allReduce(bucket.view);
    bucket.sent = true;
    next--;
  };
  const complete = ({ parameters }: Bucket): boolean => parameters.every(({ came, expected }) => expected > 0 && came >= expected);
  for (const p of buckets.flatMap((bucket) => bucket.parameters)) {
    p.tensor.arrived = () => {
      p.came++;
      if (buckets[p.bucket].sent) {
        throw new Error(
          `Cannot share gradients: ${p.name} [${p.tensor.shape}] (${
            sizeOf(p.tensor.shape)
          } values) got ${p.came} in a step, it must be at most the ${p.expected} of earlier steps`,
        );
      }
      while (next >= 0 && complete(buckets[next])) send(buckets[next]);
    };
  }
  return {
    finish() {
      while (next >= 0) send(buckets[next]);
      ranks.join();
      for (const bucket of buckets) {
        bucket.sent = false;
        for (const p of bucket.parameters) {
          p.expected = Math.max(p.expected, p.came);
          p.came = 0;
        }
      }
      next = buckets.length - 1;
    },
    free() {
      for (const { view, parameters } of buckets) {
        view.free();
        for (const { tensor } of parameters) tensor.arrived = null;
      }
    },
  };
}
