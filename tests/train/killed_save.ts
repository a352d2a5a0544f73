/** A save in a process of its own that is killed (SIGKILL) at one of its calls. Run as a program: FOLDER STEP N. */
import { saveOn, watchedDisk } from "./faulty_disk.ts";

/** Saves `step` in a process of its own, which ends before call `n`, in the middle of it where that is a write. Throws where it was not killed. */
export function killAt(folder: string, step: number, n: number): void {
  const { signal, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", "--no-check", new URL(import.meta.url).pathname, folder, String(step), String(n)],
    env: { DEVICE: "cpu" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).outputSync();
  if (signal !== "SIGKILL") throw new Error(`call ${n}: the process was not killed: ${new TextDecoder().decode(stderr)}`);
}

if (import.meta.main) {
  const [folder, step, at] = Deno.args;
  let n = 0, half = false;
  const kill = (): void => {
    Deno.kill(Deno.pid, "SIGKILL");
    for (;;);
  };
  saveOn(folder, Number(step), {
    disk: watchedDisk(({ bytes }) => {
      if (half) kill();
      if (n++ !== Number(at)) return;
      if (!bytes) kill();
      half = true;
      return bytes!.length >> 1 || 1;
    }),
  });
}
