import { expectCollectives } from "./collectives.ts";
import { countGpus } from "./ranks.ts";

const gpus = countGpus();
Deno.test({
  name: `collectives of ${gpus > 1 ? `${gpus} GPUs by NCCL` : "several GPUs by NCCL (skipped: fewer than two GPUs are here)"}`,
  ignore: gpus < 2,
  fn: () => expectCollectives(gpus, "cuda", "nccl"),
});
