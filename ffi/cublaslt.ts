/** cuBLASLt: dense products with fused epilogues, in row-major terms. Plans (descriptors and the chosen algorithm) are kept by problem. */
import { observer } from "./observer.ts";
import { openCudaLibrary } from "./shared_library.ts";

const SYMBOLS = {
  cublasLtCreate: { parameters: ["buffer"], result: "i32" },
  cublasLtGetVersion: { parameters: [], result: "usize" },
  cublasLtMatmulDescCreate: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  cublasLtMatmulDescSetAttribute: { parameters: ["u64", "i32", "buffer", "usize"], result: "i32" },
  cublasLtMatrixLayoutCreate: { parameters: ["buffer", "i32", "u64", "u64", "i64"], result: "i32" },
  cublasLtMatrixLayoutSetAttribute: { parameters: ["u64", "i32", "buffer", "usize"], result: "i32" },
  cublasLtMatmulPreferenceCreate: { parameters: ["buffer"], result: "i32" },
  cublasLtMatmulPreferenceSetAttribute: { parameters: ["u64", "i32", "buffer", "usize"], result: "i32" },
  cublasLtMatmulPreferenceDestroy: { parameters: ["u64"], result: "i32" },
  cublasLtMatmulAlgoGetHeuristic: {
    parameters: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "i32", "buffer", "buffer"],
    result: "i32",
  },
  cublasLtMatmul: {
    parameters: [
      ...["u64", "u64", "buffer", "u64", "u64", "u64", "u64", "buffer"] as const,
      ...["u64", "u64", "u64", "u64", "buffer", "u64", "usize", "u64"] as const,
    ],
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

type CublasLt = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** cudaDataType of the float dtypes. */
const CUDA_TYPE = { f32: 0, f16: 2, bf16: 14, e4m3: 28 } as const;
const COMPUTE_32F = 68;
const DESC = {
  transA: 3,
  transB: 4,
  epilogue: 7,
  biasPointer: 8,
  auxPointer: 11,
  auxLd: 12,
  scaleA: 17,
  scaleB: 18,
  fastSums: 25,
  scaleModeA: 31,
  scaleModeB: 32,
};
/** A scale for each row of A and each column of B. */
const SCALE_OUTER_VECTOR = 3;
const LAYOUT = { batchCount: 5, batchStride: 6 };
const PREFERENCE = { workspaceBytes: 1, reductionScheme: 3, alignment: [5, 6, 7, 8] };
/** Split products are summed in the workspace in f32, in a fixed order. */
const REDUCE_IN_COMPUTE_TYPE = 2;
const EPILOGUE = { none: 1, bias: 4, gelu: 164, rowSums: 512 } as const;
/** Epilogues that read or write `bias`, and `aux`. */
const WITH_BIAS = ["bias", "gelu", "rowSums"], WITH_AUX = ["gelu"];
const NOT_SUPPORTED = [7, 15]; // CUBLAS_STATUS_INVALID_VALUE, CUBLAS_STATUS_NOT_SUPPORTED

/** An element type of the products. */
export type MatmulType = keyof typeof CUDA_TYPE;

/**
 * `y [batch, M, N] = op(a) op(b)`, row-major and contiguous, with op(a) [M, K] and op(b) [K, N]; sums in f32.
 * The epilogue: "bias" adds `bias [N]`; "gelu" adds it, writes the sum to `aux [M, N]` and its tanh-GELU to y; "rowSums" also writes the sums of
 * op(a)'s rows over K to `bias [M]`: the bias gradient, where a is dyᵀ.
 */
export interface MatmulProblem {
  y: bigint;
  a: bigint;
  b: bigint;
  bias: bigint;
  aux: bigint;
  batch: number;
  M: number;
  N: number;
  K: number;
  transposeA: boolean;
  transposeB: boolean;
  /** Elements from one matrix to the next; 0 repeats it. */
  strideA: number;
  strideB: number;
  /** dtype of a, b (and of the bias and aux, but for "rowSums") and of y. */
  type: MatmulType;
  outType: MatmulType;
  epilogue: keyof typeof EPILOGUE;
  /** Whether the product is added to what y holds. */
  adds?: boolean;
  /**
   * Where a and b are e4m3 (a not transposed, b transposed): the addresses of what the rows of op(a) and the columns of op(b) are multiplied by, [M]
   * and [N] f32; whole: one number each. fast: sums may be kept to fewer bits than f32's.
   */
  scales?: { a: bigint; b: bigint; fast: boolean; whole?: boolean };
}

interface Described {
  description: bigint;
  layouts: [a: bigint, b: bigint, d: bigint];
}

interface Plan extends Described {
  algorithm: Algorithm;
}

/** Bytes of the workspace that {@linkcode matmul} must be given. */
export const WORKSPACE_BYTES = 64 * 2 ** 20;

const HEURISTIC_BYTES = 96, ALGORITHM_BYTES = 64;
const word = new BigUint64Array(1), ONE = new Float32Array([1]), ZERO = new Float32Array([0]);
let library: CublasLt | undefined;
let handle = 0n;
const plans = new Map<string, Plan | null>(), chosen = new Map<string, Algorithm>();

/** One of cuBLASLt's ways to do a product: its own 64 bytes, which hold for one version of it, and the workspace that they need. */
export interface Algorithm {
  code: Uint8Array<ArrayBuffer>;
  workspace: bigint;
}

/** Opens libcublasLt (CUDA 13 or 12), once. */
function open(): CublasLt {
  if (library) return library;
  library = openCudaLibrary(["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"], SYMBOLS, {
    what: "cuBLASLt",
    purpose: "does the dense products",
  });
  const out = new BigUint64Array(1);
  check("cublasLtCreate", library.cublasLtCreate(out));
  handle = out[0];
  return library;
}

/** The version of cuBLASLt, such as 130000. */
export function cublasLtVersion(): number {
  return Number(open().cublasLtGetVersion());
}

function check(call: string, status: number): void {
  if (status !== 0) throw new Error(`Cannot run ${call}: cuBLASLt's status is ${status}, it must be 0`);
}

/** The largest power of two up to 256 that divides all addresses. */
function alignment(...addresses: bigint[]): number {
  let all = 256;
  for (const a of addresses) all |= Number(a & 511n);
  return all & -all;
}

function describe(p: MatmulProblem): Described {
  const lt = open(), out = new BigUint64Array(1);
  const create = (call: string, status: number): bigint => {
    check(call, status);
    return out[0];
  };
  const i32 = (v: number) => new Int32Array([v]), i64 = (v: number) => new BigInt64Array([BigInt(v)]);
  const description = create("cublasLtMatmulDescCreate", lt.cublasLtMatmulDescCreate(out, COMPUTE_32F, CUDA_TYPE.f32));
  const set = (attribute: number, value: Int8Array<ArrayBuffer> | Int32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>) =>
    check("cublasLtMatmulDescSetAttribute", lt.cublasLtMatmulDescSetAttribute(description, attribute, value, BigInt(value.byteLength)));
  // cuBLASLt is column-major: its A is our b, its B is our a, its D [N, M] is our y.
  set(DESC.transA, i32(p.transposeB ? 1 : 0));
  set(DESC.transB, i32(p.transposeA ? 1 : 0));
  set(DESC.epilogue, i32(EPILOGUE[p.epilogue]));
  if (WITH_BIAS.includes(p.epilogue)) set(DESC.biasPointer, new BigInt64Array([BigInt.asIntN(64, p.bias)]));
  if (WITH_AUX.includes(p.epilogue)) {
    set(DESC.auxPointer, new BigInt64Array([BigInt.asIntN(64, p.aux)]));
    set(DESC.auxLd, i64(p.N));
  }
  if (p.scales) {
    set(DESC.scaleA, new BigInt64Array([BigInt.asIntN(64, p.scales.b)]));
    set(DESC.scaleB, new BigInt64Array([BigInt.asIntN(64, p.scales.a)]));
    for (const mode of [DESC.scaleModeA, DESC.scaleModeB]) if (!p.scales.whole) set(mode, i32(SCALE_OUTER_VECTOR));
    set(DESC.fastSums, new Int8Array([p.scales.fast ? 1 : 0]));
  }
  const layout = (type: MatmulType, rows: number, columns: number, stride: number): bigint => {
    const made = create(
      "cublasLtMatrixLayoutCreate",
      lt.cublasLtMatrixLayoutCreate(out, CUDA_TYPE[type], BigInt(rows), BigInt(columns), BigInt(rows)),
    );
    if (p.batch > 1) {
      check("cublasLtMatrixLayoutSetAttribute", lt.cublasLtMatrixLayoutSetAttribute(made, LAYOUT.batchCount, i32(p.batch), 4n));
      check("cublasLtMatrixLayoutSetAttribute", lt.cublasLtMatrixLayoutSetAttribute(made, LAYOUT.batchStride, i64(stride), 8n));
    }
    return made;
  };
  const layouts: Described["layouts"] = [
    p.transposeB ? layout(p.type, p.K, p.N, p.strideB) : layout(p.type, p.N, p.K, p.strideB),
    p.transposeA ? layout(p.type, p.M, p.K, p.strideA) : layout(p.type, p.K, p.M, p.strideA),
    layout(p.outType, p.N, p.M, p.M * p.N),
  ];
  return { description, layouts };
}

/** The first of cuBLASLt's algorithms for a problem, at most `most`, as its heuristic ranks them; none where it has no way to do it. */
function rank({ description, layouts: [a, b, d] }: Described, align: number, most: number): Algorithm[] {
  const lt = open(), out = new BigUint64Array(1);
  check("cublasLtMatmulPreferenceCreate", lt.cublasLtMatmulPreferenceCreate(out));
  const preference = out[0];
  const prefer = (attribute: number, value: Int32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>) =>
    check(
      "cublasLtMatmulPreferenceSetAttribute",
      lt.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, BigInt(value.byteLength)),
    );
  prefer(PREFERENCE.workspaceBytes, new BigInt64Array([BigInt(WORKSPACE_BYTES)]));
  prefer(PREFERENCE.reductionScheme, new Int32Array([REDUCE_IN_COMPUTE_TYPE]));
  for (const which of PREFERENCE.alignment) prefer(which, new Int32Array([align]));
  const found = new Uint8Array(most * HEURISTIC_BYTES), count = new Int32Array(1), view = new DataView(found.buffer);
  const status = lt.cublasLtMatmulAlgoGetHeuristic(handle, description, a, b, d, d, preference, most, found, count);
  check("cublasLtMatmulPreferenceDestroy", lt.cublasLtMatmulPreferenceDestroy(preference));
  if (NOT_SUPPORTED.includes(status)) return [];
  check("cublasLtMatmulAlgoGetHeuristic", status);
  return Array.from({ length: count[0] }, (_, i) => i * HEURISTIC_BYTES)
    .filter((at) => view.getInt32(at + ALGORITHM_BYTES + 8, true) === 0)
    .map((at) => ({ code: found.slice(at, at + ALGORITHM_BYTES), workspace: view.getBigUint64(at + ALGORITHM_BYTES, true) }));
}

