/** Tensors: storage on the device, a shape and a dtype. Always contiguous, last axis fastest. Lifetimes are in scope.ts, gradients in tape.ts. */
import type { Kernels } from "../../ffi/kernels.ts";
import { device } from "./device.ts";
import { type DType, DTYPE_BYTES, fromBf16, type HostArray, hostArray, toBf16 } from "./dtype.ts";
import { adopt } from "./scope.ts";
import { Storage } from "./storage.ts";
import type { Node } from "./tape.ts";

/** The kernels of the open device. */
export function kernels(): Kernels {
  return device().kernels;
}

/** The stream of the open device. */
export function stream(): bigint {
  return device().stream;
}

/** A contiguous array on the device. */
export class Tensor {
  /** Elements. */
  readonly size: number;
  /** The gradient of the last {@linkcode backward}, for a tensor that was made with `requiresGrad`. */
  grad: Tensor | null = null;
  /** Whether backward passes add to `grad` in place; see {@linkcode parameter}. */
  accumulates = false;
  /** Of a {@linkcode parameter}: whether `grad` is of a step that is over, so that the first gradient is written over it instead of added. */
  outdated = false;
  /** Of a gradient: the sums of its rows, where they were made with it. Of a result: whether the op that made it has use for those of its gradient. */
  columnSums: Tensor | "wanted" | null = null;
  /** Called after a backward pass added to `grad`, for a {@linkcode parameter} whose gradient is shared with other processes. */
  arrived: (() => void) | null = null;
  /** The op that made this tensor, where a gradient can flow through it. */
  node: Node | null = null;
  /** Whether the op that made this tensor was recorded and is known no more: a backward pass ran through it, or its step ended. */
  spent = false;
  /** The memory that it sees. */
  readonly storage: Storage;
  #holds = 0;
  #orphan = false;
  #offset: number;
  #freed = false;

  /** Use {@linkcode empty}, {@linkcode tensor} or {@linkcode view}. `offset` is in bytes. */
  constructor(storage: Storage, offset: number, readonly shape: readonly number[], readonly dtype: DType, public requiresGrad = false) {
    this.size = sizeOf(shape);
    this.storage = storage;
    this.#offset = offset;
    storage.attach();
    adopt(this);
  }

  /** Bytes of the elements. */
  get bytes(): number {
    return this.size * DTYPE_BYTES[this.dtype];
  }

