/**
 * Runs tests on a GPU under the tools of NVIDIA's compute-sanitizer, and says in one line for each tool and file what it found. Status 1 where
 * a tool or a test finds a fault, or a run does not finish.
 *
 *   deno task sanitize [-- memcheck racecheck tests/ops/rms_norm_test.ts … --filter=text-or-/pattern/ --limit=120]
 *
 * Without tools all four run; without files those of attention, with the tests that finish in a minute each. `--limit`: seconds a run.
 */
import { ROOT } from "./files.ts";

/** The tools, and what they are told. What synccheck finds out by itself of the barriers of a block is too few where their number is not fixed. */
const TOOLS: Record<string, string[]> = {
  memcheck: [],
  racecheck: [],
  initcheck: [],
  synccheck: ["--num-cuda-barriers", "1024"],
};
/** Tests of attention at small sizes that take each of its kernels, at each width. */
const ATTENTION: Record<string, string> = {
  "tests/ops/attention_test.ts": "/(over 130 keys|packed context|as good as -inf) on CUDA/",
  "tests/ops/attention_sequences_test.ts": "/(of ragged sequences|of windows|through row maps).* on CUDA/",
};

/** What one run came to. */
interface Outcome {
  well: boolean;
  says: string;
  /** What the tool and the tests printed, where there is something to look at. */
  output: string;
}

function findTool(): string {
  for (const path of [...(Deno.env.get("PATH") ?? "").split(":"), `${Deno.env.get("CUDA_HOME") ?? "/usr/local/cuda"}/bin`]) {
    try {
      if (Deno.statSync(`${path}/compute-sanitizer`).isFile) return `${path}/compute-sanitizer`;
    } catch { /* the next place */ }
  }
  console.error("Cannot sanitize: compute-sanitizer is not on the PATH or in CUDA_HOME/bin, install the CUDA 13 toolkit or set CUDA_HOME");
  Deno.exit(1);
}

async function sanitize(program: string, tool: string, file: string, filter: string | undefined, limit: number): Promise<Outcome> {
  const tests = ["test", "-q", "-P=test", "--no-check", ...filter ? [`--filter=${filter}`] : [], file];
  const child = new Deno.Command(program, {
    args: ["--tool", tool, "--target-processes", "application-only", "--print-limit", "20", ...TOOLS[tool], Deno.execPath(), ...tests],
    cwd: ROOT,
    env: { DEVICE: "cuda", NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGTERM");
  }, limit * 1000);
  const { success, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const output = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  const counts = output.match(/(\d+) passed.*?\| (\d+) failed/), found = output.match(/(?:ERROR|RACECHECK) SUMMARY: (.*)/)?.[1];
  const reports = (output.match(/^========= (?:Error|Warning|Uninitialized|Invalid|Barrier|Program hit).*/gm) ?? []).length;
  const clean = found !== undefined && /^0 (?:errors|hazards displayed \(0 errors, 0 warnings\))/.test(found) && reports === 0;
  if (late) return { well: false, says: `cut off after ${limit} s, ${reports} reports until then`, output: reports ? output : "" };
  if (!counts || found === undefined) return { well: false, says: "died", output };
  const none = counts[1] === "0" && counts[2] === "0";
  const well = success && clean && !none;
  return { well, says: `${found}; ${none ? "no test ran" : counts[0]}`, output: well ? "" : output };
}

const words = Deno.args.filter((a) => a !== "--"),
  option = (name: string) => words.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);
const limit = Number(option("limit") ?? 120), filter = option("filter");
const unknown = words.find((a) => !(a in TOOLS) && !a.endsWith("_test.ts") && !/^--(filter|limit)=/.test(a));
if (unknown !== undefined || !(limit > 0)) {
  console.error(
    unknown === undefined
      ? `Cannot sanitize: --limit is ${option("limit")}, it must be a number of seconds`
      : `Cannot sanitize: an argument is ${unknown}, it must be one of ${
        Object.keys(TOOLS).join(", ")
      }, a file *_test.ts, --filter=, --limit=`,
  );
  Deno.exit(1);
}
const tools = Object.keys(TOOLS).filter((t) => words.includes(t)), files = words.filter((a) => a.endsWith("_test.ts"));
const runs = files.length ? files.map((file): [string, string | undefined] => [file, filter]) : Object.entries(ATTENTION);
const program = findTool();
let faults = 0;
for (const tool of tools.length ? tools : Object.keys(TOOLS)) {
  for (const [file, only] of runs) {
    const began = performance.now(), { well, says, output } = await sanitize(program, tool, file, only, limit);
    console.log(`${well ? "ok    " : "FAILED"}  ${tool}  ${file}  ${says}  ${((performance.now() - began) / 1000).toFixed(1)} s`);
    if (output) console.log(output.slice(0, 6000));
    if (!well) faults++;
  }
}
if (faults) Deno.exit(1);
