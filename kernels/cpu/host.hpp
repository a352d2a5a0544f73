// Shared by the CPU families: the message buffer and address casts.
#pragma once
#include <cstdio>
#include <type_traits>

#include "../include/k.h"

extern thread_local char k_message[512];

template <class... A>
int32_t fail(int32_t status, const char* where, const char* format, A... values) {
  char what[400];
  if constexpr (sizeof...(A) == 0) {
    std::snprintf(what, sizeof what, "%s", format);
  } else {
    std::snprintf(what, sizeof what, format, values...);
  }
  std::snprintf(k_message, sizeof k_message, "%s: %s", where, what);
  return status;
}

template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

// The CPU library computes in f32 alone.
inline int32_t expect_f32(const char* where, int32_t dtype) {
  return dtype == K_F32 ? K_OK : fail(K_UNSUPPORTED, where, "dtype is %d, on the CPU it must be f32 (0)", dtype);
}
