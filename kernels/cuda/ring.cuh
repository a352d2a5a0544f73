// Rings of 16-byte pieces in shared memory that each thread fills and reads for itself: what it will need is on its way without a register, and no
// thread waits for another.
#pragma once
#include <stdint.h>

// Copies 16 bytes to shared memory, or zeros where `live` is false; `from` must be an address all the same.
__device__ inline void ring_copy(void* to, const void* from, bool live) {
  const uint32_t address = uint32_t(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(live ? 16 : 0) : "memory");
}

// Ends the copies of one slot of the ring; empty ones count.
__device__ inline void ring_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until this thread's copies of all slots but the last `LATER` have come.
template <int LATER>
__device__ inline void ring_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}
