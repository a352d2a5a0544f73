import assert from "node:assert/strict";
import { choicesFit, tuneProducts, useChoices } from "../../lib/memory/tune.ts";
import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { feedForward, feedForwardSpec } from "../../lib/nn/linear.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../../lib/optim/optimizer.ts";
import { device, hasCuda } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import type { Tensor } from "../../lib/tensor/tensor.ts";
import { assertClose } from "../check.ts";

const CUDA = hasCuda() && Deno.env.get("DEVICE") !== "cpu";

Deno.test({
  name: "tuneProducts() has nothing to choose on the CPU",
  ignore: CUDA,
  fn: () => assert.equal(tuneProducts(() => assert.fail("the pass must not run")), null),
});

Deno.test({
  name: `tuneProducts() chooses for the large products of a pass, which stay what they are, twice the same${
    CUDA ? "" : " (skipped: needs a GPU)"
  }`,
  ignore: !CUDA,
  fn() {
    const specs = { mlp: feedForwardSpec(512, 2048, "bf16") },
      optimizer = createOptimizer(specs, initialize(specs, new Generator(1)), OPTIMIZER_DEFAULTS);
    const pass = () =>
      step(() =>
        backward(
          feedForward(optimizer.params.mlp, new Generator(2).normal([2048, 512], { dtype: "bf16" })),
          new Generator(3).normal([2048, 512], { dtype: "bf16" }),
        )
      );
    const gradients = (): Float32Array => {
      const grads = leaves<Tensor>(optimizer.params).map(([, p]) => p.grad!);
      for (const g of grads) device().memory.zero(g.addr, g.bytes);
      pass();
      return Float32Array.from(grads.flatMap((g) => [...g.read()]));
    };
    const before = gradients(), choices = tuneProducts(pass)!;
    assert.ok(choicesFit(choices) && !choicesFit({ ...choices, cublasLt: 1 }));
    assert.ok(Object.keys(choices.products).length >= 4, Object.keys(choices.products).join("; "));
    assert.deepEqual(gradients(), before, "tuning changes nothing");
    useChoices(JSON.parse(JSON.stringify(choices)));
    const after = gradients(), scale = before.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    assertClose("gradients", after, before, { atol: 0.01 * scale, rtol: 0.01 });
    assert.deepEqual(gradients(), after);
    assert.deepEqual(tuneProducts(pass, choices), choices, "what is known stays");
    optimizer.free();
  },
});
