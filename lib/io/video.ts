/** MP4 files, by the program ffmpeg where it is installed. */
import type { Image } from "./image.ts";

const decoder = new TextDecoder();

/** Whether ffmpeg can be started. */
export function hasFfmpeg(): boolean {
  try {
    return new Deno.Command("ffmpeg", { args: ["-version"], stdin: "null", stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/**
 * Writes frames [H, W, 3] of one size, with even sides, as an H.264 MP4 of `rate` frames a second, whole or not at all. Throws where ffmpeg is
 * missing or fails, with what it says.
 */
export async function writeVideo(path: string, frames: readonly Image[], { rate = 30 }: { rate?: number } = {}): Promise<void> {
  const { width, height } = frames[0] ?? { width: 0, height: 0 }, temp = `${path}.part.mp4`;
  if (!(width > 0 && width % 2 === 0 && height % 2 === 0)) {
    throw new RangeError(
      `Cannot write ${path}: the frames are ${frames.length} of ${width} x ${height}, their sides must be even and above 0`,
    );
  }
  const wrong = frames.find((f) => f.width !== width || f.height !== height || f.channels !== 3);
  if (wrong) {
    throw new RangeError(
      `Cannot write ${path}: a frame is ${wrong.width} x ${wrong.height} x ${wrong.channels}, it must be ${width} x ${height} x 3`,
    );
  }
  const input = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", `${width}x${height}`, "-r", String(rate), "-i", "-"];
  const output = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", temp];
  try {
    const child = new Deno.Command("ffmpeg", {
      args: ["-y", "-loglevel", "error", ...input, ...output],
      stdin: "piped",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter(), done = child.output();
    try {
      for (const { data } of frames) await writer.write(Uint8Array.from(data));
      await writer.close();
    } catch { /* it ended before: its status says why */ }
    const { success, stderr } = await done;
    if (!success) throw new Error(decoder.decode(stderr).trim());
    Deno.renameSync(temp, path);
  } catch (error) {
    try {
      Deno.removeSync(temp);
    } catch { /* it was not begun */ }
    throw new Error(`Cannot write ${path} with ffmpeg: ${(error as Error).message}`, { cause: error });
  }
}
