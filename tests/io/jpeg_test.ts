import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import jpeg from "jpeg-js";
import { decodeJpeg } from "../../lib/io/jpeg.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1 } from "./corrupt.ts";

/** 10 x 9, progressive, as libjpeg wrote it: red is 25 x, green 28 y, blue 255 - 25 x. */
const PROGRESSIVE = new Uint8Array(Buffer.from(
  "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/" +
    "2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wgARCAAJAAoDAREAAhEBAxEB/8QA" +
    "FQABAQAAAAAAAAAAAAAAAAAABgf/xAAXAQEAAwAAAAAAAAAAAAAAAAAHBAYI/9oADAMBAAIQAxAAAAE7cICEIaKEgZRQg7R//8QAGBAAAgMAAAAAAAAAAAAA" +
    "AAAAAAQGEBb/2gAIAQEAAQUCVjRmhWv/xAAdEQABBAIDAAAAAAAAAAAAAAAAAQIFBiEiMTJB/9oACAEDAQE/Aa9NcZGzWqZK94N6of/EABwRAAEEAwEAAAAA" +
    "AAAAAAAAAAABAgUGISIyQv/aAAgBAgEBPwGzSvWR8rsuSzeh/Sn/xAAWEAEBAQAAAAAAAAAAAAAAAAAyABD/2gAIAQEABj8CMd//xAAZEAACAwEAAAAAAAAA" +
    "AAAAAAAAASExwUH/2gAIAQEAAT8hryKCycipH//aAAwDAQACAAMAAAAQ9C//xAAYEQACAwAAAAAAAAAAAAAAAAAAARCBof/aAAgBAwEBPxAasKHIj//EABgR" +
    "AAIDAAAAAAAAAAAAAAAAAAABEIGh/9oACAECAQE/EALA4NDP/8QAFxABAAMAAAAAAAAAAAAAAAAAABCBof/aAAgBAQABPxASuwcz/9k=",
  "base64",
));
const BASELINE = baseline(10, 9);

/** The same picture, baseline. */
function baseline(width: number, height: number): Uint8Array<ArrayBuffer> {
  const data = Uint8Array.from(
    { length: 4 * width * height },
    (_, i) => want((i >> 2) % width, Math.floor((i >> 2) / width))[i & 3] ?? 255,
  );
  return new Uint8Array(jpeg.encode({ width, height, data }, 95).data);
}

/** The colour at a place of the picture. */
function want(x: number, y: number): number[] {
  return [25 * x, 28 * y, 255 - 25 * x];
}

/** `BASELINE` with an EXIF segment that gives this orientation, in either byte order. */
function withOrientation(orientation: number, little: boolean): Uint8Array<ArrayBuffer> {
  const tiff = new DataView(new ArrayBuffer(26));
  tiff.setUint16(0, little ? 0x4949 : 0x4d4d);
  tiff.setUint16(2, 42, little);
  tiff.setUint32(4, 8, little);
  tiff.setUint16(8, 1, little);
  tiff.setUint16(10, 0x0112, little);
  tiff.setUint16(12, 3, little);
  tiff.setUint32(14, 1, little);
  tiff.setUint16(18, orientation, little);
  return concat(BASELINE.subarray(0, 2), latin1("\xff\xe1\x00\x22Exif\0\0"), new Uint8Array(tiff.buffer), BASELINE.subarray(2));
}

Deno.test("decodeJpeg() decodes baseline and progressive files", () => {
  for (const [bytes, most] of [[BASELINE, 12], [PROGRESSIVE, 12]] as const) {
    const { width, height, channels, data } = decodeJpeg(bytes, "x.jpg");
    assert.deepEqual([width, height, channels, data.length], [10, 9, 3, 270]);
    for (let i = 0; i < 90; i++) {
      want(i % 10, Math.floor(i / 10)).forEach((v, c) =>
        assert.ok(Math.abs(data[3 * i + c] - v) <= most, `pixel ${i}: ${data.slice(3 * i, 3 * i + 3)}`)
      );
    }
  }
});

Deno.test("decodeJpeg() turns the picture upright", () => {
  const plain = decodeJpeg(BASELINE, "x"), W = 10, H = 9;
  // which stored pixel stands at (x, y) of the upright picture
  const source: ((x: number, y: number) => [x: number, y: number])[] = [
    (x, y) => [x, y],
    (x, y) => [W - 1 - x, y],
    (x, y) => [W - 1 - x, H - 1 - y],
    (x, y) => [x, H - 1 - y],
    (x, y) => [y, x],
    (x, y) => [y, H - 1 - x],
    (x, y) => [W - 1 - y, H - 1 - x],
    (x, y) => [W - 1 - y, x],
  ];
  source.forEach((from, i) => {
    const { width, height, data } = decodeJpeg(withOrientation(i + 1, i % 2 === 0), "x");
    assert.deepEqual([width, height], i < 4 ? [W, H] : [H, W]);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [u, v] = from(x, y), at = 3 * (y * width + x), stored = 3 * (v * W + u);
        assert.deepEqual(data.slice(at, at + 3), plain.data.slice(stored, stored + 3), `orientation ${i + 1} at ${x}, ${y}`);
      }
    }
  });
  for (const orientation of [0, 9, 65535]) assert.deepEqual(decodeJpeg(withOrientation(orientation, true), "x"), plain);
});

Deno.test("decodeJpeg() refuses each fault", () => {
  const frame = BASELINE.findIndex((byte, i) => byte === 0xff && BASELINE[i + 1] === 0xc0);
  const patched = (at: number, ...bytes: number[]): Uint8Array<ArrayBuffer> => {
    const copy = BASELINE.slice();
    copy.set(bytes, at);
    return copy;
  };
  const scan = latin1("\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00");
  const faults: [bytes: Uint8Array<ArrayBuffer>, says: string][] = [
    [patched(frame + 5, 0xff, 0xff, 0xff, 0xff), "the image has 65535 x 65535 pixels"],
    [patched(frame + 5, 0x20, 0, 0x20, 0), "too few for 8192 x 8192 pixels"],
    [patched(frame + 5, 0, 0), "the image is 10 x 0"],
    [patched(frame + 4, 12), "its samples have 12 bits"],
    [patched(frame + 1, 0xc9), "arithmetic-coded"],
    [patched(frame + 2, 0, 1), "is 1 bytes long"],
    [patched(frame, 0xfe), "there is no marker"],
    [patched(frame + 1, 0xfe), "a scan comes before the frame header"],
    [concat(BASELINE.subarray(0, frame), BASELINE.subarray(frame, frame + 19), BASELINE.subarray(frame)), "more than one frame"],
    [concat(BASELINE.subarray(0, -2), ...Array(200).fill(scan), latin1("\xff\xd9")), "more than 100 scans"],
    [latin1("\xff\xd8\xff\xd9"), "it holds no picture"],
  ];
  for (const [bytes, says] of faults) assertRefused(() => decodeJpeg(bytes, "x.jpg"), says);
  assertRefused(() => decodeJpeg(BASELINE, "x", 89), "10 x 9 pixels, it must have at most 89");
});

Deno.test("decodeJpeg() refuses every truncation and survives every flipped bit", () => {
  for (const bytes of [PROGRESSIVE, withOrientation(6, true)]) assertTruncationsRefused(bytes, (part) => decodeJpeg(part, "x"));
  countAcceptedFlips(PROGRESSIVE, (bytes) => decodeJpeg(bytes, "x", 1e4));
});
