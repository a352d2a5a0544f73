import assert from "node:assert/strict";
import { zipSync } from "fflate";
import { peekEntry, readZip, unpackEntry, type ZipEntry } from "../../lib/io/zip.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1 } from "./corrupt.ts";

const TEXT = latin1("espalier ".repeat(20));
const ARCHIVE = new Uint8Array(
  zipSync({ "a.txt": [TEXT, { level: 6 }], "b.txt": [TEXT, { level: 0 }], "c": [new Uint8Array(), { level: 0 }] }),
);

/** Unpacks everything. */
function unpackAll(bytes: Uint8Array): Uint8Array[] {
  return readZip(bytes, "x.zip").map((entry) => unpackEntry(entry, "x.zip"));
}

/** `ARCHIVE` with a number overwritten: at `offset` of entry `entry` in the directory, or of the end record (-1). */
function patched(entry: number, offset: number, value: number, bytes: 2 | 4): Uint8Array<ArrayBuffer> {
  const copy = ARCHIVE.slice(), view = new DataView(copy.buffer), end = copy.length - 22;
  let at = entry < 0 ? end : view.getUint32(end + 16, true);
  for (let i = 0; i < entry; i++) at += 46 + view.getUint16(at + 28, true) + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  if (bytes === 2) view.setUint16(at + offset, value, true);
  else view.setUint32(at + offset, value, true);
  return copy;
}

Deno.test("readZip() lists and unpackEntry() unpacks stored and deflated entries", () => {
  const entries = readZip(ARCHIVE, "x.zip");
  assert.deepEqual(entries.map(({ name, size, deflated }) => [name, size, deflated]), [["a.txt", 180, true], ["b.txt", 180, false], [
    "c",
    0,
    false,
  ]]);
  assert.deepEqual(unpackAll(ARCHIVE), [TEXT, TEXT, new Uint8Array()]);
  for (const entry of entries) assert.deepEqual(peekEntry(entry, "x.zip"), unpackEntry(entry, "x.zip"));
  const commented = concat(ARCHIVE, latin1("PK\x05\x06 a comment"));
  new DataView(commented.buffer).setUint16(ARCHIVE.length - 2, 14, true);
  assert.equal(readZip(commented, "x.zip").length, 3);
});

Deno.test("peekEntry() gives the beginning of a large entry", () => {
  let seed = 1;
  const noise = Uint8Array.from({ length: 100_000 }, () => (seed = Math.imul(seed, 1664525) + 1013904223) >>> 24);
  for (const level of [0, 6] as const) {
    const peek = peekEntry(readZip(zipSync({ a: [noise, { level }] }), "x")[0], "x");
    assert.ok(peek.length > 1000 && peek.length < noise.length);
    assert.deepEqual(peek, noise.subarray(0, peek.length));
  }
});

Deno.test("readZip() refuses every truncation and survives every flipped bit", () => {
  assertTruncationsRefused(ARCHIVE, unpackAll);
  countAcceptedFlips(ARCHIVE, unpackAll);
});

Deno.test("unpackEntry() notices every flipped bit of the data", () => {
  for (const { name, packed } of readZip(ARCHIVE, "x")) {
    const start = packed.byteOffset;
    for (let bit = 0; bit < packed.length * 8; bit++) {
      const copy = ARCHIVE.slice();
      copy[start + (bit >> 3)] ^= 1 << (bit & 7);
      const entry = readZip(copy, "x").find((entry) => entry.name === name)!;
      let got: Uint8Array | undefined;
      try {
        got = unpackEntry(entry, "x");
      } catch { /* refused, as it should be */ }
      assert.ok(got === undefined || Deno.inspect(got) === Deno.inspect(TEXT), `bit ${bit} of ${name}`);
    }
  }
});

