import assert from "node:assert/strict";
import { loadParameters, parametersToWrite, readModelDescription, savePretrained } from "../../lib/io/pretrained.ts";
import { openSafetensors, type SafetensorsDtype, writeSafetensors } from "../../lib/io/safetensors.ts";
import { initialize, leaves, type Parameters, type ParameterSpec } from "../../lib/nn/parameters.ts";
import type { FloatDType } from "../../lib/tensor/dtype.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import type { Tensor } from "../../lib/tensor/tensor.ts";
import { assertRefused, withFolder } from "./corrupt.ts";

type Spec = { mlp: { 0: { weight: ParameterSpec } }; blocks: { gamma: ParameterSpec }[]; table: ParameterSpec };

/** A small model whose weights are of `dtype`. */
function specOf(dtype: FloatDType): Spec {
  const leaf = (shape: number[], dtype: FloatDType): ParameterSpec => ({ shape, dtype, init: { normal: 1 } });
  return {
    mlp: { 0: { weight: leaf([3, 5], dtype) } },
    blocks: [{ gamma: leaf([4], "f32") }, { gamma: leaf([1], dtype) }],
    table: { ...leaf([2, 2], "f32"), buffer: true },
  };
}

const NAMES = ["mlp.0.weight", "blocks.0.gamma", "blocks.1.gamma", "table"];

function made(dtype: FloatDType): Parameters<Spec> {
  return initialize(specOf(dtype), new Generator(1));
}

function free(...trees: unknown[]): void {
  for (const tree of trees) for (const [, t] of leaves<Tensor>(tree)) t.free();
}

const bits = (tree: unknown): unknown[] =>
  leaves<Tensor>(tree).map(([path, t]) => [path, t.dtype, t.shape, [...t.readRaw() as Float32Array]]);

for (const dtype of ["f32", "f16", "bf16"] as const) {
  Deno.test(`savePretrained() and loadParameters() give back a model in ${dtype} to the bit`, () => {
    withFolder((folder) => {
      const params = made(dtype), args = { model_channels: 8, note: "ü", list: [1, 2] };
      savePretrained(`${folder}/model`, { name: "Model", args }, params);
      assert.deepEqual([...Deno.readDirSync(folder)].map((e) => e.name).sort(), ["model.json", "model.safetensors"]);
      for (const path of ["model", "model.json", "model.safetensors"]) {
        assert.deepEqual(readModelDescription(`${folder}/${path}`), { name: "Model", args });
      }
      const back = step(() => ({ params: loadParameters(specOf(dtype), `${folder}/model.safetensors`) })).params;
      assert.deepEqual(bits(back), bits(params));
      using file = openSafetensors(`${folder}/model.safetensors`);
      assert.deepEqual([...file.tensors.keys()].sort(), NAMES.toSorted());
      assert.equal(file.tensors.get("mlp.0.weight")!.dtype, dtype.toUpperCase());
      assert.equal(file.tensors.get("blocks.0.gamma")!.dtype, "F32");
      free(params, back);
    });
  });
}

Deno.test("loadParameters() rounds a file's values to the model's dtypes", () => {
  withFolder((folder) => {
    const full = made("f32"), path = `${folder}/model.safetensors`;
    writeSafetensors(path, parametersToWrite(full));
    const half = loadParameters(specOf("f16"), path), brain = loadParameters(specOf("bf16"), path), weight = full.mlp[0].weight.read();
    assert.deepEqual([...half.mlp[0].weight.read()], [...Float16Array.from(weight)]);
    assert.equal(brain.mlp[0].weight.dtype, "bf16");
    brain.mlp[0].weight.read().forEach((v, i) => assert.ok(Math.abs(v - weight[i]) <= 2 ** -8 * Math.abs(weight[i])));
    writeSafetensors(path, parametersToWrite(half));
    const wide = loadParameters(specOf("f32"), path);
    assert.deepEqual([...wide.mlp[0].weight.read()], [...half.mlp[0].weight.read()]);
    free(full, half, brain, wide);
  });
});

/** By name: what a tensor has in place of what it should have; null for one that is left out. */
type Changes = Record<string, { dtype?: SafetensorsDtype; shape?: number[]; bytes?: Uint8Array } | null>;

