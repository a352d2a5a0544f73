/** Structs of the C ABI whose fields all have 8 bytes, written from plain records. */

/** The fields of a struct behind its first one, `struct_size`, in their order; the tables are in `symbols.ts`. */
export type Fields = readonly (readonly [name: string, kind: "i64" | "u64" | "f64"])[];

/** A record with the fields of a table: i64 and f64 are numbers, u64 (addresses) bigints. */
export type RecordOf<F extends Fields> = { [E in F[number] as E[0]]: E[1] extends "u64" ? bigint : number };

/** One piece of memory in its three forms. */
interface Words {
  words: BigUint64Array<ArrayBuffer>;
  halves: Int32Array;
  floats: Float64Array;
}

const made = new Map<Fields, Words>();

function wordsOf(fields: Fields): Words {
  const words = new BigUint64Array(fields.length + 1), { buffer } = words;
  const known = { words, halves: new Int32Array(buffer), floats: new Float64Array(buffer) };
  made.set(fields, known);
  return known;
}

/**
 * The bytes of the struct that `fields` describes, with the values of `record`. Whole numbers must be safe integers. The memory is that of the last
 * struct of these fields: a call must have read it before the next one is packed.
 */
export function pack<F extends Fields>(fields: F, record: RecordOf<F>): BigUint64Array<ArrayBuffer> {
  const { words, halves, floats } = made.get(fields) ?? wordsOf(fields), values = record as Record<string, number | bigint>;
  halves[0] = words.byteLength;
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i], value = values[field[0]];
    if (typeof value === "bigint") words[i + 1] = value;
    else if (field[1] === "f64") floats[i + 1] = value;
    else {
      halves[2 * i + 2] = value | 0; // the low half of a two's complement
      halves[2 * i + 3] = Math.floor(value / 2 ** 32);
    }
  }
  return words;
}
