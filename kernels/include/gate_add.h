// library: ops
// The gated residual of a modulated block.
#pragma once
#include "k.h"

// y = x + h * gate, rounded once, with the gate of the row's sample
//   y, x, h: [N, C] dtype    gate: [B, C] dtype, gate_stride elements from a sample's to the next one's
//   offsets: [B + 1] i32, from 0 to N: sample b has the rows from offsets[b] to offsets[b + 1]; or 0 where each has N / B rows
K_API int32_t k_gate_add_fwd(uint64_t y, uint64_t x, uint64_t h, uint64_t gate, uint64_t offsets, int32_t N, int32_t B, int32_t C,
                             int64_t gate_stride, int32_t dtype, uint64_t stream);

// Bytes of scratch that k_gate_add_bwd needs.
K_API int32_t k_gate_add_bwd_workspace(uint64_t* bytes, int32_t N, int32_t B, int32_t C);

// dh = dy * gate    dgate = the sum of dy * h over the rows of a sample    dbias = the sum of dh over all rows
// (dx is dy itself)
//   dh, dy, h: [N, C] dtype    dgate, gate: as gate    dbias: [C] f32, needs dh    what is not wanted is 0
//   adds: 1 where dgate is rounded and added to what is there
K_API int32_t k_gate_add_bwd(uint64_t dh, uint64_t dgate, uint64_t dbias, uint64_t dy, uint64_t h, uint64_t gate, uint64_t offsets, uint64_t scratch,
                             int32_t N, int32_t B, int32_t C, int64_t gate_stride, int32_t adds, int32_t dtype, uint64_t stream);
