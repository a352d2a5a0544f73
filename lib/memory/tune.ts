/**
 * The algorithms of dense products, chosen by time. cuBLASLt's heuristic ranks its algorithms without running them, and its first is often not the
 * fastest; but a choice by time differs from run to run, and sums in another order. So it is made once, for the products of a pass, and what was
 * chosen is plain JSON to be kept: whoever uses it again computes the same bits.
 */
import { readDriver } from "../../ffi/cuda_driver.ts";
import { openCudart } from "../../ffi/cudart.ts";
import {
  type Algorithm,
  chooseAlgorithm,
  cublasLtVersion,
  matmul,
  matmulAlgorithms,
  type MatmulProblem,
  problemKey,
} from "../../ffi/cublaslt.ts";
import { productWorkspace } from "../ops/product.ts";
import { device, onDevice } from "../tensor/device.ts";
import { DTYPE_BYTES, type FloatDType } from "../tensor/dtype.ts";
import { OutOfMemoryError } from "../tensor/memory.ts";
import { Generator } from "../tensor/random.ts";
import { step } from "../tensor/scope.ts";
import { empty, stream, type Tensor } from "../tensor/tensor.ts";
import { simulate } from "./simulate.ts";

/** One product's algorithm, as cuBLASLt codes it in this version, in hexadecimal. */
export interface ProductChoice {
  algorithm: string;
  workspace: number;
  /** Milliseconds that it took, and those of the heuristic's first. */
  ms: number;
  first: number;
}

/** The algorithms of some products: good for one version of cuBLASLt and one kind of GPU. */
export interface ProductChoices {
  cublasLt: number;
  gpu: string;
  /** By the product's sizes, types and epilogue. */
  products: Record<string, ProductChoice>;
}

/** How many algorithms are tried, and how often each. */
const CANDIDATES = 8, ROUNDS = 9;
/** Untimed runs before each round: the host gets ahead of the device, which gets as warm as it will be. */
const AHEAD = 4;
/** Smaller products take no time that choosing could save. */
const LEAST_OPERATIONS = 1e9;
/** The heuristic's first stays where the best takes more than this part of its time: what is less is noise. */
const WORTH = 0.985;

/** Whether choices are for this process's cuBLASLt and GPU. */
export function choicesFit({ cublasLt, gpu }: ProductChoices): boolean {
  return cublasLt === cublasLtVersion() && gpu === readDriver().gpus[0]?.name;
}

/** Products are done as chosen from here on. The choices must fit: see {@linkcode choicesFit}. */
export function useChoices({ products }: ProductChoices): void {
  for (const [key, { algorithm, workspace }] of Object.entries(products)) {
    chooseAlgorithm(key, { code: Uint8Array.fromHex(algorithm), workspace: BigInt(workspace) });
  }
}

/**
 * Times the algorithms of the large products of `pass`, which is run on a simulated device, and returns the fastest; nothing is changed yet. `known`
 * ones are kept. Null where cuBLASLt does no products: on the CPU. 8-bit products have one algorithm each and are left alone.
 */
export function tuneProducts(pass: () => unknown, known?: ProductChoices): ProductChoices | null {
  if (device().name !== "cuda") return null;
  const products = { ...known?.products };
  for (const [key, problem] of problemsOf(pass)) {
    if (2 * problem.batch * problem.M * problem.N * problem.K < LEAST_OPERATIONS) continue;
    try {
      products[key] ??= step(() => fastest(problem));
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error; // no room to try it: the heuristic's first stays
    }
  }
  return { cublasLt: cublasLtVersion(), gpu: readDriver().gpus[0].name, products };
}

/** The products that a pass asks cuBLASLt for, by their keys. */
function problemsOf(pass: () => unknown): Map<string, MatmulProblem> {
  const found = new Map<string, MatmulProblem>();
  simulate((at) => {
    const matmul = (p: MatmulProblem): boolean => {
      if (p.scales) return at.simulated!.matmul(p);
      const key = problemKey(p);
      if (!found.has(key) && matmulAlgorithms(p, 1).length === 0) return false;
      found.set(key, p);
      if (p.type !== "f32" && p.outType === "f32") { // a weight's gradient, of the first micro-batch of a step or of a later one
        const other = { ...p, adds: !p.adds };
        found.set(problemKey(other), other);
      }
      return at.simulated!.matmul(p);
    };
    return onDevice({ ...at, simulated: { ...at.simulated, matmul } }, pass);
  });
  return found;
}

/** The fastest algorithm of a problem, in medians on random values. */
function fastest(problem: MatmulProblem): ProductChoice {
  const { batch, M, N, K, type, outType, epilogue } = problem, random = new Generator(1);
  const make = (size: number, dtype: string): Tensor => random.normal([size], { dtype: dtype as FloatDType });
  const many = (stride: number): number => stride ? batch : 1;
  const a = make(many(problem.strideA) * M * K, type), b = make(many(problem.strideB) * K * N, type);
  const y = empty([batch * M * N], outType as FloatDType), aux = epilogue === "gelu" ? empty(y.shape, y.dtype) : null;
  const bias = epilogue === "rowSums" ? empty([M]) : make(N, type);
  const trial = { ...problem, y: y.addr, a: a.addr, b: b.addr, bias: bias.addr, aux: aux?.addr ?? 0n };
  device().memory.zero(y.addr, batch * M * N * DTYPE_BYTES[y.dtype]);
  const algorithms = matmulAlgorithms(problem, CANDIDATES),
    times = timesOf(algorithms, (by) => matmul(trial, productWorkspace().addr, stream(), by));
  const best = times.indexOf(Math.min(...times)),
    taken = times[best] < WORTH * times[0] ? best : 0,
    { code, workspace } = algorithms[taken];
  return { algorithm: code.toHex(), workspace: Number(workspace), ms: times[taken], first: times[0] };
}

/** Median milliseconds of each, which take turns at being first. */
function timesOf(algorithms: Algorithm[], run: (by: Algorithm) => void): number[] {
  const cuda = openCudart(), made = new BigUint64Array(1), elapsed = new Float32Array(1);
  const event = (): bigint => {
    cuda.cudaEventCreate(made);
    return made[0];
  };
  const marks = Array.from({ length: algorithms.length + 1 }, event), all: number[][] = algorithms.map(() => []);
  for (let round = -1; round < ROUNDS; round++) {
    const order = algorithms.map((_, k) => (k + round + 1) % algorithms.length);
    for (let k = 0; k < AHEAD; k++) run(algorithms[0]);
    cuda.cudaEventRecord(marks[0], stream());
    order.forEach((i, k) => {
      run(algorithms[i]);
      cuda.cudaEventRecord(marks[k + 1], stream());
    });
    cuda.cudaEventSynchronize(marks.at(-1)!);
    if (round < 0) continue;
    order.forEach((i, k) => {
      cuda.cudaEventElapsedTime(elapsed, marks[k], marks[k + 1]);
      all[i].push(elapsed[0]);
    });
  }
  for (const mark of marks) cuda.cudaEventDestroy(mark);
  return all.map((list) => list.sort((a, b) => a - b)[ROUNDS >> 1]);
}
