/**
 * Runs the tests, one process for each folder below tests/, so that a crash of native code ends one group and not the run.
 *
 *   deno task test [-- folder-or-file … --filter=text]
 */
import { ROOT } from "./files.ts";

const chosen = Deno.args.filter((a) => !a.startsWith("--")), flags = Deno.args.filter((a) => a.startsWith("--") && a !== "--");
const groups = chosen.length ? chosen.map((p) => p.replace(/\/$/, "")) : [...Deno.readDirSync(`${ROOT}tests`)]
  .filter((e) => e.isDirectory && [...Deno.readDirSync(`${ROOT}tests/${e.name}`)].some((f) => f.name.endsWith("_test.ts")))
  .map((e) => `tests/${e.name}`).sort();

let passed = 0, failed = 0, ignored = 0;
for (const group of groups) {
  const start = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "-q", "-P=test", "--no-check", ...flags, group],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  });
  const { success, stdout, stderr } = await child.output(), text = new TextDecoder().decode(stdout);
  const summary = text.match(/(\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed(?: \(\d+ steps?\))?(?: \| (\d+) ignored)?/);
  passed += Number(summary?.[1] ?? 0);
  failed += Number(summary?.[2] ?? 0) || (success ? 0 : 1);
  ignored += Number(summary?.[3] ?? 0);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${success ? "ok    " : "FAILED"}  ${group}  ${summary ? summary[0] : "no summary: the process died"}  ${seconds} s`);
  if (!success) console.log(text.slice(-8000) + new TextDecoder().decode(stderr).slice(-4000));
}
if (ignored) console.log(`${ignored} tests were skipped: their names say what they need (a GPU, reference files)`);
console.log(`${passed} passed, ${failed} failed, ${ignored} skipped`);
if (failed) Deno.exit(1);
