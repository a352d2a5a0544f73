import assert from "node:assert/strict";
import { runRanks } from "../dist/ranks.ts";
import { type ProgramOptions, runProgram } from "../program.ts";
import { parseTraining, splitOverrides, trainingCommand } from "../../lib/train/cli.ts";

const SIZES = {
  tiny: { data: { root: "out" }, steps: 10, batch: { size: 4 } },
  small: { data: { root: "out" }, steps: 77, batch: { size: 16 } },
};

/** Runs a program that has the command-line module at hand: its status and what it writes to stderr. */
function run(text: string, options: ProgramOptions = {}): { code: number; stderr: string } {
  const { code, stderr } = runProgram(`import * as cli from("lib/train/cli.ts"); ${text}`, options);
  return { code, stderr };
}

Deno.test("splitOverrides() takes settings of the config out of the arguments", () => {
  const split = (...args: string[]) => splitOverrides(args, ["steps", "seed"]);
  assert.deepEqual(split("--output", "x", "--batch.size=4", "--steps", "5", "--optimizer.lr", "1e-4", "--ckpt=none", "rest"), {
    overrides: ["batch.size=4", "steps=5", "optimizer.lr=1e-4"],
    rest: ["--output", "x", "--ckpt=none", "rest"],
  });
  assert.deepEqual(split("--a.b=", "--seed=-1", "--a.c=x=y\nz"), { overrides: ["a.b=", "seed=-1", "a.c=x=y\nz"], rest: [] });
  assert.deepEqual(split("--data", "./a.b/c.d", "-x.y=1"), { overrides: [], rest: ["--data", "./a.b/c.d", "-x.y=1"] });
  assert.deepEqual(split("--", "--steps=1", "--", "b"), { overrides: ["steps=1"], rest: ["--", "b"] }, "deno task hands the first on");
  assert.deepEqual(split("--optimizer.lr", "-1"), { overrides: ["optimizer.lr=-1"], rest: [] });
  for (const args of [["--batch.size"], ["--steps", "--seed=3"]]) {
    assert.throws(() => splitOverrides(args, ["steps"]), {
      name: "ConfigError",
      message: /^Cannot read --.*: its value is missing, it must be --/,
    });
  }
});

Deno.test("parseTraining() parses flags, and makes settings of --data and of the config's own keys", () => {
  const parse = (...args: string[]) => parseTraining(trainingCommand("train:ss-vae", "Trains.", SIZES), args, SIZES);
  assert.deepEqual(parse(), {
    flags: { output: "runs/ss_vae", size: "tiny", ckpt: "latest", rankTimeout: "60" },
    config: { size: "tiny", file: undefined, overrides: [] },
  });
  const { flags, config } = parse(
    "--size",
    "small",
    "--data",
    "a,b",
    "--output",
    "o",
    "--steps",
    "5",
    "--batch.size=2",
    "--memory-limit=2GiB",
  );
  assert.deepEqual([flags.output, flags.memoryLimit], ["o", "2GiB"]);
  assert.deepEqual(config, { size: "small", file: undefined, overrides: ['data.root="a,b"', "steps=5", "batch.size=2"] });
});

Deno.test("trainingCommand() shows the settings of the chosen size in its help, and refuses a flag that it does not know", () => {
  const text = `import * as cli from("lib/train/cli.ts");
    const sizes = ${JSON.stringify(SIZES)};
    cli.parseTraining(cli.trainingCommand("train:x", "Trains.", sizes), Deno.args, sizes);`;
  const { code, stdout } = runProgram(text, { args: ["--size", "small", "--help"] });
  assert.equal(code, 0);
  assert.equal(runProgram(text, { args: ["--help", "--size=small"] }).stdout, stdout);
  assert.match(runProgram(text, { args: ["--help"] }).stdout, /--steps=10\n/);
  assert.match(stdout, /^Usage: train:x \[options\]\n\nTrains\.\n/);
  assert.match(stdout, / {2}--data\.root="out"\n {2}--steps=77\n {2}--batch\.size=16\n/);
  const wrong = runProgram(text, { args: ["--nonsense"] });
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /unknown option '--nonsense'[\s\S]*--help lists the options/);
});

Deno.test("runRecipe() ends an expected error with one line, and a fault of ours with its stack", () => {
  const message = 'throw new RangeError("Cannot train: steps is 0, it must be 1 or more")';
  const expected = run(`await cli.runRecipe(async () => { ${message} });`);
  assert.deepEqual(expected, { code: 1, stderr: "error: Cannot train: steps is 0, it must be 1 or more\n" });
  const user = run(`await cli.runRecipe(async () => { throw new cli.UserError("no such picture") });`);
  assert.deepEqual(user, { code: 1, stderr: "error: no such picture\n" });
  const file = run(`await cli.runRecipe(async () => Deno.mkdirSync("deno.json/run"));`);
  assert.deepEqual([file.code, file.stderr.split("\n").length], [1, 2]);
  assert.match(file.stderr, /^error: Cannot use a file or folder: the system says "Not a directory .*'deno.json\/run'", it must be there/);
  const debug = run(`await cli.runRecipe(async () => { ${message} });`, { env: { DEBUG: "1" } });
  assert.equal(debug.code, 1);
  assert.match(debug.stderr, /^RangeError: Cannot train: [^\n]*\n {4}at /);
  const fault = run("await cli.runRecipe(async () => { undefined.x });");
  assert.equal(fault.code, 1);
  assert.match(fault.stderr, /^TypeError: Cannot read properties of undefined [^\n]*\n {4}at /);
  assert.deepEqual(run("await cli.runRecipe(async () => {});"), { code: 0, stderr: "" });
});

Deno.test("runRecipe() says with its stack which process went missing, and where this one waited", async () => {
  const outcomes = await runRanks(
    2,
    `import { runRecipe } from("lib/train/cli.ts");
    await runRecipe(async () => { if (rank === 1) Deno.exit(3); ranks.exchange(1); });`,
  );
  assert.deepEqual(outcomes.map(({ code }) => code), [1, 3]);
  assert.match(outcomes[0].stderr, /^KernelError: [^\n]*rank 1 closed its connection during all_gather[^\n]*\n {4}at /);
});

Deno.test("openDeviceFrom() takes the device of the flag before that of DEVICE", () => {
  const open = (flags: string, DEVICE: string) =>
    run(`await cli.runRecipe(async () => cli.openDeviceFrom(${flags}));`, { env: { DEVICE } });
  assert.deepEqual(open('{ device: "cpu" }', "nonsense"), { code: 0, stderr: "" });
  assert.deepEqual(open("{}", "gpu"), {
    code: 1,
    stderr: 'error: Cannot open a device: DEVICE (or --device) is "gpu", it must be cpu, cuda or auto\n',
  });
  assert.match(open('{ device: "cpu", memoryLimit: "lots" }', "").stderr, /^error: Cannot read a memory size: it is "lots", it must be/);
});
