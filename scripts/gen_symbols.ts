/** Writes `ffi/symbols.ts` from the prototypes in `kernels/include/*.h`; with `--check`, only says whether it is up to date. */

const ROOT = new URL("../", import.meta.url);
const OUTPUT = new URL("ffi/symbols.ts", ROOT);
const LIBRARIES = ["ops", "flash_attn", "render"] as const;

const TYPES: Record<string, [ffi: string, typescript: string]> = {
  "int32_t": ["i32", "number"],
  "int64_t": ["i64", "bigint"],
  "uint64_t": ["u64", "bigint"],
  "float": ["f32", "number"],
  "double": ["f64", "number"],
  "uint64_t*": ["buffer", "BigUint64Array<ArrayBuffer>"],
  "const char*": ["pointer", "Deno.PointerValue"],
};
const PROTOTYPE = /\b(K_API|K_CPU_API)\s+((?:const\s+)?\w+\s*\*?)\s*(k_\w+)\(([^)]*)\)\s*;/g;

function typeOf(symbol: string, c: string): [string, string] {
  const type = TYPES[c.replace(/\s+/g, " ").replace(/\s*\*/, "*").trim()];
  if (!type) {
    throw new TypeError(`Cannot bind ${symbol}: its type "${c.trim()}" is unknown, it must be one of ${Object.keys(TYPES).join(", ")}`);
  }
  return type;
}

/** The FFI table and the typed signatures of one library, from its headers' text. */
export function generate(headers: string[]): string {
  let out = "// Written by scripts/gen_symbols.ts from kernels/include/*.h. Do not edit.\n";
  for (const library of LIBRARIES) {
    let table = "", calls = "";
    for (const header of headers) {
      const owner = header.match(/^\/\/ library: (\w+)/)?.[1];
      if (!owner || (owner !== "all" && !LIBRARIES.includes(owner as typeof LIBRARIES[number]))) {
        throw new TypeError(
          `Cannot read a header: its first line is "${header.split("\n")[0]}", it must be "// library: ${LIBRARIES.join("|")}|all"`,
        );
      }
      if (owner !== library && owner !== "all") continue;
      const text = header.replace(/\/\/.*$/gm, "").replace(/^\s*#.*$/gm, "");
      for (const [, kind, result, name, list] of text.matchAll(PROTOTYPE)) {
        const parameters = list.trim() === "void" || list.trim() === "" ? [] : list.split(",").map((p) => {
          const [, type, label] = p.trim().match(/^(.*[\s*])(\w+)$/s)!;
          return { type: typeOf(name, type), label };
        });
        const optional = kind === "K_CPU_API" ? ", optional: true" : "";
        table += `  ${name}: { parameters: [${parameters.map((p) => `"${p.type[0]}"`).join(", ")}], result: "${
          typeOf(name, result)[0]
        }"${optional} },\n`;
        if (owner !== "all") calls += `  ${name}(${parameters.map((p) => `${p.label}: ${p.type[1]}`).join(", ")}): void;\n`;
      }
    }
    const pascal = library.split("_").map((w) => w[0].toUpperCase() + w.slice(1)).join("");
    out += `\nexport const ${library.toUpperCase()} = {\n${table}} as const;\n\nexport interface ${pascal}Kernels {\n${calls}}\n`;
  }
  return out;
}

if (import.meta.main) {
  const names = [...Deno.readDirSync(new URL("kernels/include/", ROOT))].map((e) => e.name).filter((n) => n.endsWith(".h")).sort();
  const text = generate(names.map((name) => Deno.readTextFileSync(new URL(`kernels/include/${name}`, ROOT))));
  if (!Deno.args.includes("--check")) Deno.writeTextFileSync(OUTPUT, text);
  else if (Deno.readTextFileSync(OUTPUT) !== text) {
    console.error("Cannot accept ffi/symbols.ts: it is older than kernels/include, it must be written again with `deno task gen`");
    Deno.exit(1);
  }
}
