/** Short programs in a process of their own: for what writes to the terminal, ends the process or depends on the environment. */
const ROOT = new URL("../", import.meta.url);

/** What a program did. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Options of {@linkcode runProgram}. */
export interface ProgramOptions {
  args?: string[];
  env?: Record<string, string>;
}

/** The command that runs `code`, a module in which `from("lib/...")` gives the address of a module of the project. */
export function program(code: string, { args = [], env = {} }: ProgramOptions = {}): Deno.Command {
  const script = code.replace(/from\("([^"]+)"\)/g, (_, path) => `from ${JSON.stringify(new URL(path, ROOT).href)}`);
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", "--no-check", "--config", "deno.json", `data:application/javascript,${encodeURIComponent(script)}`, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs `code` to its end; see {@linkcode program}. */
export function runProgram(code: string, options: ProgramOptions = {}): Outcome {
  const { code: status, stdout, stderr } = program(code, options).outputSync(), decoder = new TextDecoder();
  return { code: status, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}
