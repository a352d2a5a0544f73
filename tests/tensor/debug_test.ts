import assert from "node:assert/strict";
import { debugLevel } from "../../lib/tensor/debug.ts";
import { runProgram } from "../program.ts";

const CODE = `import { debugStep, startDebug } from("lib/tensor/debug.ts");
  import { matmul } from("lib/ops/matmul.ts");
  import { step } from("lib/tensor/scope.ts");
  import { zeros } from("lib/tensor/tensor.ts");
  startDebug();
  step(() => void matmul(zeros([2, 3]), zeros([3, 4])));
  debugStep(1, (text) => console.error(text));
  startDebug();`;

/** What a program says at a level: the first words of each line. */
function said(level: string): string[] {
  const { stderr, code } = runProgram(CODE, { env: { DEBUG: level, DEVICE: "cpu" } });
  assert.equal(code, 0, stderr);
  return stderr.trim().split("\n").filter(Boolean).map((line) => line.split(" ").slice(0, 3).join(" "));
}

Deno.test("DEBUG is a ladder: the device, steps, calls, calls that are waited for", () => {
  assert.deepEqual(said("0"), []);
  assert.deepEqual(said("app:*"), [], "another program's");
  assert.deepEqual(said("1"), ["debug: device cpu,"]);
  assert.deepEqual(said("2"), ["debug: device cpu,", "debug: step 1"]);
  for (const level of ["3", "4"]) {
    const lines = said(level);
    assert.ok(lines.some((line) => line.startsWith("debug: k_matmul_fwd")), lines.join("\n"));
    assert.deepEqual([lines[0], lines.at(-1)], ["debug: device cpu,", "debug: step 1"]);
  }
});

Deno.test("debugLevel() reads DEBUG", () => {
  const level = (env: Record<string, string>): string =>
    runProgram('import { debugLevel } from("lib/tensor/debug.ts"); console.log(debugLevel());', { env }).stdout.trim();
  assert.deepEqual([level({ DEBUG: "3" }), level({ DEBUG: "" }), level({ DEBUG: "5" })], ["3", "0", "0"]);
  assert.equal(typeof debugLevel(), "number");
});
