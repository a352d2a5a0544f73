import { initialize, leaves } from "../../lib/nn/parameters.ts";
import { embedTimestep, timestepSpec } from "../../lib/nn/timestep.ts";
import { Generator } from "../../lib/tensor/random.ts";
import { step } from "../../lib/tensor/scope.ts";
import { type Tensor, tensor } from "../../lib/tensor/tensor.ts";
import { assertClose } from "../check.ts";
import { checkGradients, randomize, trained } from "../gradients.ts";
import * as plain from "./plain.ts";

const SPEC = timestepSpec(6), TIMES = [0, 1, 250.5, 1000];

Deno.test("embedTimestep() is a two-layer MLP over 256 sinusoids", () => {
  const p = initialize(SPEC, new Generator(1));
  randomize(p, SPEC);
  const v = Object.fromEntries(leaves<Tensor>(p).map(([path, t]) => [path, t.read()]));
  const waves = TIMES.flatMap((t) => {
    const phases = Array.from({ length: 128 }, (_, j) => t * 10000 ** (-j / 128));
    return [...phases.map(Math.cos), ...phases.map(Math.sin)];
  });
  const want = plain.linear(plain.linear(waves, v["mlp.0.weight"], v["mlp.0.bias"]).map(plain.silu), v["mlp.2.weight"], v["mlp.2.bias"]);
  const y = step(() => embedTimestep(p, tensor(TIMES, [4])).read());
  assertClose("embedTimestep", y, want, { rtol: 1e-3, atol: 2e-4 }); // the phase t f is rounded to f32
  checkGradients(trained(p, SPEC), () => embedTimestep(p, tensor(TIMES, [4])));
  for (const [, t] of leaves<Tensor>(p)) t.free();
});
