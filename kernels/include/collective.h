// library: ops
// Collectives of the CPU library: what NCCL does on CUDA. Rank 0 listens, each other rank holds one connection to it, and rank 0 combines in the
// order of ranks: sums are equal to the bit on every rank and in every run. Bound by the sockets: rank 0 moves 2 (world - 1) n elements.
//
// All ranks call the same functions with the same sizes in the same order; one that does not, dies, or stays away for the timeout fails the call on
// every rank with a message that names it, and the communicator is of no more use. Buffers may be the same one; n may be 0. `world` may be 1.
#pragma once
#include "k.h"

#define K_REDUCE_SUM 0
#define K_REDUCE_MAX 1
#define K_REDUCE_MIN 2

// Rank 0 of `world` listens at `host` (bytes ended by 0; a name or an address) and `port` (0: any that is free).
//   out: [2] the communicator, the port    token: what the others must send, such as a hash of the job    timeout: seconds that a call may wait
K_CPU_API int32_t k_collective_listen(uint64_t* out, uint64_t host, int32_t port, int32_t world, uint64_t token, double timeout);

// Rank 0 waits until all others have come.
K_CPU_API int32_t k_collective_accept(uint64_t comm);

// Rank `rank` comes to rank 0; tries again until the timeout where it does not listen yet.
//   out: [1] the communicator
K_CPU_API int32_t k_collective_connect(uint64_t* out, uint64_t host, int32_t port, int32_t rank, int32_t world, uint64_t token, double timeout);

// Ends the connections and frees the communicator.
K_CPU_API int32_t k_collective_close(uint64_t comm);

// y = the sum, maximum or minimum (op) of all ranks' x.
//   y, x: [n] f32, i32 or i64
K_CPU_API int32_t k_all_reduce_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t op, int32_t dtype, uint64_t stream);

// y = this rank's row of the sum, maximum or minimum of all ranks' x.
//   y: [n]    x: [world, n] f32, i32 or i64
K_CPU_API int32_t k_reduce_scatter_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t op, int32_t dtype, uint64_t stream);

// y = all ranks' x, one after the other.
//   y: [world, n]    x: [n] of any dtype
K_CPU_API int32_t k_all_gather_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t dtype, uint64_t stream);

// y = x of rank `root`; x is read there alone.
//   y, x: [n] of any dtype
K_CPU_API int32_t k_broadcast_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t root, int32_t dtype, uint64_t stream);
