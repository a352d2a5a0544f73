// What a k_splat must be, checked the same way on every device. The including file has fail().
#pragma once
#include <cmath>

#include "splat.h"

namespace splat {
using Long = long long;
constexpr int TILE = 16;

inline int64_t tiles_across(const k_splat& p) { return (p.width + TILE - 1) / TILE; }
inline int64_t tiles_down(const k_splat& p) { return (p.height + TILE - 1) / TILE; }
inline int64_t tiles(const k_splat& p) { return p.V * tiles_across(p) * tiles_down(p); }

inline int32_t check_sizes(const char* where, const k_splat* p) {
  const auto refuse = [&](auto... what) { return fail(K_BAD_ARGUMENT, where, what...); };
  if (!p) return refuse("problem is 0, it must be the address of a k_splat");
  if (p->struct_size != int64_t(sizeof(k_splat))) {
    return refuse("struct_size is %lld, it must be %d", Long(p->struct_size), int(sizeof(k_splat)));
  }
  const struct {
    const char* name;
    int64_t value;
  } sizes[] = {{"B", p->B}, {"V", p->V}, {"N", p->N}, {"instances", p->instances}, {"capacity", p->capacity}};
  for (const auto& size : sizes) {
    if (size.value < 0 || size.value > INT32_MAX) {
      return refuse("%s is %lld, it must be 0 to 2^31 - 1", size.name, Long(size.value));
    }
  }
  if (p->height < 1 || p->height > 8192 || p->width < 1 || p->width > 8192) {
    return refuse("a view is %lld x %lld, it must be 1 to 8192 pixels high and wide", Long(p->height), Long(p->width));
  }
  if (tiles(*p) >= INT32_MAX) return refuse("there are %lld tiles, it must be below 2^31 - 1", Long(tiles(*p)));
  const int64_t k = p->coefficients;
  if (k != 0 && k != 1 && k != 4 && k != 9 && k != 16) return refuse("coefficients is %lld, it must be 0, 1, 4, 9 or 16", Long(k));
  return K_OK;
}

// Everything that can be seen without reading what addresses point to. `pass`: 0 project, 1 forward, 2 backward.
inline int32_t check_problem(const char* where, const k_splat* p, int pass) {
  if (int32_t status = check_sizes(where, p)) return status;
  if (!(p->near > 0) || std::isinf(p->near)) return fail(K_BAD_ARGUMENT, where, "near is %g, it must be finite and > 0", p->near);
  if (!(p->blur >= 0) || std::isinf(p->blur)) return fail(K_BAD_ARGUMENT, where, "blur is %g, it must be finite and >= 0", p->blur);
  const bool some = p->instances > 0, pixels = p->V > 0;
  const struct {
    const char* name;
    uint64_t address;
    bool wanted;
    unsigned multiple;
  } operands[] = {{"status", p->status, true, 8},
                  {"scenes", p->scenes, some || pass == 2, 4},
                  {"cameras", p->cameras, some, 4},
                  {"means", p->means, some, 4},
                  {"colors", p->colors, some, 4},
                  {"opacities", p->opacities, some, 4},
                  {"scales", p->scales, some, 4},
                  {"rotations", p->rotations, some, 4},
                  {"projected", p->projected, some, 16},
                  {"backgrounds", p->backgrounds, pass > 0 && pixels, 4},
                  {"y", p->y, pass > 0 && pixels, 4},
                  {"lists", p->lists, pass > 0 && pixels, 16},
                  {"scratch", p->scratch, pass == 2 ? p->capacity > 0 : pass == 1 && some, 16},
                  {"d_y", p->d_y, pass == 2 && pixels, 4}};
  for (const auto& x : operands) {
    if (x.wanted && !x.address) return fail(K_BAD_ARGUMENT, where, "%s is 0, it must be an address", x.name);
    const unsigned over = x.wanted ? unsigned(x.address % x.multiple) : 0;
    if (over) return fail(K_BAD_ARGUMENT, where, "%s lies %u bytes behind a multiple of %u, it must lie at one", x.name, over, x.multiple);
  }
  return K_OK;
}
}  // namespace splat
