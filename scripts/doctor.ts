/**
 * Says what this machine has and what is missing, each with a line of what to do. Status 0 where the CPU path works.
 *
 *   deno task doctor
 */
import { cublasLtVersion } from "../ffi/cublaslt.ts";
import { type Driver, readDriver } from "../ffi/cuda_driver.ts";
import { openCudart, probeCuda } from "../ffi/cudart.ts";
import { addressOf, glibcVersion, missingInstructions } from "../ffi/host.ts";
import { ncclVersion } from "../ffi/nccl.ts";
import { ABI_VERSION, type Device, kernelFolder, openKernels } from "../ffi/kernels.ts";
import { DTYPE } from "../lib/tensor/dtype.ts";
import { formatBytes } from "../lib/tensor/memory.ts";
import { ROOT } from "./files.ts";

/** The oldest of each that works: Deno, glibc, the driver's CUDA (that of the runtime linked into the kernels) and a GPU's compute capability. */
const OLDEST = { deno: [2, 9], glibc: [2, 35], cuda: 13000, capability: 8 };

/** One line of the table. A fault stops the CPU path; a note does not. */
interface Finding {
  what: string;
  state: "ok" | "note" | "fault";
  found: string;
  advice?: string;
}

/** A finding that is well, or else has the state and advice of `otherwise`. */
function finding(what: string, found: string, well: boolean, otherwise: { state: "note" | "fault"; advice: string }): Finding {
  return well ? { what, state: "ok", found } : { what, found, ...otherwise };
}

/** What `read` gives, or what it says where it throws. */
function attempt<T>(read: () => T): { value?: T; said: string } {
  try {
    return { value: read(), said: "" };
  } catch (error) {
    return { said: (error as Error).message };
  }
}

/** Whether a version such as "2.36" is at least [2, 35]. */
function atLeast(version: string, [major, minor]: number[]): boolean {
  const [a, b] = version.split(".").map(Number);
  return a > major || (a === major && b >= minor);
}

