/** Writes files as torch.save does, and ones that it would not. */
import { zipSync } from "fflate";
import { concat, latin1 } from "./corrupt.ts";

/** Little pieces of a pickle. */
export const op = {
  int: (n: number) => concat(latin1("J"), new Uint8Array(new Int32Array([n]).buffer)),
  text: (s: string) => {
    const bytes = new TextEncoder().encode(s);
    return concat(latin1("X"), new Uint8Array(new Uint32Array([bytes.length]).buffer), bytes);
  },
  global: (module: string, name: string) => latin1(`c${module}\n${name}\n`),
  tuple: (...items: Uint8Array[]) => concat(latin1("("), ...items, latin1("t")),
  call: (what: Uint8Array, args: Uint8Array) => concat(what, args, latin1("R")),
  dict: (items: Record<string, Uint8Array>) =>
    concat(latin1("}("), ...Object.entries(items).map(([key, value]) => concat(op.text(key), value)), latin1("u")),
  put: (slot: number) => Uint8Array.of(0x71, slot),
  get: (slot: number) => Uint8Array.of(0x68, slot),
  whole: (value: Uint8Array) => concat(Uint8Array.of(0x80, 2), value, latin1(".")),
};

/** A tensor's pickle: of storage `key` with `count` elements. */
export function tensorPickle(
  { key, type = "FloatStorage", count, offset = 0, shape, stride }: {
    key: string;
    type?: string;
    count: number;
    offset?: number;
    shape: number[];
    stride: number[];
  },
): Uint8Array {
  const storage = concat(op.tuple(op.text("storage"), op.global("torch", type), op.text(key), op.text("cpu"), op.int(count)), latin1("Q"));
  const hooks = op.call(op.global("collections", "OrderedDict"), latin1(")"));
  const numbers = (list: number[]): Uint8Array => op.tuple(...list.map(op.int));
  return op.call(
    op.global("torch._utils", "_rebuild_tensor_v2"),
    op.tuple(storage, op.int(offset), numbers(shape), numbers(stride), Uint8Array.of(0x89), hooks),
  );
}

/** The archive around a pickle. */
export function torchFile(pickle: Uint8Array, storages: Record<string, Uint8Array>, level: 0 | 9 = 0): Uint8Array<ArrayBuffer> {
  const files: Record<string, Uint8Array> = {
    "archive/data.pkl": pickle,
    "archive/byteorder": latin1("little"),
    "archive/version": latin1("3\n"),
  };
  for (const [key, bytes] of Object.entries(storages)) files[`archive/data/${key}`] = bytes;
  return new Uint8Array(zipSync(files, { level }));
}

/** A file of two tensors that share a storage, one of them transposed, with a number and a dictionary inside. */
export function smallTorchFile(): Uint8Array<ArrayBuffer> {
  const values = new Uint8Array(new Float32Array([0, 1, 2, 3, 4, 5]).buffer), half = new Uint8Array(new Float16Array([0.5, -1]).buffer);
  const pickle = op.whole(op.dict({
    weight: tensorPickle({ key: "0", count: 6, shape: [2, 3], stride: [3, 1] }),
    turned: tensorPickle({ key: "0", count: 6, shape: [3, 2], stride: [1, 3] }),
    part: tensorPickle({ key: "0", count: 6, offset: 2, shape: [2], stride: [1] }),
    step: op.int(-7),
    inner: op.dict({ half: tensorPickle({ key: "1", type: "HalfStorage", count: 2, shape: [2], stride: [1] }) }),
  }));
  return torchFile(pickle, { "0": values, "1": half });
}
