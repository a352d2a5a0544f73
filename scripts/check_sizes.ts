/** Fails on a hand-written file over 400 lines and on a project over its budget of lines. */
import { listFiles, report, ROOT } from "./files.ts";

const MOST_LINES = 400, MOST_IN_ALL = 80_000;
const GENERATED = ["ffi/symbols.ts"];

let total = 0;
const faults: string[] = [];
for (const file of listFiles("", [".ts", ".cu", ".cuh", ".cpp", ".hpp", ".h", ".c", ".py"])) {
  if (GENERATED.includes(file)) continue;
  const lines = Deno.readTextFileSync(ROOT + file).split("\n").length - 1;
  total += lines;
  if (lines > MOST_LINES) faults.push(`${file} has ${lines} lines, it must have at most ${MOST_LINES}`);
}
if (total > MOST_IN_ALL) faults.push(`the project has ${total} lines, it must have at most ${MOST_IN_ALL}: growth is a decision`);
report(`sizes (${total} lines)`, faults);
