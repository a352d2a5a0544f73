/**
 * A thread of its own that hears SIGINT, SIGTERM and SIGUSR1 while the training loop computes, and sees when the launcher that started this process
 * (ESPALIER_LAUNCHER is its number) is gone: it sets the shared number that it is sent to 1.
 */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGUSR1"] as const, LOOK_MS = 1000;

globalThis.addEventListener("message", (event) => {
  const flag = (event as MessageEvent<Int32Array<SharedArrayBuffer>>).data, launcher = Deno.env.get("ESPALIER_LAUNCHER");
  const stop = (why: string): void => {
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, onSignal); // the next one ends the process
    clearInterval(looks);
    try { // before the loop knows: it may end the process at once
      Deno.stderr.writeSync(new TextEncoder().encode(`\n${why}stopping after this step; a second signal stops at once\n`));
    } catch { /* who read it is gone */ }
    Atomics.store(flag, 0, 1);
  };
  const onSignal = (): void => stop("");
  const looks = launcher ? setInterval(() => `${Deno.ppid}` !== launcher && stop("the launcher is gone, "), LOOK_MS) : undefined;
  for (const signal of SIGNALS) Deno.addSignalListener(signal, onSignal);
}, { once: true });
