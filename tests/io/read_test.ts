import assert from "node:assert/strict";
import { quote, readBytes, sourceName } from "../../lib/io/read.ts";
import { assertRefused, withFolder } from "./corrupt.ts";

Deno.test("readBytes() reads files and hands bytes on", () => {
  withFolder((folder) => {
    Deno.writeFileSync(`${folder}/a`, new Uint8Array([1, 2, 3]));
    assert.deepEqual([...readBytes(`${folder}/a`)], [1, 2, 3]);
    assertRefused(() => readBytes(`${folder}/a`, 2), "it has 3 bytes, it must have at most 2");
    assertRefused(() => readBytes(`${folder}/b`), "there is no such file");
    assertRefused(() => readBytes(folder), "it is a folder");
  });
  const bytes = new Uint8Array(4);
  assert.equal(readBytes(bytes), bytes);
  assertRefused(() => readBytes("/dev/zero"), "no regular file");
});

Deno.test("sourceName() and quote() make readable messages", () => {
  assert.equal(sourceName("a/b.npy", "npy"), "a/b.npy");
  assert.equal(sourceName(new Uint8Array(), "npy"), "npy data");
  assert.equal(quote('a"\n\u001b'), '"a\\"\\n\\u001b"');
  assert.equal(quote("x".repeat(1000)).length, 105);
});
