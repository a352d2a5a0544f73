import assert from "node:assert/strict";
import { openSafetensors } from "../../lib/io/safetensors.ts";
import { convertTorchFile } from "../../lib/io/convert.ts";
import { readModelDescription } from "../../lib/io/pretrained.ts";
import { assertRefused, withFolder } from "../io/corrupt.ts";
import { op, smallTorchFile, torchFile } from "../io/torch_builder.ts";

function convert(args: string[]): { code: number; stdout: string; stderr: string } {
  const recipe = new URL("../../recipes/convert.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-P=train", "--no-check", recipe, "--", ...args],
  }).outputSync();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("convert writes a TRELLIS run's .pt file as a pair", () => {
  withFolder((folder) => {
    const file = `${folder}/denoiser_ema0.9999_step0000010.pt`, config = `${folder}/config.json`;
    Deno.writeFileSync(file, smallTorchFile());
    const models = { denoiser: { name: "ElasticSLatFlowModel", args: { resolution: 64 } }, other: { name: "Other", args: {} } };
    Deno.writeTextFileSync(config, JSON.stringify({ models, dataset: { name: "D" }, trainer: { name: "T" } }));
    const { code, stdout, stderr } = convert([file, `${folder}/flow`, "--config", config]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^4 tensors, 60 bytes, in .*flow\.safetensors\nleft out, since they are no tensors: step\n$/);
    using pair = openSafetensors(`${folder}/flow.safetensors`);
    assert.deepEqual([...pair.tensors.keys()].sort(), ["inner.half", "part", "turned", "weight"]);
    assert.deepEqual(readModelDescription(`${folder}/flow`), { name: "SLatFlowModel", args: { resolution: 64 } });
    const wrong = convert([file, `${folder}/flow`, "--config", config, "--model", "encoder"]);
    assert.deepEqual([wrong.code, /--model must be one of denoiser, other/.test(wrong.stderr)], [1, true]);
  });
});

Deno.test("convertTorchFile() refuses a file without tensors, and writes nothing", () => {
  withFolder((folder) => {
    Deno.writeFileSync(`${folder}/a.pt`, torchFile(op.whole(op.dict({ step: op.int(3) })), {}));
    assertRefused(() => convertTorchFile(`${folder}/a.pt`, `${folder}/b`), "it holds no tensor");
    assert.deepEqual([...Deno.readDirSync(folder)].map((e) => e.name), ["a.pt"]);
  });
});
