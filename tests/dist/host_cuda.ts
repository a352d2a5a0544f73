/** CUDA in the host's memory (host_cuda.cpp), for tests of copies between processes where there is no GPU. */
import assert from "node:assert/strict";

const HERE = new URL("./", import.meta.url).pathname, FFI = new URL("../../ffi/", import.meta.url).pathname;

/** Builds libcudart and libcuda into a folder, which goes with the process; undefined where there is no compiler. */
function buildHostCuda(): string | undefined {
  const folder = Deno.makeTempDirSync({ prefix: "espalier_host_cuda_" }), source = Deno.readTextFileSync(`${HERE}host_cuda.cpp`);
  const wanted = ["cudart.ts", "cuda_driver.ts"].flatMap((file) => Deno.readTextFileSync(FFI + file).match(/(?<=^ {2})cu\w+(?=: \{)/gm)!);
  const nothing = wanted.filter((name) => !source.includes(`${name}(`)).map((name) => `DOES_NOTHING(${name})`).join(" ");
  try {
    const { success, stderr } = new Deno.Command("g++", {
      args: [
        "-std=c++17",
        "-O1",
        "-shared",
        "-fPIC",
        `-DHOST_CUDA_NOTHING=${nothing}`,
        "-o",
        `${folder}/libcudart.so.13`,
        `${HERE}host_cuda.cpp`,
        "-lrt",
      ],
    }).outputSync();
    assert.ok(success, new TextDecoder().decode(stderr));
    Deno.copyFileSync(`${folder}/libcudart.so.13`, `${folder}/libcuda.so.1`);
    return folder;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Where they are, for LD_LIBRARY_PATH. */
export const HOST_CUDA = buildHostCuda();
addEventListener("unload", () => HOST_CUDA && Deno.removeSync(HOST_CUDA, { recursive: true }));
