import assert from "node:assert/strict";
import { readDriver } from "../../ffi/cuda_driver.ts";
import { hasCuda } from "../../lib/tensor/device.ts";
import { type Outcome, runProgram } from "../program.ts";

const GPU = hasCuda();

/** A driver that stands in for NVIDIA's: two GPUs, or the status that cuInit is to give. */
const DRIVER = `
#include <stdlib.h>
#include <string.h>
static int status(void) { const char* s = getenv("FAKE_STATUS"); return s ? atoi(s) : 0; }
int cuInit(unsigned flags) { return flags ? 1 : status(); }
int cuDriverGetVersion(int* v) { *v = 13010; return 0; }
int cuDeviceGetCount(int* n) { *n = 2; return 0; }
int cuDeviceGet(int* d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetName(char* s, int n, int d) { strncpy(s, d == 40 ? "GPU of a long name" : "GPU B", n); return 0; }
int cuDeviceGetAttribute(int* v, int which, int d) { *v = which == 75 ? d - 32 : which == 76 ? d - 40 : -1; return 0; }
int cuDeviceTotalMem_v2(unsigned long* v, int d) { *v = (unsigned long)(d - 39) << 36; return 0; }
`;

const folder = Deno.makeTempDirSync({ prefix: "espalier-driver-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Whether the stand-in could be compiled. */
function compile(): boolean {
  Deno.writeTextFileSync(`${folder}/driver.c`, DRIVER);
  try {
    const args = ["-x", "c", "-shared", "-fPIC", "-o", `${folder}/libcuda.so.1`, `${folder}/driver.c`];
    return new Deno.Command("g++", { args, stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

const compiled = compile();

function run(text: string, env: Record<string, string> = {}): Outcome {
  return runProgram(`import { readDriver } from("ffi/cuda_driver.ts"); ${text}`, { env: { LD_LIBRARY_PATH: folder, ...env } });
}

Deno.test({
  name: `readDriver() gives the driver's version and every GPU${compiled ? "" : " (skipped: needs g++ for a stand-in)"}`,
  ignore: !compiled,
  fn: () => {
    const { stdout, stderr } = run("console.log(JSON.stringify(readDriver()));");
    assert.deepEqual(JSON.parse(stdout || stderr), {
      version: 13010,
      gpus: [
        { name: "GPU of a long name", capability: [8, 0], memory: 64 * 2 ** 30 },
        { name: "GPU B", capability: [9, 1], memory: 128 * 2 ** 30 },
      ],
    });
    assert.deepEqual(JSON.parse(run("console.log(JSON.stringify(readDriver()));", { FAKE_STATUS: "100" }).stdout), {
      version: 13010,
      gpus: [],
    });
    assert.match(run("readDriver();", { FAKE_STATUS: "3" }).stderr, /Error: Cannot run cuInit: the driver's status is 3, it must be 0/);
  },
});

Deno.test({
  name: `readDriver() lists a GPU${GPU ? "" : " (skipped: needs a GPU)"}`,
  ignore: !GPU,
  fn: () => {
    const { version, gpus } = readDriver();
    assert.ok(version >= 12000);
    assert.ok(gpus.length >= 1 && gpus.every(({ name, capability, memory }) => name.length > 0 && capability[0] >= 5 && memory > 2 ** 30));
  },
});
