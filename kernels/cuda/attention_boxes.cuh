// The rows of operands as the copy engine of Hopper takes them: boxes of rows of a head.
#pragma once
#include "attention_problem.cuh"
#include "hopper.cuh"

namespace attention {
// The coordinates of a box of `rows` rows of a head. Rows past the sequence's end are read as 0: in the maps of dense
// operands the row axis ends there. Those of variable length (see row_map) have two row axes of the same stride, the first one as long as
// the box: a box that begins where only its valid rows remain is cut off by its end, and the second axis makes up for the shift.
struct RowBox {
  int row, third, fourth;
};
// Where row 0 of a sequence is counted from.
__device__ inline int first_of(const Sequences& s, Span span) { return s.offsets ? int(span.first) : 0; }
// At least one row must be valid. From row `row`, counted in the sequence where operands are dense and among all rows where they are not; `left` rows before its end.
__device__ inline RowBox row_box(const Sequences& s, int sequence, int head, int row, int left, int rows) {
  if (!s.offsets) return {row, head, sequence};
  const int valid = min(rows, left);
  return {rows - valid, row + valid, head};
}
__device__ inline void load_box(uint32_t to, const CUtensorMap& map, int column, RowBox box, uint32_t barrier) {
  map_load(to, map, column, box.row, box.third, box.fourth, barrier);
}
// The map of an operand that is copied `rows` rows of `width` columns at a time.
template <class T>
bool row_map(CUtensorMap& map, const Operand<T>& x, const Sequences& s, int64_t B, int64_t H, int64_t D, int width, int rows) {
  const Strides& by = x.stride;
  if (!s.offsets) return encode_map(map, x.data, {D, s.longest, H, B}, {by.token, by.head, by.batch}, width, rows);
  return encode_map(map, x.data - rows * by.token, {D, rows, s.total + rows, H}, {by.token, by.token, by.head}, width, rows);
}
}  // namespace attention
