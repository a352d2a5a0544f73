/** Rows picked by an index or by a mask. */
import { DTYPE, DTYPE_BYTES, isFloat } from "../tensor/dtype.ts";
import { record } from "../tensor/tape.ts";
import { empty, expectDtype, expectShape, kernels, stream, type Tensor, tensor } from "../tensor/tensor.ts";
import { cast } from "./cast.ts";
import { add, affine, mul } from "./elementwise.ts";
import { reshape } from "./movement.ts";

/** Which of N rows are picked, and for each row where: what {@linkcode gatherRows} needs for its gradient. */
export interface RowIndex {
  /** [M] i32. */
  index: Tensor;
  /** [N + 1] i32: the places of row n stand in `order` from offsets[n] to offsets[n + 1]. */
  offsets: Tensor;
  /** [M] i32, rising within each row. */
  order: Tensor;
  N: number;
}

/** The index of rows of an array of N rows; every entry must be in [0, N), or below 0 for a row of zeros. */
export function rowIndex(values: Int32Array, N: number): RowIndex {
  const offsets = new Int32Array(N + 1);
  for (const n of values) {
    if (n >= N) throw new RangeError(`Cannot make a row index: an entry is ${n}, it must be below ${N}`);
    if (n >= 0) offsets[n + 1]++;
  }
  for (let n = 0; n < N; n++) offsets[n + 1] += offsets[n];
  const next = offsets.slice(), order = new Int32Array(values.length);
  values.forEach((n, m) => {
    if (n >= 0) order[next[n]++] = m;
  });
  const i32 = { dtype: "i32" } as const;
  return {
    index: tensor(values, [values.length], i32),
    offsets: tensor(offsets, [N + 1], i32),
    order: tensor(order, [order.length], i32),
    N,
  };
}

/** `y[m] = x[index[m]]`: x [N, C] gives [M, C]; an index below 0 gives zeros. A plain index tensor [M] i32 does where x needs no gradient. */
export function gatherRows(x: Tensor, rows: RowIndex | Tensor): Tensor {
  const [N, C] = x.shape, known = "index" in rows ? rows : undefined, index = known ? known.index : rows as Tensor, M = index.size;
  expectShape("gatherRows", "x", x, [known?.N ?? N, C]);
  expectDtype("gatherRows", "index", index, "i32");
  const y = empty([M, C], x.dtype);
  const sizes = [BigInt(M), BigInt(N), BigInt(C)] as const;
  kernels().k_gather_rows_fwd(y.addr, x.addr, index.addr, ...sizes, DTYPE_BYTES[x.dtype], stream());
  if (!isFloat(x.dtype)) return y;
  if (!known) return record("gatherRows with a plain index", y, [x], []);
  return record("gatherRows", y, [x], [known.offsets, known.order], (dy) => {
    const dx = empty([N, C], x.dtype);
    kernels().k_gather_rows_bwd(dx.addr, dy.addr, known.offsets.addr, known.order.addr, sizes[1], sizes[2], DTYPE[x.dtype], stream());
    return [dx];
  });
}

/** Row i of `a` where mask[i] is 1, of `b` where it is 0: mask [B], a and b [B, ...] or [1, ...], all values finite. */
export function selectRows(mask: Tensor, a: Tensor, b: Tensor): Tensor {
  expectShape("selectRows", "mask", mask, [mask.size]);
  const chosen = reshape(cast(mask, a.dtype), [mask.size, ...a.shape.slice(1).map(() => 1)]);
  return add(mul(a, chosen), mul(b, affine(chosen, { scale: -1, shift: 1 })));
}
