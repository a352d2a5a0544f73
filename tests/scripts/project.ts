/** A small project in a temporary folder, for the scripts that look at the whole of one. */
import assert from "node:assert/strict";

/** What a script did. */
export interface Outcome {
  code: number;
  text: string;
}

/** A project: its root and what can be done with it. */
export interface Project {
  root: string;
  write(path: string, text: string): void;
  /** Runs one of its scripts. */
  run(script: string, options?: { args?: string[]; env?: Record<string, string> }): Outcome;
}

/** Runs `body` with a new project that has the scripts named, in a folder with a space in its name. */
export function withProject(scripts: string[], body: (project: Project) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-project-" }), root = `${folder}/a project/`;
  const write = (path: string, text: string): void => {
    Deno.mkdirSync(`${root}${path}`.replace(/[^/]*$/, ""), { recursive: true });
    Deno.writeTextFileSync(root + path, text);
  };
  for (const name of scripts) write(`scripts/${name}`, Deno.readTextFileSync(new URL(`../../scripts/${name}`, import.meta.url)));
  try {
    body({
      root,
      write,
      run: (script, { args = [], env = {} } = {}) => {
        const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), {
          args: ["run", "-q", "-A", "--no-check", "--no-config", `scripts/${script}`, ...args],
          cwd: root,
          env: { NO_COLOR: "1", ...env },
        }).outputSync();
        return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
      },
    });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** A project in which all is well. */
export const GOOD = {
  "ffi/host.ts": "export function openLibc(): void {}\n",
  "lib/ops/add.ts": 'import { openLibc } from "../../ffi/host.ts";\nexport function add(): void { openLibc(); }\n',
  "lib/nn/linear.ts": 'import { add } from "../ops/add.ts";\nexport function linear(): void { add(); }\n',
  "lib/io/png.ts": "export const X = 1;\n",
  "tests/ffi/host_test.ts": 'import { openLibc } from "../../ffi/host.ts";\n',
  "tests/ops/add_test.ts": 'import { add } from "../../lib/ops/add.ts";\n',
  "tests/nn/layers_test.ts": 'import { linear } from "../../lib/nn/linear.ts";\n',
};

/** Runs a check of a project in which all is well, then with each fault in turn. */
export function expectFaults(
  script: string,
  good: Record<string, string>,
  faults: [files: Record<string, string>, message: RegExp][],
): void {
  const fill = (project: Project, files: Record<string, string>) =>
    Object.entries(files).forEach(([path, text]) => project.write(path, text));
  withProject(["files.ts", script], (project) => {
    fill(project, good);
    const { code, text } = project.run(script);
    assert.equal(code, 0, text);
    assert.match(text, /: ok\n$/);
  });
  for (const [files, message] of faults) {
    withProject(["files.ts", script], (project) => {
      fill(project, { ...good, ...files });
      const { code, text } = project.run(script);
      assert.equal(code, 1, text);
      assert.match(text, message);
    });
  }
}
