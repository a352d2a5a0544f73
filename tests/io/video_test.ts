import assert from "node:assert/strict";
import { hasFfmpeg, writeVideo } from "../../lib/io/video.ts";

const frame = (width: number, height: number, grey: number) => ({
  width,
  height,
  channels: 3 as const,
  data: new Uint8Array(width * height * 3).fill(grey),
});

Deno.test({
  name: hasFfmpeg() ? "writeVideo() writes an MP4" : "writeVideo() writes an MP4 (needs ffmpeg)",
  ignore: !hasFfmpeg(),
  fn: async () => {
    const path = Deno.makeTempFileSync({ suffix: ".mp4" });
    try {
      await writeVideo(path, [0, 100, 200].map((grey) => frame(32, 16, grey)));
      assert.equal(new TextDecoder().decode(Deno.readFileSync(path).subarray(4, 8)), "ftyp");
    } finally {
      Deno.removeSync(path);
    }
  },
});

Deno.test("writeVideo() refuses frames that make no video, and leaves nothing behind", async () => {
  const folder = Deno.makeTempDirSync(), path = `${folder}/x.mp4`;
  try {
    await assert.rejects(writeVideo(path, []), /the frames are 0 of 0 x 0/);
    await assert.rejects(writeVideo(path, [frame(31, 16, 0)]), /31 x 16, their sides must be even/);
    await assert.rejects(writeVideo(path, [frame(32, 16, 0), frame(16, 16, 0)]), /a frame is 16 x 16 x 3, it must be 32 x 16 x 3/);
    if (!hasFfmpeg()) await assert.rejects(writeVideo(path, [frame(32, 16, 0)]), /Cannot write .*x\.mp4 with ffmpeg/);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
