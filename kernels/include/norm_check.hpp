// What a k_norm must be, checked the same way on every device. The including file has fail().
#pragma once
#include "norm.h"
#include "samples.hpp"

// Fills `samples`; a status other than K_OK says what is wrong.
inline int32_t check_norm(Samples& samples, const char* where, const k_norm* p) {
  if (!p) return fail(K_BAD_ARGUMENT, where, "problem is 0, it must be the address of a k_norm");
  if (p->struct_size != int64_t(sizeof(k_norm))) {
    return fail(K_BAD_ARGUMENT, where, "struct_size is %lld, it must be %d", (long long)p->struct_size, int(sizeof(k_norm)));
  }
  if (p->N > INT32_MAX || p->B > INT32_MAX || p->C > INT32_MAX) {
    return fail(K_BAD_ARGUMENT, where, "N = %lld, B = %lld, C = %lld, they must be below 2^31", (long long)p->N, (long long)p->B,
                (long long)p->C);
  }
  if ((p->w || p->b) && (p->scale || p->shift)) return fail(K_BAD_ARGUMENT, where, "w or b is given with scale or shift, it must be 0");
  if (p->N > 0 && p->gate && !p->h) return fail(K_BAD_ARGUMENT, where, "gate is given without h, it must be 0");
  return samples_of(samples, where, p->offsets, int32_t(p->N), int32_t(p->B), int32_t(p->C));
}

// For the backward pass.
inline int32_t check_norm_gradients(const char* where, const k_norm* p) {
  if (p->N > 0 && (p->dh || p->dgate) && (!p->dx || !p->gate)) return fail(K_BAD_ARGUMENT, where, "dh or dgate is wanted, dx and gate must be given");
  if (p->N > 0 && p->dbias && !(p->gate ? p->dh : p->dx)) {
    return fail(K_BAD_ARGUMENT, where, "dbias is wanted, %s must be given", p->gate ? "dh" : "dx");
  }
  return K_OK;
}
