/**
 * Writes `ffi/symbols.ts` from `kernels/include/*.h`: the prototypes, the structs that they take, and constants. With `--check`, only says
 * whether it is up to date.
 */

const ROOT = new URL("../", import.meta.url);
const OUTPUT = new URL("ffi/symbols.ts", ROOT);
const LIBRARIES = ["ops", "flash_attn", "spconv", "render"] as const;

type Types = Record<string, [ffi: string, typescript: string]>;

const TYPES: Types = {
  "int32_t": ["i32", "number"],
  "int64_t": ["i64", "bigint"],
  "uint64_t": ["u64", "bigint"],
  "float": ["f32", "number"],
  "double": ["f64", "number"],
  "uint64_t*": ["buffer", "BigUint64Array<ArrayBuffer>"],
  "const char*": ["pointer", "Deno.PointerValue"],
};
/** A struct's fields all have 8 bytes, so it needs no padding and `ffi/struct.ts` can fill it word by word. Its sizes are below 2^53. */
const FIELDS: Types = { "int64_t": ["i64", "number"], "uint64_t": ["u64", "bigint"], "double": ["f64", "number"] };
const PROTOTYPE = /\b(K_API|K_CPU_API)\s+((?:const\s+)?\w+\s*\*?)\s*(k_\w+)\(([^)]*)\)\s*;/g;
const STRUCT = /\btypedef\s+struct\s+\w*\s*\{([^}]*)\}\s*(k_\w+)\s*;/g;
const CONSTANT = /^#define (K_\w+) (\d+)\s*$/gm;

function typeOf(owner: string, c: string, types: Types): [string, string] {
  const type = types[c.replace(/\s+/g, " ").replace(/\s*\*/, "*").trim()];
  if (!type) {
    throw new TypeError(`Cannot bind ${owner}: its type "${c.trim()}" is unknown, it must be one of ${Object.keys(types).join(", ")}`);
  }
  return type;
}

function pascal(snake: string): string {
  return snake.split("_").map((w) => w[0].toUpperCase() + w.slice(1)).join("");
}

/** The table and the interface of one struct: every field behind the first, which must be its size. */
function struct(name: string, body: string): string {
  const fields = body.split(";").map((line) => line.trim()).filter(Boolean).flatMap((line) => {
    const [, type, labels] = line.match(/^([^,]*[\s*])(\w+(?:\s*,\s*\w+)*)$/) ?? [, line, ""];
    return labels.split(",").map((label) => ({ label: label.trim(), type: typeOf(name, type, FIELDS) }));
  });
  if (fields[0]?.label !== "struct_size" || fields[0].type[0] !== "i64") {
    throw new TypeError(`Cannot bind ${name}: its first field is ${fields[0]?.label}, it must be int64_t struct_size`);
  }
  const [, ...rest] = fields;
  const table = rest.map(({ label, type }) => `  ["${label}", "${type[0]}"],\n`).join("");
  const members = rest.map(({ label, type }) => `  ${label}: ${type[1]};\n`).join("");
  return `\nexport const ${name.toUpperCase()} = [\n${table}] as const;\n\nexport interface ${pascal(name)} {\n${members}}\n`;
}

/** The FFI tables, the typed signatures, the structs and the constants of all libraries, from the text of their headers. */
export function generate(headers: string[]): string {
  let out = "// Written by scripts/gen_symbols.ts from kernels/include/*.h. Do not edit.\n";
  for (const library of LIBRARIES) {
    let table = "", calls = "", more = "";
    for (const header of headers) {
      const owner = header.match(/^\/\/ library: (\w+)/)?.[1];
      if (!owner || (owner !== "all" && !LIBRARIES.includes(owner as typeof LIBRARIES[number]))) {
        throw new TypeError(
          `Cannot read a header: its first line is "${header.split("\n")[0]}", it must be "// library: ${LIBRARIES.join("|")}|all"`,
        );
      }
      if (owner !== library && owner !== "all") continue;
      const bare = header.replace(/\/\/.*$/gm, ""), text = bare.replace(/^\s*#.*$/gm, ""), types = { ...TYPES };
      if (owner !== "all") {
        for (const [, name, value] of bare.matchAll(CONSTANT)) more += `\nexport const ${name} = ${value};\n`;
        for (const [, body, name] of text.matchAll(STRUCT)) {
          types[`const ${name}*`] = TYPES["uint64_t*"];
          more += struct(name, body);
        }
      }
      for (const [, kind, result, name, list] of text.matchAll(PROTOTYPE)) {
        const parameters = list.trim() === "void" || list.trim() === "" ? [] : list.split(",").map((p) => {
          const [, type, label] = p.trim().match(/^(.*[\s*])(\w+)$/s)!;
          return { type: typeOf(name, type, types), label };
        });
        const optional = kind === "K_CPU_API" ? ", optional: true" : "";
        table += `  ${name}: { parameters: [${parameters.map((p) => `"${p.type[0]}"`).join(", ")}], result: "${
          typeOf(name, result, TYPES)[0]
        }"${optional} },\n`;
        if (owner !== "all") calls += `  ${name}(${parameters.map((p) => `${p.label}: ${p.type[1]}`).join(", ")}): void;\n`;
      }
    }
    out += `\nexport const ${library.toUpperCase()} = {\n${table}} as const;\n\nexport interface ${
      pascal(library)
    }Kernels {\n${calls}}\n${more}`;
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
