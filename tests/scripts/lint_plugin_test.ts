import assert from "node:assert/strict";
import plugin from "../../scripts/lint_plugin.ts";

/** The rules that a text breaks, by what it says where. */
function broken(file: string, text: string): string[] {
  return Deno.lint.runPlugin(plugin, file, text).map((d) => d.id.replace("espalier/", ""));
}

Deno.test("dlopen-in-ffi: a library is opened in ffi/ alone", () => {
  const text = 'Deno.dlopen("libc.so.6", {});';
  assert.deepEqual(broken("/p/lib/io/mmap.ts", text), ["dlopen-in-ffi"]);
  assert.deepEqual(broken("/p/ffi/mmap.ts", text), []);
  assert.deepEqual(broken("/p/lib/io/mmap.ts", 'other.dlopen("x")'), []);
});

Deno.test("error-grammar: an error says what cannot be done", () => {
  const wrong = [
    'throw new Error("Oops");',
    "throw new RangeError(`Invalid ${x}`);",
    'throw new UserError("No " + x);',
    'throw new TypeError("Bad");',
  ];
  const right = [
    'throw new Error("Cannot run x: y is 1, it must be 2");',
    "throw new Error(`Cannot run ${x}: it is 1`);",
    "throw new Error(`${message}`);",
    'throw new RangeError("Cannot run " + x);',
    "throw new Error(message);",
    'throw new Error("the file is cut off");',
    'throw new Map("Oops");',
  ];
  for (const text of wrong) assert.deepEqual(broken("/p/lib/x.ts", text), ["error-grammar"], text);
  for (const text of right) assert.deepEqual(broken("/p/lib/x.ts", text), [], text);
  assert.deepEqual(broken("/p/tests/x.ts", wrong[0]), [], "a test may speak as it likes");
});

Deno.test("no-default-export: a module exports names", () => {
  assert.deepEqual(broken("/p/lib/x.ts", "export default 3;"), ["no-default-export"]);
  assert.deepEqual(broken("/p/lib/x.ts", "export const x = 3;"), []);
});

Deno.test("snake-case-file: a file's name is in snake_case", () => {
  assert.deepEqual(broken("/p/lib/layerNorm.ts", "let x;"), ["snake-case-file"]);
  assert.deepEqual(broken("/p/lib/layer-norm.ts", "let x;"), ["snake-case-file"]);
  assert.deepEqual(broken("/p/lib/layer_norm2.ts", "let x;"), []);
});
