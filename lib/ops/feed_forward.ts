/** The two linear layers of a transformer's MLP and the GELU between them, as one op: neither the GELU nor its derivative costs a pass of its own. */
import { rebuildable } from "../tensor/storage.ts";
import { isRecording, record } from "../tensor/tape.ts";
import { empty, type Tensor } from "../tensor/tensor.ts";
import { unaryForward } from "./elementwise.ts";
import { canQuantize, fp8InputGradient, fp8Linear } from "./fp8.ts";
import { layerOf, linearGelu, type LinearOptions } from "./matmul.ts";
import { inputGradient, PLAIN, type Product, product, weightGradients } from "./product.ts";

/**
 * `linear(gelu(linear(x, w1, b1)), w2, b2)` with the tanh-GELU: x [..., K], w1 [N, K], w2 [P, N] give [..., P]. What is kept between the passes
 * is x and what the GELU was applied to. Options as those of {@linkcode linear}.
 */
export function feedForward(
  x: Tensor,
  [w1, b1]: [w: Tensor, b: Tensor],
  [w2, b2]: [w: Tensor, b: Tensor],
  { fp8 = false }: Pick<LinearOptions, "fp8"> = {},
): Tensor {
  const { M, N, K } = layerOf("feedForward", x, w1, b1), lead = x.shape.slice(0, -1);
  const z = empty([...lead, N], x.dtype), { N: P } = layerOf("feedForward", z, w2, b2), y = empty([...lead, P], x.dtype);
  const eight = fp8 && canQuantize(x.dtype, M, N, K) && canQuantize(x.dtype, M, P, N);
  const up = (z: Tensor): Product => ({ ...PLAIN, y: z, a: x, b: w1, bias: b1, M, N, K, transposeB: true });
  const down = (y: Tensor, g: Tensor): Product => ({ ...PLAIN, y, a: g, b: w2, bias: b2, M, N: P, K: N, transposeB: true });
  const activated = (): Tensor => {
    const g = empty(z.shape, z.dtype);
    unaryForward("gelu", g, z);
    return g;
  };
  /** Both from x, where z was not there. */
  const forward = (z: Tensor, y?: Tensor): void => {
    if (eight) {
      fp8Linear(up(z));
      if (y) fp8Linear(down(y, z), "gelu");
      return;
    }
    const g = empty(z.shape, z.dtype); // made in the same way for z alone, for the same bits
    linearGelu(g, z, up(z));
    if (y) product(down(y, g));
    g.free();
  };
  forward(z, y);
  const inputs = [x, w1, b1, w2, b2];
  if (!isRecording() || !inputs.some((t) => t.requiresGrad)) {
    z.free();
    return y;
  }
  rebuildable(z, { kind: "linear", from: [x, w1, b1], fill: forward });
  return record("feedForward", y, inputs, [x, w1, w2, z], (dy, soFar) => {
    const g = activated(), [dw2, db2] = weightGradients(dy, g, w2, b2, soFar);
    g.free();
    if (![x, w1, b1].some((t) => t.requiresGrad)) return [null, null, null, dw2, db2];
    const dz = empty(z.shape, z.dtype), back: Product = { ...PLAIN, y: dz, a: dy, b: w2, M, N, K: P };
    if (eight) fp8InputGradient(back, z);
    else inputGradient(back, z);
    const [dw1, db1] = weightGradients(dz, x, w1, b1, soFar), dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    if (dx) (eight ? fp8InputGradient : product)({ ...PLAIN, y: dx, a: dz, b: w1, M, N: K, K: N });
    dz.free();
    return [dx, dw1, db1, dw2, db2];
  }, {
    kind: "linear",
    from: [z, w2, b2],
    fill(y) {
      if (eight) return fp8Linear(down(y, z), "gelu");
      const g = activated();
      product(down(y, g));
      g.free();
    },
  });
}
