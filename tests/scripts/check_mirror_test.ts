import { expectFaults, GOOD } from "./project.ts";

Deno.test("check_mirror finds modules without a test and tests of nothing", () => {
  expectFaults("check_mirror.ts", GOOD, [
    [
      { "lib/ops/sub.ts": "export function sub(): void {}\n" },
      /^lib\/ops\/sub\.ts has no test, it must have tests\/ops\/sub_test\.ts or be imported by a test\n/,
    ],
    [{ "ffi/other.ts": "export class Other {}\n" }, /^ffi\/other\.ts has no test, it must have tests\/ffi\/other_test\.ts/],
    [
      { "tests/ops/none_test.ts": 'import assert from "node:assert/strict";\n' },
      /^tests\/ops\/none_test\.ts tests nothing of the project\n/,
    ],
  ]);
});
