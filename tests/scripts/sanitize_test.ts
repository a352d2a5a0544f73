import assert from "node:assert/strict";
import { type Project, withProject } from "./project.ts";

/** Stands in for compute-sanitizer: notes its arguments, and says of a file what its name stands for. */
const TOOL = `#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  *slow_test*) exec sleep 60;;
  *crash_test*) echo "========= COMPUTE-SANITIZER"; exit 1;;
  *race_test*) echo "========= Error: Race reported between Write access and Read access"; echo "ok | 3 passed | 0 failed (1s)"
    echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)";;
  *wrong_test*) echo "FAILED | 2 passed | 1 failed (1s)"; echo "========= ERROR SUMMARY: 0 errors"; exit 1;;
  *none_test*) echo "ok | 0 passed | 0 failed | 9 filtered out (1s)"; echo "========= ERROR SUMMARY: 0 errors";;
  *racecheck*) echo "ok | 3 passed | 0 failed (1s)"; echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)";;
  *) echo "ok | 3 passed | 0 failed (1s)"; echo "========= ERROR SUMMARY: 0 errors";;
esac
`;

function withTool(body: (sanitize: (...args: string[]) => { code: number; text: string; ran: string[] }, project: Project) => void): void {
  withProject(["sanitize.ts", "files.ts"], (project) => {
    project.write("bin/compute-sanitizer", TOOL);
    Deno.chmodSync(`${project.root}bin/compute-sanitizer`, 0o755);
    const log = `${project.root}log`;
    body((...args) => {
      Deno.writeTextFileSync(log, "");
      const outcome = project.run("sanitize.ts", { args, env: { PATH: `${project.root}bin:${Deno.env.get("PATH")}`, LOG: log } });
      return { ...outcome, ran: Deno.readTextFileSync(log).trim().split("\n").filter(Boolean) };
    }, project);
  });
}

Deno.test("sanitize runs each tool over each file, on CUDA, and says in a line what it found", () => {
  withTool((sanitize) => {
    const { code, text, ran } = sanitize("racecheck", "synccheck", "tests/a_test.ts", "tests/b_test.ts", "--filter=of sequences");
    assert.equal(code, 0, text);
    assert.deepEqual(ran.map((line) => line.match(/--tool (\w+)/)![1] + line.match(/ (\S+)$/)![1]), [
      "racechecktests/a_test.ts",
      "racechecktests/b_test.ts",
      "synccheck" + "tests/a_test.ts",
      "synccheck" + "tests/b_test.ts",
    ]);
    assert.match(ran[0], /--filter=of sequences/);
    assert.match(ran[2], /--num-cuda-barriers \d+/);
    assert.equal(text.trim().split("\n").length, 4, text);
    assert.match(text, /^ok {6}racecheck {2}tests\/a_test\.ts {2}0 hazards .*; 3 passed \| 0 failed {2}/);
    assert.equal(sanitize().ran.length, 8);
  });
});

Deno.test("sanitize fails where a tool reports, a test fails, none runs, the process dies or does not end", () => {
  withTool((sanitize) => {
    for (
      const [file, says] of [
        ["race", /1 hazard displayed[\s\S]*Race reported/],
        ["wrong", /2 passed \| 1 failed/],
        ["none", /no test ran/],
        ["crash", /died/],
        ["slow", /cut off after 0\.2 s, 0 reports until then/],
      ] as const
    ) {
      const { code, text } = sanitize("racecheck", `tests/${file}_test.ts`, file === "slow" ? "--limit=0.2" : "--limit=30");
      assert.equal(code, 1, file);
      assert.match(text, says);
      assert.match(text, /^FAILED/);
    }
  });
});

Deno.test("sanitize refuses arguments that it does not know", () => {
  withTool((sanitize) => {
    assert.match(
      sanitize("racechek").text,
      /Cannot sanitize: an argument is racechek, it must be one of memcheck, racecheck, initcheck, synccheck, a file/,
    );
    assert.match(sanitize("--limit=x").text, /Cannot sanitize: --limit is x, it must be a number of seconds/);
  });
});
