import assert from "node:assert/strict";
import { parseJsonObject } from "../../lib/io/json.ts";
import { fuzz, prepare } from "./fuzz.ts";
import { fuzzApart } from "./run.ts";
import { TARGETS } from "./targets.ts";

/** MiB that a file of the corpus, 2 KiB at most, may take with its garbage: the engine alone takes one now and then. */
const MOST_GROWN = 16;

Deno.test("no parser of files from outside crashes, hangs or grows on mutated files, without permission for FFI", async () => {
  const found = await fuzzApart("all", { count: 1500, seed: 1, timeoutMs: 120_000 });
  assert.deepEqual(found.map(({ target }) => target), Object.keys(TARGETS));
  for (const { target, executions, accepted, refused, crashes, slowestMs, peakMiB, grownMiB } of found) {
    assert.deepEqual([crashes, executions], [[], 1500], target);
    assert.ok(
      accepted > 10 && refused > 10,
      `${target}: ${accepted} accepted, ${refused} refused: the mutations are too weak or too strong`,
    );
    assert.ok(slowestMs < 2000, `${target}: an input took ${slowestMs} ms`);
    assert.ok(peakMiB < 1024, `${target}: ${peakMiB} MiB`);
    assert.ok(grownMiB < MOST_GROWN, `${target}: an input of some KiB took ${grownMiB} MiB`);
  }
});

Deno.test("every file of the corpus is one that its parser takes", async () => {
  for (const target of Object.values(TARGETS)) {
    for (const bytes of prepare(target).whole) await target.run(bytes);
  }
});

Deno.test("fuzz() tells errors that a person is meant to see from the engine's", async () => {
  const seeds = [[new TextEncoder().encode('{"a": {"b": 1}}')]] as Uint8Array<ArrayBuffer>[][];
  const careless = { seeds, tokens: [], run: (bytes: Uint8Array) => (parseJsonObject(bytes) as { a: { b: number } }).a.b.toFixed(2) };
  const { crashes } = await fuzz(careless, 300, 1);
  assert.ok(crashes.length > 3);
  assert.match(crashes[0].error, /^TypeError: Cannot read properties of undefined/);
  const wrapped = { ...careless, run: () => [].at(0)!["x"] };
  assert.ok((await fuzz(wrapped, 1, 1)).crashes.length === 1);
});
