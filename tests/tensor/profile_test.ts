import assert from "node:assert/strict";
import { add, gelu } from "../../lib/ops/elementwise.ts";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { linear } from "../../lib/ops/matmul.ts";
import { gateAdd } from "../../lib/ops/modulate.ts";
import { kernelCost } from "../../lib/tensor/kernel_cost.ts";
import { chromeTrace, profileRows, profileTable, startProfile } from "../../lib/tensor/profile.ts";
import { step } from "../../lib/tensor/scope.ts";
import { backward } from "../../lib/tensor/tape.ts";
import { tensor, zeros } from "../../lib/tensor/tensor.ts";
import { device } from "../../lib/tensor/device.ts";
import { random } from "../check.ts";

function work(): void {
  step(() => {
    const x = tensor(random(1, 24), [2, 3, 4], { requiresGrad: true }), w = tensor(random(2, 20), [5, 4]);
    const y = linear(gelu(layerNorm(x)), w, null), gate = zeros([2, 5]);
    backward(gateAdd(y, add(y, y), gate), tensor(random(3, 30), [2, 3, 5]));
  });
}

Deno.test("a profile has every kernel once a call, with its extents, bytes, and times in order", () => {
  work();
  const stop = startProfile();
  work();
  work();
  const profile = stop(), rows = profileRows(profile), row = (name: string) => rows.filter((r) => r.name === name);
  work(); // no part of it
  assert.deepEqual(row("k_norm_fwd").map(({ what, calls }) => [what, calls]), [["[6, 4] f32", 2]]);
  assert.equal(row("k_norm_bwd")[0].calls, 2);
  const product = device().name === "cpu" ? "k_matmul_fwd" : "cublasLtMatmul";
  assert.equal(row(product).reduce((n, r) => n + r.calls, 0), 4, "forward, and the gradient of x");
  assert.equal(profile.calls.find((c) => c.name === product)!.flops, 2 * 6 * 4 * 5);
  assert.equal(profile.calls.find((c) => c.name === "k_gate_add_fwd")!.bytes, 3 * 30 * 4);
  for (const { start, ms, hostStart } of profile.calls) assert.ok(start >= 0 && ms >= 0 && hostStart >= 0);
  assert.ok(profile.calls.every((c, i, all) => i === 0 || c.start >= all[i - 1].start));
  assert.ok(profile.limits.bandwidth > 0 && profile.ms > 0 && profile.hostMs > 0);
  const times = rows.map((r) => r.ms);
  assert.deepEqual(times, times.toSorted((a, b) => b - a));
});

Deno.test("a profile's table and trace name its kernels", () => {
  const stop = startProfile();
  work();
  const profile = stop(), table = profileTable(profile), { traceEvents } = JSON.parse(chromeTrace(profile));
  assert.match(table, /k_norm_fwd \[6, 4\] f32 +1 /);
  assert.match(table, /device [\d.]+ ms a step/);
  assert.equal(traceEvents.filter((e: { ph: string }) => e.ph === "X").length, 2 * profile.calls.length);
  assert.match(profileTable(profile, 1, 2), /and \d+ more/);
});

Deno.test("kernelCost() counts a broadcast operand once, and knows nothing of other kernels", () => {
  const strides = [0n, 0n, 0n, 1n], none = [1n, 1n, 4n, 8n];
  const { bytes } = kernelCost("k_binary_fwd", [0n, 0n, 0n, ...none, 0n, 0n, 8n, 1n, ...strides, 0, 2, 0n]);
  assert.equal(bytes, (32 + 32 + 8) * 2);
  assert.deepEqual(kernelCost("k_render_mesh", [1]), { what: "" });
});
