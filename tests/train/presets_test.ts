import assert from "node:assert/strict";
import { z } from "zod";
import { resolveConfig } from "../../lib/train/presets.ts";
import { withFolder } from "../io/corrupt.ts";

const SIZES = {
  tiny: { steps: 10, data: { root: "a", resolution: 32 } },
  published: { steps: 1000, data: { root: "a", resolution: 64 } },
};
const SCHEMA = z.strictObject({ steps: z.int().min(1), data: z.strictObject({ root: z.string(), resolution: z.int() }) });
const TRELLIS = { models: {}, dataset: {}, trainer: { args: { max_steps: 77 } } };

function resolve(size: string, { file, overrides = [] }: { file?: string; overrides?: string[] } = {}) {
  return resolveConfig(SCHEMA, SIZES, { size, file, overrides, fromTrellis: () => ({ steps: 77 }) });
}

Deno.test("resolveConfig() lays a file over the preset and settings over both", () => {
  withFolder((folder) => {
    const file = `${folder}/config.json`;
    Deno.writeTextFileSync(file, JSON.stringify({ steps: 20, data: { root: "b" } }));
    assert.deepEqual(resolve("tiny"), SIZES.tiny);
    assert.deepEqual(resolve("tiny", { file }), { steps: 20, data: { root: "b", resolution: 32 } });
    assert.deepEqual(resolve("tiny", { file, overrides: ["steps=30", "data.root=c"] }), { steps: 30, data: { root: "c", resolution: 32 } });
    assert.deepEqual(SIZES.tiny, { steps: 10, data: { root: "a", resolution: 32 } }, "the preset stays as it is");
  });
});

Deno.test("resolveConfig() takes a TRELLIS config over the published preset", () => {
  withFolder((folder) => {
    const file = `${folder}/trellis.json`;
    Deno.writeTextFileSync(file, JSON.stringify(TRELLIS));
    assert.deepEqual(resolve("tiny", { file }), { steps: 77, data: { root: "a", resolution: 64 } });
    assert.deepEqual(resolve("tiny", { file, overrides: ["data.root=b"] }), { steps: 77, data: { root: "b", resolution: 64 } });
  });
});

Deno.test("resolveConfig() says where a wrong setting is from", () => {
  withFolder((folder) => {
    const refused = (run: () => unknown, message: RegExp) => assert.throws(run, { name: "ConfigError", message });
    const file = `${folder}/config.json`;
    Deno.writeTextFileSync(file, '{"step": 5}');
    refused(
      () => resolve("tiny", { file }),
      /^Cannot use .*config\.json: the key is step, it must be one of steps, data; did you mean steps\?$/,
    );
    refused(
      () => resolve("tiny", { overrides: ["data.rout=x"] }),
      /^Cannot use the settings: the key is data\.rout, .* did you mean root\?$/,
    );
    Deno.writeTextFileSync(file, "[1]");
    refused(() => resolve("tiny", { file }), /^Cannot use .*config\.json: it is \[1\], it must be a JSON object with the config's keys$/);
    refused(() => resolve("tinny"), /^Cannot use the size tinny: it must be one of tiny, published; did you mean tiny\?$/);
    refused(() => resolve("toString"), /^Cannot use the size toString: /);
    refused(() => resolve("tiny", { file: `${folder}/none.json` }), /^Cannot read .*none\.json: /);
  });
});
