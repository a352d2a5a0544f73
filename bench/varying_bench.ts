/**
 * 500 training steps of SLat-Flow image-L on samples of 4,000 to 32,000 voxels, planned to stay within 40 GiB of a CUDA device. Writes
 * bench/results/varying.json. VARYING_STEPS and VARYING_SECONDS bound it.
 *
 *   deno task bench bench/varying_bench.ts
 */
import { readDriver } from "../ffi/cuda_driver.ts";
import { cardFor } from "../lib/memory/cards.ts";
import { benchmark } from "./harness.ts";
import { sparse } from "./memory_sparse.ts";

const count = Number(Deno.env.get("VARYING_STEPS") ?? 500), seconds = Number(Deno.env.get("VARYING_SECONDS") ?? 1000);

benchmark("varying", (save) => sparse(cardFor(readDriver().gpus[0]?.name), { count, gib: 40, seconds }, save));
