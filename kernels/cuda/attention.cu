// Attention on CUDA: m16n8k16 tensor-core kernels (sm_80 and later) in f16 and bf16, plain ones in f32.
#include "../include/attention.h"

#include <cmath>
#include <initializer_list>

#include "attention_bwd.cuh"
#include "attention_f32.cuh"
#include "attention_fwd.cuh"

namespace attention {
int32_t check(const char* where, const Sizes& size, float scale, int32_t dtype, std::initializer_list<uint64_t> addresses,
              std::initializer_list<Strides> strides) {
  if (size.B < 0 || size.L < 0 || size.M < 0 || size.H < 0) {
    return fail(K_BAD_ARGUMENT, where, "B, L, M, H are %d, %d, %d, %d, they must be >= 0", size.B, size.L, size.M, size.H);
  }
  if (size.D < 1 || size.D > 128) return fail(K_UNSUPPORTED, where, "D is %d, it must be 1 to 128", size.D);
  if (!(scale > 0) || std::isinf(scale)) return fail(K_BAD_ARGUMENT, where, "scale is %g, it must be finite and > 0", double(scale));
  if (dtype == K_F32) return K_OK;
  if (size.D % 8) return fail(K_UNSUPPORTED, where, "D is %d, in f16 and bf16 it must be a multiple of 8", size.D);
  for (const uint64_t address : addresses) {
    if (address % 16) return fail(K_BAD_ARGUMENT, where, "an address ends in %d bytes, it must be a multiple of 16", int(address % 16));
  }
  for (const Strides& s : strides) {
    for (const int64_t stride : {s.batch, s.token, s.head}) {
      if (stride % 8) return fail(K_BAD_ARGUMENT, where, "a stride is %lld, it must be a multiple of 8", static_cast<long long>(stride));
    }
  }
  return K_OK;
}

// Blocks of `threads` with `shared` bytes, each for `rows` of the `tokens` of a head.
struct Grid {
  int tokens, rows, threads, shared;
};

// Runs kernel(args..., size, scale).
template <class Kernel, class... A>
int32_t launch(const char* where, Kernel kernel, Grid grid, uint64_t stream, const Sizes& size, float scale, A... args) {
  const int64_t blocks = int64_t(size.B) * size.H * ceil_div(grid.tokens, grid.rows);
  if (blocks == 0) return K_OK;
  if (blocks > INT32_MAX) {
    return fail(K_UNSUPPORTED, where, "B, H are %d, %d with %d tokens, that is 2^31 blocks or more", size.B, size.H, grid.tokens);
  }
  const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, grid.shared);
  if (e != cudaSuccess) return fail(e, where, "%s", cudaGetErrorString(e));
  kernel<<<unsigned(blocks), grid.threads, grid.shared, stream_of(stream)>>>(args..., size, scale);
  return launched(where);
}

template <int N>
struct Width {
  static constexpr int DP = N;
};

// Calls run(Width<DP>{}) for the least DP that holds D.
template <class F>
int32_t with_width(int D, F run) {
  if (D <= 32) return run(Width<32>{});
  if (D <= 64) return run(Width<64>{});
  if (D <= 96) return run(Width<96>{});
  return run(Width<128>{});
}
}  // namespace attention

using namespace attention;

int32_t k_attention_fwd(uint64_t o, uint64_t lse, uint64_t q, uint64_t k, uint64_t v, int32_t B, int32_t L, int32_t M, int32_t H, int32_t D,
                        int64_t o_batch, int64_t o_token, int64_t o_head, int64_t q_batch, int64_t q_token, int64_t q_head, int64_t k_batch,
                        int64_t k_token, int64_t k_head, int64_t v_batch, int64_t v_token, int64_t v_head, float scale, int32_t dtype,
                        uint64_t stream) {
  const char* where = "k_attention_fwd";
  const Sizes size{B, L, M, H, D};
  const Strides so{o_batch, o_token, o_head}, sq{q_batch, q_token, q_head}, sk{k_batch, k_token, k_head}, sv{v_batch, v_token, v_head};
  if (int32_t status = check(where, size, scale, dtype, {o, q, k, v}, {so, sq, sk, sv})) return status;
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    const Operand<T> O{at<T>(o), so};
    const Operand<const T> Q{at<const T>(q), sq}, K{at<const T>(k), sk}, V{at<const T>(v), sv};
    return with_width(D, [&](auto width) {
      constexpr int DP = decltype(width)::DP;
      if constexpr (sizeof(T) == 4) {
        constexpr int P = DP == 96 ? 128 : DP;
        const Grid grid{L, F32_TILE<P>, F32_THREADS, f32_shared<P>(2)};
        return launch(where, forward_f32<P>, grid, stream, size, scale, O, at<float>(lse), Q, K, V);
      } else {
        const Grid grid{L, FWD_QUERIES, THREADS, FWD_SHARED<DP>};
        return launch(where, forward<T, DP>, grid, stream, size, scale, O, at<float>(lse), Q, K, V);
      }
    });
  });
}

