import { expectFaults } from "./project.ts";

const GOOD = {
  "lib/a.ts":
    "/** The module. */\n\n/** One. */\nexport const ONE = 1;\n/**\n * Two.\n */\nexport async function two(): Promise<void> {}\nfunction own() {}\n",
  "ffi/symbols.ts": "export const OPS = {};\n",
  "recipes/b.ts": 'export { ONE } from "../lib/a.ts";\n',
};

Deno.test("check_docs finds exports without JSDoc", () => {
  expectFaults("check_docs.ts", GOOD, [
    [
      { "lib/a.ts": "/** Of another thing. */\nconst x = 1;\nexport const ONE = x;\n" },
      /^lib\/a\.ts:3 exports ONE without a word, it must have JSDoc\n/,
    ],
    [{ "ffi/host.ts": "export interface Host {}\n" }, /^ffi\/host\.ts:1 exports Host /],
    [{ "recipes/b.ts": "// a comment\nexport async function main(): Promise<void> {}\n" }, /^recipes\/b\.ts:2 exports main /],
  ]);
});
