/** Elementwise maths with broadcasting; everything is computed in f32 and rounded once. */
import { DTYPE } from "../tensor/dtype.ts";
import type { Recipe } from "../tensor/storage.ts";
import { record } from "../tensor/tape.ts";
import { empty, expectDtype, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { sumTo } from "./reduce.ts";
import { broadcastShape, broadcastStrides, collapse } from "./strides.ts";

/** Codes of `kernels/include/elementwise.h`. */
const BINARY = { add: 0, sub: 1, mul: 2, div: 3, minimum: 4, maximum: 5, absDiff: 6, sqDiff: 7, bce: 8 } as const;
const UNARY = {
  abs: 0,
  square: 1,
  sqrt: 2,
  exp: 3,
  log: 4,
  sin: 5,
  cos: 6,
  relu: 7,
  sigmoid: 8,
  tanh: 9,
  silu: 10,
  gelu: 11,
  geluErf: 12,
  softplus: 13,
} as const;

/** An op of one operand. */
export type UnaryOp = keyof typeof UNARY;

type Four = [bigint, bigint, bigint, bigint];

interface Walk {
  shape: number[];
  extents: Four;
  a: Four;
  b: Four;
}

function four(values: number[], fill: bigint): Four {
  return [...new Array<bigint>(4 - values.length).fill(fill), ...values.map(BigInt)] as Four;
}

function walkOf(op: string, a: Tensor, b: Tensor): Walk {
  const shape = broadcastShape(op, a.shape, b.shape);
  const { extents, strides } = collapse(shape, [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)]);
  if (extents.length > 4) {
    throw new RangeError(
      `Cannot run ${op}: [${a.shape}] and [${b.shape}] alternate in ${extents.length} runs of axes, it must be at most 4`,
    );
  }
  return { shape, extents: four(extents, 1n), a: four(strides[0], 0n), b: four(strides[1], 0n) };
}

function binary(op: keyof typeof BINARY, a: Tensor, b: Tensor): Tensor {
  expectDtype(op, "b", b, a.dtype);
  const walk = walkOf(op, a, b), dtype = DTYPE[a.dtype], y = empty(walk.shape, a.dtype);
  const fill = (y: Tensor): void => {
    kernels().k_binary_fwd(y.addr, a.addr, b.addr, ...walk.extents, ...walk.a, ...walk.b, BINARY[op], dtype, stream());
  };
  const recipe: Recipe = { kind: "residual", from: [a, b], fill };
  fill(y);
  if (op === "add" || op === "sub") {
    const [from, other] = [a.shape, b.shape];
    return record(op, y, [a, b], [], (dy) => [
      a.requiresGrad ? sumTo(dy, from) : null,
      b.requiresGrad ? op === "sub" ? neg(sumTo(dy, other)) : sumTo(dy, other) : null,
    ], recipe);
  }
  if (op === "mul") {
    return record(op, y, [a, b], [a.requiresGrad ? b : null, b.requiresGrad ? a : null], (dy) => [
      a.requiresGrad ? sumTo(mul(dy, b), a.shape) : null,
      b.requiresGrad ? sumTo(mul(dy, a), b.shape) : null,
    ], recipe);
  }
  return record(op, y, [a, b], [a, b], (dy) => {
    const da = a.requiresGrad ? empty(walk.shape, a.dtype) : null, db = b.requiresGrad ? empty(walk.shape, a.dtype) : null;
    const { extents, a: as, b: bs } = walk;
    kernels().k_binary_bwd(
      da?.addr ?? 0n,
      db?.addr ?? 0n,
      dy.addr,
      a.addr,
      b.addr,
      ...extents,
      ...as,
      ...bs,
      BINARY[op],
      dtype,
      stream(),
    );
    return [da && sumTo(da, a.shape), db && sumTo(db, b.shape)];
  }, recipe);
}

/** y = op(x) into a tensor that is there, unrecorded: for ops that fuse an activation. */
export function unaryForward(op: UnaryOp, y: Tensor, x: Tensor): void {
  kernels().k_unary_fwd(y.addr, x.addr, BigInt(x.size), UNARY[op], DTYPE[x.dtype], stream());
}

/** `dy op'(x)`, unrecorded, into `dx`, which may be dy. */
export function unaryBackward(op: UnaryOp, dy: Tensor, x: Tensor, dx: Tensor = empty(x.shape, x.dtype)): Tensor {
  kernels().k_unary_bwd(dx.addr, dy.addr, x.addr, BigInt(x.size), UNARY[op], DTYPE[x.dtype], stream());
  return dx;
}

