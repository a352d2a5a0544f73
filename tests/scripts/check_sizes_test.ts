import { expectFaults } from "./project.ts";

Deno.test("check_sizes finds a file that is too long", () => {
  expectFaults("check_sizes.ts", { "lib/a.ts": "\n".repeat(400), "ffi/symbols.ts": "\n".repeat(1000) }, [
    [{ "kernels/cuda/b.cu": "\n".repeat(401) }, /^kernels\/cuda\/b\.cu has 401 lines, it must have at most 400\n/],
    [
      Object.fromEntries(Array.from({ length: 210 }, (_, i) => [`lib/x${i}.ts`, "\n".repeat(390)])),
      /^the project has \d+ lines, it must have at most 80000/,
    ],
  ]);
});
