/** Float values to and from the bytes of a file. */
import { fromBf16, toBf16 } from "../tensor/dtype.ts";

/** A dtype that `bytesToF32` and `f32ToBytes` know, by its safetensors name. */
export type FloatDtype = "F64" | "F32" | "F16" | "BF16";

/**
 * The little-endian elements in `bytes` as f32. F32 that lies at a multiple of 4 comes back as a view of the same memory,
 * everything else as a copy; F64 is rounded.
 */
export function bytesToF32(bytes: Uint8Array<ArrayBuffer>, dtype: FloatDtype): Float32Array<ArrayBuffer> {
  const width = dtype === "F64" ? 8 : dtype === "F32" ? 4 : 2;
  if (bytes.length % width !== 0) {
    throw new RangeError(`Cannot read ${dtype} values: there are ${bytes.length} bytes, it must be a multiple of ${width}`);
  }
  const { buffer, byteOffset } = bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);
  const count = bytes.length / width;
  if (dtype === "F32") return new Float32Array(buffer, byteOffset, count);
  if (dtype === "F16") return new Float32Array(new Float16Array(buffer, byteOffset, count));
  if (dtype === "BF16") return fromBf16(new Uint16Array(buffer, byteOffset, count));
  return new Float32Array(new Float64Array(buffer, byteOffset, count));
}

/** The elements of `x` as little-endian bytes of `dtype`, rounded to nearest. F32 is a view of the same memory. */
export function f32ToBytes(x: Float32Array<ArrayBuffer>, dtype: FloatDtype): Uint8Array<ArrayBuffer> {
  const values = dtype === "F32" ? x : dtype === "F16" ? new Float16Array(x) : dtype === "BF16" ? toBf16(x) : new Float64Array(x);
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
