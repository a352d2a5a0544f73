import assert from "node:assert/strict";
import { z } from "zod";
import {
  checkConfig,
  ConfigError,
  describeConfig,
  type Json,
  nearestName,
  overlay,
  parseOverrides,
  readJson,
} from "../../lib/train/config.ts";
import { withFolder } from "../io/corrupt.ts";

const KNOWN = { steps: 10, optimizer: { lr: 1e-3, betas: [0.9, 0.99] }, schedule: { name: "uniform" }, note: null };
const SCHEMA = z.strictObject({
  steps: z.int().min(1),
  optimizer: z.strictObject({ lr: z.number().positive(), betas: z.tuple([z.number(), z.number()]) }),
  schedule: z.discriminatedUnion("name", [z.strictObject({ name: z.literal("uniform") }), z.strictObject({ name: z.literal("other") })]),
  note: z.string().nullable(),
});

/** Asserts that `value` is refused with a ConfigError whose message matches. */
function assertRefused(value: Json, message: RegExp): void {
  assert.throws(() => checkConfig(SCHEMA, value, { known: KNOWN, source: "the command line" }), (error: Error) => {
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /^Cannot use the command line: /);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("overlay() merges records key by key and replaces the rest", () => {
  assert.deepEqual(overlay(KNOWN, { optimizer: { lr: 1 }, note: "x" }), { ...KNOWN, optimizer: { lr: 1, betas: [0.9, 0.99] }, note: "x" });
  assert.deepEqual(overlay(KNOWN, { optimizer: { betas: [0] } }), { ...KNOWN, optimizer: { lr: 1e-3, betas: [0] } });
  assert.deepEqual(overlay({ a: { b: 1 } }, { a: null }), { a: null });
  assert.deepEqual(overlay({ a: null }, { a: { b: 1 }, c: [] }), { a: { b: 1 }, c: [] });
  assert.deepEqual(overlay([1, 2], [3]), [3]);
  const normal = { name: "logitNormal", mean: 1 };
  assert.deepEqual(overlay({ a: normal }, { a: { name: "uniform" } }), { a: { name: "uniform" } }, "another kind of record");
  assert.deepEqual(overlay({ a: normal }, { a: { name: "logitNormal", std: 2 } }), { a: { ...normal, std: 2 } });
  const halves = { encoder: { a: 1 }, decoder: { a: 1 } };
  assert.deepEqual(overlay(halves, { encoder: { b: 2 } }), { ...halves, encoder: { a: 1, b: 2 } }, "a kind is a text, not a record");
  assert.deepEqual(KNOWN.optimizer, { lr: 1e-3, betas: [0.9, 0.99] }, "the base stays as it is");
});

Deno.test("parseOverrides() reads values as JSON, or else as text", () => {
  assert.deepEqual(
    parseOverrides(["steps=5", "optimizer.lr=1e-4", "optimizer.betas=[0.8,0.9]", "data.root=a=b.c", "note=null", "name=true "]),
    {
      steps: 5,
      optimizer: { lr: 1e-4, betas: [0.8, 0.9] },
      data: { root: "a=b.c" },
      note: null,
      name: true,
    },
  );
  assert.deepEqual(parseOverrides(["a=1", "a.b=2", "a.c="]), { a: { b: 2, c: "" } }, "the last word holds");
  for (const wrong of ["steps", "=5", ".steps=5", "a..b=1", "a.=1", "__proto__.x=1"]) {
    assert.throws(() => parseOverrides([wrong]), {
      name: "ConfigError",
      message: /^Cannot read the setting ".*": it must be key\.key=value$/,
    });
  }
  assert.equal(({} as Record<string, unknown>).x, undefined);
});

Deno.test("nearestName() counts single-character edits", () => {
  const names = ["steps", "batch", "optimizer", "emaRates"];
  assert.equal(nearestName("step", names), "steps");
  assert.equal(nearestName("optimiser", names), "optimizer");
  assert.equal(nearestName("ema_rates", names), "emaRates");
  assert.equal(nearestName("x", []), "");
});

Deno.test("checkConfig() gives the config or names the wrong key, its value and what it must be", () => {
  assert.deepEqual(checkConfig(SCHEMA, KNOWN, { known: KNOWN, source: "the command line" }), KNOWN);
  assertRefused({ ...KNOWN, step: 5 }, /the key is step, it must be one of steps, optimizer, schedule, note; did you mean steps\?$/);
  assertRefused(overlay(KNOWN, { optimizer: { ir: 1 } }), /the key is optimizer\.ir, it must be one of lr, betas; did you mean lr\?$/);
  assertRefused({ ...KNOWN, steps: "many" }, /: steps is "many", it must satisfy: .*number/);
  assertRefused({ ...KNOWN, steps: 0 }, /: steps is 0, it must satisfy: .*>=1/);
  assertRefused(overlay(KNOWN, { optimizer: { betas: [0.9, null] } }), /: optimizer\.betas\.1 is null, it must satisfy: /);
  assertRefused(overlay(KNOWN, { optimizer: { betas: [0.9] } }), /: optimizer\.betas is \[0\.9\], it must satisfy: /);
  assertRefused(overlay(KNOWN, { schedule: { name: "cosine" } }), /: schedule\.name is "cosine", it must satisfy: /);
  assertRefused({ steps: 1, schedule: { name: "other" }, note: null }, /: optimizer is missing, it must satisfy: /);
  assertRefused(3, /: the config is 3, it must satisfy: /);
});

Deno.test("readJson() reads a file or says why it cannot", () => {
  withFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/a.json`, '{"a": [1, null]}');
    assert.deepEqual(readJson(`${folder}/a.json`), { a: [1, null] });
    Deno.writeTextFileSync(`${folder}/b.json`, '{"a": 1,}');
    assert.throws(() => readJson(`${folder}/b.json`), { name: "ConfigError", message: /^Cannot read .*b\.json: .*, it must be JSON$/ });
    assert.throws(() => readJson(`${folder}/c.json`), {
      name: "ConfigError",
      message: /^Cannot read .*c\.json: No such file.*it must be a readable/,
    });
  });
});

Deno.test("describeConfig() lists every setting as the command line takes it", () => {
  const lines = describeConfig(KNOWN);
  assert.deepEqual(lines, [
    "  --steps=10",
    "  --optimizer.lr=0.001",
    "  --optimizer.betas=[0.9,0.99]",
    '  --schedule.name="uniform"',
    "  --note=null",
  ]);
  assert.deepEqual(parseOverrides(lines.map((line) => line.trim().slice(2))), KNOWN);
});
