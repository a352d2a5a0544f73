import assert from "node:assert/strict";
import { listCheckpoints } from "../../lib/train/checkpoint.ts";
import { DryRun } from "../../lib/train/dry_run.ts";
import { readMetrics } from "../../lib/train/metrics.ts";
import { openRun, type Run, type RunOptions } from "../../lib/train/run.ts";
import { log, mul, sqrt } from "../../lib/ops/elementwise.ts";
import { sum } from "../../lib/ops/reduce.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor, zeros } from "../../lib/tensor/tensor.ts";
import { withFolder } from "../io/corrupt.ts";
import { program } from "../program.ts";

/** Opens a run of ten steps that counts in `weights`; `changes` replaces options. */
function open(folder: string, weights: Tensor, changes: Partial<RunOptions> = {}): { run: Run; restored: unknown[] } {
  const restored: unknown[] = [];
  const run = openRun(folder, {
    label: "test",
    config: { steps: 10, note: "ü" },
    steps: 10,
    log: { every: 1, sampleEvery: 4, saveEvery: 3, keep: 2 },
    ckpt: "latest",
    tensors: { weights },
    state: () => ({ count: weights.item() }),
    restore: (state) => restored.push(state),
    ...changes,
  });
  return { run, restored };
}

/** Runs the steps up to `last`, each of which adds one to the weights. */
function train(run: Run, weights: Tensor, last: number): void {
  for (let i = run.first; i < last; i++) {
    weights.write([weights.item() + 1]);
    run.log.step(i + 1, { loss: weights.item() }, 1);
    assert.equal(run.saveOrStop(i + 1), false);
  }
}

