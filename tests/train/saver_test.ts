import assert from "node:assert/strict";
import { listCheckpoints, loadCheckpoint, saveCheckpoint } from "../../lib/train/checkpoint.ts";
import { checkpointPath } from "../../lib/train/manifest.ts";
import { openSaver } from "../../lib/train/saver.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { withFolder } from "../io/corrupt.ts";
import { program } from "../program.ts";

const say = (): void => {};

Deno.test("openSaver() writes the files of a synchronous save to the byte, of the moment it was called", () => {
  withFolder((folder) => {
    const values = Float32Array.from({ length: 100_003 }, (_, i) => Math.sin(i)),
      tensors = {
        a: tensor(values, [values.length]),
        half: tensor(values.subarray(0, 7), [7], { dtype: "bf16" }),
        none: zeros([0, 3]),
      };
    const config = { steps: 3 }, state = { at: 5, nested: [1.5, { x: null }] };
    saveCheckpoint(`${folder}/now`, 5, { tensors, state, config, keep: 2 });
    const saver = openSaver(`${folder}/beside`, { tensors, config, keep: 2, milestoneEvery: 0, say });
    saver.save(5, state);
    tensors.a.write(values.map((v) => v + 1)); // what comes after is not in it
    saver.save(6, state);
    tensors.a.write(values);
    saver.finish();
    for (const name of ["step0000005.json", "step0000005.safetensors"]) {
      assert.deepEqual(Deno.readFileSync(`${folder}/beside/ckpts/${name}`), Deno.readFileSync(`${folder}/now/ckpts/${name}`));
    }
    loadCheckpoint(checkpointPath(`${folder}/beside`, 6), tensors);
    assert.deepEqual(tensors.a.read(), values.map((v) => v + 1));
    saver.save(7, state, { wait: true });
    assert.deepEqual(listCheckpoints(`${folder}/beside`), [7, 6]);
    saver.save(8, state);
    saver.close();
    assert.deepEqual(listCheckpoints(`${folder}/beside`), [8, 7]);
    for (const t of Object.values(tensors)) t.free();
  });
});

Deno.test("openSaver() throws at the next call where the other thread could not write, and can go on", () => {
  withFolder((folder) => {
    const tensors = { a: tensor([1], [1]) };
    Deno.writeTextFileSync(`${folder}/ckpts`, "a file where the folder should be");
    const saver = openSaver(folder, { tensors, config: null, keep: 1, milestoneEvery: 0, say });
    saver.save(1, null);
    assert.throws(() => saver.finish(), /^Error: Cannot write a checkpoint to .*ckpts/);
    saver.check();
    Deno.removeSync(`${folder}/ckpts`);
    saver.save(2, null);
    saver.close();
    assert.deepEqual(listCheckpoints(folder), [2]);
    tensors.a.free();
  });
});

Deno.test("a process that ends while its checkpoint is being written waits for it", () => {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-saver-" });
  const { stderr } = program(
    `import { openSaver } from("lib/train/saver.ts");
    import { zeros } from("lib/tensor/tensor.ts");
    const saver = openSaver(Deno.args[0], { tensors: { a: zeros([30_000_000]) }, config: null, keep: 1, milestoneEvery: 0, say: () => {} });
    saver.save(1, null);
    Deno.exit(3);`,
    { args: [folder], env: { DEVICE: "cpu" } },
  ).outputSync();
  assert.deepEqual(listCheckpoints(folder), [1], new TextDecoder().decode(stderr));
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("openSaver() says so and waits for its checkpoints where the host has no room for a copy", () => {
  withFolder((folder) => {
    const tensors = { a: tensor([1, 2], [2]) }, said: string[] = [], real = Deno.systemMemoryInfo;
    Deno.systemMemoryInfo = () => ({ ...real(), available: 100 });
    try {
      const saver = openSaver(folder, { tensors, config: null, keep: 2, milestoneEvery: 0, say: (text) => said.push(text) });
      for (const step of [1, 2]) saver.save(step, null);
      assert.deepEqual(listCheckpoints(folder), [2, 1]);
      saver.close();
    } finally {
      Deno.systemMemoryInfo = real;
    }
    assert.equal(said.length, 1);
    assert.match(said[0], /^training waits for its checkpoints from now on: Cannot allocate 256 bytes on the host: 100 bytes are free/);
    tensors.a.free();
  });
});
