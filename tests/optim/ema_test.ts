import assert from "node:assert/strict";
import { type ParameterSpec } from "../../lib/nn/parameters.ts";
import { initialize } from "../../lib/nn/parameters.ts";
import { makeEmas, resetEmas, updateEma } from "../../lib/optim/ema.ts";
import { flattenParameters, freeParameters } from "../../lib/optim/parameters.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { assertClose, random } from "../check.ts";

Deno.test("makeEmas(), updateEma() and resetEmas() average the masters at each rate", () => {
  const specs: Record<string, ParameterSpec> = { w: { shape: [21], dtype: "f32", init: { values: () => random(1, 21) } } };
  const { flat, params } = flattenParameters(specs, initialize(specs, new Generator(1))), emas = makeEmas(flat.master, [0.9999, 0]);
  const want = Float64Array.from(flat.master.read());
  assert.deepEqual(emas[0].values.read(), flat.master.read());
  for (let i = 0; i < 3; i++) {
    const now = random(i + 2, flat.master.size);
    flat.master.write(now);
    for (const e of emas) updateEma(flat.master, e);
    now.forEach((v, j) => want[j] = 0.9999 * want[j] + (1 - 0.9999) * v);
  }
  assertClose("0.9999", emas[0].values.read(), want);
  assert.deepEqual(emas[1].values.read(), flat.master.read());
  resetEmas(flat.master, emas);
  assert.deepEqual(emas[0].values.read(), flat.master.read());
  assert.throws(() => makeEmas(flat.master, [1]), { message: "Cannot average parameters: an EMA rate is 1, it must be in [0, 1)" });
  freeParameters(flat, params);
  for (const e of emas) e.values.free();
});