/** Writes a model's file with changes, and tensors that it does not have. */
function writeChanged(path: string, changes: Changes): void {
  const params = made("f32"), list = parametersToWrite(params), known = new Set(list.map((t) => t.name));
  const changed = list.filter((t) => changes[t.name] !== null).map((t) => ({ ...t, ...changes[t.name] }));
  const added = Object.entries(changes).filter(([name]) => !known.has(name)).map(([name]) => ({
    name,
    dtype: "F32" as const,
    shape: [1],
    bytes: new Uint8Array(4),
  }));
  writeSafetensors(path, [...changed, ...added]);
  free(params);
}

Deno.test("loadParameters() reads f64 too, and takes a part of a file by its prefix", () => {
  withFolder((folder) => {
    const params = made("f32"), path = `${folder}/model.safetensors`;
    writeChanged(path, { "blocks.1.gamma": { dtype: "F64", bytes: new Uint8Array(new Float64Array([0.1]).buffer) } });
    const back = loadParameters(specOf("f32"), path);
    assert.deepEqual([...back.blocks[1].gamma.read()], [Math.fround(0.1)]);
    const other = { name: "decoder.x", dtype: "F32", shape: [1], bytes: new Uint8Array(4) } as const;
    writeSafetensors(path, [...parametersToWrite(params, "encoder."), other]);
    const part = loadParameters(specOf("f32"), path, { prefix: "encoder." });
    assert.deepEqual(bits(part), bits(params));
    assertRefused(
      () => loadParameters(specOf("f32"), path),
      "missing mlp.0.weight, blocks.0.gamma, blocks.1.gamma and 1 more; unexpected encoder.",
    );
    free(params, back, part);
  });
});

Deno.test("loadParameters() is strict: it names what is missing, unexpected, of another shape or no float", () => {
  withFolder((folder) => {
    const path = `${folder}/model.safetensors`;
    const refused = (changes: Changes, message: string | RegExp, dtype: FloatDType = "f32") => {
      writeChanged(path, changes);
      assertRefused(() => loadParameters(specOf(dtype), path), message);
    };
    refused({ table: null }, `Cannot load ${path}: missing table; its tensors must be exactly the model's`);
    refused({ "blocks.2.gamma": {} }, "unexpected blocks.2.gamma; its tensors must be exactly the model's");
    refused({ table: null, tables: {} }, "missing table; unexpected tables; ");
    refused({ "mlp.0.weight": { shape: [5, 3] } }, "mlp.0.weight is [5,3], it must be [3,5]");
    refused({ table: { dtype: "I32" } }, "table is I32, it must be F32, F16, BF16 or F64");
    const large = (value: number) => ({ "blocks.1.gamma": { bytes: new Uint8Array(new Float32Array([value]).buffer) } });
    refused(large(-70000), "blocks.1.gamma has -70000, it must fit f16 (at most 65504); load the model in f32 or bf16", "f16");
    for (const dtype of ["f32", "f16"] as const) {
      refused(large(Infinity), "blocks.1.gamma has Infinity at element 0, it must be finite; the file is damaged, take another", dtype);
      refused(large(NaN), "blocks.1.gamma has NaN at element 0", dtype);
      for (const bytes of [new Uint8Array(new Float16Array([-Infinity]).buffer), new Uint8Array([0x80, 0xff])]) {
        refused({ "blocks.1.gamma": { dtype: bytes[0] ? "BF16" : "F16", bytes } }, "blocks.1.gamma has -Infinity", dtype);
      }
      refused({ "blocks.1.gamma": { dtype: "F64", bytes: new Uint8Array(new Float64Array([NaN]).buffer) } }, "has NaN", dtype);
    }
    writeChanged(path, large(65504));
    free(loadParameters(specOf("f16"), path));
    assertRefused(() => loadParameters(specOf("f32"), `${folder}/none.safetensors`), "there is no such file");
  });
});

Deno.test("readModelDescription() says what is wrong with the JSON beside a model", () => {
  withFolder((folder) => {
    assertRefused(
      () => readModelDescription(`${folder}/none`),
      /none\.json says "No such file.*", it must be a JSON file beside .*none\.safetensors/,
    );
    for (const text of ["{", "3", "null", '{"name": 3, "args": {}}', '{"name": "Model"}', '{"name": "Model", "args": null}']) {
      Deno.writeTextFileSync(`${folder}/model.json`, text);
      assertRefused(() => readModelDescription(`${folder}/model`), `Cannot load a model: ${folder}/model.json `);
    }
  });
});
