/** Half precision on the host: f32 to and from bf16 (as its 16 bits) and f16. */

/** Rounds each element to the nearest bf16, ties to even; NaN stays NaN. The result holds the 16 bits of each. */
export function f32ToBf16(x: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(x.buffer, x.byteOffset, x.length);
  const out = new Uint16Array(x.length);
  for (let i = 0; i < out.length; i++) {
    const b = bits[i];
    const isNan = (b & 0x7fffffff) > 0x7f800000;
    out[i] = isNan ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
}

/** Widens bf16, given as 16-bit patterns, to f32. Exact. */
export function bf16ToF32(x: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(x.length);
  for (let i = 0; i < bits.length; i++) bits[i] = x[i] << 16;
  return new Float32Array(bits.buffer);
}

/** Rounds each element to the nearest f16, ties to even; magnitudes from 65520 on become infinite. */
export function f32ToF16(x: Float32Array): Float16Array<ArrayBuffer> {
  return new Float16Array(x);
}

/** Widens f16 to f32. Exact. */
export function f16ToF32(x: Float16Array): Float32Array<ArrayBuffer> {
  return new Float32Array(x);
}

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
  if (dtype === "F16") return f16ToF32(new Float16Array(buffer, byteOffset, count));
  if (dtype === "BF16") return bf16ToF32(new Uint16Array(buffer, byteOffset, count));
  return new Float32Array(new Float64Array(buffer, byteOffset, count));
}

/** The elements of `x` as little-endian bytes of `dtype`, rounded to nearest. F32 is a view of the same memory. */
export function f32ToBytes(x: Float32Array<ArrayBuffer>, dtype: FloatDtype): Uint8Array<ArrayBuffer> {
  const values = dtype === "F32" ? x : dtype === "F16" ? f32ToF16(x) : dtype === "BF16" ? f32ToBf16(x) : new Float64Array(x);
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
