// Finding rows by their coordinates on the CPU: sorted keys.
#pragma once
#include <algorithm>

#include "host.hpp"

#include "../include/coordinates.hpp"

namespace sparse {
inline int64_t key_of(const Place& p) { return int64_t(p.batch) << 30 | int64_t(p.x) << 20 | int64_t(p.y) << 10 | p.z; }

struct Entry {
  int64_t key;
  int32_t row;
  bool operator<(const Entry& other) const { return key != other.key ? key < other.key : row < other.row; }
};

struct Index {
  Entry *first, *last;

  // The row at a place, -1 for none; of several the first.
  int32_t find(const Place& p) const {
    const Entry* const at = std::lower_bound(first, last, Entry{key_of(p), -1});
    return at != last && at->key == key_of(p) ? at->row : -1;
  }
};

// Sorts the rows that are inside; `entries` has space for N. faults: as k_spconv_table says, or null.
inline Index build_index(Entry* entries, const Place* from, int32_t N, int32_t B, int32_t side, int32_t* faults) {
  Entry* end = entries;
  int32_t outside = 0, repeated = 0, backwards = 0;
  for (int32_t n = 0; n < N; n++) {
    if (from[n].inside(B, side))
      *end++ = {key_of(from[n]), n};
    else
      outside++;
    if (n && from[n].batch < from[n - 1].batch) backwards++;
  }
  std::sort(entries, end);
  for (const Entry* e = entries; e + 1 < end; e++) repeated += e[0].key == e[1].key;
  if (faults) faults[0] = outside, faults[1] = repeated, faults[2] = backwards;
  return {entries, end};
}
}  // namespace sparse