  /** The address of the first element. Throws once the tensor is freed. */
  get addr(): bigint {
    this.#expectAlive();
    return this.storage.address + BigInt(this.#offset);
  }

  /** Whether {@linkcode free} was called. */
  get freed(): boolean {
    return this.#freed;
  }

  /** Gives the memory back once no other view sees it. Freeing twice does nothing. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.storage.detach(this.#orphan);
  }

  /** A recorded op needs this tensor in its backward pass. */
  hold(): void {
    this.#holds++;
    this.storage.needed = true;
  }

  /** A recorded op needs it no more: it is freed where this was the last one and nobody else knows it. */
  unhold(): void {
    if (--this.#holds === 0 && this.#orphan) this.free();
  }

  /** Leaves it to the recorded ops that need it, and frees it where there are none. */
  leave(): void {
    if (this.#freed || this.#orphan) return;
    if (this.#holds === 0) return this.free();
    this.#orphan = true;
    this.storage.wait();
  }

  /** The same memory with another shape (or dtype), from `offset` elements on. No gradient flows: ops/movement.ts has the differentiable views. */
  view(shape: readonly number[], { offset = 0, dtype = this.dtype }: { offset?: number; dtype?: DType } = {}): Tensor {
    this.#expectAlive();
    const from = this.#offset + offset * DTYPE_BYTES[this.dtype], bytes = sizeOf(shape) * DTYPE_BYTES[dtype];
    if (offset < 0 || offset * DTYPE_BYTES[this.dtype] + bytes > this.bytes) {
      throw new RangeError(`Cannot view [${this.shape}] ${this.dtype}: [${shape}] ${dtype} from ${offset} is outside, it must lie inside`);
    }
    return new Tensor(this.storage, from, shape, dtype);
  }

  /** A copy on the host, in the array type of the dtype. Waits for the device. */
  readRaw(): HostArray {
    const host = hostArray(this.dtype, this.size);
    if (this.size) device().memory.download(host, this.addr);
    return host;
  }

  /** A copy on the host as f32 (from f32, f16, bf16, i32 or u8). Waits for the device. */
  read(): Float32Array<ArrayBuffer> {
    return asFloats(this.readRaw());
  }

  /** What {@linkcode read} would give now, to be asked for later: that waits for the work queued before this call alone. */
  readLater(): () => Float32Array<ArrayBuffer> {
    const host = hostArray(this.dtype, this.size), arrive = this.size ? device().memory.downloadLater(host, this.addr) : undefined;
    let values: Float32Array<ArrayBuffer> | undefined;
    return () => {
      if (!values) arrive?.();
      return values ??= asFloats(host);
    };
  }

  /** The only element. Waits for the device. */
  item(): number {
    if (this.size !== 1) throw new RangeError(`Cannot read one value: the tensor is [${this.shape}], it must have one element`);
    return this.read()[0];
  }

  /** Overwrites the elements with host values, rounded to the dtype. */
  write(values: ArrayLike<number>): this {
    if (values.length !== this.size) {
      throw new RangeError(`Cannot write [${this.shape}]: ${values.length} values are given, it must be ${this.size}`);
    }
    if (this.size) device().memory.upload(this.addr, encode(values, this.dtype));
    return this;
  }

  #expectAlive(): void {
    if (this.#freed) {
      throw new ReferenceError(
        `Cannot use a freed tensor [${this.shape}] ${this.dtype}: its step() ended, it must be returned from it to live on`,
      );
    }
  }
}

function asFloats(raw: HostArray): Float32Array<ArrayBuffer> {
  if (raw instanceof Float32Array) return raw;
  if (raw instanceof Uint16Array) return fromBf16(raw);
  if (raw instanceof BigInt64Array) throw new TypeError("Cannot read i64 as f32: use readRaw()");
  return Float32Array.from(raw);
}

function encode(values: ArrayLike<number>, dtype: DType): HostArray {
  const known: Partial<Record<DType, unknown>> = { f32: Float32Array, f16: Float16Array, i32: Int32Array, u8: Uint8Array };
  const type = known[dtype] as { new (): unknown; from(v: ArrayLike<number>): HostArray } | undefined;
  if (type) return values instanceof (type as unknown as new () => object) ? values as HostArray : type.from(values);
  if (dtype === "bf16") return toBf16(values);
  return BigInt64Array.from(Array.from(values), BigInt);
}

/** The product of the extents. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Uninitialised memory. */
export function empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
  if (shape.some((d) => !Number.isSafeInteger(d) || d < 0)) {
    throw new RangeError(`Cannot make a tensor: its shape is [${shape}], it must be whole numbers from 0 up`);
  }
  const bytes = sizeOf(shape) * DTYPE_BYTES[dtype];
  const address = bytes ? allocate(bytes, shape, dtype) : 0n;
  return new Tensor(new Storage(address, bytes), 0, shape, dtype);
}

/** Uninitialised memory of the host that kernels reach over the bus, slowly: for what a step touches once and the device has no room for. */
export function emptyOnHost(shape: readonly number[], dtype: DType = "f32"): Tensor {
  const bytes = sizeOf(shape) * DTYPE_BYTES[dtype];
  return new Tensor(new Storage(bytes ? device().memory.hostAlloc(bytes) : 0n, bytes, true), 0, shape, dtype);
}

function allocate(bytes: number, shape: readonly number[], dtype: DType): bigint {
  try {
    return device().memory.alloc(bytes);
  } catch (error) {
    if (error instanceof Error) error.message += `; the tensor is [${shape}] ${dtype}`;
    throw error;
  }
}

/** Zeros. */
export function zeros(shape: readonly number[], dtype: DType = "f32"): Tensor {
  const t = empty(shape, dtype);
  if (t.size) device().memory.zero(t.addr, t.bytes);
  return t;
}

/** Options of {@linkcode tensor}. */
export interface TensorOptions {
  /** The element type; f32 by default. */
  dtype?: DType;
  /** Whether gradients are wanted. */
  requiresGrad?: boolean;
}

/** Host values on the device, rounded to the dtype. */
export function tensor(
  values: ArrayLike<number>,
  shape: readonly number[],
  { dtype = "f32", requiresGrad = false }: TensorOptions = {},
): Tensor {
  const t = empty(shape, dtype).write(values);
  t.requiresGrad = requiresGrad;
  return t;
}

/** Bytes as they stand in a file on the device. */
export function tensorFromBytes(bytes: Uint8Array<ArrayBuffer>, shape: readonly number[], dtype: DType): Tensor {
  const t = empty(shape, dtype);
  if (bytes.byteLength !== t.bytes) {
    throw new RangeError(`Cannot make a tensor [${shape}] ${dtype}: ${bytes.byteLength} bytes are given, it must be ${t.bytes}`);
  }
  if (t.size) device().memory.upload(t.addr, bytes);
  return t;
}

/** Throws unless `t` (where given) has exactly this shape. */
export function expectShape(op: string, name: string, t: Tensor | null | undefined, shape: readonly number[]): void {
  if (t && (t.shape.length !== shape.length || t.shape.some((d, i) => d !== shape[i]))) {
    throw new RangeError(`Cannot run ${op}: ${name} is [${t.shape}], it must be [${shape}]`);
  }
}

/** Throws unless `t` (where given) has exactly this dtype. */
export function expectDtype(op: string, name: string, t: Tensor | null | undefined, dtype: DType): void {
  if (t && t.dtype !== dtype) throw new TypeError(`Cannot run ${op}: ${name} is ${t.dtype}, it must be ${dtype}`);
}

/** `t` as an i32 dimension of the C ABI. */
export function dim(op: string, name: string, value: number): number {
  if (!Number.isInteger(value) || value < 0 || value > 2 ** 31 - 1) {
    throw new RangeError(`Cannot run ${op}: ${name} is ${value}, it must be a whole number below 2^31`);
  }
  return value;
}
