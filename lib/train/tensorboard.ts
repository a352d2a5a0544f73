/** TensorBoard event files: TFRecords of Event messages (tensorflow/core/util/event.proto), scalars, PNG images and histograms. */
import type { Histogram } from "../ops/histogram.ts";

/** Bytes of a protobuf field: a varint, a double, a float, or length-delimited bytes. */
function varint(value: number): number[] {
  const out: number[] = [];
  let rest = BigInt(value);
  do {
    const byte = Number(rest & 127n);
    rest >>= 7n;
    out.push(rest ? byte | 128 : byte);
  } while (rest);
  return out;
}

function bytesField(field: number, bytes: ArrayLike<number>): number[] {
  return [...varint(field << 3 | 2), ...varint(bytes.length), ...Array.from(bytes)];
}

function textField(field: number, text: string): number[] {
  return bytesField(field, new TextEncoder().encode(text));
}

function doubleField(field: number, value: number): number[] {
  return [...varint(field << 3 | 1), ...new Uint8Array(new Float64Array([value]).buffer)];
}

function floatField(field: number, value: number): number[] {
  return [...varint(field << 3 | 5), ...new Uint8Array(new Float32Array([value]).buffer)];
}

function varintField(field: number, value: number): number[] {
  return [...varint(field << 3), ...varint(value)];
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c >>> 0;
});

/** CRC-32C, masked as TFRecord wants it. */
export function maskedCrc32c(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const b of bytes) c = CRC_TABLE[(c ^ b) & 255] ^ (c >>> 8);
  c = ~c >>> 0;
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
}

/** One TFRecord: length, its masked CRC, data, its masked CRC. */
export function tfRecord(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(data.length + 16), view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(out.subarray(0, 8)), true);
  out.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return out;
}

/** An open event file. */
export interface EventWriter {
  /** Scalars by tag, at a step. */
  scalars(step: number, values: Record<string, number>): void;
  /** A PNG at a step. */
  image(step: number, tag: string, png: Uint8Array, size: { width: number; height: number }): void;
  /** Histograms by tag, at a step; sums are those of the intervals' middles. */
  histograms(step: number, found: Record<string, Histogram>): void;
  close(): void;
}

/** A HistogramProto: its buckets end at their limits, the first one holds nothing. */
function histogramBytes({ limits, counts }: Histogram): number[] {
  const middles = counts.map((_, i) => (limits[i] + limits[i + 1]) / 2),
    sum = (of: (x: number) => number): number => counts.reduce((s, n, i) => s + n * of(middles[i]), 0);
  const doubles = (values: number[]): Uint8Array => new Uint8Array(new Float64Array(values).buffer);
  return [
    ...doubleField(1, limits[0] ?? 0),
    ...doubleField(2, limits.at(-1) ?? 0),
    ...doubleField(3, sum(() => 1)),
    ...doubleField(4, sum((x) => x)),
    ...doubleField(5, sum((x) => x * x)),
    ...bytesField(6, doubles(limits.length ? limits : [0])),
    ...bytesField(7, doubles([0, ...counts])),
  ];
}

/** Opens a new event file in `folder`, which exists. */
export function openEventWriter(folder: string): EventWriter {
  const name = `events.out.tfevents.${Math.floor(Date.now() / 1000)}.${Deno.hostname()}.${Deno.pid}`;
  const file = Deno.openSync(`${folder}/${name}`, { write: true, create: true, append: true });
  const write = (event: number[]): void => {
    const bytes = tfRecord(Uint8Array.from(event));
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  };
  const head = (): number[] => doubleField(1, Date.now() / 1000);
  write([...head(), ...textField(3, "brain.Event:2")]);
  const summary = (step: number, values: number[][]): void =>
    write([...head(), ...varintField(2, step), ...bytesField(5, values.flatMap((v) => bytesField(1, v)))]);
  return {
    scalars: (step, values) => summary(step, Object.entries(values).map(([tag, v]) => [...textField(1, tag), ...floatField(2, v)])),
    image: (step, tag, png, { width, height }) =>
      summary(step, [[
        ...textField(1, tag),
        ...bytesField(4, [...varintField(1, height), ...varintField(2, width), ...varintField(3, 3), ...bytesField(4, png)]),
      ]]),
    histograms: (step, found) =>
      summary(step, Object.entries(found).map(([tag, h]) => [...textField(1, tag), ...bytesField(5, histogramBytes(h))])),
    close: () => file.close(),
  };
}
