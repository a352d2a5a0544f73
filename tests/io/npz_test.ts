import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { zipSync } from "fflate";
import { encodeNpy } from "../../lib/io/npy.ts";
import { readNpz, writeNpz } from "../../lib/io/npz.ts";
import { assertRefused, assertTruncationsRefused, countAcceptedFlips, withFolder } from "./corrupt.ts";

/** As NumPy's savez_compressed wrote it: coords uint8 [2, 3] = 0 to 5, feats float32 [2, 1] = 1.5, -2. */
const NUMPY = new Uint8Array(Buffer.from(
  "UEsDBC0AAAAIAAAAIQB+ntfP//////////8KABQAY29vcmRzLm5weQEAEACGAAAAAAAAAEwAAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgXlNqqK6joJ6WX1RS" +
    "lJgXn1+UkgoSd0vMKU4FihdnJBakAvkaRjoKxpo6CrUKZAMuBkYmZhZWAFBLAwQtAAAACAAAACEA5nNb/v//////////CQAUAGZlYXRzLm5weQEAEACIAAAAAAAA" +
    "AE0AAAAAAAAAm+wX6hsQychQxlCtnpJanFykbqWgbpNmoq6joJ6WX1RSlJgXn1+UkgoSd0vMKU4FihdnJBakAvkaRjoKhpo6CrUKZAMuBoYD9gxAAgBQSwECLQMt" +
    "AAAACAAAACEAfp7Xz0wAAACGAAAACgAAAAAAAAAAAAAAgAEAAAAAY29vcmRzLm5weVBLAQItAy0AAAAIAAAAIQDmc1v+TQAAAIgAAAAJAAAAAAAAAAAAAACAAYgA" +
    "AABmZWF0cy5ucHlQSwUGAAAAAAIAAgBvAAAAEAEAAAAA",
  "base64",
));
const WANT = { coords: { dtypes: ["u1"], shape: ["N", 3] }, feats: { dtypes: ["f4", "f2"], shape: ["N", 1] } } as const;

/** An archive of such files. */
function archive(files: Record<string, Uint8Array>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(zipSync(files));
}

Deno.test("readNpz() reads what NumPy wrote", () => {
  const { coords, feats } = readNpz(NUMPY, { want: WANT });
  assert.deepEqual(coords, { dtype: "u1", shape: [2, 3], data: new Uint8Array([0, 1, 2, 3, 4, 5]) });
  assert.deepEqual(feats, { dtype: "f4", shape: [2, 1], data: new Float32Array([1.5, -2]) });
  assert.deepEqual(Object.keys(readNpz(NUMPY)), ["coords", "feats"]);
});

Deno.test("readNpz() reads back what writeNpz() wrote, and equal arrays give equal bytes", () => {
  withFolder((folder) => {
    const path = `${folder}/a.npz`;
    const mean = Float32Array.from({ length: 8 * 16 * 16 * 16 }, (_, i) => Math.sin(i));
    const arrays = {
      mean: { shape: [8, 16, 16, 16], data: mean },
      mask: { shape: [2], data: new Uint8Array([0, 1]), dtype: "b1" as const },
    };
    const sizes = [true, false].map((compressed) => {
      writeNpz(path, arrays, { compressed });
      const read = readNpz(path);
      assert.deepEqual(read.mean, { dtype: "f4", shape: [8, 16, 16, 16], data: mean });
      assert.equal(read.mask.dtype, "b1");
      const first = Deno.readFileSync(path);
      writeNpz(path, arrays, { compressed });
      assert.deepEqual(Deno.readFileSync(path), first);
      return first.length;
    });
    assert.ok(sizes[0] < sizes[1] && sizes[1] > mean.byteLength);
    writeNpz(path, {});
    assert.deepEqual(readNpz(path), {});
  });
});

Deno.test("readNpz() checks names, dtypes and shapes", () => {
  const want = (spec: { dtypes: readonly ("u1" | "f4")[]; shape: readonly (string | number)[] }): unknown =>
    readNpz(NUMPY, { want: { coords: spec } });
  assertRefused(
    () => readNpz(NUMPY, { want: { mean: { dtypes: ["f4"], shape: [] } } }),
    'it has no array "mean", it has "coords", "feats"',
  );
  assertRefused(() => want({ dtypes: ["f4"], shape: ["N", 3] }), "it is u1 [2, 3], it must be f4 [N, 3]");
  assertRefused(() => want({ dtypes: ["u1", "f4"], shape: ["N", 4] }), "it must be u1 or f4 [N = 2, 4]");
  assertRefused(() => want({ dtypes: ["u1"], shape: ["N"] }), "it must be u1 [N]");
  assertRefused(() => want({ dtypes: ["u1"], shape: ["N", "N"] }), "it must be u1 [N = 2, N = 2]");
  const uneven = archive({
    "coords.npy": encodeNpy({ shape: [3, 3], data: new Uint8Array(9) }, "x"),
    "feats.npy": encodeNpy({ shape: [2, 1], data: new Float32Array(2) }, "x"),
  });
  assertRefused(() => readNpz(uneven, { want: WANT }), 'feats.npy": it is f4 [2, 1], it must be f4 or f2 [N = 3, 1]');
});

Deno.test("readNpz() refuses sizes above the limit before it unpacks", () => {
  const bomb = archive({ "a.npy": encodeNpy({ shape: [5_000_000], data: new Uint8Array(5_000_000) }, "x") });
  assertRefused(() => readNpz(bomb, { maxBytes: 1_000_000 }), "its arrays take 5000128 bytes, they must take at most 1000000");
  const lie = archive({ "a.npy": encodeNpy({ shape: [5_000_000], data: new Uint8Array(5_000_000) }, "x").subarray(0, 2_000_000) });
  assertRefused(() => readNpz(lie), "it takes 2000000 bytes, its shape [5000000] takes 5000128");
  assertRefused(() => readNpz(archive({ "a.txt": new Uint8Array(3) })), 'its entry "a.txt" is no .npy array');
});

Deno.test("readNpz() refuses every truncation and survives every flipped bit", () => {
  assertTruncationsRefused(NUMPY, (bytes) => readNpz(bytes));
  countAcceptedFlips(NUMPY, (bytes) => readNpz(bytes, { maxBytes: 1e6 }));
});
