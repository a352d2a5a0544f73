/** PyTorch's weights as the files that everything here reads: safetensors, and with a model's description a pair. */
import { writeFileAtomic } from "./atomic.ts";
import type { ModelDescription } from "./pretrained.ts";
import { writeSafetensors } from "./safetensors.ts";
import { openTorchFile } from "./torch_file.ts";

/** What a conversion found. */
export interface ConvertSummary {
  tensors: number;
  bytes: number;
  /** Names of numbers and texts, which safetensors cannot hold: they are left out. */
  leftOut: string[];
}

/** The tensors of the `.pt` file `from` as `<to>.safetensors`, to the bit, and `description` as `<to>.json`. Nothing of the file is run. */
export function convertTorchFile(from: string, to: string, description?: ModelDescription): ConvertSummary {
  using file = openTorchFile(from);
  const stem = to.replace(/\.(safetensors|json)$/, ""), list = [...file.tensors].map(([name, t]) => ({ name, ...t }));
  if (!list.length) throw new Error(`Cannot convert ${from}: it holds no tensor, it must be a state dict`);
  writeSafetensors(`${stem}.safetensors`, list);
  if (description) writeFileAtomic(`${stem}.json`, new TextEncoder().encode(JSON.stringify(description, null, 4) + "\n"));
  return { tensors: list.length, bytes: list.reduce((sum, t) => sum + t.bytes.length, 0), leftOut: [...file.values.keys()] };
}
