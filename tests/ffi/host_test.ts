import assert from "node:assert/strict";
import { addressOf, glibcVersion, missingInstructions, openLibc } from "../../ffi/host.ts";

Deno.test("openLibc() allocates aligned memory, fills and copies it", () => {
  const libc = openLibc(), bytes = Uint8Array.from({ length: 300 }, (_, i) => i), back = new Uint8Array(300);
  assert.equal(openLibc(), libc, "opened once");
  const block = libc.aligned_alloc(256n, 512n);
  assert.equal(block % 256n, 0n);
  libc.memset(block, 7, 512n);
  libc.memcpy(block + 100n, addressOf(bytes), 200n);
  libc.memcpy(addressOf(back), block, 300n);
  assert.deepEqual([...back.subarray(0, 100)], new Array(100).fill(7));
  assert.deepEqual([...back.subarray(100)], [...bytes.subarray(0, 200)]);
  libc.free(block);
});

Deno.test("addressOf() is that of the first element, and 0 for an empty array", () => {
  const values = new Float32Array(8);
  assert.equal(addressOf(values.subarray(3)) - addressOf(values), 12n);
  assert.equal(addressOf(new Float32Array(0)), 0n);
  assert.equal(addressOf(values.subarray(8)), 0n);
});

Deno.test("glibcVersion() is a version", () => {
  assert.match(glibcVersion(), /^2\.\d+$/);
});

Deno.test("missingInstructions() agrees with what the system says of the processor", () => {
  const { stdout } = new Deno.Command("grep", { args: ["-m1", "^flags", "/proc/cpuinfo"] }).outputSync();
  const flags = new TextDecoder().decode(stdout).split(/\s+/);
  assert.deepEqual(missingInstructions(), ["AVX2", "FMA", "F16C"].filter((name) => !flags.includes(name.toLowerCase())));
});
