/** Structs of the C ABI whose fields all have 8 bytes, written from plain records. */

/** The fields of a struct behind its first one, `struct_size`, in their order; the tables are in `symbols.ts`. */
export type Fields = readonly (readonly [name: string, kind: "i64" | "u64" | "f64"])[];

/** A record with the fields of a table: i64 and f64 are numbers, u64 (addresses) bigints. */
export type RecordOf<F extends Fields> = { [E in F[number] as E[0]]: E[1] extends "u64" ? bigint : number };

/** The bytes of the struct that `fields` describes, with the values of `record`. Whole numbers must be safe integers. */
export function pack<F extends Fields>(fields: F, record: RecordOf<F>): BigUint64Array<ArrayBuffer> {
  const words = new BigUint64Array(fields.length + 1),
    view = new DataView(words.buffer),
    values = record as Record<string, number | bigint>;
  view.setUint32(0, words.byteLength, true);
  for (let i = 0, at = 8; i < fields.length; i++, at += 8) {
    const [name, kind] = fields[i], value = values[name];
    if (typeof value === "bigint") words[i + 1] = value;
    else if (kind === "f64") view.setFloat64(at, value, true);
    else {
      view.setInt32(at, value | 0, true); // the low half of a two's complement
      view.setInt32(at + 4, Math.floor(value / 2 ** 32), true);
    }
  }
  return words;
}
