/** Element types: their codes in the C ABI, sizes, and the typed arrays that hold them on the host. */

/** The code of each element type in the C ABI (`kernels/include/k.h`). */
export const DTYPE = { f32: 0, f16: 1, bf16: 2, i32: 3, i64: 4, u8: 5 } as const;

/** An element type. */
export type DType = keyof typeof DTYPE;

/** An element type that gradients can flow through. */
export type FloatDType = "f32" | "f16" | "bf16";

/** Bytes of one element. */
export const DTYPE_BYTES: Record<DType, number> = { f32: 4, f16: 2, bf16: 2, i32: 4, i64: 8, u8: 1 };

/** A host array with the bytes of a tensor: bf16 has no array type of its own and uses Uint16Array. */
export type HostArray =
  | Float32Array<ArrayBuffer>
  | Float16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

/** Whether `dtype` is f32, f16 or bf16. */
export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16";
}

/** A zeroed host array for `size` elements of `dtype`. */
export function hostArray(dtype: DType, size: number): HostArray {
  switch (dtype) {
    case "f32":
      return new Float32Array(size);
    case "f16":
      return new Float16Array(size);
    case "bf16":
      return new Uint16Array(size);
    case "i32":
      return new Int32Array(size);
    case "i64":
      return new BigInt64Array(size);
    case "u8":
      return new Uint8Array(size);
  }
}

/** f32 values rounded to bf16, to nearest, ties to even; a NaN stays a NaN. */
export function toBf16(values: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const f32 = values instanceof Float32Array ? values : Float32Array.from(values), out = new Uint16Array(f32.length);
  const bits = new Uint32Array(f32.buffer, f32.byteOffset, f32.length);
  for (let i = 0; i < out.length; i++) {
    const u = bits[i];
    out[i] = (u & 0x7fffffff) > 0x7f800000 ? (u >>> 16) | 0x40 : (u + 0x7fff + ((u >>> 16) & 1)) >>> 16;
  }
  return out;
}

/** bf16 bits as f32 values. */
export function fromBf16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < out.length; i++) out[i] = bits[i] << 16;
  return new Float32Array(out.buffer);
}
