import assert from "node:assert/strict";

/** Runs the doctor: its status, and its table as [state, what, found]. */
function doctor(env: Record<string, string> = {}): { code: number; rows: Record<string, [state: string, found: string]>; text: string } {
  const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-P=tools", "scripts/doctor.ts"],
    cwd: new URL("../../", import.meta.url),
    env: { NO_COLOR: "1", ...env },
  }).outputSync();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  const lines = [...text.matchAll(/^(ok|note|fault) +(.+?) {2,}(.*)$/gm)];
  return { code, rows: Object.fromEntries(lines.map(([, state, what, found]) => [what, [state, found]])), text };
}

Deno.test("doctor finds that the CPU path works here", () => {
  const { code, rows, text } = doctor();
  assert.equal(code, 0, text);
  for (const what of ["Deno", "platform", "glibc", "processor", "memory", "CPU kernels"]) assert.equal(rows[what]?.[0], "ok", text);
  for (const what of ["kernel sources", "CUDA kernels", "NVIDIA driver", "nvcc", "g++", "Eigen", "permissions"]) {
    assert.ok(rows[what], text);
  }
  assert.deepEqual(rows.Deno, ["ok", Deno.version.deno]);
  assert.match(text, /\nThe CPU path works(; the GPU path does not|, and so does the GPU path)\.\n$/);
});

Deno.test("doctor ends with status 1 and says what to do where the CPU kernels are missing", () => {
  const { code, rows, text } = doctor({ ESPALIER_KERNELS: "/nowhere" });
  assert.equal(code, 1);
  assert.equal(rows["CPU kernels"][0], "fault");
  assert.match(rows["CPU kernels"][1], /^Cannot open the cpu kernels: \/nowhere\/libops_cpu\.so says /);
  assert.match(text, /\n +-> git checkout kernels\/prebuilt, or deno task build\n/);
  assert.match(text, /\nThe CPU path does not work\.\n$/);
});
