import assert from "node:assert/strict";
import { HOST_CUDA } from "./host_cuda.ts";
import { runRanks } from "./ranks.ts";

Deno.test({
  name: `turns bring the others' rows${HOST_CUDA ? "" : " (skipped: no g++ is here)"}`,
  ignore: !HOST_CUDA,
  fn: async () => {
    const outcomes = await runRanks(
      3,
      `import { makeSlots } from("lib/dist/slots.ts");
      import { tensor } from("lib/tensor/tensor.ts");
      import { device } from("lib/tensor/device.ts");
      const slots = makeSlots(rank, world, 3 * 300), handles = ranks.exchange([...slots.handle()]).map((bytes) => Uint8Array.from(bytes)), out = [];
      slots.open(handles);
      const read = (at) => { const to = new Float32Array(2); device().memory.download(to, at); return [...to]; };
      for (let i = 0; i < 40; i++) {
        const to = [0, 1, 2].map((r) => tensor([100 * i + 10 * rank + r, 7], [2]));
        const send = (r) => ({ from: to[r].addr, bytes: r === 2 && i % 2 ? 0 : 8 });
        slots.turn(send, (rows) => rows.forEach((at, r) => r !== rank && !(rank === 2 && i % 2) && out.push(JSON.stringify(read(at)) === JSON.stringify([100 * i + 10 * r + rank, 7]))));
      }
      slots.leave();
      ranks.exchange(null);
      slots.free();
      console.log(JSON.stringify([slots.row, out.length, out.every(Boolean)]));
      ranks.close();`,
      { env: { LD_LIBRARY_PATH: HOST_CUDA! } },
    );
    outcomes.forEach(({ stdout, stderr }, rank) => assert.equal(stdout.trim(), JSON.stringify([256, rank === 2 ? 40 : 80, true]), stderr));
  },
});
