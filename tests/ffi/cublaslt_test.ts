import assert from "node:assert/strict";
import { cublasLtVersion } from "../../ffi/cublaslt.ts";
import { hasCuda } from "../../lib/tensor/device.ts";

const GPU = hasCuda();

Deno.test({
  name: `cublasLtVersion() is that of CUDA 12 or 13${GPU ? "" : " (skipped: needs a GPU)"}`,
  ignore: !GPU,
  fn: () => assert.ok(cublasLtVersion() >= 120000 && cublasLtVersion() < 140000, `${cublasLtVersion()}`),
});

Deno.test({
  name: "cublasLtVersion() says what cannot be opened where there is no CUDA",
  ignore: GPU,
  fn: () => assert.throws(() => cublasLtVersion(), /^Error: Cannot (open cuBLASLt, which does the dense products: |run cublasLtCreate: )/),
});
