import assert from "node:assert/strict";
import { maskedCrc32c, openEventWriter, tfRecord } from "../../lib/train/tensorboard.ts";
import { withFolder } from "../io/corrupt.ts";

const MASK = 0xa282ead8;

/** The CRC-32C that a masked one was made of. */
function unmask(masked: number): number {
  const rotated = (masked - MASK) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

/** The payloads of a file of TFRecords, each checked against its CRCs. */
function readRecords(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), records: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = Number(view.getBigUint64(at, true)), data = bytes.slice(at + 12, at + 12 + length);
    assert.equal(view.getUint32(at + 8, true), maskedCrc32c(bytes.slice(at, at + 8)));
    assert.equal(view.getUint32(at + 12 + length, true), maskedCrc32c(data));
    records.push(data);
    at += length + 16;
  }
  return records;
}

type Field = number | Uint8Array;

/** The fields of a protobuf message by number, in order. */
function readFields(bytes: Uint8Array): Record<number, Field[]> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), fields: Record<number, Field[]> = {};
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint(), kind = tag & 7;
    let value: Field;
    if (kind === 0) value = varint();
    else if (kind === 1) value = view.getFloat64((at += 8) - 8, true);
    else if (kind === 5) value = view.getFloat32((at += 4) - 4, true);
    else if (kind === 2) {
      const length = varint();
      value = bytes.slice(at, at += length);
    } else throw new Error(`wire type ${kind} at ${at}`);
    (fields[tag >> 3] ??= []).push(value);
  }
  assert.equal(at, bytes.length);
  return fields;
}

const text = (field: Field): string => new TextDecoder().decode(field as Uint8Array);

Deno.test("maskedCrc32c() equals the known CRC-32C values", () => {
  const of = (bytes: Iterable<number>): number => unmask(maskedCrc32c(Uint8Array.from(bytes)));
  assert.equal(of(new TextEncoder().encode("123456789")), 0xe3069283);
  assert.equal(of([]), 0);
  assert.equal(of(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(of(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assert.equal(of(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
});

Deno.test("tfRecord() frames the data with its length and both checksums", () => {
  for (const size of [0, 1, 300]) {
    const data = Uint8Array.from({ length: size }, (_, i) => i * 7), record = tfRecord(data);
    assert.equal(record.length, size + 16);
    assert.deepEqual(readRecords(record), [data]);
  }
});

Deno.test("openEventWriter() writes a version, scalars, images and histograms that parse back", () => {
  withFolder((folder) => {
    const png = Uint8Array.from({ length: 500 }, (_, i) => i), before = Date.now() / 1000, writer = openEventWriter(folder);
    writer.scalars(7, { loss: 0.25, "a long tag/ü": -1e-3 });
    writer.scalars(300_000_000, { loss: NaN });
    writer.image(12, "grid", png, { width: 300, height: 20 });
    writer.histograms(20, {
      "gradients/out": { limits: [-1, 0, 0.5, 2], counts: [3, 0, 5], notFinite: 1 },
      none: { limits: [], counts: [], notFinite: 0 },
    });
    writer.close();

    const [file, ...others] = [...Deno.readDirSync(folder)].map((e) => e.name);
    assert.deepEqual(others, []);
    assert.match(file, /^events\.out\.tfevents\.\d+\./);
    const [version, scalars, late, image, histograms, ...rest] = readRecords(Deno.readFileSync(`${folder}/${file}`)).map(readFields);
    assert.deepEqual(rest, []);
    assert.equal(text(version[3][0]), "brain.Event:2");
    for (const event of [version, scalars, late, image]) {
      assert.ok(Math.abs((event[1][0] as number) - before) < 60, "the wall time is in seconds");
    }

    assert.deepEqual(scalars[2], [7]);
    const values = readFields(scalars[5][0] as Uint8Array)[1].map((v) => readFields(v as Uint8Array));
    assert.deepEqual(values.map((v) => text(v[1][0])), ["loss", "a long tag/ü"]);
    assert.deepEqual(values.map((v) => v[2]), [[0.25], [Math.fround(-1e-3)]]);
    assert.deepEqual(late[2], [300_000_000]);
    assert.ok(Number.isNaN(readFields(readFields(late[5][0] as Uint8Array)[1][0] as Uint8Array)[2][0]));

    assert.deepEqual(image[2], [12]);
    const value = readFields(readFields(image[5][0] as Uint8Array)[1][0] as Uint8Array), picture = readFields(value[4][0] as Uint8Array);
    assert.equal(text(value[1][0]), "grid");
    assert.deepEqual([picture[1], picture[2], picture[3]], [[20], [300], [3]]);
    assert.deepEqual(picture[4], [png]);

    assert.deepEqual(histograms[2], [20]);
    const [out, none] = readFields(histograms[5][0] as Uint8Array)[1].map((v) => readFields(v as Uint8Array)),
      proto = readFields(out[5][0] as Uint8Array);
    const doubles = (field: Field): number[] => [...new Float64Array((field as Uint8Array).slice().buffer)];
    assert.equal(text(out[1][0]), "gradients/out");
    assert.deepEqual([1, 2, 3, 4, 5].map((k) => proto[k][0]), [-1, 2, 8, -0.5 * 3 + 1.25 * 5, 0.25 * 3 + 1.5625 * 5]);
    assert.deepEqual([doubles(proto[6][0]), doubles(proto[7][0])], [[-1, 0, 0.5, 2], [0, 3, 0, 5]]);
    assert.deepEqual(doubles(readFields(none[5][0] as Uint8Array)[6][0]), [0]);
  });
});
