// What a k_attention must be, checked the same way on every device. The including file has fail().
#pragma once
#include <cmath>
#include <vector>

#include "attention.h"

namespace attention {
using Long = long long;

template <class... A>
int32_t refuse(const char* where, const char* format, A... values) {
  return fail(K_BAD_ARGUMENT, where, format, values...);
}

// struct_size, dtype, flags and sizes: what the workspace query reads.
inline int32_t check_sizes(const char* where, const k_attention* p) {
  if (!p) return refuse(where, "problem is 0, it must be the address of a k_attention");
  if (p->struct_size != int64_t(sizeof(k_attention))) {
    return refuse(where, "struct_size is %lld, it must be %d", Long(p->struct_size), int(sizeof(k_attention)));
  }
  if (p->dtype != K_F32 && p->dtype != K_F16 && p->dtype != K_BF16) {
    return fail(K_UNSUPPORTED, where, "dtype is %lld, it must be f32 (0), f16 (1) or bf16 (2)", Long(p->dtype));
  }
  if (p->flags & ~int64_t(K_ATTENTION_CHECK | K_ATTENTION_SM80)) {
    return refuse(where, "flags is %lld, it must be a sum of 2 and 4", Long(p->flags));
  }
  const struct {
    const char* name;
    int64_t value;
  } sizes[] = {{"B", p->B}, {"L", p->L}, {"M", p->M}, {"H", p->H}, {"q_total", p->q_total}, {"k_total", p->k_total}};
  for (const auto& size : sizes) {
    if (size.value < 0 || size.value > INT32_MAX) {
      return refuse(where, "%s is %lld, it must be 0 to 2^31 - 1", size.name, Long(size.value));
    }
  }
  if (p->D < 1 || p->D > 128) return fail(K_UNSUPPORTED, where, "D is %lld, it must be 1 to 128", Long(p->D));
  if (p->dtype != K_F32 && p->D % 8) {
    return fail(K_UNSUPPORTED, where, "D is %lld, in f16 and bf16 it must be a multiple of 8", Long(p->D));
  }
  if (!p->q_offsets != !p->k_offsets) {
    const char *absent = p->q_offsets ? "k" : "q", *given = p->q_offsets ? "q" : "k";
    return refuse(where, "%s_offsets is 0, it must be given like %s_offsets", absent, given);
  }
  if ((p->q_rows || p->k_rows) && !p->q_offsets) {
    return refuse(where, "q_offsets is 0, with %s_rows it must be given", p->q_rows ? "q" : "k");
  }
  return K_OK;
}

// Everything that can be seen without reading what addresses point to, but for the workspace.
inline int32_t check_problem(const char* where, const k_attention* p, bool backward) {
  if (int32_t status = check_sizes(where, p)) return status;
  const float scale = float(p->scale);
  if (!(scale > 0) || std::isinf(scale)) return refuse(where, "scale is %g, it must be finite and > 0", p->scale);
  const bool queries = p->H && (p->q_offsets ? p->q_total : p->B * p->L), keys = p->H && (p->k_offsets ? p->k_total : p->B * p->M);
  const struct {
    const char* name;
    uint64_t address;
    int64_t batch, token, head;
    bool wanted;  // 0 is no address
  } operands[] = {{"q", p->q, p->q_batch, p->q_token, p->q_head, queries},
                  {"k", p->k, p->k_batch, p->k_token, p->k_head, keys},
                  {"v", p->v, p->v_batch, p->v_token, p->v_head, keys},
                  {"o", p->o, p->o_batch, p->o_token, p->o_head, queries},
                  {"d_o", p->d_o, p->d_o_batch, p->d_o_token, p->d_o_head, queries},
                  {"dq", p->dq, p->dq_batch, p->dq_token, p->dq_head, false},
                  {"dk", p->dk, p->dk_batch, p->dk_token, p->dk_head, false},
                  {"dv", p->dv, p->dv_batch, p->dv_token, p->dv_head, false}};
  const int multiple = p->dtype == K_F32 ? 4 : 16;
  for (int i = 0; i < (backward ? 8 : 4); i++) {
    const auto& x = operands[i];
    if (x.wanted && !x.address) return refuse(where, "%s is 0, it must be an address", x.name);
    if (x.address % multiple) {
      return refuse(where, "%s lies %d bytes behind a multiple of %d, it must lie at one", x.name, int(x.address % multiple), multiple);
    }
    if (!x.address || p->dtype == K_F32) continue;
    const struct {
      const char* name;
      int64_t value;
    } strides[] = {{"batch", p->q_offsets ? 0 : x.batch}, {"token", x.token}, {"head", x.head}};
    for (const auto& s : strides) {
      if (s.value % 8) {
        return refuse(where, "%s_%s is %lld, in f16 and bf16 it must be a multiple of 8", x.name, s.name, Long(s.value));
      }
    }
  }
  if (queries && !p->lse) return refuse(where, "lse is 0, it must be an address");
  const struct {
    const char* name;
    uint64_t address;
  } lists[] = {{"lse", p->lse}, {"q_offsets", p->q_offsets}, {"k_offsets", p->k_offsets}, {"q_rows", p->q_rows}, {"k_rows", p->k_rows}};
  for (const auto& x : lists) {
    const int over = x.address % 4;
    if (over) return refuse(where, "%s lies %d bytes behind a multiple of 4, it must lie at one", x.name, over);
  }
  return K_OK;
}

// Whether the workspace holds `bytes`.
inline int32_t check_workspace(const char* where, const k_attention* p, uint64_t bytes) {
  if (bytes == 0) return K_OK;
  if (p->workspace_bytes < 0 || uint64_t(p->workspace_bytes) < bytes) {
    return refuse(where, "workspace_bytes is %lld, it must be at least %lld", Long(p->workspace_bytes), Long(bytes));
  }
  if (!p->workspace) return refuse(where, "workspace is 0, it must be an address");
  if (p->workspace % 16) {
    return refuse(where, "workspace lies %d bytes behind a multiple of 16, it must lie at one", int(p->workspace % 16));
  }
  return K_OK;
}

// Offsets and row map (or null) of `x`, 'q' or 'k', as the host sees them; `longest` is L or M.
inline int32_t check_rows(const char* where, char x, const int32_t* offsets, const int32_t* rows, int64_t B, int64_t total,
                          int64_t longest) {
  if (offsets[0] != 0) return refuse(where, "%c_offsets[0] is %d, it must be 0", x, offsets[0]);
  for (int64_t b = 0; b < B; b++) {
    const int64_t before = offsets[b], end = offsets[b + 1];
    if (end < before) return refuse(where, "%c_offsets[%lld] is %lld, it must be at least %lld", x, Long(b + 1), Long(end), Long(before));
    if (end - before > longest) {
      const char* bound = x == 'q' ? "L" : "M";
      return refuse(where, "sequence %lld has %lld rows of %c, it must have at most %s = %lld", Long(b), Long(end - before), x, bound,
                    Long(longest));
    }
  }
  if (offsets[B] != total) {
    return refuse(where, "%c_offsets[%lld] is %d, it must be %c_total = %lld", x, Long(B), offsets[B], x, Long(total));
  }
  if (!rows) return K_OK;
  std::vector<bool> seen(total);
  for (int64_t r = 0; r < total; r++) {
    const int64_t row = rows[r];
    if (row < 0 || row >= total) {
      return refuse(where, "%c_rows[%lld] is %lld, it must be 0 to %lld", x, Long(r), Long(row), Long(total - 1));
    }
    if (seen[row]) return refuse(where, "%c_rows[%lld] is %lld as before, it must be another row", x, Long(r), Long(row));
    seen[row] = true;
  }
  return K_OK;
}
}  // namespace attention
