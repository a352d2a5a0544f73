/** A thread of its own that hears SIGINT, SIGTERM and SIGUSR1 while the training loop computes: it sets the shared number that it is sent to 1. */
globalThis.addEventListener("message", (event) => {
  const flag = (event as MessageEvent<Int32Array<SharedArrayBuffer>>).data, signals = ["SIGINT", "SIGTERM", "SIGUSR1"] as const;
  const onSignal = (): void => {
    Atomics.store(flag, 0, 1);
    for (const signal of signals) Deno.removeSignalListener(signal, onSignal); // the next one ends the process
    Deno.stderr.writeSync(new TextEncoder().encode("\nstopping after this step; a second signal stops at once\n"));
  };
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
}, { once: true });
