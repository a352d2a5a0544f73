/**
 * Builds the kernel libraries into `kernels/prebuilt/<platform>/` and writes SOURCES there: for each library the SHA-256 of every source and
 * the compile line. A library whose SOURCES entry is up to date is left alone. Objects are cached in `.build/` by the hash of what they are made of.
 *
 *   deno task build [-- ops_cpu flash_attn_cuda … --force --no-write]    `--check` only compares SOURCES with the sources
 */
import { sha256 } from "./hash.ts";

const ROOT = decodeURIComponent(new URL("../", import.meta.url).pathname);
const PLATFORM = "linux-x86_64";
const PREBUILT = `${ROOT}kernels/prebuilt/${PLATFORM}/`;
const CACHE = `${ROOT}.build/`;

/** The families of each library; a family is `kernels/cpu/<name>.cpp` and `kernels/cuda/<name>.cu`. */
const FAMILIES: Record<string, { cpu: string[]; cuda: string[] }> = JSON.parse(Deno.readTextFileSync(`${ROOT}kernels/libraries.json`));
const CXX = [
  "g++",
  "-std=c++17",
  "-O3",
  "-mavx2",
  "-mfma",
  "-mf16c",
  "-ffp-contract=off",
  "-fopenmp",
  "-fPIC",
  "-fvisibility=hidden",
  "-Wall",
  "-Wextra",
  "-DEIGEN_DONT_PARALLELIZE",
  "-isystem",
  "/usr/include/eigen3",
];
const NVCC = [
  "nvcc",
  "-std=c++17",
  "-O3",
  "-Xcompiler",
  "-fPIC,-fvisibility=hidden",
  "-gencode",
  "arch=compute_80,code=[sm_80,compute_80]",
  "-gencode",
  "arch=compute_90a,code=sm_90a",
  "-Xptxas",
  "-warn-spills",
  "--compress-mode=size",
  "--expt-relaxed-constexpr",
  "--extended-lambda",
  "-cudart",
  "static",
  "-diag-suppress",
  "186,177",
];
const LINK_COMMON = ["-shared", "-Wl,--gc-sections", "-Wl,--no-undefined", "-Wl,-z,now", "-Wl,-z,nodelete", "-Wl,-rpath,$ORIGIN", "-s"];
const LINK_CPU = ["g++", ...LINK_COMMON, "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"];
const LINK_CPU_LIBS = ["-lpthread", "-lm"];
const LINK_CUDA = ["g++", ...LINK_COMMON, "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"];

function cudaHome(): string {
  for (const home of [Deno.env.get("CUDA_HOME"), "/usr/local/cuda", "/opt/cuda"]) {
    try {
      if (home && Deno.statSync(`${home}/lib64/libcudart_static.a`).isFile) return home;
    } catch { /* the next place */ }
  }
  throw new Error(
    "Cannot link a CUDA library: libcudart_static.a is not in CUDA_HOME or /usr/local/cuda, install the CUDA 13 toolkit or set CUDA_HOME",
  );
}

interface Target {
  name: string;
  device: "cpu" | "cuda";
  units: string[];
  sources: string[];
}

function listSources(device: string, units: string[]): string[] {
  const shared = [...Deno.readDirSync(`${ROOT}kernels/include`)].map((e) => `kernels/include/${e.name}`);
  const local = [...Deno.readDirSync(`${ROOT}kernels/${device}`)].filter((e) => /\.(hpp|cuh)$/.test(e.name)).map((e) =>
    `kernels/${device}/${e.name}`
  );
  return [...units, ...included(units, [...shared, ...local])].sort();
}

