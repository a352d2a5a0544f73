import assert from "node:assert/strict";
import { device } from "../../lib/tensor/device.ts";
import { formatBytes, hostMemory, OutOfMemoryError, parseBytes } from "../../lib/tensor/memory.ts";
import { DTYPE } from "../../lib/tensor/dtype.ts";
import { step } from "../../lib/tensor/scope.ts";
import { empty, kernels, stream, zeros } from "../../lib/tensor/tensor.ts";
import { guarded } from "../check.ts";

Deno.test("parseBytes() and formatBytes() speak GiB and MiB", () => {
  assert.equal(parseBytes("24GiB"), 24 * 2 ** 30);
  assert.equal(parseBytes(" 1.5 MiB "), 1.5 * 2 ** 20);
  assert.equal(parseBytes("16GB"), 16e9);
  assert.equal(parseBytes("1000"), 1000);
  for (const bad of ["", "GiB", "-1GiB", "0", "1 TiB", "1e9"]) {
    assert.throws(() => parseBytes(bad), {
      name: "RangeError",
      message: `Cannot read a memory size: it is "${bad}", it must be a number with a unit such as 24GiB`,
    });
  }
  assert.deepEqual([1.5 * 2 ** 30, 3 * 2 ** 20, 12].map(formatBytes), ["1.50 GiB", "3.0 MiB", "12 bytes"]);
});

Deno.test("hostMemory() counts what is in use and its peak", () => {
  const memory = hostMemory(1 << 20), a = memory.alloc(4096), b = memory.alloc(4096);
  assert.deepEqual(memory.use(), { used: 8192, peak: 8192 });
  memory.free(a, 4096);
  assert.deepEqual(memory.use(), { used: 4096, peak: 8192 });
  memory.resetPeak();
  assert.deepEqual(memory.use(), { used: 4096, peak: 4096 });
  memory.free(b, 4096);
});

Deno.test("hostMemory() aligns blocks and gives freed ones out again", () => {
  const memory = hostMemory(1 << 20), a = memory.alloc(1000);
  assert.equal(a % 256n, 0n);
  memory.free(a, 1000);
  assert.equal(memory.alloc(1001), a);
  memory.free(a, 1001);
});

Deno.test("hostMemory() refuses what does not fit its limit and stays usable", () => {
  const memory = hostMemory(10_000), a = memory.alloc(8000);
  assert.throws(() => memory.alloc(4000), (error: Error) => {
    assert.ok(error instanceof OutOfMemoryError);
    assert.match(error.message, /^Cannot allocate 4000 bytes: 8192 bytes of 10000 bytes are in use, the sum must fit/);
    return true;
  });
  memory.free(a, 8000);
  memory.free(memory.alloc(4000), 4000);
});

Deno.test("hostMemory() copies and zeroes", () => {
  const memory = hostMemory(1 << 20), a = memory.alloc(64), b = memory.alloc(64), host = new Uint8Array(16);
  memory.upload(a, Uint8Array.from({ length: 16 }, (_, i) => i));
  memory.copy(b, a + 4n, 8);
  memory.zero(b + 6n, 10);
  memory.download(host, b);
  assert.deepEqual([...host], [4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  memory.free(a, 64), memory.free(b, 64);
});

Deno.test("hostMemory() comes back to the same use after a thousand rounds, and its peak stays", () => {
  const memory = hostMemory(1 << 26), kept = memory.alloc(100), sizes = [0, 1, 2, 3, 4].map((i) => 7 ** (i + 1) * 13);
  let peak = 0;
  for (let round = 0; round < 1000; round++) {
    const blocks = sizes.map((bytes) => memory.alloc(bytes));
    assert.equal(new Set(blocks).size, blocks.length);
    sizes.forEach((bytes, i) => memory.free(blocks[i], bytes));
    if (round === 0) peak = memory.use().peak;
    assert.deepEqual(memory.use(), { used: 256, peak });
  }
  memory.free(kept, 100);
  assert.equal(memory.use().used, 0);
});

Deno.test("a tensor that does not fit says its shape, what is in use, and what to do", () => {
  const { memory } = device(), before = memory.use().used, rows = Math.ceil(memory.limit / 4096) + 1;
  assert.throws(() => zeros([rows, 1024]), (error: Error) => {
    assert.ok(error instanceof OutOfMemoryError);
    assert.match(
      error.message,
      /^Cannot allocate [\d.]+ GiB: .* of [\d.]+ GiB are in use, the sum must fit \(use a smaller batch, .*--memory-limit\); /,
    );
    assert.ok(error.message.endsWith(`; the tensor is [${rows},1024] f32`));
    return true;
  });
  assert.equal(memory.use().used, before);
});

Deno.test("a step() that throws gives back what it made", () => {
  const { memory } = device(), before = memory.use().used;
  for (let i = 0; i < 100; i++) {
    assert.throws(() =>
      step(() => {
        zeros([100]);
        throw new Error("stop");
      }), /stop/);
  }
  assert.equal(memory.use().used, before);
});

Deno.test("guarded() throws where something was written behind a buffer", () => {
  const write = (extra: number) =>
    guarded(() => step(() => kernels().k_fill_fwd(empty([8]).addr, BigInt(8 + extra), 1, DTYPE.f32, stream())));
  write(0);
  assert.throws(() => write(1), /1 buffers were overrun, the first at byte 0 behind a buffer of 32 bytes/);
});
