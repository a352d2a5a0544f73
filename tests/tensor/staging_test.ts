import assert from "node:assert/strict";
import { CudaError, type Cudart } from "../../ffi/cudart.ts";
import { addressOf, openLibc } from "../../ffi/host.ts";
import { openStaging } from "../../lib/tensor/staging.ts";
import { device } from "../../lib/tensor/device.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { random } from "../check.ts";

/** A stream of copies that are done when somebody waits for them, the first first. */
function slowStream() {
  const libc = openLibc(), queue: { copy?: () => void; event?: bigint }[] = [], done = new Set<bigint>(), pinned = new Set<bigint>();
  let made = 0n, waits = 0;
  const run = (until?: bigint): void => {
    while (queue.length && !(until !== undefined && done.has(until))) {
      const { copy, event } = queue.shift()!;
      copy?.();
      if (event !== undefined) done.add(event);
    }
  };
  const cuda = {
    cudaEventCreateWithFlags: (out: BigUint64Array) => void (out[0] = ++made),
    cudaEventDestroy: () => {},
    cudaEventRecord(event: bigint) {
      done.delete(event);
      queue.push({ event });
    },
    cudaEventQuery(event: bigint) {
      if (!done.has(event)) throw new CudaError(600, "cudaEventQuery", "device not ready");
    },
    cudaEventSynchronize(event: bigint) {
      if (done.has(event)) return;
      waits++;
      run(event);
    },
    cudaStreamSynchronize: () => run(),
    cudaMemcpyAsync: (to: bigint, from: bigint, bytes: bigint) => void queue.push({ copy: () => libc.memcpy(to, from, bytes) }),
  } as unknown as Cudart;
  const hostAlloc = (bytes: number): bigint => {
    const address = libc.aligned_alloc(256n, BigInt(bytes));
    pinned.add(address);
    return address;
  };
  const hostFree = (address: bigint): void => {
    assert.ok(pinned.delete(address));
    libc.free(address);
  };
  return { staging: openStaging({ cuda, libc, stream: 7n, hostAlloc, hostFree }), pinned, run, waits: () => waits };
}

Deno.test("uploads are done with what they were given, whatever becomes of it, and wait only where eight are under way", () => {
  const { staging, pinned, run, waits } = slowStream(), n = 1 << 15, there = Array.from({ length: 9 }, () => new Float32Array(n));
  there.forEach((to, i) => {
    const from = random(i, n);
    staging.upload(addressOf(to), from);
    from.fill(0);
    assert.equal(waits(), i === 8 ? 1 : 0);
  });
  assert.equal(pinned.size, 8);
  run();
  there.forEach((to, i) => assert.deepEqual(to, random(i, n)));
  staging.upload(addressOf(there[0]), random(20, n));
  assert.deepEqual([waits(), pinned.size], [1, 8], "what is done is used again");
  staging.trim();
  assert.deepEqual(there[0], random(20, n));
  assert.equal(pinned.size, 0);
});

Deno.test("downloads have what was there when they were asked for, and wait for that alone", () => {
  const { staging, pinned, waits } = slowStream(), at = random(1, 100), seen = [0, 1].map(() => new Float32Array(100));
  const first = staging.downloadLater(seen[0], addressOf(at));
  staging.upload(addressOf(at), random(2, 100));
  const second = staging.downloadLater(seen[1], addressOf(at));
  first();
  assert.deepEqual(seen[0], random(1, 100));
  assert.deepEqual(at, random(1, 100), "what comes later is not waited for");
  second();
  assert.deepEqual([seen[1], waits()], [random(2, 100), 2]);
  staging.downloadLater(seen[0], addressOf(at))();
  assert.equal(pinned.size, 2);
  staging.trim();
});

Deno.test("readLater() of a tensor gives what read() would have given, and large uploads survive changes of their source", () =>
  step(() => {
    const n = 1 << 17, from = random(3, n), t = tensor(from, [n]);
    from.fill(-1);
    const later = t.readLater(), half = tensor([1.5, 2], [2], { dtype: "bf16" }).readLater(), none = tensor([], [0]).readLater();
    t.write(random(4, n));
    assert.deepEqual([later(), later()], [random(3, n), random(3, n)]);
    assert.deepEqual([[...half()], [...none()]], [[1.5, 2], []]);
    t.free();
    device().memory.synchronize();
  }));
