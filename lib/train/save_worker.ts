/** The thread that writes checkpoints while training goes on: each message is one, the shared flags say how far it is. */
import { snapshotBytes, type SnapshotEntry } from "../tensor/snapshot.ts";
import { writeCheckpoint } from "./checkpoint_write.ts";
import { FLAGS, type SaveMessage, type SaveRequest, STATUS, TEXT_BYTES, TEXT_START } from "./save_protocol.ts";

let shared: SharedArrayBuffer, flags: Int32Array<SharedArrayBuffer>;

function finish(status: number): void {
  Atomics.store(flags, FLAGS.status, status);
  Atomics.notify(flags, FLAGS.status);
}

function save({ content, entries }: SaveRequest): void {
  const tick = function* (entry: SnapshotEntry): Generator<Uint8Array> {
    for (const chunk of snapshotBytes(entry)) {
      Atomics.add(flags, FLAGS.progress, 1);
      yield chunk;
    }
  };
  try {
    writeCheckpoint(content, entries.map((e) => ({ name: e.name, dtype: e.dtype, shape: e.shape, chunks: () => tick(e) })));
    finish(STATUS.idle);
  } catch (error) {
    const text = new TextEncoder().encode((error as Error).message).subarray(0, TEXT_BYTES);
    new Uint8Array(shared, TEXT_START).set(text);
    Atomics.store(flags, FLAGS.textLength, text.length);
    finish(STATUS.failed);
  }
}

globalThis.addEventListener("message", (event) => {
  const message = (event as MessageEvent<SaveMessage>).data;
  if (!("shared" in message)) return save(message);
  shared = message.shared;
  flags = new Int32Array(shared, 0, 4);
});
