import assert from "node:assert/strict";
import { joinSockets } from "../../lib/dist/sockets.ts";
import { ALONE, jobToken } from "../../lib/dist/place.ts";

Deno.test("joinSockets() waits for rank 0's file, and one of another job is not it", () => {
  const folder = Deno.makeTempDirSync(), file = `${folder}/meet`;
  Deno.writeTextFileSync(file, `${jobToken("another")} 127.0.0.1 4000\n`);
  assert.throws(
    () => joinSockets({ ...ALONE, rank: 1, world: 2, job: "mine", file }, 0.2),
    /^Error: Cannot join the job: .*meet does not say where rank 0 listens after 0\.2 s, all ranks must see one file system and rank 0 must run/,
  );
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("joinSockets() says which address rank 0 can not listen at", () => {
  assert.throws(
    () => joinSockets({ ...ALONE, world: 2, address: "no such host", port: 4000 }, 0.2),
    /collective_listen: no such host port 4000 says/,
  );
});

Deno.test("joinSockets() of a world of one needs no socket", () => {
  joinSockets(ALONE, 1).close();
});