Deno.test("readZip() refuses archives that lie", () => {
  const faults: [archive: Uint8Array, says: string][] = [
    [patched(0, 24, 0x7fffffff, 4), 'entry "a.txt" declares 2147483647 bytes'],
    [patched(1, 24, 181, 4), 'entry "b.txt" declares 181 bytes'],
    [patched(0, 24, 0xffffffff, 4), "zip64"],
    [patched(0, 8, 1, 2), "encrypted"],
    [patched(0, 10, 12, 2), "packed by method 12"],
    [patched(1, 42, 0, 4), 'entry "b.txt" does not lie in the archive'],
    [patched(0, 42, 0xfffffff0, 4), 'entry "a.txt" does not lie in the archive'],
    [patched(0, 20, 400, 4), 'entry "a.txt" does not lie in the archive'],
    [patched(0, 20, 100, 4), "two of its entries overlap"],
    [patched(-1, 10, 0xffff, 2), "split"],
    [patched(-1, 16, 0xffffffff, 4), "its zip64 record is missing"],
    [patched(-1, 10, 2, 2), "split"],
    [patched(-1, 16, 0, 4), "its directory ends at byte"],
    [patched(-1, 4, 1, 2), "split"],
    [new Uint8Array(), "no zip directory"],
    [new Uint8Array(100_000), "no zip directory"],
  ];
  for (const [archive, says] of faults) assertRefused(() => readZip(archive, "x.zip"), says);

  const twins = new Uint8Array(zipSync({ aa: TEXT, ab: TEXT }));
  for (let at = 0; at + 1 < twins.length; at++) if (twins[at] === 0x61 && twins[at + 1] === 0x62) twins[at + 1] = 0x61;
  assertRefused(() => readZip(twins, "x.zip"), 'entry "aa" is given twice');
});

Deno.test("readZip() reads zip64 records, as PyTorch writes them", () => {
  const end = ARCHIVE.length - 22, view = new DataView(ARCHIVE.buffer), start = view.getUint32(end + 16, true);
  const wide = (patch: (view: DataView) => void = () => {}): Uint8Array<ArrayBuffer> => {
    const record = new Uint8Array(56), locator = new Uint8Array(20), r = new DataView(record.buffer), l = new DataView(locator.buffer);
    r.setUint32(0, 0x06064b50, true);
    [[4, 44], [24, 3], [32, 3], [40, end - start], [48, start]].forEach(([at, value]) => r.setBigUint64(at, BigInt(value), true));
    l.setUint32(0, 0x07064b50, true);
    l.setBigUint64(8, BigInt(end), true);
    l.setUint32(16, 1, true);
    const out = concat(ARCHIVE.subarray(0, end), record, locator, ARCHIVE.subarray(end));
    patch(new DataView(out.buffer));
    return out;
  };
  assert.deepEqual(unpackAll(wide()), [TEXT, TEXT, new Uint8Array()]);
  countAcceptedFlips(wide(), unpackAll);
  const faults: [(view: DataView) => void, string][] = [
    [(v) => v.setBigUint64(end + 32, 4n, true), "split"],
    [(v) => [24, 32].forEach((at) => v.setBigUint64(end + at, 1n << 40n, true)), "its 1099511627776 entries take more"],
    [(v) => v.setBigUint64(end + 48, 1n << 60n, true), "its directory ends at byte"],
    [(v) => v.setBigUint64(end + 4, 1n << 60n, true), "its zip64 record is damaged"],
    [(v) => v.setBigUint64(end + 56 + 8, 1n << 60n, true), "its zip64 record is damaged"],
  ];
  for (const [patch, says] of faults) assertRefused(() => readZip(wide(patch), "x.zip"), says);
});

Deno.test("unpackEntry() stops at the declared size", () => {
  const bomb = new Uint8Array(zipSync({ a: new Uint8Array(10_000_000) }, { level: 9 }));
  const [entry] = readZip(bomb, "x");
  const small: ZipEntry = { ...entry, size: 1000 };
  const before = Deno.memoryUsage().rss;
  assertRefused(() => unpackEntry(small, "x.zip"), 'entry "a" does not unpack');
  assertRefused(() => unpackEntry({ ...entry, size: entry.size + 1 }, "x.zip"), "it declares 10000001");
  assertRefused(() => unpackEntry({ ...entry, crc: 1 }, "x.zip"), "its checksum differs");
  assert.ok(Deno.memoryUsage().rss - before < 4e8);
});
