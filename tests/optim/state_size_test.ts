import assert from "node:assert/strict";
import { CARDS } from "../../lib/memory/cards.ts";
import { simulatedDevice } from "../../lib/memory/simulate.ts";
import { initialize, type ParameterSpec } from "../../lib/nn/parameters.ts";
import { createOptimizer, OPTIMIZER_DEFAULTS } from "../../lib/optim/optimizer.ts";
import { stateBytes } from "../../lib/optim/state_size.ts";
import { onDevice } from "../../lib/tensor/device.ts";
import { OutOfMemoryError } from "../../lib/tensor/memory.ts";
import { Generator } from "../../lib/tensor/random.ts";

const SPECS: Record<string, ParameterSpec> = {
  half: { shape: [1000, 1000], dtype: "bf16", init: { normal: 1 } },
  wide: { shape: [1000, 100], dtype: "f32", init: { normal: 1 } },
  buffer: { shape: [8], dtype: "f32", init: { fill: 0 }, buffer: true },
};

Deno.test("stateBytes() is what an optimizer takes of a device", () => {
  for (const momentBits of [32, 8] as const) {
    for (const onHost of ["nothing", "means", "state"] as const) {
      const at = simulatedDevice("cuda", CARDS.H200), config = { ...OPTIMIZER_DEFAULTS, momentBits, onHost, emaRates: [0.9, 0.99] };
      onDevice(at, () => {
        const optimizer = createOptimizer(SPECS, initialize(SPECS, new Generator(1)), config), want = at.meter.used;
        const bytes = stateBytes(SPECS, { ...config, world: 1 });
        // scales of moments in 8 bits stay on the device
        const scales = momentBits === 8 && onHost === "state" ? 0.0625 * 1.1e6 : 0;
        assert.ok(Math.abs(bytes + scales - want) < 8000, `${momentBits} bits, ${onHost} on the host: ${bytes} of ${want}`);
        optimizer.free();
      });
    }
  }
});

Deno.test("an optimizer that does not fit says how much it takes, and what takes less", () => {
  const said = (changes: { momentBits?: 8; onHost?: "means" | "state" }): string => {
    const at = simulatedDevice("cpu", CARDS.H200), { memory } = at, config = { ...OPTIMIZER_DEFAULTS, ...changes };
    const alloc = memory.alloc.bind(memory);
    Object.assign(memory, {
      limit: 2 ** 20,
      alloc(bytes: number): bigint {
        if (bytes > 4.2e6) throw new OutOfMemoryError("Cannot allocate: a test says so");
        return alloc(bytes);
      },
    });
    try {
      onDevice(at, () => createOptimizer(SPECS, initialize(SPECS, new Generator(1)), config));
    } catch (error) {
      assert.ok(error instanceof OutOfMemoryError);
      return error.message;
    }
    return "";
  };
  const start = "Cannot hold what training takes: the memory limit is 1.0 MiB, it must be more than ";
  assert.equal(
    said({}),
    `${start}22.9 MiB for parameters, gradients, moments and means alone; --optimizer.momentBits=8, or --optimizer.onHost=means or state takes less`,
  );
  assert.match(said({ momentBits: 8, onHost: "state" }), /^Cannot hold .* means alone$/);
});