/** What tells one problem from another: all but the addresses, of which their alignment counts. */
export function problemKey(p: MatmulProblem): string {
  const { batch, M, N, K, strideA, strideB, type, outType, epilogue, scales } = p, align = alignment(p.y, p.a, p.b, p.bias, p.aux);
  const flags = Number(p.transposeA) + 2 * Number(p.transposeB) + 4 * Number(!!p.adds) + 8 * Number(!!scales?.fast) +
    16 * Number(!!scales?.whole);
  return `${batch} ${M} ${N} ${K} ${flags} ${strideA} ${strideB} ${type} ${outType} ${epilogue} ${align}`;
}

/** cuBLASLt's algorithms for a problem, at most `most`, the one that is taken by default first. */
export function matmulAlgorithms(p: MatmulProblem, most: number): Algorithm[] {
  return rank(describe(p), alignment(p.y, p.a, p.b, p.bias, p.aux), most);
}

/** From here on, problems with this key are done by this algorithm, which must be one of theirs. */
export function chooseAlgorithm(key: string, algorithm: Algorithm): void {
  chosen.set(key, algorithm);
  plans.delete(key);
}

function makePlan(p: MatmulProblem, key: string): Plan | null {
  const described = describe(p), algorithm = chosen.get(key) ?? rank(described, alignment(p.y, p.a, p.b, p.bias, p.aux), 1)[0];
  return algorithm ? { ...described, algorithm } : null;
}

