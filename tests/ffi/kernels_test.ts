import assert from "node:assert/strict";
import { ABI_VERSION, kernelFolder, openKernels } from "../../ffi/kernels.ts";
import { FLASH_ATTN, OPS, RENDER, SPCONV } from "../../ffi/symbols.ts";
import { runProgram } from "../program.ts";

const OPEN = 'import { openKernels } from("ffi/kernels.ts"); const k = openKernels(Deno.args[0] ?? "cpu");';
const folder = Deno.makeTempDirSync({ prefix: "espalier-kernels-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** The file offset of a function that a shared library exports. */
function offsetOf(elf: Uint8Array<ArrayBuffer>, name: string): number {
  const view = new DataView(elf.buffer), u64 = (at: number): number => Number(view.getBigUint64(at, true));
  const u32 = (at: number): number => view.getUint32(at, true), u16 = (at: number): number => view.getUint16(at, true);
  const sections = Array.from({ length: u16(60) }, (_, i) => u64(40) + i * 64), symbols = sections.find((s) => u32(s + 4) === 11)!;
  const strings = u64(sections[u32(symbols + 40)] + 24), wanted = new TextEncoder().encode(`${name}\0`);
  for (let at = u64(symbols + 24); at < u64(symbols + 24) + u64(symbols + 32); at += 24) {
    const text = strings + u32(at);
    if (!wanted.every((byte, i) => elf[text + i] === byte)) continue;
    const address = u64(at + 8), segments = Array.from({ length: u16(56) }, (_, i) => u64(32) + i * 56);
    const segment = segments.find((s) => u32(s) === 1 && address >= u64(s + 16) && address < u64(s + 16) + u64(s + 32))!;
    return address - u64(segment + 16) + u64(segment + 8);
  }
  throw new Error(`the library exports no ${name}`);
}

/** A folder with links to the libraries that are installed, but for those that `change` puts there itself. */
function libraries(name: string, change: (folder: string) => void): string {
  const made = `${folder}/${name}`;
  Deno.mkdirSync(made);
  change(made);
  for (const library of ["ops", "flash_attn", "spconv", "render"]) {
    const file = `lib${library}_cpu.so`;
    try {
      Deno.symlinkSync(new URL(file, kernelFolder()), `${made}/${file}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }
  return made;
}

for (const device of ["cpu", "cuda"] as const) {
  for (const [library, table] of Object.entries({ ops: OPS, flash_attn: FLASH_ATTN, spconv: SPCONV, render: RENDER })) {
    Deno.test(`lib${library}_${device}.so exports every function of the C ABI`, () => {
      const symbols = Object.fromEntries(Object.entries(table).map(([name, type]) => [name, { ...type, optional: true as const }]));
      const { symbols: found } = Deno.dlopen(
        new URL(`lib${library}_${device}.so`, kernelFolder()),
        symbols as Deno.ForeignLibraryInterface,
      );
      const exported = found as Record<string, (() => unknown) | null>;
      const missing = Object.entries(table).filter(([name, type]) => !exported[name] && !(device === "cuda" && "optional" in type));
      assert.deepEqual(missing.map(([name]) => name), []);
      assert.equal(exported.k_abi_version!(), ABI_VERSION);
    });
  }
}

Deno.test("openKernels() throws a kernel's own message and status", () => {
  const kernels = openKernels("cpu");
  assert.equal(openKernels("cpu"), kernels, "opened once");
  assert.throws(() => kernels.k_cast_fwd(0n, 0n, 1n, 99, 0, 0n), (error: Error & { status?: number }) => {
    assert.equal(error.name, "KernelError");
    assert.ok(error.status! < 0);
    assert.match(error.message, /^Cannot run k_cast_fwd: .*99/);
    return true;
  });
  kernels.k_cast_fwd(0n, 0n, 0n, 0, 0, 0n);
});

Deno.test("openKernels() says which library is missing and what to do", () => {
  const { code, stderr } = runProgram(OPEN, { env: { ESPALIER_KERNELS: `${folder}/nowhere` } });
  assert.equal(code, 1);
  assert.match(
    stderr,
    /Error: Cannot open the cpu kernels: .*\/nowhere\/libops_cpu\.so says ".*No such file.*", it must be a readable shared library/,
  );
  assert.match(stderr, /restore kernels\/prebuilt from the repository or build it with `deno task build`/);
});

Deno.test("openKernels() refuses a file that is no library, and a library that is cut off", () => {
  const text = libraries("text", (to) => Deno.writeTextFileSync(`${to}/librender_cpu.so`, "version https://git-lfs.github.com/spec/v1\n"));
  const whole = Deno.readFileSync(new URL("libops_cpu.so", kernelFolder()));
  const short = libraries("short", (to) => Deno.writeFileSync(`${to}/libops_cpu.so`, whole.subarray(0, 1000)));
  assert.match(
    runProgram(OPEN, { env: { ESPALIER_KERNELS: text } }).stderr,
    /Error: Cannot open the cpu kernels: .*librender_cpu\.so says "/,
  );
  assert.match(
    runProgram(OPEN, { env: { ESPALIER_KERNELS: short } }).stderr,
    /Error: Cannot open the cpu kernels: .*libops_cpu\.so says "the file is cut off at 1000 of \d+ bytes"/,
  );
});

Deno.test("openKernels() refuses a library of another ABI version", () => {
  const elf = Deno.readFileSync(new URL("libops_cpu.so", kernelFolder())), from = offsetOf(elf, "k_abi_version");
  const body = elf.subarray(from, from + 32), load = body.findIndex((byte, i) => byte === 0xb8 && body[i + 1] === ABI_VERSION); // mov eax, ABI_VERSION
  assert.ok(load >= 0);
  body[load + 1] = 77;
  const other = libraries("other", (to) => Deno.writeFileSync(`${to}/libops_cpu.so`, elf));
  const { stderr } = runProgram(OPEN, { env: { ESPALIER_KERNELS: other } });
  assert.match(
    stderr,
    new RegExp(
      `Error: Cannot use .*/libops_cpu\\.so: its ABI version is 77, it must be ${ABI_VERSION} \\(build it again with \`deno task build\`\\)`,
    ),
  );
});

Deno.test("openKernels() opens a library without a function, and throws where it is called", () => {
  const partial = libraries("partial", (to) => Deno.copyFileSync(new URL("librender_cpu.so", kernelFolder()), `${to}/libops_cpu.so`));
  const { code, stderr } = runProgram(`${OPEN} k.k_cast_fwd(0n, 0n, 0n, 0, 0, 0n);`, { env: { ESPALIER_KERNELS: partial } });
  assert.equal(code, 1);
  assert.match(stderr, /Error: Cannot run k_cast_fwd: .*libops_cpu\.so has no such symbol, build it again with `deno task build`/);
});

Deno.test("ESPALIER_KERNELS may be a relative path", () => {
  const { code, stderr } = runProgram(OPEN, { env: { ESPALIER_KERNELS: "kernels/prebuilt/linux-x86_64" } });
  assert.equal(code, 0, stderr);
});
