/** The C ABI from C itself: the example in kernels/examples, and the headers as a C compiler reads them. */
import assert from "node:assert/strict";
import { kernelFolder } from "../../ffi/kernels.ts";

const ROOT = decodeURIComponent(new URL("../../", import.meta.url).pathname);

/** Runs a command of the system; null where there is no such program. */
function run(command: string, args: string[]): { code: number; text: string } | null {
  try {
    const { code, stdout, stderr } = new Deno.Command(command, { args, cwd: ROOT }).outputSync();
    return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

const compiler = ["cc", "gcc", "clang"].find((name) => run(name, ["--version"])?.code === 0);
const missing = { suffix: compiler ? "" : " (needs a C compiler)", ignore: !compiler };

const FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", `-I${ROOT}kernels/include`];

/** Runs `body` with a temporary folder. */
function inFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-c-" });
  try {
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test({
  name: `kernels/examples/attention.c compiles without a warning and computes attention${missing.suffix}`,
  ignore: missing.ignore,
  fn: () =>
    inFolder((folder) => {
      const libraries = decodeURIComponent(kernelFolder().pathname), program = `${folder}/attention`;
      const link = [`${libraries}libflash_attn_cpu.so`, `-Wl,-rpath,${libraries}`, "-lm"];
      assert.deepEqual(run(compiler!, [...FLAGS, "kernels/examples/attention.c", ...link, "-o", program]), { code: 0, text: "" });
      const { code, text } = run(program, [])!;
      assert.match(text, /^the greatest error is \d\.\de-\d\d\n$/);
      assert.equal(code, 0);
    }),
});

Deno.test({
  name: `the headers of the C ABI are C${missing.suffix}`,
  ignore: missing.ignore,
  fn: () =>
    inFolder((folder) => {
      const headers = [...Deno.readDirSync(`${ROOT}kernels/include`)].map((e) => e.name).filter((n) => n.endsWith(".h"));
      Deno.writeTextFileSync(`${folder}/all.c`, headers.map((name) => `#include "${name}"\n`).join(""));
      assert.deepEqual(run(compiler!, [...FLAGS, "-fsyntax-only", `${folder}/all.c`]), { code: 0, text: "" });
    }),
});
