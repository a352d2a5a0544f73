/** The two linear layers of a transformer's MLP and the GELU between them, as one op: neither the GELU nor its derivative costs a pass of its own. */
import { DTYPE } from "../tensor/dtype.ts";
import { rebuildable } from "../tensor/storage.ts";
import { isRecording, record } from "../tensor/tape.ts";
import { empty, kernels, stream, type Tensor } from "../tensor/tensor.ts";
import { takeColumnSums, wantColumnSums } from "./column_sums.ts";
import { canQuantize } from "./fp8.ts";
import { fp8FeedForward, fp8FeedForwardBackward, parts, rounded } from "./fp8_layer.ts";
import { layerOf, linearGelu, type LinearOptions } from "./matmul.ts";
import { PLAIN, type Product, product, weightGradients } from "./product.ts";
import { withWorkspace } from "./workspace.ts";

/**
 * `linear(gelu(linear(x, w1, b1)), w2, b2)` with the tanh-GELU: x [..., K], w1 [N, K], w2 [P, N] give [..., P]. What is kept between the passes
 * is x and what the GELU was applied to. With fp8 the four products of the gradients are in 8-bit floats, with fp8 "all" the two of the forward pass
 * too: rounding these layers' inputs and weights there is nearly all that 8 bits add to a flow model's loss.
 */
export function feedForward(
  x: Tensor,
  [w1, b1]: [w: Tensor, b: Tensor],
  [w2, b2]: [w: Tensor, b: Tensor],
  { fp8 = false }: Pick<LinearOptions, "fp8"> = {},
): Tensor {
  const first = layerOf("feedForward", x, w1, b1), { M, N, K } = first, lead = x.shape.slice(0, -1);
  const second = layerOf("feedForward", { shape: [...lead, N], size: M * N, dtype: x.dtype }, w2, b2), P = second.N;
  const eight = fp8 && canQuantize(x.dtype, M, N, K) && canQuantize(x.dtype, M, P, N);
  if (eight && fp8 === "all") return fp8FeedForward(x, [w1, b1], [w2, b2], [first, second]);
  const z = empty([...lead, N], x.dtype), y = empty([...lead, P], x.dtype);
  const up = (z: Tensor): Product => ({ ...PLAIN, y: z, a: x, b: w1, bias: b1, M, N, K, transposeB: true });
  const down = (y: Tensor, g: Tensor): Product => ({ ...PLAIN, y, a: g, b: w2, bias: b2, M, N: P, K: N, transposeB: true });
  /** Both from x. */
  const forward = (z: Tensor, y?: Tensor): void => {
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
  const x8 = eight ? rounded(x, [M, K]) : null;
  record("feedForward", y, inputs, [...(x8 ? parts(x8) : [x]), w1, w2, z], (dy, soFar) => {
    if (x8) return fp8FeedForwardBackward(dy, [x, z], [w1, b1], [w2, b2], { x: x8 }, [first, second], soFar);
    const dz = empty(z.shape, z.dtype),
      g = w2.requiresGrad ? empty(z.shape, z.dtype) : null,
      db1 = b1.requiresGrad ? soFar.fresh(b1) : null;
    product({ ...PLAIN, y: dz, a: dy, b: w2, M, N, K: P });
    geluLayerBackward({ dz, g, db: db1, z }, [M, N]);
    const [dw2, db2] = weightGradients(dy, g ?? z, w2, b2, soFar, takeColumnSums(dy));
    g?.free();
    const [dw1] = weightGradients(dz, x, w1, b1, soFar, db1), dx = x.requiresGrad ? empty(x.shape, x.dtype) : null;
    if (dx) product({ ...PLAIN, y: dx, a: dz, b: w1, M, N: K, K: N });
    dz.free();
    return [dx, dw1, db1, dw2, db2];
  }, {
    kind: "linear",
    from: inputs,
    fill(y) {
      const again = empty(z.shape, z.dtype); // not from z: cuBLASLt's GELU rounds once, gelu(z) would be rounded twice
      forward(again, y);
      again.free();
    },
  });
  if (b2.requiresGrad) wantColumnSums(y);
  return y;
}

/** In the place of the gradient of gelu(z), dz: that of z [M, N], with g = gelu(z) and db, the sum of its rows, where they are given. */
function geluLayerBackward(
  { dz, g, db, z }: { dz: Tensor; g: Tensor | null; db: Tensor | null; z: Tensor },
  [M, N]: [M: number, N: number],
): void {
  const k = kernels(), [gAddr, dbAddr] = [g, db].map((t) => t?.addr ?? 0n);
  withWorkspace(
    (bytes) => k.k_gelu_layer_bwd_workspace(bytes, M, N),
    (scratch) => k.k_gelu_layer_bwd(dz.addr, gAddr, dbAddr, dz.addr, z.addr, scratch, M, N, DTYPE[z.dtype], stream()),
  );
}
