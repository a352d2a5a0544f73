import assert from "node:assert/strict";
import { writeFileAtomic } from "../../lib/io/atomic.ts";
import { assertRefused, withFolder } from "./corrupt.ts";

/** The names in a folder. */
function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

Deno.test("writeFileAtomic() writes and replaces, at once or by chunks", () => {
  withFolder((folder) => {
    const path = `${folder}/a.bin`;
    writeFileAtomic(path, new Uint8Array([1, 2]));
    assert.deepEqual([...Deno.readFileSync(path)], [1, 2]);
    writeFileAtomic(path, [new Uint8Array([3]), new Uint8Array(), new Uint8Array([4, 5])]);
    assert.deepEqual([...Deno.readFileSync(path)], [3, 4, 5]);
    writeFileAtomic(path, new Uint8Array());
    assert.equal(Deno.readFileSync(path).length, 0);
    assert.deepEqual(names(folder), ["a.bin"]);
  });
});

Deno.test("writeFileAtomic() keeps the old file and leaves nothing behind when a chunk fails", () => {
  withFolder((folder) => {
    const path = `${folder}/a.bin`;
    writeFileAtomic(path, new Uint8Array([1, 2]));
    function* failing(): Generator<Uint8Array> {
      yield new Uint8Array([9, 9, 9]);
      assert.equal(names(folder).length, 2, "the new file is written beside the old");
      throw new Error("no more bytes");
    }
    assertRefused(() => writeFileAtomic(path, failing()), "no more bytes");
    assert.deepEqual([...Deno.readFileSync(path)], [1, 2]);
    assert.deepEqual(names(folder), ["a.bin"]);
  });
});

Deno.test("writeFileAtomic() refuses a folder that is missing and a path that is a folder", () => {
  withFolder((folder) => {
    assertRefused(() => writeFileAtomic(`${folder}/none/a.bin`, new Uint8Array(1)), "does not exist");
    Deno.mkdirSync(`${folder}/sub/inner`, { recursive: true });
    assertRefused(() => writeFileAtomic(`${folder}/sub`, new Uint8Array(1)));
    assert.deepEqual(names(folder), ["sub"]);
  });
});

Deno.test("writeFileAtomic() says that the disk is full", () => {
  const full = Object.assign(new Error("No space left on device"), { code: "ENOSPC" });
  withFolder((folder) => {
    function* filling(): Generator<Uint8Array> {
      yield new Uint8Array(10);
      throw full;
    }
    assertRefused(() => writeFileAtomic(`${folder}/a.bin`, filling()), "the disk is full after 10 bytes");
    assert.deepEqual(names(folder), []);
  });
});
