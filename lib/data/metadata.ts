/** metadata.csv, the table of a dataset's objects, and the records that ranks hand in for it. */
import { join } from "node:path";
import { writeFileAtomic } from "../io/atomic.ts";

/** One object: values by column name. What a column holds is text; `""` is no value, booleans are `True` and `False`. */
export type MetadataRow = Record<string, string>;

/** The objects by their key, the column `sha256`. Columns that are not known here are kept. */
export type Metadata = Map<string, MetadataRow>;

/** The columns that preparing writes, in their order; others follow. */
export const METADATA_COLUMNS: string[] = [
  "sha256",
  "file_identifier",
  "aesthetic_score",
  "captions",
  "local_path",
  "rendered",
  "voxelized",
  "num_voxels",
  "cond_rendered",
  "error",
];

const FILE = "metadata.csv", RECORDS = "records", MERGED = "merged_records", LOCK = "metadata.lock";

/** Splits CSV (RFC 4180, either line ending, a byte-order mark allowed) into rows of fields; throws an Error where a quote is not closed. */
export function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [], at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  while (at < text.length) {
    let field = "";
    if (text[at] === '"') {
      for (at++;; at += 2) {
        const end = text.indexOf('"', at);
        if (end < 0) throw new Error(`Cannot read CSV: the quote in row ${rows.length + 1} is not closed`);
        field += text.slice(at, end);
        at = end;
        if (text[at + 1] !== '"') break;
        field += '"';
      }
      at++;
      if (at < text.length && !",\r\n".includes(text[at])) {
        throw new Error(`Cannot read CSV: row ${rows.length + 1} has text behind a closing quote`);
      }
    } else {
      const end = at;
      while (at < text.length && !",\r\n".includes(text[at])) at++;
      field = text.slice(end, at);
    }
    row.push(field);
    if (text[at] === ",") {
      at++;
      if (at < text.length) continue;
      row.push("");
    }
    if (text[at] === "\r") at++;
    if (text[at] === "\n") at++;
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  }
  return rows;
}

/** CSV text of rows of fields; fields with commas, quotes, line ends or outer spaces are quoted. */
export function formatCsv(rows: string[][]): string {
  const quoted = (field: string): string => /[",\r\n]|^\s|\s$/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
  return rows.map((row) => row.map(quoted).join(",") + "\n").join("");
}

/** Whether a boolean column holds true, as pandas or others write it. */
export function isTrue(value: string | undefined): boolean {
  return value !== undefined && /^(true|1|1\.0)$/i.test(value);
}

function readTable(path: string): MetadataRow[] {
  let rows: string[][];
  try {
    rows = parseCsv(Deno.readTextFileSync(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw new Error(`Cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
  const [columns = [], ...values] = rows;
  if (rows.length > 0 && !columns.includes("sha256")) throw new Error(`Cannot read ${path}: it has no column sha256, it must`);
  return values.map((row, i) => {
    if (row.length !== columns.length) {
      throw new Error(`Cannot read ${path}: row ${i + 2} has ${row.length} fields, it must have ${columns.length}`);
    }
    return Object.fromEntries(columns.map((column, k) => [column, row[k]]));
  });
}

function writeTable(path: string, rows: Iterable<MetadataRow>): void {
  const sorted = [...rows].sort((a, b) => compare(a.file_identifier ?? "", b.file_identifier ?? "") || compare(a.sha256, b.sha256));
  const columns = [...new Set([...METADATA_COLUMNS, ...sorted.flatMap((row) => Object.keys(row))])];
  writeFileAtomic(path, new TextEncoder().encode(formatCsv([columns, ...sorted.map((row) => columns.map((column) => row[column] ?? ""))])));
}

/** Order by UTF-16 code units: the same everywhere, unlike an order by language. */
export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Reads `<root>/metadata.csv`; empty where there is none. */
export function readMetadata(root: string): Metadata {
  return new Map(readTable(join(root, FILE)).map((row) => [row.sha256, row]));
}

/** Writes `<root>/metadata.csv`, whole or not at all, in the order of `file_identifier`. */
export function writeMetadata(root: string, metadata: Metadata): void {
  writeTable(join(root, FILE), metadata.values());
}

/** Puts new values over the rows that are there; a value of `""` clears the old one. */
export function mergeRows(metadata: Metadata, rows: Iterable<MetadataRow>): void {
  for (const row of rows) metadata.set(row.sha256, { ...metadata.get(row.sha256), ...row });
}

/** Writes what one rank has found so far to `<root>/records/<name>.csv`, whole or not at all. Nothing else writes that file. */
export function writeRecords(root: string, name: string, rows: Iterable<MetadataRow>): void {
  Deno.mkdirSync(join(root, RECORDS), { recursive: true });
  writeTable(join(root, RECORDS, `${name}.csv`), rows);
}

/**
 * Merges every record file into metadata.csv and moves it to `merged_records/`. Ranks may do so at any time: a lock lets one at a time,
 * and a record that is written again is merged again.
 */
export async function mergeRecords(root: string): Promise<void> {
  using lock = await Deno.open(join(root, LOCK), { create: true, write: true });
  await lock.lock(true);
  try {
    let names: string[];
    try {
      names = [...Deno.readDirSync(join(root, RECORDS))].map((entry) => entry.name).filter((name) =>
        name.endsWith(".csv") && !name.startsWith(".")
      ).sort();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      names = [];
    }
    if (names.length === 0) return;
    const metadata = readMetadata(root);
    for (const name of names) mergeRows(metadata, readTable(join(root, RECORDS, name)));
    writeMetadata(root, metadata);
    Deno.mkdirSync(join(root, MERGED), { recursive: true });
    for (const name of names) Deno.renameSync(join(root, RECORDS, name), join(root, MERGED, `${Date.now()}_${name}`));
  } finally {
    await lock.unlock();
  }
}
