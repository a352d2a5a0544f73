// Tables of neighbours, the order of their rows and their pairs: the definition.
#include "../include/spconv.h"

#include <cstring>

#include "coordinates_index.hpp"

using namespace sparse;

int32_t k_spconv_table_workspace(uint64_t* bytes, int32_t rows, int32_t N, int32_t B, int32_t side) {
  if (int32_t status = check_grid("k_spconv_table_workspace", N, B, side)) return status;
  if (int32_t status = check_table("k_spconv_table_workspace", rows, 1)) return status;
  *bytes = sizeof(Entry) * uint64_t(N);
  return K_OK;
}

int32_t k_spconv_table(uint64_t table, uint64_t taps, uint64_t faults, uint64_t to, uint64_t from, uint64_t scratch, int32_t rows, int32_t N,
                       int32_t B, int32_t side, int32_t kernel, int32_t stride, int32_t padding, int32_t transposed, uint64_t) {
  const int K = kernel * kernel * kernel;
  if (int32_t status = check_grid("k_spconv_table", N, B, side)) return status;
  if (int32_t status = check_window("k_spconv_table", kernel, stride, padding)) return status;
  if (int32_t status = check_table("k_spconv_table", rows, K)) return status;
  const Index index = build_index(at<Entry>(scratch), at<const Place>(from), N, B, side, at<int32_t>(faults));
#pragma omp parallel for
  for (int64_t r = 0; r < rows; r++) {
    const Place center = at<const Place>(to)[r];
    uint32_t* const mine = at<uint32_t>(taps) + r * ((K + 31) / 32);
    std::fill_n(mine, (K + 31) / 32, 0u);
    for (int t = 0; t < K; t++) {
      const Place p{center.batch, reads(center.x, t / (kernel * kernel), stride, padding, transposed),
                    reads(center.y, t / kernel % kernel, stride, padding, transposed),
                    reads(center.z, t % kernel, stride, padding, transposed)};
      const int32_t row = at<int32_t>(table)[r * K + t] = p.inside(B, side) ? index.find(p) : -1;
      mine[t / 32] |= uint32_t(row >= 0) << t % 32;
    }
  }
  return K_OK;
}

int32_t k_spconv_plan_workspace(uint64_t* bytes, int32_t rows, int32_t K, int32_t parts) {
  if (int32_t status = check_parts("k_spconv_plan_workspace", rows, K, parts)) return status;
  *bytes = sizeof(Entry) * uint64_t(rows);
  return K_OK;
}

int32_t k_spconv_plan(uint64_t order, uint64_t masks, uint64_t taps, uint64_t scratch, int32_t rows, int32_t K, int32_t parts,
                      int32_t group, uint64_t) {
  if (int32_t status = check_parts("k_spconv_plan", rows, K, parts)) return status;
  if (group < 0 || group % 64) return fail(K_BAD_ARGUMENT, "k_spconv_plan", "group is %d, it must be a multiple of 64", group);
  const uint32_t* const words_of = at<uint32_t>(taps);
  Entry* const keys = at<Entry>(scratch);
  const int64_t tiles = (int64_t(rows) + 63) / 64, words = (K + 31) / 32;
  for (int part = 0; part < parts; part++) {
    const int from = part * (K / parts), to = from + K / parts;
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++) {
      keys[r] = {int64_t(group ? r / group : 0) << part_bits(K, parts) | part_key(words_of + r * words, K, parts, part), int32_t(r)};
    }
    std::sort(keys, keys + rows);
#pragma omp parallel for
    for (int64_t tile = 0; tile < tiles; tile++) {
      uint32_t* const mask = at<uint32_t>(masks) + (part * tiles + tile) * words;
      std::fill_n(mask, words, 0u);
      for (int64_t i = tile * 64; i < std::min<int64_t>(rows, tile * 64 + 64); i++) {
        const int64_t r = at<int32_t>(order)[int64_t(part) * rows + i] = keys[i].row;
        for (int64_t w = 0; w < words; w++) mask[w] |= words_of[r * words + w] & word_mask(from, to, w);
      }
    }
  }
  return K_OK;
}

int32_t k_spconv_pairs_workspace(uint64_t* bytes, int32_t rows, int32_t K) {
  *bytes = 0;
  return check_table("k_spconv_pairs_workspace", rows, K);
}

int32_t k_spconv_pairs(uint64_t pairs, uint64_t offsets, uint64_t table, uint64_t, uint64_t, int32_t rows, int32_t K, uint64_t) {
  if (int32_t status = check_table("k_spconv_pairs", rows, K)) return status;
  const int32_t* const entries = at<const int32_t>(table);
  int32_t *const first = at<int32_t>(offsets), *const to = at<int32_t>(pairs), *const from = to + int64_t(rows) * K;
  int32_t count = 0;
  for (int t = 0; t < K; t++) {
    first[t] = count;
    for (int64_t r = 0; r < rows; r++) {
      if (entries[r * K + t] < 0) continue;
      to[count] = int32_t(r);
      from[count++] = entries[r * K + t];
    }
  }
  first[K] = count;
  return K_OK;
}
