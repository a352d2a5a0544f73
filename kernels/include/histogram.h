// library: ops
// How values are distributed, for a log: counts by sign, exponent and the two highest bits of the fraction.
#pragma once
#include "k.h"

#define K_HISTOGRAM_BINS 2048

// counts[b] += how many elements of x, as f32, have b as their 11 highest bits. Bin b < 1024 begins at the f32 whose bits are b << 21 and is a quarter
// of a power of two wide; those from 1024 on are the same below 0. Bins 1020 to 1023 and 2044 to 2047 have what is not finite. Counts are whole
// numbers: two runs agree.
//   counts: [K_HISTOGRAM_BINS] i64    x: [n] f32, f16 or bf16
K_API int32_t k_histogram_fwd(uint64_t counts, uint64_t x, int64_t n, int32_t dtype, uint64_t stream);