int32_t k_attention_bwd(uint64_t dq, uint64_t dk, uint64_t dv, uint64_t d_o, uint64_t o, uint64_t lse, uint64_t q, uint64_t k, uint64_t v,
                        uint64_t delta, int32_t B, int32_t L, int32_t M, int32_t H, int32_t D, int64_t dq_batch, int64_t dq_token,
                        int64_t dq_head, int64_t dk_batch, int64_t dk_token, int64_t dk_head, int64_t dv_batch, int64_t dv_token,
                        int64_t dv_head, int64_t d_o_batch, int64_t d_o_token, int64_t d_o_head, int64_t o_batch, int64_t o_token,
                        int64_t o_head, int64_t q_batch, int64_t q_token, int64_t q_head, int64_t k_batch, int64_t k_token, int64_t k_head,
                        int64_t v_batch, int64_t v_token, int64_t v_head, float scale, int32_t dtype, uint64_t stream) {
  const char* where = "k_attention_bwd";
  const Sizes size{B, L, M, H, D};
  const Strides sdq{dq_batch, dq_token, dq_head}, sdk{dk_batch, dk_token, dk_head}, sdv{dv_batch, dv_token, dv_head};
  const Strides sdo{d_o_batch, d_o_token, d_o_head}, so{o_batch, o_token, o_head}, sq{q_batch, q_token, q_head},
      sk{k_batch, k_token, k_head}, sv{v_batch, v_token, v_head};
  if (int32_t status = check(where, size, scale, dtype, {dq, dk, dv, d_o, o, q, k, v}, {sdq, sdk, sdv, sdo, so, sq, sk, sv})) return status;
  return with_float_type(where, dtype, [&](auto type) {
    using T = decltype(type);
    const Operand<T> DQ{at<T>(dq), sdq}, DK{at<T>(dk), sdk}, DV{at<T>(dv), sdv};
    const Operand<const T> DO{at<const T>(d_o), sdo}, O{at<const T>(o), so};
    const Operand<const T> Q{at<const T>(q), sq}, K{at<const T>(k), sk}, V{at<const T>(v), sv};
    return with_width(D, [&](auto width) {
      constexpr int DP = decltype(width)::DP, VECTOR = sizeof(T) == 4 ? 1 : 8, LANES = sizeof(T) == 4 ? 32 : DP == 96 ? 16 : DP / 8;
      const float* LSE = at<const float>(lse);
      float* DELTA = at<float>(delta);
      int32_t status = K_OK;
      if (int64_t(B) * L * H > 0) {
        const int64_t blocks = ceil_div(int64_t(B) * L * H, 256 / LANES);
        if (blocks > INT32_MAX) return fail(K_UNSUPPORTED, where, "B, L, H are %d, %d, %d, that is too many rows", B, L, H);
        sum_delta<T, VECTOR, LANES><<<unsigned(blocks), 256, 0, stream_of(stream)>>>(DELTA, DO, O, size);
        status = launched(where);
      }
      const auto run = [&](auto grad_q, auto grad_kv, int rows, int threads, int shared) {
        if (!status && dq) {
          status = launch(where, grad_q, Grid{L, rows, threads, shared}, stream, size, scale, DQ, DO, LSE, DELTA, Q, K, V);
        }
        if (!status && (dk || dv)) {
          status = launch(where, grad_kv, Grid{M, rows, threads, shared}, stream, size, scale, DK, DV, DO, LSE, DELTA, Q, K, V);
        }
      };
      if constexpr (sizeof(T) == 4) {
        constexpr int P = DP == 96 ? 128 : DP;
        run(backward_q_f32<P>, backward_kv_f32<P>, F32_TILE<P>, F32_THREADS, f32_shared<P>(4));
      } else {
        run(backward_q<T, DP>, backward_kv<T, DP>, BWD_ROWS<DP>, THREADS, BWD_SHARED<DP>);
      }
      return status;
    });
  });
}