/** The headers among `candidates` that `units` include, directly or not. */
function included(units: string[], candidates: string[]): string[] {
  const found = new Set<string>(), queue = [...units];
  for (let file = queue.pop(); file; file = queue.pop()) {
    for (const [, name] of Deno.readTextFileSync(ROOT + file).matchAll(/^\s*#include "([^"]+)"/gm)) {
      const path = new URL(name, `file:///${file}`).pathname.slice(1);
      if (candidates.includes(path) && !found.has(path)) {
        found.add(path);
        queue.push(path);
      }
    }
  }
  return [...found];
}

function targets(): Target[] {
  return Object.entries(FAMILIES).flatMap(([library, families]) =>
    (["cpu", "cuda"] as const).map((device) => {
      const units = ["k", ...(device === "cpu" ? ["omp"] : []), ...families[device]].map((family) =>
        `kernels/${device}/${family}.${device === "cpu" ? "cpp" : "cu"}`
      );
      return { name: `${library}_${device}`, device, units, sources: listSources(device, units) };
    })
  );
}

async function run(command: string[]): Promise<void> {
  const { code, stderr, stdout } = await new Deno.Command(command[0], {
    args: command.slice(1),
    cwd: ROOT,
    stdout: "piped",
    stderr: "piped",
  }).output();
  const text = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
  if (text.trim()) console.error(text.trim());
  if (code !== 0) throw new Error(`Cannot build: "${command.join(" ")}" ended with status ${code}`);
}

async function hashOf(files: string[], extra: string): Promise<string> {
  const parts = await Promise.all(files.map(async (f) => `${await sha256(Deno.readFileSync(ROOT + f))}  ${f}`));
  return await sha256(new TextEncoder().encode(parts.join("\n") + extra));
}

async function compile(unit: string, device: "cpu" | "cuda"): Promise<string> {
  const flags = device === "cpu" ? CXX : NVCC;
  const object = `${CACHE}${await hashOf(listSources(device, [unit]), flags.join(" "))}.o`;
  try {
    Deno.statSync(object);
  } catch {
    console.error(`  ${flags[0]} ${unit}`);
    const part = `${object}.${crypto.randomUUID()}`;
    await run([...flags, "-c", unit, "-o", part]);
    Deno.renameSync(part, object);
  }
  return object;
}

/** SOURCES' text for one library. */
async function describe(target: Target): Promise<string> {
  const flags = target.device === "cpu" ? [...CXX, ...LINK_CPU.slice(1), ...LINK_CPU_LIBS] : [...NVCC, ...LINK_CUDA.slice(1)];
  const lines = await Promise.all(target.sources.map(async (f) => `  ${await sha256(Deno.readFileSync(ROOT + f))}  ${f}`));
  return `lib${target.name}.so\n  ${flags.join(" ")}\n${lines.join("\n")}\n`;
}

async function build(target: Target, output: string): Promise<void> {
  Deno.mkdirSync(CACHE, { recursive: true });
  const objects: string[] = [];
  for (let i = 0; i < target.units.length; i += 2) {
    objects.push(...await Promise.all(target.units.slice(i, i + 2).map((unit) => compile(unit, target.device))));
  }
  const file = `${output}lib${target.name}.so`, part = `${file}.${crypto.randomUUID()}`;
  if (target.device === "cpu") await run([...LINK_CPU, "-o", part, ...objects, ...LINK_CPU_LIBS]);
  else await run([...LINK_CUDA, "-o", part, ...objects, `-L${cudaHome()}/lib64`, "-lcudart_static", "-lrt", "-lpthread", "-ldl"]);
  Deno.renameSync(part, file);
}

function readSources(): Map<string, string> {
  try {
    const blocks = Deno.readTextFileSync(`${PREBUILT}SOURCES`).split(/^(?=lib)/m).filter((b) => b.startsWith("lib"));
    return new Map(blocks.map((block) => [block.slice(3, block.indexOf(".so")), block]));
  } catch {
    return new Map();
  }
}

if (import.meta.main) {
  const flags = new Set(Deno.args.filter((a) => a.startsWith("--"))), names = Deno.args.filter((a) => !a.startsWith("--"));
  const all = targets(), chosen = names.length ? all.filter((t) => names.includes(t.name)) : all;
  const unknown = names.filter((n) => !all.some((t) => t.name === n));
  if (unknown.length) {
    console.error(`Cannot build ${unknown.join(", ")}: it is no library, it must be one of ${all.map((t) => t.name).join(", ")}`);
    Deno.exit(2);
  }
  const recorded = readSources();
  let stale = 0;
  for (const target of chosen) {
    const entry = await describe(target);
    const fresh = recorded.get(target.name) === entry;
    if (flags.has("--check")) {
      if (!fresh) console.error(`Cannot accept lib${target.name}.so: SOURCES is older than its sources, run \`deno task build\``), stale++;
      continue;
    }
    if (flags.has("--no-write")) {
      Deno.mkdirSync(`${CACHE}out/`, { recursive: true });
      await build(target, `${CACHE}out/`);
      console.error(`built .build/out/lib${target.name}.so`);
      continue;
    }
    if (fresh && !flags.has("--force")) continue;
    Deno.mkdirSync(PREBUILT, { recursive: true });
    await build(target, PREBUILT);
    const now = readSources();
    now.set(target.name, entry);
    Deno.writeTextFileSync(`${PREBUILT}SOURCES`, [...now].sort(([a], [b]) => a < b ? -1 : 1).map(([, block]) => block).join(""));
    console.error(`built lib${target.name}.so`);
  }
  if (stale) Deno.exit(1);
}
