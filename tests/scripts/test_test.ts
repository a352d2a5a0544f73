import assert from "node:assert/strict";
import { type Project, withProject } from "./project.ts";

function withTests(body: (project: Project) => void): void {
  withProject(["test.ts", "files.ts"], (project) => {
    const permissions = { test: { read: true, run: true, sys: true } };
    project.write("deno.json", JSON.stringify({ permissions, test: { include: ["tests/"], permissions: "test" } }));
    project.write("tests/good/a_test.ts", 'Deno.test("one", () => {});\nDeno.test({ name: "two", ignore: true, fn: () => {} });\n');
    project.write("tests/good/deeper/b_test.ts", 'Deno.test("three", () => {});\n');
    body(project);
  });
}

Deno.test("test runs the folders one by one and adds up their results", () => {
  withTests((project) => {
    const { code, text } = project.run("test.ts");
    assert.equal(code, 0, text);
    assert.match(
      text,
      /^ok +tests\/good +2 passed \| 0 failed \| 1 ignored +[\d.]+ s\n1 tests were skipped: .*\n2 passed, 0 failed, 1 skipped\n$/,
    );
  });
});

Deno.test("test goes on after a failure and after a process that dies, and ends with status 1", () => {
  withTests((project) => {
    project.write("tests/bad/a_test.ts", 'Deno.test("wrong", () => {\n  throw new Error("this went wrong");\n});\n');
    project.write("tests/crash/a_test.ts", 'Deno.test("crash", () => Deno.kill(Deno.pid, "SIGKILL"));\n');
    const { code, text } = project.run("test.ts");
    assert.equal(code, 1);
    assert.match(text, /^FAILED +tests\/bad +0 passed \| 1 failed/);
    assert.match(text, /this went wrong/);
    assert.match(text, /\nFAILED +tests\/crash +no summary: the process died/);
    assert.match(text, /\nok +tests\/good +2 passed/);
    assert.match(text, /\n2 passed, 2 failed, 1 skipped\n$/);
  });
});

Deno.test("test runs what it is given, with a flag, behind the -- of deno task", () => {
  withTests((project) => {
    const { code, text } = project.run("test.ts", { args: ["--", "tests/good/deeper/", "--filter=three"] });
    assert.equal(code, 0, text);
    assert.match(text, /^ok +tests\/good\/deeper +1 passed \| 0 failed +[\d.]+ s\n1 passed, 0 failed, 0 skipped\n$/);
    assert.match(project.run("test.ts", { args: ["tests/good", "--filter=nothing"] }).text, /\n?0 passed, 0 failed/);
  });
});
