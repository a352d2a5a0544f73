/** Fails where an export of the library has no JSDoc right above it. */
import { listFiles, report, ROOT } from "./files.ts";

const EXPORT = /^export (?:async )?(?:abstract )?(?:function\*?|class|interface|type|const|let) (\w+)/;

const faults = ["lib", "ffi", "recipes"].flatMap((folder) => listFiles(folder, [".ts"]))
  .filter((file) => file !== "ffi/symbols.ts")
  .flatMap((file) => {
    const lines = Deno.readTextFileSync(ROOT + file).split("\n"), seen = new Set<string>(); // an overloaded function is documented at its first
    return lines.flatMap((line, i) => {
      const name = line.match(EXPORT)?.[1];
      if (!name || seen.has(name)) return [];
      seen.add(name);
      return lines[i - 1]?.trimEnd().endsWith("*/") ? [] : [`${file}:${i + 1} exports ${name} without a word, it must have JSDoc`];
    });
  });
report("docs", faults);
