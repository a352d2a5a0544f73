import assert from "node:assert/strict";
import { withFailure } from "../../bench/capped_memory.ts";
import { namer } from "../../lib/memory/classes.ts";
import { CARDS } from "../../lib/memory/cards.ts";
import { chooseLevel, givenUp, simulateLevel, surveyPass } from "../../lib/memory/plan.ts";
import { device } from "../../lib/tensor/device.ts";
import { OutOfMemoryError } from "../../lib/tensor/memory.ts";
import { type Recipe, withChoice } from "../../lib/tensor/storage.ts";
import { booked, Ledger } from "../../lib/tensor/tape.ts";
import { expectSameBits } from "../gradients.ts";
import { FP8_MODELS, MODELS } from "./passes.ts";

for (const [name, make] of Object.entries({ ...MODELS, ...FP8_MODELS })) {
  Deno.test(`every level of a ${name} model's ladder has its simulated peak and the same gradients to the bit`, () => {
    const model = make(), sizes = [120, 200], { memory } = device();
    model.run(sizes, (pass) => pass());
    model.takeGradients();
    model.run(sizes, (pass) => pass({ recompute: 6 }));
    const want = model.takeGradients();
    model.run(sizes, (pass) => {
      const ladder = surveyPass(pass);
      assert.ok(ladder.classes.length >= 6 && ladder.peaks.length === ladder.classes.length + 1);
      assert.equal(ladder.classes.some((c) => c.kind === "head norm"), name in FP8_MODELS);
      assert.equal(ladder.levels, ladder.classes.reduce((n, c) => n + c.blocks, 0));
      let before = Infinity;
      for (let level = 0; level <= ladder.levels; level += 3) {
        const { peak } = simulateLevel(pass, ladder, level)!;
        memory.resetPeak();
        withChoice(chooseLevel(ladder, level), pass);
        const measured = memory.use().peak;
        assert.ok(
          Math.abs(measured - peak) / peak <= (device().name === "cpu" ? 0 : 0.002),
          `level ${level}: ${peak} predicted, ${measured} measured`,
        );
        expectSameBits({ flat: model.takeGradients() }, { flat: want }, `level ${level}`);
        if (level) assert.ok(givenUp(ladder, level).reduce((n, g) => n + g.blocks, 0) === level);
        assert.ok(peak <= before * 1.01);
        before = peak;
      }
      const made = ladder.peaks.map((p) => p - memory.use().used);
      assert.ok(made.at(-1)! < 0.75 * made[0], `${made}`);
      return 0;
    });
    model.free();
  });
}

Deno.test("a ladder that brings tensors to the host has its simulated peaks and the same gradients to the bit", () => {
  const slow = { ...CARDS.H100, host: 1e11, products32: 1e11 }; // time enough for some copies
  for (const make of Object.values(MODELS)) {
    const model = make(), sizes = [300, 300], { memory } = device();
    model.run(sizes, (pass) => pass());
    model.run(sizes, (pass) => (model.takeGradients(), pass({ recompute: 6 })));
    const want = model.takeGradients();
    model.run(sizes, (pass) => {
      const ladder = surveyPass(pass, { card: slow, offload: true, leastCopy: 1 }),
        away = ladder.classes.filter((c) => c.how === "offload");
      for (const level of [2, ladder.levels]) {
        const { peak, parked } = simulateLevel(pass, ladder, level, slow)!;
        memory.resetPeak();
        withChoice(chooseLevel(ladder, level), pass);
        assert.ok(Math.abs(memory.use().peak - peak) / peak <= (device().name === "cpu" ? 0 : 0.002));
        expectSameBits({ flat: model.takeGradients() }, { flat: want }, `level ${level}`);
        assert.ok(away.length > 0 && parked > 0);
      }
      return 0;
    });
    model.free();
  }
});

Deno.test("a pass that fails while tensors wait on the host can run again, with the same gradients to the bit", () => {
  const slow = { ...CARDS.H100, host: 1e11, products32: 1e11 };
  for (const make of Object.values(MODELS)) {
    const model = make(), sizes = [60, 60], { memory } = device();
    model.run(sizes, (pass) => pass());
    model.takeGradients();
    model.run(sizes, (pass) => {
      const ladder = surveyPass(pass, { card: slow, offload: true, leastCopy: 1 });
      const attempt = (): number => withChoice(chooseLevel(ladder, ladder.levels), pass);
      const before = memory.use().used, loss = attempt(), want = model.takeGradients();
      let failures = 0;
      for (let n = 40; n < 4000; n += 61) {
        const book = new Ledger();
        try {
          booked(book, () => withFailure(n, attempt));
          model.takeGradients();
          break; // past the last allocation
        } catch (error) {
          assert.ok(error instanceof OutOfMemoryError);
          failures++;
          memory.trim();
          book.again();
          assert.equal(booked(book, attempt), loss);
          expectSameBits({ flat: model.takeGradients() }, { flat: want }, `allocation ${n}`);
          assert.equal(memory.use().used, before);
        }
      }
      assert.ok(failures > 5, `${failures} failures`);
      return 0;
    });
    model.free();
  }
});

Deno.test("a ladder is of one kind of pass: another has no such simulation", () => {
  const [dense, sparse] = Object.values(MODELS).map((make) => make());
  const ladder = dense.run([1], (pass) => surveyPass(pass) as unknown as number) as unknown as ReturnType<typeof surveyPass>;
  assert.ok(dense.run([1, 1], (pass) => simulateLevel(pass, ladder, 1)!.peak) > 0);
  sparse.run([30], (pass) => {
    assert.equal(simulateLevel(pass, ladder, 1), null);
    return 0;
  });
  dense.free(), sparse.free();
});

Deno.test("namer() numbers tensors by stack, block and place", () => {
  const name = namer(), recipe = (kind: Recipe["kind"]): Recipe => ({ kind, from: [], fill: () => {} });
  const names = [[undefined, "linear"], [0, "norm"], [0, "linear"], [1, "norm"], [undefined, "norm"], [0, "norm"], [1, "norm"]] as const;
  assert.deepEqual(names.map(([block, kind]) => name(recipe(kind), block)), [
    ...["-/0 linear", "1/0 norm", "1/1 linear", "1/0 norm", "-/1 norm", "2/0 norm", "2/0 norm"],
  ]);
});
