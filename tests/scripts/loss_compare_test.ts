import assert from "node:assert/strict";
import { compareLosses, type Losses, readLosses } from "../../scripts/loss_compare.ts";
import { withFolder } from "../io/corrupt.ts";

const losses = (...values: [number, number][]): Losses => new Map(values);

/** Runs the script. */
function run(...args: string[]): { code: number; text: string } {
  const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-P=tools", "--no-check", "scripts/loss_compare.ts", ...args],
    cwd: new URL("../../", import.meta.url),
    env: { NO_COLOR: "1" },
  }).outputSync();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

Deno.test("compareLosses() finds the first difference and the largest", () => {
  const a = losses([1, 2], [2, 4], [3, 1]);
  assert.deepEqual(compareLosses(a, new Map(a)), { shared: 3, first: null, worst: { step: 1, relative: 0 } });
  assert.deepEqual(compareLosses(a, losses([1, 2], [2, 4.5], [3, 0.5])), {
    shared: 3,
    first: { step: 2, a: 4, b: 4.5 },
    worst: { step: 3, relative: 0.5 },
  });
  assert.deepEqual(compareLosses(a, losses([3, 1], [2, 4], [5, 7])), {
    shared: 2,
    first: { step: 1, a: 2, b: undefined },
    worst: { step: 2, relative: 0 },
  });
  assert.equal(compareLosses(a, losses([9, 1])).worst, null);
  assert.equal(compareLosses(losses([1, NaN]), losses([1, NaN])).first, null);
  const broken = compareLosses(losses([1, 1], [2, 1]), losses([1, NaN], [2, 1]));
  assert.deepEqual([broken.first, broken.worst!.relative], [{ step: 1, a: 1, b: NaN }, Infinity]);
});

Deno.test("readLosses() reads metrics files, their folders, and lists of losses", () => {
  withFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/metrics.jsonl`, '{"step":2,"loss":0.5,"kl":3}\n{"step":4,"loss":0.25}\n{"step":4,"iou":1}\n');
    assert.deepEqual(readLosses(`${folder}/metrics.jsonl`), losses([2, 0.5], [4, 0.25]));
    assert.deepEqual(readLosses(folder, "kl"), losses([2, 3]));
    assert.throws(
      () => readLosses(folder, "los"),
      /^Error: Cannot compare .*metrics\.jsonl: it has no los, it must be one of loss, kl, iou$/,
    );
    Deno.writeTextFileSync(`${folder}/a.txt`, "0.5\n0.25\nNaN\n");
    assert.deepEqual(readLosses(`${folder}/a.txt`), losses([1, 0.5], [2, 0.25], [3, NaN]));
    Deno.writeTextFileSync(`${folder}/b.txt`, "10 0.5\n 20\t1e-3\n");
    assert.deepEqual(readLosses(`${folder}/b.txt`), losses([10, 0.5], [20, 1e-3]));
    for (const line of ["step loss", "1 2 3", "0.5x"]) {
      Deno.writeTextFileSync(`${folder}/c.txt`, `0.5\n${line}\n`);
      assert.throws(
        () => readLosses(`${folder}/c.txt`),
        /^Error: Cannot compare .*c\.txt: line 2 is ".*", it must be a loss, or a step and a loss$/,
      );
    }
  });
});

Deno.test("loss_compare ends with status 1 at the first step that differs only if it is asked to", () => {
  withFolder((folder) => {
    const write = (name: string, text: string): string => (Deno.writeTextFileSync(`${folder}/${name}`, text), `${folder}/${name}`);
    const a = write("a.txt", "1\n2\n4\n"), b = write("b.txt", "1\n2\n5\n"), c = write("c.txt", "7 1\n");
    assert.deepEqual(run(a, a, "--assert-equal"), { code: 0, text: "3 steps, all equal to the bit\n" });
    assert.deepEqual(run(a, b, "--assert-equal"), { code: 1, text: `step 3: loss is 4 in ${a}, 5 in ${b}\n` });
    assert.deepEqual(run(a, b), {
      code: 0,
      text: "3 steps in common, the largest relative difference is 2.00e-1 at step 3; they differ from step 3 on\n",
    });
    assert.deepEqual(run(a, c), { code: 1, text: `${a} and ${c} have no step in common\n` });
    assert.deepEqual(run(a, c, "--assert-equal"), { code: 1, text: `step 1: loss is 1 in ${a}, absent in ${c}\n` });
    for (const wrong of [[a], [a, b, "--equal"]]) assert.equal(run(...wrong).code, 2);
  });
});
