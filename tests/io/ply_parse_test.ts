import assert from "node:assert/strict";
import { parsePly } from "../../lib/io/ply_parse.ts";
import { assertRefused, assertTruncationsRefused, concat, countAcceptedFlips, latin1 } from "./corrupt.ts";

const BODY = `comment made by hand
obj_info ignored
element vertex 2
property float x
property uint8 red
element face 2
property list uchar int vertex_indices
property short flag
end_header
`;
const ASCII = latin1(`ply\nformat ascii 1.0\n${BODY}0.5 255\r\n-1e3 0\n3 0 1 1 -7\n\n 0 9\n`);
const LITTLE_ROWS = new Uint8Array([0, 0, 0, 0x3f, 255, 0, 0, 0x7a, 0xc4, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0xf9, 0xff, 0, 9, 0]);
const BIG_ROWS = new Uint8Array([0x3f, 0, 0, 0, 255, 0xc4, 0x7a, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xf9, 0, 0, 9]);
const LITTLE = concat(latin1(`ply\nformat binary_little_endian 1.0\n${BODY}`), LITTLE_ROWS);
const BIG = concat(latin1(`ply\r\nformat binary_big_endian 1.0\r\n${BODY.replaceAll("\n", "\r\n")}`), BIG_ROWS);

/** Parses bytes. */
function parse(bytes: Uint8Array<ArrayBuffer>): unknown {
  return parsePly(bytes, "x.ply");
}

/** An ascii file with this header and rows. */
function ascii(header: string, rows = ""): Uint8Array<ArrayBuffer> {
  return latin1(`ply\nformat ascii 1.0\n${header}\nend_header\n${rows}`);
}

Deno.test("parsePly() reads the same from ascii, little and big endian", () => {
  for (const bytes of [ASCII, LITTLE, BIG]) {
    assert.deepEqual(parsePly(bytes, "x"), {
      comments: ["made by hand"],
      elements: {
        vertex: { count: 2, columns: { x: new Float32Array([0.5, -1000]), red: new Uint8Array([255, 0]) }, lists: {} },
        face: {
          count: 2,
          columns: { flag: new Int16Array([-7, 9]) },
          lists: { vertex_indices: { offsets: new Uint32Array([0, 3, 3]), values: new Int32Array([0, 1, 1]) } },
        },
      },
    });
  }
});

Deno.test("parsePly() knows every number type", () => {
  const types = ["char", "uchar", "short", "ushort", "int", "uint", "float", "double", "int8", "uint16", "float32", "float64"];
  const properties = types.map((type, i) => `property ${type} p${i}`).join("\n");
  const { elements: { a } } = parsePly(
    ascii(`element a 1\n${properties}`, "-128 255 -32768 65535 -2147483648 4294967295 nan -inf 1 2 3 1e300\n"),
    "x",
  );
  assert.deepEqual(Object.values(a.columns).map(([value]) => value), [
    -128,
    255,
    -32768,
    65535,
    -(2 ** 31),
    2 ** 32 - 1,
    NaN,
    -Infinity,
    1,
    2,
    3,
    1e300,
  ]);
});

Deno.test("parsePly() refuses headers that lie or are not understood", () => {
  const faults: [bytes: Uint8Array<ArrayBuffer>, says: string][] = [
    [latin1("PLY\n"), "does not begin with the line ply"],
    [latin1("ply\nformat ascii 1.0\n"), "no end_header line"],
    [latin1("ply\nend_header\n"), 'its format is ""'],
    [latin1("ply\nformat text 1.0\nend_header\n"), 'its format is "text"'],
    [ascii("element a 1\nelement a 1"), 'element "a" is declared twice'],
    [ascii("element a -1"), 'its header line "element a -1"'],
    [ascii("element a 1e3"), "its header line"],
    [ascii("property float x"), "its header line"],
    [ascii("nonsense"), "its header line"],
    [ascii("element a 1\nproperty float"), "is not understood"],
    [ascii("element a 1\nproperty half x"), "is not understood"],
    [ascii("element a 1\nproperty toString x"), "is not understood"],
    [ascii("element a 1\nproperty list float int x"), "is not understood"],
    [ascii("element a 1\nproperty list int x"), "is not understood"],
    [ascii("element a 1\nproperty int x\nproperty int x"), 'property "x" is declared twice'],
    [ascii("element a 9007199254740993"), "fewer than 2^32"],
    [ascii("element a 4000000000"), "has rows but no property"],
    [ascii("element a 4000000000\nproperty double x", "1\n"), 'element "a" has fewer than its 4000000000 rows'],
    [ascii("element a 1\nproperty list uint double x", "4294967295 1\n"), "fewer than its 1 rows"],
    [ascii("element a 1\nproperty list char int x", "-3 1\n"), "a list of -3 numbers"],
    [ascii("element a 1\nproperty int x", "1.5\n"), '"1.5" does not fit its type'],
    [ascii("element a 1\nproperty uchar x", "256\n"), '"256" does not fit its type'],
    [ascii("element a 1\nproperty int x", "nan\n"), '"nan" is no number'],
    [ascii("element a 1\nproperty float x", "0x10\n"), '"0x10" is no number'],
    [ascii("element a 1\nproperty float x", "1e999\n"), '"1e999" is no number'],
    [ascii("element a 1\nproperty float x", `${"1".repeat(70)}\n`), "is no number"],
    [ascii("element a 1\nproperty float x", "1\n2\n"), "2 bytes after its last row"],
    [concat(LITTLE, new Uint8Array(1)), "1 bytes after its last row"],
  ];
  for (const [bytes, says] of faults) assertRefused(() => parse(bytes), says);
});

Deno.test("parsePly() refuses every truncation and survives every flipped bit", () => {
  for (const bytes of [ASCII, LITTLE, BIG]) {
    assertTruncationsRefused(bytes, parse);
    countAcceptedFlips(bytes, parse);
  }
});
