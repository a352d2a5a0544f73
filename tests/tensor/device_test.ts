import assert from "node:assert/strict";
import { device, hasCuda, openDevice } from "../../lib/tensor/device.ts";
import { runProgram } from "../program.ts";

const OPEN = 'import { device, openDevice } from("lib/tensor/device.ts");';

/** What a program in a process of its own says that is no error of ours. */
function errorOf(text: string, env: Record<string, string> = {}): string {
  const { code, stderr } = runProgram(OPEN + text, { env });
  assert.equal(code, 1, stderr);
  return stderr.match(/\w*Error: [^\n]*/)![0];
}

Deno.test("device() opens one device, and opening it again gives the same", () => {
  const open = device();
  assert.equal(device(), open);
  assert.equal(openDevice(open.name), open);
  assert.equal(open.name === "cuda", open.stream !== 0n);
  assert.equal(typeof open.kernels.k_cast_fwd, "function");
  assert.ok(open.memory.limit > 2 ** 20);
});

Deno.test("openDevice() keeps to one device a process", () => {
  const other = device().name === "cpu" ? "cuda" : "cpu";
  assert.throws(() => openDevice(other), {
    message: `Cannot open the device ${other}: ${device().name} is open, a process must use one device`,
  });
});

Deno.test("openDevice() refuses a name that is no device", () => {
  assert.throws(() => openDevice("gpu"), {
    name: "RangeError",
    message: 'Cannot open a device: DEVICE (or --device) is "gpu", it must be cpu, cuda or auto',
  });
  assert.match(errorOf("device();", { DEVICE: "tpu" }), /^RangeError: Cannot open a device: DEVICE \(or --device\) is "tpu", it must be/);
});

Deno.test("openDevice() takes DEVICE, and auto where it is empty", () => {
  const name = (DEVICE: string) => runProgram(`${OPEN} console.log(device().name);`, { env: { DEVICE } }).stdout.trim();
  assert.equal(name("cpu"), "cpu");
  assert.equal(name("auto"), hasCuda() ? "cuda" : "cpu");
  assert.equal(name(""), hasCuda() ? "cuda" : "cpu");
});

Deno.test("openDevice() bounds the memory in use by the limit", () => {
  const text = `import { zeros } from("lib/tensor/tensor.ts");
    const { memory } = openDevice("cpu", { memoryLimit: 2 ** 20 });
    console.log(memory.limit);
    zeros([1024, 128]);
    zeros([3, 1024, 128], "bf16");`;
  assert.match(
    errorOf(text),
    /^OutOfMemoryError: Cannot allocate 786432 bytes: .* of 1\.0 MiB are in use, .*; the tensor is \[3,1024,128\] bf16$/,
  );
});

Deno.test({
  name: "openDevice() says why cuda cannot be used",
  ignore: hasCuda(),
  fn: () => {
    const said = errorOf('openDevice("cuda");');
    assert.match(
      said,
      /^Error: Cannot use the device cuda: .*\. A CUDA GPU must be visible; `deno task doctor` says more, --device cpu runs without one$/,
    );
  },
});
