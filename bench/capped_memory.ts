/** The open device's memory with less of it, or with allocations that fail. */
import { device } from "../lib/tensor/device.ts";
import { type Memory, OutOfMemoryError } from "../lib/tensor/memory.ts";

function changed<T>(change: (memory: { -readonly [K in keyof Memory]: Memory[K] }) => void, body: () => T): T {
  const { memory } = device(), { alloc, free, park } = memory;
  change(memory);
  try {
    return body();
  } finally {
    Object.assign(memory, { alloc, free, park });
  }
}

/** Runs `body` on a card of that many bytes. */
export function withCard<T>(bytes: number, body: () => T): T {
  return changed((memory) => {
    const { alloc, free, park } = memory;
    let used = memory.use().used;
    memory.alloc = (n) => {
      if (used + n > bytes) throw new OutOfMemoryError(`Cannot allocate ${n} bytes: the card has ${bytes}`);
      const address = alloc(n);
      used += n;
      return address;
    };
    memory.free = (address, n) => {
      used -= n;
      free(address, n);
    };
    memory.park = (address, n) => {
      used -= n;
      return park(address, n); // what comes back is allocated as all else
    };
  }, body);
}

/** Runs `body`, in which allocation number `fails` does not fit; tells how many there were. */
export function withFailure<T>(fails: number, body: () => T, count: (allocations: number) => void = () => {}): T {
  let n = 0;
  try {
    return changed((memory) => {
      const { alloc } = memory;
      memory.alloc = (bytes) => {
        if (n++ === fails) throw new OutOfMemoryError(`Cannot allocate ${bytes} bytes: allocation ${fails} is made to fail`);
        return alloc(bytes);
      };
    }, body);
  } finally {
    count(n);
  }
}
