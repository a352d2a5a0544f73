import assert from "node:assert/strict";
import { linear } from "../../lib/ops/matmul.ts";
import { hasCuda } from "../../lib/tensor/device.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { openProducts } from "../../lib/train/products.ts";
import { withFolder } from "../io/corrupt.ts";

const CUDA = hasCuda() && Deno.env.get("DEVICE") !== "cpu";
const pass = (): void => {
  const random = new Generator(1), make = (...shape: number[]) => random.normal(shape, { dtype: "bf16" });
  step(() => void linear(make(4096, 512), make(512, 512)));
};

Deno.test({
  name: "openProducts() does nothing on the CPU",
  ignore: CUDA,
  fn: () =>
    withFolder((folder) => {
      openProducts(folder, () => assert.fail("the pass must not run"), { tune: true, say: assert.fail });
      assert.deepEqual([...Deno.readDirSync(folder)], []);
    }),
});

Deno.test({
  name: `openProducts() keeps what it chose, uses it again, and passes over what is for another GPU${
    CUDA ? "" : " (skipped: needs a GPU)"
  }`,
  ignore: !CUDA,
  fn: () =>
    withFolder((folder) => {
      const file = `${folder}/products.json`, said: string[] = [], say = (text: string): void => void said.push(text);
      openProducts(folder, () => assert.fail("nothing is kept, and none was asked for"), { say });
      openProducts(folder, pass, { tune: true, say });
      const kept = Deno.readTextFileSync(file), { products } = JSON.parse(kept);
      assert.equal(Object.keys(products).length, 1);
      assert.match(said[0], /^1 products by their fastest algorithms, [01] of them/);
      openProducts(folder, () => assert.fail("all is known"), { say });
      openProducts(folder, pass, { tune: true, say });
      assert.equal(Deno.readTextFileSync(file), kept);
      Deno.writeTextFileSync(file, JSON.stringify({ ...JSON.parse(kept), gpu: "an abacus" }));
      openProducts(folder, pass, { say });
      assert.match(said.at(-1)!, /are for an abacus and cuBLASLt \d+, this is another: they are not used$/);
      Deno.writeTextFileSync(file, "{");
      assert.throws(() => openProducts(folder, pass, { say }), /^Error: Cannot read .*products.json: it is not JSON, it must be/);
    }),
});
