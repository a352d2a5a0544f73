/**
 * Starts a recipe in several processes of this machine, one a GPU, under torchrun's variables. One that ends with an error ends all; they start again
 * from the newest checkpoint up to `--max-restarts` times. Where the launcher itself is killed, trainings stop after their step, with a checkpoint. On
 * several machines it is started on each, with the number of machines, that of this one, and the address and port of the first.
 *
 *   deno task launch -- --nproc 2 [--max-restarts 3] recipes/ss_flow.ts --data DATASET ...
 *   deno task launch -- --nproc 8 --nodes 2 --node-rank 0 --address node0 --port 29500 recipes/ss_flow.ts ...
 */
import { Command } from "commander";

const ROOT = decodeURIComponent(new URL("../", import.meta.url).pathname);
/** How long the other processes may take to stop, and the status of a run that a signal stopped. */
const GRACE_MS = 30_000, STOPPED = 130;

/** How to launch. */
export interface LaunchOptions {
  nproc: number;
  maxRestarts: number;
  /** Machines, and which of them this one is. */
  nodes: number;
  nodeRank: number;
  /** Where rank 0 listens; by default, on one machine, a free port of it. */
  address: string;
  port?: number;
}

/** A free port of this machine. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

/** Copies lines of `from` to the terminal with the rank before them. */
async function relay(from: ReadableStream<Uint8Array>, rank: number): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of from) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) console.error(`[rank ${rank}] ${line}`);
  }
  if (rest) console.error(`[rank ${rank}] ${rest}`);
}

/** Runs all ranks once; the status of the first that failed, or 0. */
async function runAll(command: string[], attempt: number, options: LaunchOptions): Promise<number> {
  const { nproc, nodes, nodeRank, address, port = freePort() } = options, first = nproc * nodeRank;
  const children = Array.from({ length: nproc }, (_, local) => {
    const rank = first + local, shown = local === 0;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-P=train", "--config", `${ROOT}deno.json`, ...command],
      cwd: Deno.cwd(),
      env: {
        RANK: `${rank}`,
        LOCAL_RANK: `${local}`,
        WORLD_SIZE: `${nproc * nodes}`,
        LOCAL_WORLD_SIZE: `${nproc}`,
        MASTER_ADDR: address,
        MASTER_PORT: `${port}`,
        TORCHELASTIC_RUN_ID: `${address}:${port}`,
        TORCHELASTIC_RESTART_COUNT: `${attempt}`,
        ESPALIER_LAUNCHER: `${Deno.pid}`,
      },
      stdin: "null",
      stdout: shown ? "inherit" : "piped",
      stderr: shown ? "inherit" : "piped",
    }).spawn();
    return { rank, child, relayed: shown ? [] : [relay(child.stdout, rank), relay(child.stderr, rank)], ended: false };
  });
  console.error(`ranks ${first} to ${first + nproc - 1} are the processes ${children.map(({ child }) => child.pid).join(", ")}`);
  const signalAll = (signal: Deno.Signal): void => {
    for (const { child, ended } of children) {
      try {
        if (!ended) child.kill(signal);
      } catch { /* it ended meanwhile */ }
    }
  };
  const handlers = (["SIGINT", "SIGTERM", "SIGUSR1"] as const).map((signal) => [signal, () => signalAll(signal)] as const);
  for (const [signal, handler] of handlers) Deno.addSignalListener(signal, handler);
  let failure = 0, timer: ReturnType<typeof setTimeout> | undefined;
  await Promise.all(children.map(async (c) => {
    const { code, signal } = await c.child.status;
    c.ended = true;
    if (code === 0 || failure) return;
    failure = code || 1;
    if (code !== STOPPED) {
      console.error(`rank ${c.rank} of ${nproc * nodes} ended with ${signal ?? `status ${code}`}; the others are stopped`);
    }
    signalAll("SIGTERM");
    timer = setTimeout(() => signalAll("SIGKILL"), GRACE_MS);
  }));
  clearTimeout(timer);
  for (const [signal, handler] of handlers) Deno.removeSignalListener(signal, handler);
  await Promise.all(children.flatMap((c) => c.relayed));
  return failure;
}

/** Launches `command` (a recipe and its arguments) until it ends well, is stopped by a signal, or fails once more than `maxRestarts` times. */
export async function launch(command: string[], options: LaunchOptions): Promise<number> {
  for (let attempt = 0;; attempt++) {
    const status = await runAll(command, attempt, options);
    if (status === 0 || status === STOPPED || attempt >= options.maxRestarts) return status;
    console.error(`starting again from the newest checkpoint (${attempt + 1} of ${options.maxRestarts} restarts)`);
  }
}

function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least) throw new RangeError(`it must be a whole number of at least ${least}`);
    return value;
  };
}

if (import.meta.main) {
  const command = new Command("launch").description("Starts a recipe in several processes of this machine, one a GPU.")
    .requiredOption("--nproc <n>", "processes", wholeNumber(1))
    .option("--max-restarts <n>", "how often to start again after a failure", wholeNumber(0), 0)
    .option("--nodes <n>", "machines", wholeNumber(1), 1)
    .option("--node-rank <n>", "which of the machines this one is, from 0", wholeNumber(0), 0)
    .option("--address <host>", "the first machine", "127.0.0.1")
    .option("--port <n>", "where rank 0 listens on it (default: a free port of this machine)", wholeNumber(1))
    .argument("<recipe...>", "a recipe and its arguments, such as recipes/ss_flow.ts --data DATASET")
    .passThroughOptions();
  const args = Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args;
  command.parse(args, { from: "user" });
  const [recipe, ...rest] = command.args, file = recipe.startsWith("/") || recipe.startsWith(".") ? recipe : `${ROOT}${recipe}`;
  const options = command.opts<LaunchOptions>();
  if (options.nodeRank >= options.nodes) {
    command.error(`error: --node-rank is ${options.nodeRank}, it must be below --nodes, ${options.nodes}`);
  }
  if (options.nodes > 1 && !options.port) command.error("error: --port is missing, several machines must be told where rank 0 listens");
  Deno.exit(await launch([file, ...rest], options));
}
