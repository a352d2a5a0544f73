/** The Khronos validator's verdict on GLB files. */
import assert from "node:assert/strict";
import { validateBytes } from "gltf-validator";

/** Throws unless the validator finds neither an error nor a warning. */
export async function expectValidGlb(glb: Uint8Array): Promise<void> {
  const { issues } = await validateBytes(glb) as { issues: { numErrors: number; numWarnings: number; messages: unknown[] } };
  assert.deepEqual([issues.numErrors, issues.numWarnings], [0, 0], JSON.stringify(issues.messages.slice(0, 5)));
}
