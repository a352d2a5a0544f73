/** The whole gate: every check, each in its own process, with a table at the end. */
import { ROOT } from "./files.ts";

const SCRIPT = ["run", "-q", "-P=tools"];
const CHECKS: [name: string, args: string[]][] = [
  ["format", ["fmt", "-q", "--check"]],
  ["lint", ["lint", "-q"]],
  ["types", ["check", "-q", "."]],
  ["generated symbols", [...SCRIPT, "scripts/gen_symbols.ts", "--check"]],
  ["layers", [...SCRIPT, "scripts/check_layers.ts"]],
  ["sizes", [...SCRIPT, "scripts/check_sizes.ts"]],
  ["test mirror", [...SCRIPT, "scripts/check_mirror.ts"]],
  ["prebuilt sources", [...SCRIPT, "scripts/build.ts", "--check"]],
  ["viewer bundle", [...SCRIPT, "scripts/build_viewer.ts", "--check"]],
  ["docs", [...SCRIPT, "scripts/check_docs.ts"]],
];

const results: [string, boolean][] = [];
for (const [name, args] of CHECKS) {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stdout: "piped", stderr: "piped" })
    .output();
  results.push([name, success]);
  console.error(`${success ? "ok    " : "FAILED"}  ${name}`);
  if (!success) console.error((new TextDecoder().decode(stdout).slice(-6000) + new TextDecoder().decode(stderr).slice(-6000)).trim());
}
const failed = results.filter(([, ok]) => !ok).length;
console.log(`${results.length - failed} checks passed, ${failed} failed`);
if (failed) Deno.exit(1);
