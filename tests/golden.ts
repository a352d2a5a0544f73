/** Committed loss curves. */
import assert from "node:assert/strict";
import { device } from "../lib/tensor/device.ts";

/** Compares with a committed curve, to the bit on the CPU; ESPALIER_GOLDEN=write writes it. */
export function expectGolden(name: string, curve: number[]): void {
  const file = new URL(`golden/${name}.txt`, import.meta.url);
  if (Deno.env.get("ESPALIER_GOLDEN") === "write") return Deno.writeTextFileSync(file, curve.map((v) => `${v}\n`).join(""));
  const want = Deno.readTextFileSync(file).trim().split("\n").map(Number);
  if (device().name === "cpu") assert.deepEqual(curve, want);
  else curve.forEach((v, i) => assert.ok(Math.abs(v - want[i]) <= 0.02 * Math.abs(want[i]), `step ${i + 1}: ${v}, on the CPU ${want[i]}`));
}