/** 13000 as "13.0". */
function cudaVersion(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor(version % 1000 / 10)}`;
}

function examineMachine(): Finding[] {
  const { os, arch } = Deno.build,
    { total, available } = Deno.systemMemoryInfo(),
    fault = (advice: string) => ({ state: "fault" as const, advice });
  const glibc = attempt(glibcVersion), missing = attempt(missingInstructions).value ?? [];
  return [
    finding(
      "Deno",
      Deno.version.deno,
      atLeast(Deno.version.deno, OLDEST.deno),
      fault(`Deno ${OLDEST.deno.join(".")} or newer: deno upgrade`),
    ),
    finding("platform", `${os} ${arch}`, `${os} ${arch}` === "linux x86_64", fault("the kernel libraries are for Linux on x86-64")),
    finding(
      "glibc",
      glibc.value ?? "none",
      atLeast(glibc.value ?? "0.0", OLDEST.glibc),
      fault(`glibc ${OLDEST.glibc.join(".")} or newer, as in Ubuntu 22.04 and Debian 12`),
    ),
    finding(
      "processor",
      `${navigator.hardwareConcurrency} cores, ${missing.length ? `without ${missing.join(", ")}` : "AVX2, FMA, F16C"}`,
      missing.length === 0,
      fault("a processor with AVX2: Intel since 2013, AMD since 2015"),
    ),
    { what: "memory", state: "ok", found: `${formatBytes(total)}, ${formatBytes(available)} free` },
  ];
}

/** Opens a device's libraries; on the CPU a kernel must also give the right answer. */
function examineKernels(device: Device): Finding {
  const { said } = attempt(() => {
    const kernels = openKernels(device), y = new Float32Array(3);
    if (device === "cuda") return;
    kernels.k_fill_fwd(addressOf(y), 3n, 1.5, DTYPE.f32, 0n);
    if (y.some((v) => v !== 1.5)) throw new Error(`Cannot trust the CPU kernels: a fill with 1.5 gives ${y}`);
  });
  return finding(`${device === "cpu" ? "CPU" : "CUDA"} kernels`, said || `ABI ${ABI_VERSION}, in ${kernelFolder().pathname}`, !said, {
    state: device === "cpu" ? "fault" : "note",
    advice: "git checkout kernels/prebuilt, or deno task build",
  });
}

function examineSources(): Finding {
  const { success } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-P=tools", "scripts/build.ts", "--check"],
    cwd: ROOT,
    stdout: "null",
    stderr: "null",
  }).outputSync();
  return finding("kernel sources", success ? "the libraries were built from them" : "changed since the libraries were built", success, {
    state: "note",
    advice: "deno task build, if you want the changes",
  });
}

function describeGpu({ name, capability, memory }: Driver["gpus"][number], index: number): Finding {
  return finding(
    `GPU ${index}`,
    `${name}, compute capability ${capability.join(".")}, ${formatBytes(memory)}`,
    capability[0] >= OLDEST.capability,
    { state: "note", advice: `the CUDA kernels need compute capability ${OLDEST.capability}.0 (Ampere) or newer; --device cpu works` },
  );
}

function examineCuda(): Finding[] {
  const note = (advice: string) => ({ state: "note" as const, advice }),
    { value: driver } = attempt(readDriver),
    version = new Int32Array(1);
  if (!driver) {
    return [
      finding("NVIDIA driver", "none", false, note("only for a GPU: install the NVIDIA driver 580 or newer; the CPU path needs none")),
    ];
  }
  const runtime = attempt(() => openCudart().cudaRuntimeGetVersion(version)),
    probe = probeCuda(),
    lt = attempt(cublasLtVersion),
    nccl = attempt(ncclVersion);
  return [
    finding(
      "NVIDIA driver",
      `runs CUDA up to ${cudaVersion(driver.version)}`,
      driver.version >= OLDEST.cuda,
      note(`the CUDA kernels need a driver for CUDA ${cudaVersion(OLDEST.cuda)}: 580 or newer`),
    ),
    ...driver.gpus.map(describeGpu),
    finding(
      "CUDA runtime",
      runtime.said || cudaVersion(version[0]),
      !runtime.said,
      note("install libcudart (CUDA 12 or 13), or set CUDA_HOME"),
    ),
    finding(
      "CUDA devices",
      probe.reason || "can be used",
      probe.available,
      note("is a GPU visible? See CUDA_VISIBLE_DEVICES and nvidia-smi"),
    ),
    finding("cuBLASLt", lt.said || `${lt.value}`, !lt.said, note("install libcublasLt (CUDA 12 or 13), or set CUDA_HOME")),
    finding(
      "NCCL",
      nccl.said || `${nccl.value}`,
      !nccl.said,
      note("only for several GPUs: install libnccl 2 (libnccl2), or add its folder to LD_LIBRARY_PATH"),
    ),
  ];
}

/** The first line that a command prints that matches; null where it cannot be run. */
function versionOf(command: string, match: RegExp): string | null {
  const { value } = attempt(() => new Deno.Command(command, { args: ["--version"], stderr: "null" }).outputSync());
  return value ? new TextDecoder().decode(value.stdout).match(match)?.[0] ?? "of unknown version" : null;
}

function examineTools(): Finding[] {
  const eigen = attempt(() => Deno.statSync("/usr/include/eigen3/Eigen/Core")).value;
  const found: [name: string, version: string | null, advice: string][] = [
    ["nvcc", versionOf("nvcc", /release [\d.]+/), "the CUDA 13 toolkit"],
    ["g++", versionOf("g++", /\d+\.\d+\.\d+/), "g++ 11 or newer"],
    ["Eigen", eigen ? "in /usr/include/eigen3" : null, "libeigen3-dev"],
  ];
  return found.map(([what, version, advice]) =>
    finding(what, version ?? "none", version !== null, { state: "note", advice: `only to build the kernels: install ${advice}` })
  );
}

function examinePermissions(): Finding {
  const names = ["ffi", "read", "write", "env", "sys", "run"] as const;
  const states = names.map((name) => [name, Deno.permissions.querySync({ name }).state] as const);
  const refused = states.filter(([, state]) => state !== "granted").map(([name]) => name);
  return finding("permissions", refused.length ? `without ${refused.join(", ")}` : names.join(", "), refused.length === 0, {
    state: "note",
    advice: "run it as deno task doctor",
  });
}

function show(findings: Finding[]): void {
  const width = Math.max(...findings.map(({ what }) => what.length));
  for (const { what, state, found, advice } of findings) {
    console.log(`${state.padEnd(5)}  ${what.padEnd(width)}  ${found}`);
    if (advice) console.log(`${" ".repeat(width + 7)}  -> ${advice}`);
  }
}

if (import.meta.main) {
  const machine = examineMachine(), kernels = examineKernels("cpu"), cuda = [examineKernels("cuda"), ...examineCuda()];
  show([...machine, kernels, examineSources(), ...cuda, ...examineTools(), examinePermissions()]);
  const works = [...machine, kernels].every(({ state }) => state !== "fault"), gpu = works && cuda.every(({ state }) => state === "ok");
  console.log(
    works ? `\nThe CPU path works${gpu ? ", and so does the GPU path." : "; the GPU path does not."}` : "\nThe CPU path does not work.",
  );
  if (!works) Deno.exit(1);
}
