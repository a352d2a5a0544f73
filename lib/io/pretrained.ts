/** Model files as TRELLIS publishes them: `<path>.json` = {name, args} beside `<path>.safetensors`. Loading is strict. */
import { leaves, mapLeaves, type Parameters, type ParameterSpec } from "../nn/parameters.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { persist } from "../tensor/scope.ts";
import { type Tensor, tensor, tensorFromBytes } from "../tensor/tensor.ts";
import { writeFileAtomic } from "./atomic.ts";
import { bytesToF32, type FloatDtype } from "./half.ts";
import { openSafetensors, type SafetensorsContent, type StoredTensor, type TensorToWrite, writeSafetensors } from "./safetensors.ts";
import { openTorchFile } from "./torch_file.ts";

/** Our dtypes by their names in a file, and back. */
const FILE_DTYPE: Record<FloatDType, FloatDtype> = { f32: "F32", f16: "F16", bf16: "BF16" };

/** A class name and constructor options. */
export interface ModelDescription {
  name: string;
  args: Record<string, unknown>;
}

/** `path` without ".json" or ".safetensors". */
function stem(path: string): string {
  return path.replace(/\.(json|safetensors)$/, "");
}

/** Reads `<path>.json`. */
export function readModelDescription(path: string): ModelDescription {
  const file = `${stem(path)}.json`;
  let value: unknown;
  try {
    value = JSON.parse(Deno.readTextFileSync(file));
  } catch (error) {
    throw new Error(
      `Cannot load a model: ${file} says "${(error as Error).message}", it must be a JSON file beside ${stem(path)}.safetensors`,
    );
  }
  const { name, args } = (value ?? {}) as Partial<ModelDescription>;
  if (typeof name !== "string" || typeof args !== "object" || args === null) {
    throw new Error(`Cannot load a model: ${file} holds no name and args, it must be {"name": class, "args": {...}}`);
  }
  return { name, args };
}

/** Up to three of `names`, for a message. */
function some(names: string[]): string {
  return names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
}

/** Throws unless the file has exactly the parameters of `spec`, in shape; the message names each that is wrong. */
function expectSame(source: string, wanted: Map<string, ParameterSpec>, stored: Map<string, StoredTensor>): void {
  const missing = [...wanted.keys()].filter((name) => !stored.has(name)), extra = [...stored.keys()].filter((name) => !wanted.has(name));
  if (missing.length || extra.length) {
    throw new Error(
      `Cannot load ${source}: ${
        [missing.length && `missing ${some(missing)}`, extra.length && `unexpected ${some(extra)}`].filter(Boolean).join("; ")
      }; ` +
        "its tensors must be exactly the model's",
    );
  }
  for (const [name, { shape, dtype }] of stored) {
    const want = wanted.get(name)!;
    if (`${shape}` !== `${want.shape}`) throw new Error(`Cannot load ${source}: ${name} is [${shape}], it must be [${want.shape}]`);
    if (!["F64", "F32", "F16", "BF16"].includes(dtype)) {
      throw new Error(`Cannot load ${source}: ${name} is ${dtype}, it must be F32, F16, BF16 or F64`);
    }
  }
}

/** Where the exponent of a float stands: all of its bits are set in what is not finite. */
const EXPONENT = { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 };

/** Throws where an element is infinite or no number. */
function expectFinite(source: string, name: string, { bytes }: StoredTensor, dtype: keyof typeof EXPONENT): void {
  const width = dtype === "F32" ? 4 : 2, mask = EXPONENT[dtype], from = bytes.byteOffset % width ? bytes.slice() : bytes;
  const words = new (width === 4 ? Uint32Array : Uint16Array)(from.buffer, from.byteOffset, from.length / width);
  for (let i = 0; i < words.length; i++) {
    if ((words[i] & mask) !== mask) continue;
    const [value] = bytesToF32(from.slice(i * width, (i + 1) * width), dtype);
    throw new Error(`Cannot load ${source}: ${name} has ${value} at element ${i}, it must be finite; the file is damaged, take another`);
  }
}

function toTensor(source: string, name: string, spec: ParameterSpec, stored: StoredTensor): Tensor {
  if (stored.dtype !== "F64") expectFinite(source, name, stored, stored.dtype as keyof typeof EXPONENT);
  if (stored.dtype === FILE_DTYPE[spec.dtype]) return tensorFromBytes(stored.bytes, spec.shape, spec.dtype);
  const values = bytesToF32(stored.bytes, stored.dtype as FloatDtype);
  if (stored.dtype === "F64") expectFinite(source, name, { ...stored, bytes: new Uint8Array(values.buffer) }, "F32");
  if (spec.dtype === "f16") {
    const at = values.findIndex((v) => Math.abs(v) > 65504);
    if (at >= 0) {
      throw new Error(`Cannot load ${source}: ${name} has ${values[at]}, it must fit f16 (at most 65504); load the model in f32 or bf16`);
    }
  }
  return tensor(values, spec.shape, { dtype: spec.dtype });
}

/** Opens a file of weights: `.pt` and `.pth` as PyTorch writes them (read without running anything), all else as safetensors. */
export function openWeights(path: string): Pick<SafetensorsContent, "tensors"> & Disposable {
  return /\.pth?$/.test(path) ? openTorchFile(path) : openSafetensors(path);
}

/**
 * Tensors of a checkpoint (safetensors, or PyTorch's `.pt`) as a model's parameters, cast to its dtypes. `prefix` selects and strips a part of the
 * names.
 */
export function loadParameters<S>(spec: S, path: string, { prefix = "" }: { prefix?: string } = {}): Parameters<S> {
  using file = openWeights(path);
  const stored = new Map([...file.tensors].filter(([name]) => name.startsWith(prefix)).map(([name, t]) => [name.slice(prefix.length), t]));
  expectSame(path, new Map(leaves<ParameterSpec>(spec)), stored);
  return persist(() => mapLeaves(spec, (leaf, name) => toTensor(path, name, leaf as ParameterSpec, stored.get(name)!)));
}

/** A model's parameters as entries of a safetensors file, read from the device one at a time. */
export function parametersToWrite(params: unknown, prefix = ""): TensorToWrite[] {
  return leaves<Tensor>(params).map(([name, t]) => ({
    name: prefix + name,
    dtype: FILE_DTYPE[t.dtype as FloatDType],
    shape: t.shape,
    bytes: () => {
      const raw = t.readRaw();
      return new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
    },
  }));
}

/** Writes `<path>.safetensors` and then `<path>.json`. */
export function savePretrained(path: string, { name, args }: ModelDescription, params: unknown): void {
  writeSafetensors(`${stem(path)}.safetensors`, parametersToWrite(params));
  writeFileAtomic(`${stem(path)}.json`, new TextEncoder().encode(JSON.stringify({ name, args }, null, 4) + "\n"));
}
