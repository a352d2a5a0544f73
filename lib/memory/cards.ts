/** What GPUs can do, and what the kernels reach of it: for predictions of time before a run. */

/** A card's sheet. Rates are what the kernels reach on random data, not the maker's peaks. */
export interface Card {
  name: string;
  /** Bytes of device memory. */
  memory: number;
  /** Bytes a second that passes over memory reach. */
  bandwidth: number;
  /** 16-bit products, FLOP/s. */
  products: number;
  /** f32 products, FLOP/s. */
  products32: number;
  /** 16-bit attention, forward and backward, FLOP/s of useful work. */
  attention: { forward: number; backward: number };
  /** 16-bit convolutions, FLOP/s. */
  convolution: number;
  /** Bytes a second between host and device. */
  host: number;
  /** Whether the kernels for Hopper run. */
  hopper: boolean;
  /** Usual rent in US dollars an hour. */
  dollars: number;
}

const GIB = 2 ** 30, T = 1e12;

/**
 * The H200's rates make whole training steps come out as measured (bench/memory_bench.ts); the H100 has the same but for its memory. The others' are
 * scaled by their makers' peaks (A100 312, RTX 4090 165 TFLOP/s with f32 sums) and were not measured.
 */
export const CARDS: Record<string, Card> = {
  "A100-40": {
    name: "A100 40 GB",
    memory: 39.4 * GIB,
    ...{ bandwidth: 1.3 * T, products: 215 * T, products32: 17 * T, attention: { forward: 150 * T, backward: 115 * T } },
    ...{ convolution: 120 * T, host: 24e9, hopper: false, dollars: 1.3 },
  },
  "A100-80": {
    name: "A100 80 GB",
    memory: 79.1 * GIB,
    ...{ bandwidth: 1.7 * T, products: 225 * T, products32: 17 * T, attention: { forward: 155 * T, backward: 120 * T } },
    ...{ convolution: 125 * T, host: 24e9, hopper: false, dollars: 1.6 },
  },
  H100: {
    name: "H100 80 GB",
    memory: 79.2 * GIB,
    ...{ bandwidth: 2.3 * T, products: 620 * T, products32: 45 * T, attention: { forward: 525 * T, backward: 455 * T } },
    ...{ convolution: 300 * T, host: 50e9, hopper: true, dollars: 2.5 },
  },
  H200: {
    name: "H200",
    memory: 139.8 * GIB,
    ...{ bandwidth: 3.3 * T, products: 620 * T, products32: 45 * T, attention: { forward: 525 * T, backward: 455 * T } },
    ...{ convolution: 300 * T, host: 50e9, hopper: true, dollars: 3.3 },
  },
  "RTX-4090": {
    name: "RTX 4090",
    memory: 23.5 * GIB,
    ...{ bandwidth: 0.88 * T, products: 140 * T, products32: 50 * T, attention: { forward: 85 * T, backward: 65 * T } },
    ...{ convolution: 80 * T, host: 22e9, hopper: false, dollars: 0.5 },
  },
};

/** The sheet for a card's own name, such as "NVIDIA H100 80GB HBM3"; that of the H100 where there is none. */
export function cardFor(name = ""): Card {
  const key = ["H200", "H100", "4090", "A100"].find((part) => name.includes(part)) ?? "H100";
  if (key === "A100") return CARDS[name.includes("80") ? "A100-80" : "A100-40"];
  return CARDS[key === "4090" ? "RTX-4090" : key];
}
