/** Attention in a CUDA graph: captured once, launched again on other inputs. */
import assert from "node:assert/strict";
import { openCudart } from "../../ffi/cudart.ts";
import { selfAttention, type SelfAttentionOptions } from "../../lib/ops/attention.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { empty, kernels, stream, type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { permutation, withFields } from "./attention_reference.ts";

const ON_CUDA = hasCuda() && device().name === "cuda";

/** cudaStreamCaptureModeThreadLocal: what other threads do meanwhile is allowed. */
const THREAD_LOCAL = 1;

/** Runs `body` with every pass of attention captured into a graph, which is launched in its place. Returns the launches of all of them again. */
function captured(body: () => void): () => void {
  const k = kernels(), { k_attention_fwd, k_attention_bwd } = k, cuda = openCudart(), graphs: bigint[] = [];
  const capture =
    (run: (problem: BigUint64Array<ArrayBuffer>, stream: bigint) => number) => (problem: BigUint64Array<ArrayBuffer>): number => {
      const graph = new BigUint64Array(1), executable = new BigUint64Array(1);
      cuda.cudaStreamBeginCapture(stream(), THREAD_LOCAL);
      const status = run(problem, stream());
      cuda.cudaStreamEndCapture(stream(), graph);
      cuda.cudaGraphInstantiate(executable, graph[0], 0n);
      cuda.cudaGraphDestroy(graph[0]);
      cuda.cudaGraphLaunch(executable[0], stream());
      graphs.push(executable[0]);
      return status;
    };
  k.k_attention_fwd = capture(k_attention_fwd as never) as never;
  k.k_attention_bwd = capture(k_attention_bwd as never) as never;
  try {
    body();
  } finally {
    Object.assign(k, { k_attention_fwd, k_attention_bwd });
  }
  return () => graphs.forEach((g) => cuda.cudaGraphLaunch(g, stream()));
}

interface Case {
  shape: number[];
  options?: () => SelfAttentionOptions;
  dtype?: FloatDType;
}

const WINDOWS = [60, 0, 123, 17, 90], LONG = [700, 0, 300, 1000];
function sequences(lengths: number[], mapped: boolean): () => SelfAttentionOptions {
  return () => {
    const offsets = [0], i32 = { dtype: "i32" } as const;
    for (const n of lengths) offsets.push(offsets.at(-1)! + n);
    const N = offsets.at(-1)!;
    return {
      sequences: {
        offsets: tensor(offsets, [offsets.length], i32),
        longest: Math.max(...lengths),
        rows: mapped ? tensor(permutation(N), [N], i32) : undefined,
      },
    };
  };
}

const CASES: Record<string, Case> = {
  "dense": { shape: [2, 700, 3, 3, 64] },
  "dense of width 128": { shape: [1, 300, 3, 2, 128] },
  "dense in f32": { shape: [2, 70, 3, 2, 32], dtype: "f32" },
  "of short sequences": { shape: [2, 100, 3, 3, 64] },
  "of sequences": { shape: [2000, 3, 2, 64], options: sequences(LONG, false) },
  "of windows": { shape: [290, 3, 3, 64], options: sequences(WINDOWS, true) },
};

for (const [name, { shape, options, dtype = "bf16" }] of Object.entries(CASES)) {
  Deno.test({
    name: `selfAttention(), ${name}, runs in a CUDA graph, and again on other inputs, forward and backward`,
    ignore: !ON_CUDA,
    fn: () => {
      step(() => {
        const random = new Generator(1), other = random.normal(shape, { dtype }), qkv = random.normal(shape, { dtype });
        const dy = random.normal([...shape.slice(0, -3), ...shape.slice(-2)], { dtype }), fixed = options?.() ?? {};
        const plain = (x: Tensor): Tensor[] => {
          x.requiresGrad = true;
          x.grad = null;
          const y = selfAttention(x, fixed);
          backward(y, dy);
          return [y, x.grad!];
        };
        const bytes = (all: Tensor[]): Uint8Array[] => all.map((t) => new Uint8Array(t.readRaw().buffer).slice());
        const first = bytes(plain(qkv)), second = bytes(plain(other));
        let made: Tensor[] = [];
        const space = empty([2 ** 24], "u8"), kept = { workspace: space.addr, workspace_bytes: BigInt(space.size) };
        const again = captured(() => withFields(kept, () => made = plain(qkv)));
        assert.deepEqual(bytes(made), first);
        qkv.write(other.read());
        again();
        assert.deepEqual(bytes(made), second);
      });
    },
  });
}
