// library: ops
// Random numbers from Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011). Element i uses word
// i % 4 of the block with counter offset + i / 4 (64 bits, wraps) and key seed, so a draw of n elements uses ceil(n / 4) counters.
// Every operation is one IEEE operation (philox_math.h): both devices write the same bits.
#pragma once
#include "k.h"

// y[i] standard normal: Box-Muller on words (0, 1) and (2, 3) of a block: r = sqrt(-2 ln u), y = r cos(2 pi v) and r sin(2 pi v), with
// u = (w + 1/2) / 2^32 in (0, 1] and v = floor(w' / 2^8) / 2^24. |y| <= 6.77. Computed in f32, then rounded to dtype.
//   y: [n] f32, f16 or bf16
K_API int32_t k_random_normal_fwd(uint64_t y, int64_t n, uint64_t seed, uint64_t offset, int32_t dtype, uint64_t stream);

// y[i] = low + (high - low) u in [low, high), u = floor(w / 2^8) / 2^24; in f16 and bf16 the rounding may reach high.
//   y: [n] f32, f16 or bf16    low < high, both finite
K_API int32_t k_random_uniform_fwd(uint64_t y, int64_t n, uint64_t seed, uint64_t offset, float low, float high, int32_t dtype,
                                   uint64_t stream);
