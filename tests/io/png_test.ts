import assert from "node:assert/strict";
import { crc32, deflateSync } from "node:zlib";
import { decode, encode } from "fast-png";
import type { Image } from "../../lib/io/pixels.ts";
import { decodePng, encodePng } from "../../lib/io/png.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1 } from "./corrupt.ts";

const SIGNATURE = latin1("\x89PNG\r\n\x1a\n");

/** One chunk. */
function chunk(type: string, data: Uint8Array | number[]): Uint8Array {
  const out = concat(new Uint8Array(4), latin1(type), new Uint8Array(data), new Uint8Array(4));
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  view.setUint32(out.length - 4, crc32(out.subarray(4, -4)));
  return out;
}

/** A header chunk. */
function header(width: number, height: number, depth: number, color: number, interlace = 0): Uint8Array {
  const data = new Uint8Array(13), view = new DataView(data.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  data.set([depth, color, 0, 0, interlace], 8);
  return chunk("IHDR", data);
}

/** A file out of a header, other chunks, and filtered rows. */
function png(head: Uint8Array, rows: number[] | Uint8Array, ...others: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return concat(SIGNATURE, head, ...others, chunk("IDAT", deflateSync(new Uint8Array(rows))), chunk("IEND", []));
}

/** The channels and bytes of a decoded file. */
function pixels(bytes: Uint8Array): [channels: number, data: number[]] {
  const { channels, data } = decodePng(bytes, "x.png");
  return [channels, [...data]];
}

const RGBA: Image = { width: 5, height: 3, channels: 4, data: Uint8Array.from({ length: 60 }, (_, i) => i * 37) };

Deno.test("decodePng() gives RGB or RGBA from every kind of pixel", () => {
  assert.deepEqual(pixels(png(header(3, 2, 1, 0), [0, 0b10100000, 0, 0b01000000])), [
    3,
    [255, 0, 255, 0, 255, 0].flatMap((v) => [v, v, v]),
  ]);
  assert.deepEqual(pixels(png(header(2, 1, 2, 0), [0, 0b01100000])), [3, [85, 85, 85, 170, 170, 170]]);
  assert.deepEqual(pixels(png(header(2, 1, 4, 0), [0, 0x1f])), [3, [17, 17, 17, 255, 255, 255]]);
  assert.deepEqual(pixels(png(header(2, 1, 8, 0), [0, 7, 9])), [3, [7, 7, 7, 9, 9, 9]]);
  assert.deepEqual(pixels(png(header(2, 1, 16, 0), [0, 0x80, 0x7f, 0x80, 0x80])), [3, [128, 128, 128, 128, 128, 128]]);
  assert.deepEqual(pixels(png(header(2, 1, 16, 0), [0, 0, 128, 0, 129])), [3, [0, 0, 0, 1, 1, 1]]);
  assert.deepEqual(pixels(png(header(1, 1, 8, 2), [0, 1, 2, 3])), [3, [1, 2, 3]]);
  assert.deepEqual(pixels(png(header(1, 1, 16, 2), [0, 1, 0, 2, 0, 3, 0])), [3, [1, 2, 3]]);
  assert.deepEqual(pixels(png(header(2, 1, 8, 4), [0, 1, 2, 3, 4])), [4, [1, 1, 1, 2, 3, 3, 3, 4]]);
  assert.deepEqual(pixels(png(header(1, 1, 16, 4), [0, 255, 255, 0, 255])), [4, [255, 255, 255, 1]]);
  assert.deepEqual(pixels(png(header(1, 1, 8, 6), [0, 1, 2, 3, 4])), [4, [1, 2, 3, 4]]);
  const palette = chunk("PLTE", [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(pixels(png(header(3, 1, 2, 3), [0, 0b00011000], palette)), [3, [1, 2, 3, 4, 5, 6, 7, 8, 9]]);
  assert.deepEqual(pixels(png(header(2, 1, 8, 3), [0, 2, 0], palette, chunk("tRNS", [50]))), [4, [7, 8, 9, 255, 1, 2, 3, 50]]);
  assert.deepEqual(pixels(png(header(2, 1, 8, 0), [0, 7, 9], chunk("tRNS", [0, 9]))), [4, [7, 7, 7, 255, 9, 9, 9, 0]]);
  assert.deepEqual(pixels(png(header(2, 1, 8, 2), [0, 1, 2, 3, 1, 2, 4], chunk("tRNS", [0, 1, 0, 2, 0, 3]))), [4, [
    1,
    2,
    3,
    0,
    1,
    2,
    4,
    255,
  ]]);
});

Deno.test("decodePng() undoes every row filter, interlaced or not", () => {
  const rows = [1, 10, 5, 5, 2, 1, 1, 1, 3, 10, 10, 10, 4, 1, 2, 3]; // sub, up, average, Paeth
  assert.deepEqual(pixels(png(header(3, 4, 8, 0), rows))[1].filter((_, i) => i % 3 === 0), [
    10,
    15,
    20,
    11,
    16,
    21,
    15,
    25,
    33,
    16,
    27,
    36,
  ]);
  const interlaced = new Uint8Array(encode({ ...RGBA, depth: 8 }, { interlace: "Adam7" }));
  assert.deepEqual(decodePng(interlaced, "x"), RGBA);
  // 5 x 3 in 1 bit: pass 1 has x 0, pass 2 x 4, pass 4 x 2, pass 5 row 2 (x 0, 2, 4), pass 6 rows 0 and 2 (x 1, 3), pass 7 row 1
  const bits = [0, 0x80, 0, 0x80, 0, 0x80, 0, 0xe0, 0, 0x40, 0, 0xc0, 0, 0x98];
  assert.deepEqual(
    pixels(png(header(5, 3, 1, 0, 1), bits))[1].filter((_, i) => i % 3 === 0),
    [1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1].map((v) => v * 255),
  );
});

Deno.test("encodePng() is read back by this and by another decoder", () => {
  for (const channels of [1, 3, 4] as const) {
    const image: Image = { width: 5, height: 3, channels, data: RGBA.data.slice(0, 15 * channels) };
    const bytes = encodePng(image);
    assert.deepEqual([...decode(bytes).data], [...image.data]);
    const grey = [...image.data].flatMap((v) => [v, v, v]);
    assert.deepEqual(pixels(bytes), channels === 1 ? [3, grey] : [channels, [...image.data]]);
  }
  assertRefused(() => encodePng({ ...RGBA, width: 4 }), "the image has 60 bytes, 4 x 3 x 4 takes 48");
});

Deno.test("decodePng() refuses each fault", () => {
  const good = header(2, 1, 8, 0);
  const faults: [bytes: Uint8Array, says: string][] = [
    [png(header(0, 1, 8, 0), [0]), "the image is 0 x 1"],
    [png(header(0x10000, 0x10000, 8, 0), [0]), "it must have at most 67108864"],
    [png(header(2, 1, 3, 0), [0, 0, 0]), "type 0 with 3 bits"],
    [png(header(2, 1, 4, 2), [0, 0, 0]), "type 2 with 4 bits"],
    [png(header(2, 1, 8, 1), [0, 0, 0]), "type 1 with 8 bits"],
    [png(header(2, 1, 8, 0, 2), [0, 0, 0]), "method is unknown"],
    [png(header(2, 1, 8, 3), [0, 0, 0]), "palette is missing or damaged"],
    [png(header(2, 1, 8, 3), [0, 0, 1], chunk("PLTE", [1, 2, 3])), "a pixel has colour 1, its palette has 1"],
    [png(header(2, 1, 8, 3), [0, 0, 1], chunk("PLTE", [1, 2])), "palette is missing or damaged"],
    [png(good, [5, 0, 0]), "filter"],
    [png(good, [0, 0]), "its pixels unpack to 2 bytes, they must be 3"],
    [png(good, [0, 0, 0, 0]), "do not unpack to 3 bytes"],
    [png(good, new Uint8Array(30_000_000)), "do not unpack to 3 bytes"],
    [concat(SIGNATURE, good, chunk("IEND", [])), "do not unpack"],
    [concat(SIGNATURE, chunk("IEND", [])), "IHDR"],
    [concat(SIGNATURE, chunk("tEXt", [65]), good, chunk("IEND", [])), "IHDR"],
    [concat(SIGNATURE, good, new Uint8Array([255, 255, 255, 255, 73, 68, 65, 84, 0, 0, 0, 0])), "ends inside a chunk"],
  ];
  for (const [bytes, says] of faults) assertRefused(() => decodePng(bytes, "x.png"), says);
  assertRefused(() => decodePng(encodePng(RGBA), "x", 14), "5 x 3 pixels, it must have at most 14");
});

Deno.test("decodePng() does not unpack what it does not need", () => {
  const profile = concat(latin1("p\0\0"), deflateSync(new Uint8Array(50_000_000)));
  const before = Deno.memoryUsage().rss;
  assert.deepEqual(pixels(png(header(1, 1, 8, 0), [0, 7], chunk("iCCP", profile))), [3, [7, 7, 7]]);
  assert.ok(Deno.memoryUsage().rss - before < 4e7);
});

Deno.test("decodePng() refuses every truncation and every flipped bit", () => {
  const bytes = new Uint8Array(encodePng(RGBA));
  assertTruncationsRefused(bytes, (part) => decodePng(part, "x"));
  assert.equal(countAcceptedFlips(bytes, (part) => decodePng(part, "x")), 0);
});
