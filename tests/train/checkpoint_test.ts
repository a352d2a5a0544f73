import assert from "node:assert/strict";
import { checkpointPath, listCheckpoints, loadCheckpoint, resume, saveCheckpoint } from "../../lib/train/checkpoint.ts";
import { openSafetensors } from "../../lib/io/safetensors.ts";
import { readManifest } from "../../lib/train/manifest.ts";
import { codeVersion } from "../../lib/train/version.ts";
import type { DType } from "../../lib/tensor/dtype.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor, tensorFromBytes, zeros } from "../../lib/tensor/tensor.ts";
import { assertRefused, withFolder } from "../io/corrupt.ts";

const SHAPES: Record<DType, number[]> = { f32: [3, 5], f16: [7], bf16: [3, 3], i32: [2, 2, 2], i64: [3], u8: [5] };
const DTYPES = Object.keys(SHAPES) as DType[];

/** The bytes of a tensor. */
function bytesOf(t: Tensor): Uint8Array {
  const raw = t.readRaw();
  return new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
}

/** A tensor of every dtype, and a scalar and an empty one, with bytes that depend on `seed`: NaNs and infinities are among them. */
function everything(seed: number): Record<string, Tensor> {
  const tensors: Record<string, Tensor> = { scalar: tensor([seed], []), empty: zeros([0, 4], "f16") };
  for (const dtype of DTYPES) {
    const t = zeros(SHAPES[dtype], dtype), bytes = Uint8Array.from({ length: t.bytes }, (_, i) => i * 37 + seed * 101);
    if (dtype === "f32") bytes.set([0, 0, 0xc0, 0x7f, 1, 0, 0x80, 0x7f, 0, 0, 0x80, 0xff, 0, 0, 0, 0x80]); // NaN, a signalling NaN, -inf, -0
    tensors[`group.${dtype}`] = tensorFromBytes(bytes, SHAPES[dtype], dtype);
  }
  return tensors;
}

function filesOf(folder: string): string[] {
  return [...Deno.readDirSync(`${folder}/ckpts`)].map((e) => e.name).sort();
}

const silent = { say: () => {} };

Deno.test("loadCheckpoint() puts back every dtype to the bit, and the state", () => {
  withFolder((folder) => {
    step(() => {
      const saved = everything(1), state = { sampler: { epoch: 3, at: [1, 2] }, scale: 20.5, none: null };
      saveCheckpoint(folder, 12, { tensors: saved, state, keep: 2 });
      const other = everything(2), before = Object.values(other).map((t) => (t.size ? t.addr : 0n));
      assert.deepEqual(loadCheckpoint(checkpointPath(folder, 12), other), state);
      for (const [name, t] of Object.entries(saved)) assert.deepEqual(bytesOf(other[name]), bytesOf(t), name);
      assert.deepEqual(Object.values(other).map((t) => (t.size ? t.addr : 0n)), before, "into the memory that is there");
      using file = openSafetensors(`${folder}/ckpts/step0000012.safetensors`);
      assert.equal(file.metadata.step, "12");
      const manifest = readManifest(checkpointPath(folder, 12));
      assert.deepEqual([manifest.step, manifest.version], [12, codeVersion()]);
      assert.match(codeVersion().commit ?? "", /^([0-9a-f]{40})?$/);
    });
  });
});

Deno.test("saveCheckpoint() keeps the newest, and nothing of steps that are still to come or of a save that was killed", () => {
  withFolder((folder) => {
    const tensors = { a: tensor([1], [1]) },
      save = (at: number, keep: number) => saveCheckpoint(folder, at, { tensors, state: null, keep });
    assert.deepEqual(listCheckpoints(folder), []);
    for (const at of [1, 2, 10, 11]) save(at, 3);
    assert.deepEqual(listCheckpoints(folder), [11, 10, 2], "newest first, by number");
    Deno.writeTextFileSync(`${folder}/ckpts/.espalier-0.tmp`, "half a checkpoint");
    Deno.writeTextFileSync(`${folder}/ckpts/notes.txt`, "mine");
    assert.deepEqual(listCheckpoints(folder), [11, 10, 2]);
    save(5, 3);
    assert.deepEqual(listCheckpoints(folder), [5, 2]);
    save(6, 1);
    assert.deepEqual(filesOf(folder), ["notes.txt", "step0000006.json", "step0000006.safetensors"]);
    tensors.a.free();
  });
});

Deno.test("saveCheckpoint() that fails half way leaves the one before it", () => {
  withFolder((folder) => {
    const a = tensor([1, 2], [2]), b = tensor([3], [1]);
    saveCheckpoint(folder, 1, { tensors: { a, b }, state: 1, keep: 1 });
    b.free();
    assert.throws(
      () => saveCheckpoint(folder, 2, { tensors: { a, b }, state: 2, keep: 1 }),
      /^Error: Cannot write .*step0000002.*freed tensor/,
    );
    assert.throws(
      () => saveCheckpoint(folder, 2, { tensors: { a }, state: { scale: Infinity } }),
      /Cannot write a checkpoint: scale of its state is Infinity/,
    );
    assert.deepEqual(filesOf(folder), ["step0000001.json", "step0000001.safetensors"]);
    for (const name of ["step0000003.safetensors", "step0000003.json"]) {
      Deno.mkdirSync(`${folder}/ckpts/${name}`); // a folder stands where the file should go: as good as a disk that refuses it
      assertRefused(() => saveCheckpoint(folder, 3, { tensors: { a }, state: 3, keep: 1 }));
      Deno.removeSync(`${folder}/ckpts/${name}`);
    }
    const back = { a: zeros([2]), b: zeros([1]) };
    assert.deepEqual(resume(folder, { ckpt: "latest", tensors: back, ...silent }), { step: 1, state: 1 });
    assert.deepEqual([...back.a.read(), ...back.b.read()], [1, 2, 3]);
    for (const t of [a, back.a, back.b]) t.free();
  });
});