function unary(op: UnaryOp, x: Tensor): Tensor {
  const y = empty(x.shape, x.dtype);
  unaryForward(op, y, x);
  return record(op, y, [x], [x], (dy) => [unaryBackward(op, dy, x)], {
    kind: "activation",
    from: [x],
    fill: (y) => unaryForward(op, y, x),
  });
}

/** The gradient of {@linkcode gelu} at `x`, for ops that fuse it. */
export function geluBackward(dy: Tensor, x: Tensor): Tensor {
  return unaryBackward("gelu", dy, x);
}

/** `x * scale + shift` with numbers. */
export function affine(x: Tensor, { scale = 1, shift = 0 }: { scale?: number; shift?: number }): Tensor {
  const y = empty(x.shape, x.dtype);
  kernels().k_affine_fwd(y.addr, x.addr, BigInt(x.size), scale, shift, DTYPE[x.dtype], stream());
  return record("affine", y, [x], [], (dy) => [scale === 1 ? dy : affine(dy, { scale })]);
}

/** `x * by`. */
export function scale(x: Tensor, by: number): Tensor {
  return affine(x, { scale: by });
}

/** `a + b`; tensors broadcast against each other and have one dtype. */
export function add(a: Tensor, b: Tensor | number): Tensor {
  return typeof b === "number" ? affine(a, { shift: b }) : binary("add", a, b);
}

/** `a - b`. */
export function sub(a: Tensor, b: Tensor | number): Tensor {
  return typeof b === "number" ? affine(a, { shift: -b }) : binary("sub", a, b);
}

/** `a * b`. */
export function mul(a: Tensor, b: Tensor | number): Tensor {
  return typeof b === "number" ? scale(a, b) : binary("mul", a, b);
}

/** `a / b`. */
export function div(a: Tensor, b: Tensor | number): Tensor {
  return typeof b === "number" ? scale(a, 1 / b) : binary("div", a, b);
}

/** The smaller of both; ties share the gradient equally. */
export function minimum(a: Tensor, b: Tensor): Tensor {
  return binary("minimum", a, b);
}

/** The larger of both; ties share the gradient equally. */
export function maximum(a: Tensor, b: Tensor): Tensor {
  return binary("maximum", a, b);
}

/** `|a - b|`. */
export function absDiff(a: Tensor, b: Tensor): Tensor {
  return binary("absDiff", a, b);
}

/** `(a - b)^2`. */
export function sqDiff(a: Tensor, b: Tensor): Tensor {
  return binary("sqDiff", a, b);
}

/** Binary cross entropy of each logit: `max(x, 0) - x t + ln(1 + e^-|x|)`. */
export function bce(logit: Tensor, target: Tensor): Tensor {
  return binary("bce", logit, target);
}

/** `-x`. */
export function neg(x: Tensor): Tensor {
  return scale(x, -1);
}

/** `|x|`. */
export function abs(x: Tensor): Tensor {
  return unary("abs", x);
}

/** `x^2`. */
export function square(x: Tensor): Tensor {
  return unary("square", x);
}

/** The square root. */
export function sqrt(x: Tensor): Tensor {
  return unary("sqrt", x);
}

/** `e^x`. */
export function exp(x: Tensor): Tensor {
  return unary("exp", x);
}

/** The natural logarithm. */
export function log(x: Tensor): Tensor {
  return unary("log", x);
}

/** The sine of x in radians, |x| below 10^8. */
export function sin(x: Tensor): Tensor {
  return unary("sin", x);
}

/** The cosine of x in radians, |x| below 10^8. */
export function cos(x: Tensor): Tensor {
  return unary("cos", x);
}

/** `max(x, 0)`. */
export function relu(x: Tensor): Tensor {
  return unary("relu", x);
}

/** `1 / (1 + e^-x)`. */
export function sigmoid(x: Tensor): Tensor {
  return unary("sigmoid", x);
}

/** The hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return unary("tanh", x);
}

/** `x sigmoid(x)`. */
export function silu(x: Tensor): Tensor {
  return unary("silu", x);
}

/** GELU in its tanh form: `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`. */
export function gelu(x: Tensor): Tensor {
  return unary("gelu", x);
}

/** GELU by the error function: `x / 2 (1 + erf(x / sqrt 2))`. */
export function geluErf(x: Tensor): Tensor {
  return unary("geluErf", x);
}

/** `ln(1 + e^x)`. */
export function softplus(x: Tensor): Tensor {
  return unary("softplus", x);
}
