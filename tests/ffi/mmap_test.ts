import assert from "node:assert/strict";
import { mapFile } from "../../ffi/mmap.ts";

const folder = Deno.makeTempDirSync({ prefix: "espalier-mmap-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

Deno.test("mapFile() holds the bytes of the file until it is closed", () => {
  const path = `${folder}/five`;
  Deno.writeFileSync(path, new Uint8Array([1, 2, 3, 4, 5]));
  const file = mapFile(path);
  const part = file.bytes.subarray(1, 3);
  assert.deepEqual([...file.bytes], [1, 2, 3, 4, 5]);
  assert.deepEqual([...part], [2, 3]);
  file.close();
  file.close();
  assert.equal(file.bytes.length, 0);
  assert.equal(part.length, 0, "a view must not reach memory that is unmapped");
});

Deno.test("mapFile() does not write to the file", () => {
  const path = `${folder}/kept`;
  Deno.writeFileSync(path, new Uint8Array([1, 2]));
  using file = mapFile(path);
  file.bytes[0] = 9;
  assert.deepEqual([...file.bytes], [9, 2]);
  assert.deepEqual([...Deno.readFileSync(path)], [1, 2]);
});

Deno.test("mapFile() gives an empty array for an empty file", () => {
  Deno.writeFileSync(`${folder}/empty`, new Uint8Array());
  using file = mapFile(`${folder}/empty`);
  assert.equal(file.bytes.length, 0);
});

Deno.test("mapFile() maps a file above 4 GiB without reading it", () => {
  const path = `${folder}/sparse`, size = 5 * 2 ** 30;
  using out = Deno.openSync(path, { write: true, create: true });
  out.truncateSync(size);
  out.seekSync(size - 2, Deno.SeekMode.Start);
  out.writeSync(new Uint8Array([7, 8]));
  const before = Deno.memoryUsage().rss;
  using file = mapFile(path);
  assert.equal(file.bytes.length, size);
  assert.deepEqual([...file.bytes.subarray(size - 3)], [0, 7, 8]);
  assert.ok(Deno.memoryUsage().rss - before < 2 ** 28);
});

Deno.test("mapFile() says why it cannot map", () => {
  assert.throws(() => mapFile(`${folder}/none`), /^Error: Cannot map .*none: there is no such file/);
  assert.throws(() => mapFile(folder), /^Error: Cannot map .*: it is a folder/);
  assert.throws(() => mapFile("/dev/zero"), /^Error: Cannot map .*: it is no regular file/);
});
