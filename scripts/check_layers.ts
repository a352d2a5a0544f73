/** Fails on an import against the arrows of DESIGN.md. */
import { listFiles, report, ROOT } from "./files.ts";

/** Each layer may import itself and what stands before it. */
const LAYERS: string[][] = [
  ["ffi"],
  ["lib/tensor"],
  ["lib/ops"],
  ["lib/sparse"],
  ["lib/nn"],
  ["lib/models", "lib/flow", "lib/mesh", "lib/render", "lib/optim", "lib/memory", "lib/io", "lib/data", "lib/dist", "lib/train"],
  ["mod.ts"],
  ["recipes"],
  ["tests", "bench", "scripts"],
];

/** What a folder of the wide layer may import from its own layer. */
const BESIDE: Record<string, string[]> = {
  "lib/mesh": ["lib/render", "lib/io"],
  "lib/data": ["lib/io", "lib/render"],
  "lib/optim": ["lib/dist"],
  "lib/train": ["lib/io", "lib/memory", "lib/optim", "lib/dist", "lib/models", "lib/flow", "lib/mesh", "lib/render"],
};

/** Folders that may open libraries' tables: where an op, an update or a file mapping is defined. */
const NEAR_FFI = [
  "ffi",
  "lib/tensor",
  "lib/ops",
  "lib/optim",
  "lib/memory",
  "lib/render",
  "lib/io",
  "lib/dist",
  "lib/train",
  "tests",
  "bench",
  "scripts",
];

const ORDERED = LAYERS.flat().sort((a, b) => b.length - a.length);
const layerOf = (path: string): string | undefined => ORDERED.find((l) => path === l || path.startsWith(`${l}/`));
const rank = (layer: string): number => LAYERS.findIndex((group) => group.includes(layer));

const faults: string[] = [];
for (const file of listFiles("", [".ts"])) {
  const from = layerOf(file);
  if (!from) {
    faults.push(`${file} lies in no layer, it must be in one of ${ORDERED.join(", ")}`);
    continue;
  }
  for (const [, target] of Deno.readTextFileSync(ROOT + file).matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)) {
    const path = new URL(target, `file:///${file}`).pathname.slice(1), to = layerOf(path);
    if (!to) faults.push(`${file} imports ${path}, which lies in no layer`);
    else if (rank(to) > rank(from)) faults.push(`${file} may not import ${path}: ${to} stands above ${from}`);
    else if (rank(to) === rank(from) && to !== from && LAYERS[rank(to)].length > 1 && !BESIDE[from]?.includes(to) && rank(from) < 8) {
      faults.push(`${file} may not import ${path}: ${from} and ${to} stand side by side`);
    } else if (to === "ffi" && !NEAR_FFI.includes(from)) faults.push(`${file} may not import ${path}: ${from} never sees an address`);
    if (from === "recipes" && to?.startsWith("lib/")) faults.push(`${file} may not import ${path}: a recipe imports mod.ts alone`);
  }
}
report("layers", faults);