Deno.test("openRun() writes config, command, metrics and checkpoints, and goes on from the last of them", () => {
  withFolder((folder) => {
    const weights = tensor([0], [1]), first = open(`${folder}/a/run`, weights);
    assert.equal(first.run.first, 0);
    assert.deepEqual(JSON.parse(Deno.readTextFileSync(`${folder}/a/run/config.json`)), { steps: 10, note: "ü" });
    assert.match(Deno.readTextFileSync(`${folder}/a/run/command.txt`), /^deno run .*\n$/);
    train(first.run, weights, 8);
    first.run.close();
    assert.deepEqual(listCheckpoints(`${folder}/a/run`), [7, 6]);

    weights.write([-1]);
    const second = open(`${folder}/a/run`, weights);
    assert.equal(second.run.first, 7);
    assert.deepEqual(second.restored, [{ count: 7 }]);
    train(second.run, weights, 10);
    second.run.close();
    assert.deepEqual(listCheckpoints(`${folder}/a/run`), [10, 9]);
    const { step, value } = readMetrics(`${folder}/a/run/metrics.jsonl`).loss;
    assert.deepEqual(step, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert.deepEqual(value, step);
    weights.free();
  });
});

Deno.test("openRun() from an earlier step replaces what the run has of later ones", () => {
  withFolder((folder) => {
    const weights = tensor([0], [1]), whole = open(folder, weights, { log: { every: 1, sampleEvery: 0, saveEvery: 3, keep: 9 } });
    train(whole.run, weights, 10);
    whole.run.close();
    assert.deepEqual(listCheckpoints(folder), [10, 9, 7, 6, 4, 3, 1]);
    const back = open(folder, weights, { ckpt: "3" });
    train(back.run, weights, 6);
    back.run.close();
    assert.deepEqual(listCheckpoints(folder), [6, 4]);
    const again = open(folder, weights);
    assert.equal(again.run.first, 6);
    again.run.close();
    const fresh = open(folder, weights, { ckpt: "none" });
    assert.deepEqual([fresh.run.first, fresh.restored], [0, []]);
    train(fresh.run, weights, 3);
    fresh.run.close();
    assert.deepEqual(listCheckpoints(folder), [3, 1]);
    assert.deepEqual(readMetrics(`${folder}/metrics.jsonl`).loss.step, [1, 2, 3]);
    weights.free();
  });
});

Deno.test("openRun() never has more than saveEvery steps that are not on the disk, though steps are much quicker than saves", () => {
  withFolder((folder) => {
    for (const saveEvery of [1, 2, 3, 8]) {
      const weights = tensor([0], [1]), rest = zeros([5_000_000]), output = `${folder}/${saveEvery}`;
      for (const last of [2 * saveEvery + 1, 5 * saveEvery]) { // the second run goes on from a step that is no multiple
        const { run } = open(output, weights, {
          steps: 100,
          log: { every: 1, sampleEvery: 0, saveEvery, keep: 1 },
          tensors: { weights, rest },
        });
        let most = 0;
        for (let i = run.first; i < last; i++) {
          run.log.step(i + 1, { loss: 1 }, 1);
          most = Math.max(most, i + 1 - (listCheckpoints(output)[0] ?? 0));
          run.saveOrStop(i + 1);
        }
        run.close();
        assert.equal(most, saveEvery);
      }
      weights.free();
      rest.free();
    }
  });
});

Deno.test("openRun() says when samples and checkpoints are due, and stops on ten losses in a row that are no numbers", () => {
  withFolder((folder) => {
    const weights = tensor([0], [1]), { run } = open(folder, weights);
    assert.deepEqual([1, 2, 3, 4, 5, 8, 9, 10].filter((done) => run.sampleDue(done)), [1, 4, 8, 10]);
    run.expectFinite(4, { loss: 1, kl: -2 }, () => assert.fail());
    const bad = () => run.expectFinite(4, { loss: 1, kl: NaN }, () => step(() => log(tensor([-1], [1]))));
    for (let i = 0; i < 9; i++) bad();
    run.expectFinite(4, { loss: 1 }, () => assert.fail());
    for (let i = 0; i < 9; i++) bad();
    assert.throws(bad, {
      name: "RangeError",
      message:
        /^Cannot go on: kl is NaN at step 5, it must be finite \(the first op that is not: log \[1\] f32, whose element 0 is NaN\), 10 times in a row\. /,
    });
    run.close();
    const never = open(folder, weights, { log: { every: 1, sampleEvery: 0, saveEvery: 0, keep: 1 } });
    assert.ok(![1, 4, 10].some((done) => never.run.sampleDue(done)));
    train(never.run, weights, 9);
    assert.deepEqual(listCheckpoints(folder), []);
    assert.equal(never.run.saveOrStop(10), false);
    never.run.close();
    assert.deepEqual(listCheckpoints(folder), [10]);
    weights.free();
  });
});

Deno.test("openRun() looks at values that come later when the next step is queued, before checkpoints, and at its end", () => {
  withFolder((folder) => {
    const weights = tensor([0], [1]), asked: string[] = [];
    const { run } = open(folder, weights, { log: { every: 1, sampleEvery: 0, saveEvery: 4, keep: 1 } });
    const later = (name: string, loss: number) => () => {
      asked.push(name);
      return { loss };
    };
    const queue = (i: number, again: () => unknown = assert.fail): void => {
      for (const part of ["a", "b"]) run.expectFinite(i, later(`${part}${i}`, i === 3 ? NaN : i), again);
      run.log.step(i + 1, later(`log${i}`, 10 * i), 1);
      run.saveOrStop(i + 1);
    };
    queue(0);
    assert.deepEqual(asked, []);
    queue(1); // a checkpoint is due after it
    assert.deepEqual(asked.splice(0), ["a0", "b0", "log0", "a1", "b1", "log1"]);
    queue(2);
    let again = 0;
    queue(3, () => again++);
    assert.deepEqual([asked.splice(0), again], [["a2", "b2", "log2", "a3", "b3", "log3"], 2]);
    queue(4);
    run.close();
    assert.deepEqual(asked, ["a4", "b4", "log4"]);
    assert.deepEqual(readMetrics(`${folder}/metrics.jsonl`).loss, { step: [1, 2, 3, 4, 5], value: [0, 10, 20, 30, 40] });
    weights.free();
  });
});

Deno.test("openRun() stops on gradients that are not finite for a hundred steps, naming the op whose gradient is the first", () => {
  withFolder((folder) => {
    const weights = tensor([0], [1]), { run } = open(folder, weights, { steps: 1000 });
    const pass = (): void => {
      step(() => {
        const x = tensor([0, 1], [2], { requiresGrad: true });
        backward(sum(mul(sqrt(x), 1)));
      });
    };
    for (let i = 0; i < 98; i++) {
      run.expectFinite(i, { loss: 1 }, pass);
      run.log.step(i + 1, { loss: 1, skipped: 1 }, 1);
    }
    run.log.step(99, { loss: 1, skipped: 0 }, 1);
    for (let i = 0; i < 98; i++) run.log.step(100 + i, { loss: 1, skipped: 1 }, 1);
    assert.throws(() => run.log.step(198, { loss: 1, skipped: 1 }, 1), {
      name: "RangeError",
      message:
        /^Cannot go on: the gradients of the last 99 steps are not finite, they must be \(the first that is not: \w+'s gradient of its input 0 \[2\]/,
    });
    run.close();
    weights.free();
  });
});

Deno.test("openRun() of a dry run checks the checkpoint, says what would be done, and writes nothing", () => {
  withFolder((folder) => {
    const weights = tensor([0], [1]),
      report = (changes: Partial<RunOptions> = {}): string => {
        try {
          open(`${folder}/run`, weights, { dryRun: true, ...changes });
          return "";
        } catch (error) {
          assert.ok(error instanceof DryRun);
          return error.message;
        }
      };
    assert.match(
      report(),
      /^test: everything is built, nothing was trained or written\n[^]* steps +0 to 10\n[^]* 4 bytes; a kill loses 3 steps at most; 2 are kept, 8 bytes/,
    );
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    const { run } = open(`${folder}/run`, weights);
    train(run, weights, 4);
    run.close();
    const before = Deno.readTextFileSync(`${folder}/run/metrics.jsonl`);
    assert.match(report(), /steps +4 to 10, going on from a checkpoint that was read and checked/);
    assert.equal(Deno.readTextFileSync(`${folder}/run/metrics.jsonl`), before);
    weights.free();
  });
});

/** Waits until a process has a handler of its own for a signal. */
async function handles(pid: number, signal: number): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    const { stdout } = new Deno.Command("grep", { args: ["SigCgt", `/proc/${pid}/status`] }).outputSync();
    const [, caught] = new TextDecoder().decode(stdout).match(/SigCgt:\s*([0-9a-f]+)/)!;
    if (BigInt(`0x${caught}`) >> BigInt(signal - 1) & 1n) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`process ${pid} never listened to signal ${signal}`);
}

