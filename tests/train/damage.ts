/** Damages a checkpoint bit by bit and length by length, and counts what its verification lets pass. */
import { checkpointPath, verifyCheckpoint } from "../../lib/train/checkpoint.ts";
import { createRandom } from "../../lib/data/random.ts";
import { saveOn } from "./faulty_disk.ts";

/** What was tried on a checkpoint, and how much of it was not noticed, or answered with an error that is not ours. */
export interface DamageCounts {
  bytes: number;
  flips: number;
  truncations: number;
  missed: number;
}

/** Saves a small checkpoint of `elements` values in `folder` and damages it: `flips` random bits (all of them where null), and every truncation of both files. */
export function damageCheckpoint(folder: string, { elements, flips }: { elements: number; flips: number | null }): DamageCounts {
  saveOn(folder, 1, { size: elements });
  const path = checkpointPath(folder, 1),
    files = [path, path.replace(".json", ".safetensors")].map((name) => ({ name, bytes: Deno.readFileSync(name) }));
  const bits = files.flatMap(({ bytes }, file) => Array.from({ length: bytes.length * 8 }, (_, bit) => [file, bit] as const)),
    random = createRandom(7, 0);
  const chosen = flips === null ? bits : Array.from({ length: flips }, () => bits[Math.floor(random() * bits.length)]);
  const missed = (): number => {
    try {
      verifyCheckpoint(path);
      return 1;
    } catch (error) {
      return /^Cannot read /.test((error as Error).message) ? 0 : 1;
    }
  };
  if (missed() !== 1) throw new Error("the whole checkpoint is refused");
  const counts: DamageCounts = {
    bytes: files.reduce((sum, f) => sum + f.bytes.length, 0),
    flips: chosen.length,
    truncations: 0,
    missed: 0,
  };
  for (const [file, bit] of chosen) {
    const { name, bytes } = files[file], flipped = bytes.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    Deno.writeFileSync(name, flipped);
    counts.missed += missed();
    Deno.writeFileSync(name, bytes);
  }
  for (const { name, bytes } of files) {
    for (let length = 0; length < bytes.length; length++) {
      Deno.writeFileSync(name, bytes.subarray(0, length));
      counts.missed += missed();
      counts.truncations++;
    }
    Deno.writeFileSync(name, bytes);
  }
  return counts;
}
