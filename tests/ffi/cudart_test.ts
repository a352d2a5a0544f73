import assert from "node:assert/strict";
import { CudaError, openCudart, probeCuda } from "../../ffi/cudart.ts";
import { hasCuda } from "../../lib/tensor/device.ts";

const GPU = hasCuda();

Deno.test({
  name: "probeCuda() says why CUDA cannot be used where there is none",
  ignore: GPU,
  fn: () => {
    const { available, reason } = probeCuda();
    assert.equal(available, false);
    assert.match(
      reason,
      /^(Cannot open the CUDA runtime, which gives device memory: libcudart\.so\.13 or .*|Cannot run cuda\w+: CUDA says .*|the driver lists no CUDA device)/,
    );
  },
});

Deno.test({
  name: `openCudart() gives device properties${GPU ? "" : " (skipped: needs a GPU)"}`,
  ignore: !GPU,
  fn: () => {
    const cuda = openCudart(), out = new Int32Array(1);
    cuda.cudaRuntimeGetVersion(out);
    assert.ok(out[0] >= 12000 && out[0] < 20000);
    cuda.cudaDeviceGetAttribute(out, 75, 0); // the major compute capability
    assert.ok(out[0] >= 7);
  },
});

Deno.test({
  name: `openCudart() throws CUDA's own message${GPU ? "" : " (skipped: needs a GPU)"}`,
  ignore: !GPU,
  fn: () => {
    assert.throws(() => openCudart().cudaSetDevice(1000), (error: Error) => {
      assert.ok(error instanceof CudaError);
      assert.equal(error.status, 101);
      assert.match(error.message, /^Cannot run cudaSetDevice: CUDA says "invalid device ordinal" \(error 101\)$/);
      return true;
    });
    openCudart().cudaGetDeviceCount(new Int32Array(1));
  },
});