/**
 * Runs a product, by another algorithm than the usual one if asked. False, with nothing done, where cuBLASLt has no algorithm for the problem (an
 * epilogue at odd sizes, say).
 */
export function matmul(p: MatmulProblem, workspace: bigint, stream: bigint, by?: Algorithm): boolean {
  const lt = open(), key = problemKey(p);
  let plan = plans.get(key);
  if (plan === undefined) plans.set(key, plan = makePlan(p, key));
  if (!plan) return false;
  const pointer = (attribute: number, address: bigint): void => {
    word[0] = address;
    check("cublasLtMatmulDescSetAttribute", lt.cublasLtMatmulDescSetAttribute(plan.description, attribute, word, 8n));
  };
  if (WITH_BIAS.includes(p.epilogue)) pointer(DESC.biasPointer, p.bias);
  if (WITH_AUX.includes(p.epilogue)) pointer(DESC.auxPointer, p.aux);
  if (p.scales) {
    pointer(DESC.scaleA, p.scales.b);
    pointer(DESC.scaleB, p.scales.a);
  }
  const [a, b, d] = plan.layouts, { description } = plan, algorithm = by ?? plan.algorithm;
  const run = (): void => {
    const status = lt.cublasLtMatmul(
      ...[handle, description, ONE, p.b, a, p.a, b, p.adds ? ONE : ZERO, p.y, d, p.y, d] as const,
      ...[algorithm.code, workspace, algorithm.workspace, stream] as const,
    );
    check("cublasLtMatmul", status);
  };
  if (observer) observer("cublasLtMatmul", [p], run);
  else run();
  return true;
}