for (const [signal, number] of [["SIGINT", 2], ["SIGTERM", 15], ["SIGUSR1", 10]] as const) {
  Deno.test(`openRun() stops after the step in which ${signal} comes, with a checkpoint, though the loop never pauses`, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "espalier-run-" });
    try {
      const child = program(
        `import { openRun } from("lib/train/run.ts");
        import { tensor } from("lib/tensor/tensor.ts");
        const log = { every: 1, sampleEvery: 0, saveEvery: 0, keep: 1 }, rest = { label: "test", config: {}, ckpt: "latest", restore: () => {} };
        const run = openRun(Deno.args[0], { ...rest, steps: 1e6, log, tensors: { w: tensor([1], [1]) }, state: () => 5 });
        for (let i = 0; i < 2000; i++) {
          const start = performance.now();
          while (performance.now() - start < 10);
          run.log.step(i + 1, { loss: 1 }, 1);
          if (run.saveOrStop(i + 1)) Deno.exit(0);
        }
        Deno.exit(3);`,
        { args: [folder], env: { DEVICE: "cpu" } },
      ).spawn();
      await handles(child.pid, number);
      await new Promise((done) => setTimeout(done, 300)); // the system knows of the handler before the listener is in its place
      child.kill(signal);
      const { code, stderr } = await child.output(), said = new TextDecoder().decode(stderr), [step] = listCheckpoints(folder);
      assert.equal(code, 0, said);
      assert.match(said, /stopping after this step; a second signal stops at once\n/);
      assert.ok(said.includes(`stopped after step ${step}; the same command goes on from ${folder}/ckpts/step`), said);
      assert.equal(readMetrics(`${folder}/metrics.jsonl`).loss.step.at(-1), step);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  });
}
