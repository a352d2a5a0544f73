import assert from "node:assert/strict";
import { ncclVersion, openNccl } from "../../ffi/nccl.ts";

/** Why NCCL can not be used here, or "". */
function missing(): string {
  try {
    openNccl();
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}

Deno.test("openNccl() opens NCCL 2, or says where it looked and what to do", () => {
  const reason = missing();
  if (reason) assert.match(reason, /^Cannot open NCCL, which joins several GPUs: libnccl\.so\.2 or libnccl\.so is in none of .*Install/s);
  else assert.match(ncclVersion(), /^2\.\d+\.\d+$/);
});
