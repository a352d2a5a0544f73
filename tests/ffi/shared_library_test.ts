import assert from "node:assert/strict";
import { cudaFolders, openCudaLibrary } from "../../ffi/shared_library.ts";
import { runProgram } from "../program.ts";

const SYMBOLS = { abs: { parameters: ["i32"], result: "i32" } } as const;

Deno.test("openCudaLibrary() opens the first name that there is", () => {
  const { abs } = openCudaLibrary(["libnothing.so.9", "libc.so.6"], SYMBOLS, { what: "the C library", purpose: "is there" });
  assert.equal(abs(-3), 3);
});

Deno.test("openCudaLibrary() lists the names and places that it tried", () => {
  assert.throws(
    () => openCudaLibrary(["libnothing.so.9", "libnothing.so"], SYMBOLS, { what: "nothing", purpose: "does nothing" }),
    (e: Error) => {
      assert.match(
        e.message,
        /^Cannot open nothing, which does nothing: libnothing\.so\.9 or libnothing\.so is in none of the loader's path, /,
      );
      for (const folder of cudaFolders().slice(1)) assert.ok(e.message.includes(folder), folder);
      assert.match(e.message, /Install the CUDA 12 or 13 runtime libraries, or set CUDA_HOME to the toolkit, or use DEVICE=cpu$/);
      assert.doesNotMatch(e.message, /the system said/);
      return true;
    },
  );
});

Deno.test("openCudaLibrary() says what the system said where a library is there but cannot be used", () => {
  const symbols = { no_such_function: { parameters: [], result: "void" } } as const;
  assert.throws(
    () => openCudaLibrary(["libc.so.6"], symbols, { what: "a library", purpose: "is old" }),
    /\(the system said: .*no_such_function.*\)/,
  );
});

Deno.test("cudaFolders() looks in CUDA_HOME after the loader's path", () => {
  const text = 'import { cudaFolders } from("ffi/shared_library.ts"); console.log(JSON.stringify(cudaFolders().slice(0, 3)));';
  const { stdout } = runProgram(text, { env: { CUDA_HOME: "/somewhere/cuda" } });
  assert.deepEqual(JSON.parse(stdout), ["", "/somewhere/cuda/lib64/", "/somewhere/cuda/lib/"]);
});
