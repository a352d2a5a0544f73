import assert from "node:assert/strict";
import { generate } from "../../scripts/gen_symbols.ts";

const K = `// library: all
#pragma once
#define K_API extern "C"
K_API int32_t k_abi_version(void);
K_API const char* k_last_error(void);
`;
const OPS = `// library: ops
// Things. K_API int32_t k_not_this(int32_t a);
#include "k.h"
// y[i] = x[i] + s
K_API int32_t k_add_fwd(uint64_t y, uint64_t x, int64_t n,
                        float s, double t, int32_t dtype, uint64_t stream);
K_API int32_t k_add_workspace(uint64_t* bytes, int32_t n);
K_CPU_API int32_t k_matmul_fwd(uint64_t y);
`;

Deno.test("generate() makes tables and signatures of the prototypes", () => {
  const text = generate([K, OPS]);
  assert.match(text, /^\/\/ Written by scripts\/gen_symbols\.ts from kernels\/include\/\*\.h\. Do not edit\.\n/);
  const [, ops] = text.match(/export const OPS = \{\n([\s\S]*?)\n\} as const;/)!;
  assert.deepEqual(ops.split("\n").map((line) => line.trim()), [
    'k_abi_version: { parameters: [], result: "i32" },',
    'k_last_error: { parameters: [], result: "pointer" },',
    'k_add_fwd: { parameters: ["u64", "u64", "i64", "f32", "f64", "i32", "u64"], result: "i32" },',
    'k_add_workspace: { parameters: ["buffer", "i32"], result: "i32" },',
    'k_matmul_fwd: { parameters: ["u64"], result: "i32", optional: true },',
  ]);
  assert.match(
    text,
    /export interface OpsKernels \{\n {2}k_add_fwd\(y: bigint, x: bigint, n: bigint, s: number, t: number, dtype: number, stream: bigint\): void;\n/,
  );
  assert.match(text, /k_add_workspace\(bytes: BigUint64Array<ArrayBuffer>, n: number\): void;/);
  assert.match(text, /export const FLASH_ATTN = \{\n {2}k_abi_version: /, "what all libraries have stands in each table");
  assert.doesNotMatch(text, /k_not_this/);
  assert.equal(text.match(/k_add_fwd:/g)!.length, 1);
});

Deno.test("generate() of the headers is what ffi/symbols.ts holds", () => {
  const folder = new URL("../../kernels/include/", import.meta.url);
  const names = [...Deno.readDirSync(folder)].map((e) => e.name).filter((n) => n.endsWith(".h")).sort();
  const text = generate(names.map((name) => Deno.readTextFileSync(new URL(name, folder))));
  assert.equal(text, Deno.readTextFileSync(new URL("../../ffi/symbols.ts", import.meta.url)));
});

const STRUCT = `// library: flash_attn
#define K_THING_QUICK 1
#define K_THING_NAME "no number"
typedef struct k_thing {
  int64_t struct_size;  // sizeof
  int64_t n, m;
  double scale;
  uint64_t x;
} k_thing;
K_API int32_t k_thing_fwd(const k_thing* thing, uint64_t stream);
`;

Deno.test("generate() makes a table and an interface of a struct, and constants", () => {
  const text = generate([STRUCT]);
  assert.match(text, /\nexport const K_THING_QUICK = 1;\n/);
  assert.doesNotMatch(text, /K_THING_NAME/);
  assert.match(
    text,
    /\nexport const K_THING = \[\n {2}\["n", "i64"\],\n {2}\["m", "i64"\],\n {2}\["scale", "f64"\],\n {2}\["x", "u64"\],\n\] as const;\n/,
  );
  assert.match(text, /\nexport interface KThing \{\n {2}n: number;\n {2}m: number;\n {2}scale: number;\n {2}x: bigint;\n\}\n/);
  assert.match(text, /k_thing_fwd: \{ parameters: \["buffer", "u64"\], result: "i32" \}/);
  assert.match(text, /k_thing_fwd\(thing: BigUint64Array<ArrayBuffer>, stream: bigint\): void;/);
});

Deno.test("generate() refuses a struct with padding or without its size in front", () => {
  const types = "it must be one of int64_t, uint64_t, double";
  for (const [field, type] of [["int32_t n", "int32_t"], ["const float* x", "const float*"], ["int64_t n[3]", "int64_t n[3]"]]) {
    assert.throws(() => generate([STRUCT.replace("double scale", field)]), {
      name: "TypeError",
      message: `Cannot bind k_thing: its type "${type}" is unknown, ${types}`,
    });
  }
  assert.throws(() => generate([STRUCT.replace("int64_t struct_size", "int64_t size")]), {
    message: "Cannot bind k_thing: its first field is size, it must be int64_t struct_size",
  });
  assert.throws(() => generate([STRUCT.replaceAll("const k_thing*", "const k_other*")]), {
    message: /^Cannot bind k_thing_fwd: its type "const k_other\*" is unknown/,
  });
});

Deno.test("generate() refuses a type that it does not know, and a header that is of no library", () => {
  assert.throws(() => generate(["// library: ops\nK_API int32_t k_x(size_t n);\n"]), {
    name: "TypeError",
    message: /^Cannot bind k_x: its type "size_t" is unknown, it must be one of int32_t, /,
  });
  for (const first of ["// library: other", "#pragma once", "//library: ops"]) {
    assert.throws(
      () => generate([`${first}\n`]),
      /^TypeError: Cannot read a header: its first line is ".*", it must be "\/\/ library: ops\|flash_attn\|[\w|]*all"/,
    );
  }
});
