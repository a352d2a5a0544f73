import assert from "node:assert/strict";
import { snapshotBuffer, snapshotBytes, tensorBytes } from "../../lib/tensor/snapshot.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";

function joined(chunks: Iterable<Uint8Array>): number[] {
  return [...chunks].flatMap((chunk) => [...chunk]);
}

Deno.test("snapshotBuffer() keeps every dtype as it was, and takes again into the same memory", () => {
  const tensors = { a: tensor([1, 2, 3], [3]), b: tensor([4, 5], [2], { dtype: "f16" }), c: zeros([0], "u8") },
    buffer = snapshotBuffer(tensors);
  const before = joined(tensorBytes(tensors.a)), entries = buffer.take();
  assert.deepEqual(entries.map(({ name, dtype, bytes }) => [name, dtype, bytes]), [["a", "f32", 12], ["b", "f16", 4], ["c", "u8", 0]]);
  tensors.a.write([7, 8, 9]);
  assert.deepEqual(joined(snapshotBytes(entries[0])), before);
  assert.deepEqual(joined(snapshotBytes(entries[1])), joined(tensorBytes(tensors.b)));
  assert.deepEqual(joined(snapshotBytes(entries[2])), []);
  assert.deepEqual(buffer.take()[0], entries[0]);
  assert.deepEqual(joined(snapshotBytes(entries[0])), joined(tensorBytes(tensors.a)));
  buffer.free();
  for (const t of Object.values(tensors)) t.free();
});

Deno.test("tensorBytes() and snapshotBytes() hand out a long tensor in chunks", () => {
  const t = zeros([2 ** 26 + 5], "u8"), buffer = snapshotBuffer({ t });
  t.view([5], { offset: 2 ** 26 }).write([1, 2, 3, 4, 5]);
  for (const chunks of [[...tensorBytes(t)], [...snapshotBytes(buffer.take()[0])]]) {
    assert.deepEqual(chunks.map((c) => c.length), [2 ** 26, 5]);
    assert.deepEqual([...chunks[1]], [1, 2, 3, 4, 5]);
  }
  buffer.free();
  t.free();
});
