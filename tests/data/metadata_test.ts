import assert from "node:assert/strict";
import {
  formatCsv,
  isTrue,
  mergeRecords,
  mergeRows,
  METADATA_COLUMNS,
  type MetadataRow,
  parseCsv,
  readMetadata,
  writeMetadata,
  writeRecords,
} from "../../lib/data/metadata.ts";
import { withFolder } from "./assets.ts";

Deno.test("parseCsv() reads back what formatCsv() writes", () => {
  const rows = [["a", "b", ""], ["x,y", 'say "hi"', "two\nlines"], ["", "", " spaced "], ["\r\n", '"', ","]];
  assert.deepEqual(parseCsv(formatCsv(rows)), rows);
});

Deno.test("parseCsv() takes Windows line ends, a byte-order mark, blank lines and no last line end", () => {
  assert.deepEqual(parseCsv('\ufeffa,b\r\n1,"2"\r\n\r\n3,'), [["a", "b"], ["1", "2"], ["3", ""]]);
  assert.deepEqual(parseCsv(""), []);
});

Deno.test("parseCsv() refuses an open quote and text behind one", () => {
  assert.throws(() => parseCsv('a\n"b'), /quote in row 2 is not closed/);
  assert.throws(() => parseCsv('"a"b\n'), /row 1 has text behind a closing quote/);
});

Deno.test("isTrue() knows how booleans are written", () => {
  assert.deepEqual(["True", "true", "1", "1.0", "False", "", "0", undefined].map(isTrue), [
    true,
    true,
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
});

Deno.test("writeMetadata() keeps unknown columns and sorts by name", async () => {
  await withFolder({}, (root) => {
    assert.equal(readMetadata(root).size, 0);
    writeMetadata(
      root,
      new Map<string, MetadataRow>([["1", { sha256: "1", file_identifier: "b", feature_x: "True" }], ["2", {
        sha256: "2",
        file_identifier: "a",
        captions: '["a, b"]',
      }]]),
    );
    const [header, first] = Deno.readTextFileSync(`${root}/metadata.csv`).split("\n");
    assert.equal(header, [...METADATA_COLUMNS, "feature_x"].join(","));
    assert.match(first, /^2,a,,"\[""a, b""\]"/);
    assert.equal(readMetadata(root).get("1")!.feature_x, "True");
  });
});

Deno.test("mergeRows() lets new values replace old ones and clear an error", () => {
  const metadata = new Map<string, MetadataRow>([["1", { sha256: "1", error: "broken", aesthetic_score: "6" }]]);
  mergeRows(metadata, [{ sha256: "1", error: "", voxelized: "True" }]);
  assert.deepEqual(metadata.get("1"), { sha256: "1", error: "", aesthetic_score: "6", voxelized: "True" });
});

Deno.test("mergeRecords() of many ranks at once loses no row", async () => {
  await withFolder({}, async (root) => {
    await Promise.all(Array.from({ length: 8 }, async (_, rank) => {
      writeRecords(root, `part_${rank}`, [{ sha256: `${rank}`, file_identifier: `${rank}` }]);
      await mergeRecords(root);
    }));
    assert.deepEqual([...readMetadata(root).keys()], ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert.deepEqual([...Deno.readDirSync(`${root}/records`)], []);
    assert.equal([...Deno.readDirSync(`${root}/merged_records`)].length, 8);
  });
});

Deno.test("readMetadata() refuses a table without sha256 and a row of another length", async () => {
  await withFolder({ "a/metadata.csv": "name\nx\n", "b/metadata.csv": "sha256,name\nx\n" }, (root) => {
    assert.throws(() => readMetadata(`${root}/a`), /it has no column sha256/);
    assert.throws(() => readMetadata(`${root}/b`), /row 2 has 1 fields, it must have 2/);
  });
});