Deno.test("resume() passes over newest checkpoints that cannot be read", () => {
  withFolder((folder) => {
    const a = tensor([0], [1]), said: string[] = [], options = { tensors: { a }, say: (text: string) => said.push(text) };
    assert.equal(resume(folder, { ckpt: "latest", ...options }), null);
    for (const at of [1, 2]) saveCheckpoint(folder, at, { tensors: { a: a.write([at]) }, state: at, keep: 5 });
    for (const at of [3, 4, 5, 6]) saveCheckpoint(folder, at, { tensors: { a: a.write([at]) }, state: at, keep: 9 });
    const tensors = `${folder}/ckpts/step0000003.safetensors`, flipped = Deno.readFileSync(tensors);
    flipped[flipped.length - 1] ^= 1;
    Deno.writeFileSync(tensors, flipped);
    Deno.truncateSync(`${folder}/ckpts/step0000004.safetensors`, 90);
    Deno.writeTextFileSync(checkpointPath(folder, 5), Deno.readTextFileSync(checkpointPath(folder, 5)).replace('"state": 5', '"state": 6'));
    Deno.removeSync(`${folder}/ckpts/step0000006.safetensors`);
    Deno.copyFileSync(checkpointPath(folder, 2), checkpointPath(folder, 7));
    a.write([0]);
    assert.deepEqual(resume(folder, { ckpt: "latest", ...options }), { step: 2, state: 2 });
    assert.equal(a.item(), 2);
    assert.deepEqual(said.map((text) => text.match(/^(passing over|resuming from) \S*step000000(\d)/)?.slice(1)), [
      ...["7", "6", "5", "4", "3"].map((step) => ["passing over", step]),
      ["resuming from", "2"],
    ]);
    assert.deepEqual(resume(folder, { ckpt: "1", ...options }), { step: 1, state: 1 });
    assert.equal(a.item(), 1);
    for (const step of [1, 2]) Deno.truncateSync(checkpointPath(folder, step), 100);
    assertRefused(
      () => resume(folder, { ckpt: "latest", ...options }),
      "none of its 7 checkpoints is whole, one must be; --ckpt none starts anew",
    );
    assert.equal(resume(folder, { ckpt: "none", ...options }), null);
    assertRefused(() => resume(folder, { ckpt: "8", ...options }), "there is no such file");
    assertRefused(() => resume(folder, { ckpt: "3", ...options }));
    assert.throws(
      () => resume(folder, { ckpt: "newest", ...options }),
      /Cannot resume: --ckpt is "newest", it must be latest, none or a step/,
    );
    a.free();
  });
});

Deno.test("loadCheckpoint() names the tensor that is missing, extra or of another shape or dtype, and changes nothing", () => {
  withFolder((folder) => {
    step(() => {
      saveCheckpoint(folder, 1, { tensors: { a: tensor([5, 5], [2]), b: tensor([5], [1]) }, state: null, keep: 1 });
      const path = checkpointPath(folder, 1), a = tensor([1, 1], [2]), b = tensor([1], [1]);
      const refused = (tensors: Record<string, Tensor>, message: string) => assertRefused(() => loadCheckpoint(path, tensors), message);
      refused({ a }, "it holds b, which this run has not");
      refused({ a, b, c: b }, "c is missing, it must be [1] F32");
      refused({ a, b: zeros([1, 1]) }, "b is [1] F32, it must be [1,1] F32");
      refused({ a, b: zeros([1], "bf16") }, "b is [1] F32, it must be [1] BF16");
      assert.deepEqual([...a.read(), ...b.read()], [1, 1, 1]);
    });
  });
});

Deno.test("saveCheckpoint() keeps milestones for good, and replaces one of the same step only when the new one is whole", () => {
  withFolder((folder) => {
    const a = tensor([1], [1]);
    for (const at of [10, 15, 20, 25, 30]) saveCheckpoint(folder, at, { tensors: { a }, state: at, keep: 2, milestoneEvery: 20 });
    assert.deepEqual(listCheckpoints(folder), [30, 25, 20]);
    a.write([2]);
    saveCheckpoint(folder, 30, { tensors: { a }, state: "again", keep: 2, milestoneEvery: 20 });
    assert.deepEqual(filesOf(folder).filter((name) => name.includes("30")), ["step0000030-1.safetensors", "step0000030.json"]);
    assert.equal(loadCheckpoint(checkpointPath(folder, 30), { a: a.write([0]) }), "again");
    assert.equal(a.item(), 2);
    a.free();
  });
});
