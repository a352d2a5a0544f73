// Layer norms on CUDA: plain, modulated, of a residual sum.
#include "norm_bwd.cuh"
#include "norm_fwd.cuh"

namespace {
// Calls run(Norm<T, W>, packed) with the problem in its types; packed: rows may be moved in accesses of 16 bytes.
template <class F>
int32_t with_norm(const char* where, const k_norm& p, const Samples& samples, F run) {
  return with_float_type(where, int32_t(p.dtype), [&](auto type) {
    using T = decltype(type);
    constexpr int V = 16 / sizeof(T);
    const auto fill = [&](auto weight, uint64_t w, uint64_t s, int64_t stride, float one) {
      using W = decltype(weight);
      const Norm<T, W> norm{at<T>(p.sum), at<T>(p.y), at<T>(p.dx), at<T>(p.dh), at<float>(p.mean), at<float>(p.rstd),
                            at<float>(p.workspace), at<const T>(p.x), at<const T>(p.h), at<const T>(p.gate), at<const T>(p.dy),
                            at<const T>(p.dsum), at<const W>(w), at<const W>(s), stride, p.gate_stride, samples, int(p.C), one, float(p.eps), p.dbias != 0};
      const bool packed = p.C % V == 0 && aligned16(p.x, p.h, p.sum, p.y, p.dy, p.dsum, p.dx, p.dh, p.gate, w, s) &&
                          (!p.gate || p.gate_stride % V == 0) && stride % V == 0;
      return run(norm, packed);
    };
    return p.scale || p.shift ? fill(T{}, p.scale, p.shift, p.stride, 1) : fill(float{}, p.w, p.b, 0, p.w ? 0 : 1);
  });
}

bool is_gated(const k_norm& p) { return p.dh || p.dgate; }

int64_t blocks_of(const k_norm& p, const Samples& samples) {
  return backward_blocks(samples.B, samples.mean(), int(p.C), samples.offsets, is_gated(p), p.dtype == K_F32);
}

bool wants_sums(const k_norm& p) { return p.dw || p.db || p.dscale || p.dshift || p.dgate || p.dbias; }
}  // namespace

int32_t k_norm_fwd(const k_norm* problem, uint64_t stream) {
  const char* where = "k_norm_fwd";
  Samples samples;
  if (const int32_t status = check_norm(samples, where, problem)) return status;
  return with_norm(where, *problem, samples, [&](const auto& norm, bool packed) { return forward(where, norm, packed, stream); });
}

int32_t k_norm_bwd_workspace(uint64_t* bytes, const k_norm* problem) {
  Samples samples;
  if (const int32_t status = check_norm(samples, "k_norm_bwd_workspace", problem)) return status;
  const int64_t S = blocks_of(*problem, samples);
  *bytes = wants_sums(*problem) ? samples.B * S * backward_sums(is_gated(*problem)) * problem->C * sizeof(float) : 0;
  return K_OK;
}

int32_t k_norm_bwd(const k_norm* problem, uint64_t stream) {
  const char* where = "k_norm_bwd";
  const k_norm& p = *problem;
  Samples samples;
  if (const int32_t status = check_norm(samples, where, problem)) return status;
  if (const int32_t status = check_norm_gradients(where, problem)) return status;
  if (p.C > 8192) return fail(K_UNSUPPORTED, where, "C = %d, it must be at most 8192", int(p.C));
  const int64_t S = blocks_of(p, samples), blocks = samples.B * S;
  if (blocks > INT32_MAX) return fail(K_BAD_ARGUMENT, where, "B = %d, it must be smaller", samples.B);
  const bool none = samples.N == 0, gated = is_gated(p);
  return with_norm(where, p, samples, [&](auto norm, bool packed) {
    using T = std::remove_pointer_t<decltype(norm.dx)>;
    if (p.h) norm.x = at<const T>(p.sum);
    if (!wants_sums(p)) norm.partial = nullptr;
    if (!none) {
      if (const int32_t status = backward(where, norm, gated, packed, int(S), stream)) return status;
    }
    const int count = backward_sums(gated);
    const int64_t parts = none ? 0 : S;
    const bool by_sample = p.dscale || p.dshift || p.dgate, in_all = p.dw || p.db || p.dbias;
    const Sums<T> sums{
        {at<T>(p.dscale), at<T>(p.dshift), gated ? at<T>(p.dgate) : nullptr}, {p.stride, p.stride, p.gate_stride}, p.adds != 0};
    float* const dbias = at<float>(p.dbias);
    const Sums<float> all{{at<float>(p.dw), at<float>(p.db), gated ? nullptr : dbias, gated ? dbias : nullptr}};
    if (by_sample && in_all) return launch_sum_partials_twice(where, sums, all, p.workspace, samples.B, parts, p.C, count, stream);
    if (by_sample) return launch_sum_partials(where, sums, p.workspace, samples.B, parts, p.C, count, stream);
    return in_all ? launch_sum_partials(where, all, p.workspace, 1, samples.B * parts, p.C, count, stream) : int32_t(K_OK);
  });
}
