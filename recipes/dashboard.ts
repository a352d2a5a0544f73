/**
 * A page of training runs at 127.0.0.1: loss, learning rate, gradient norm, throughput, memory, and the sample pictures, while they train.
 *
 *   deno task dashboard -- [FOLDER] [--port 8765]
 */
import * as e from "../mod.ts";

if (import.meta.main) {
  await e.runRecipe(async () => {
    const command = e.plainCommand("dashboard", "Shows the training runs below a folder in a browser, on this machine alone.")
      .argument("[folder]", "the folder of a run, or one with runs in it", "runs")
      .option("--port <number>", "where the page is; 0 is any free port", "8765")
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" });
    const [folder = "runs"] = command.args, port = Number(command.opts<{ port: string }>().port);
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new e.UserError(`Cannot show a dashboard: --port is ${command.opts().port}, it must be a number of 0 to 65535`);
    }
    const server = e.serveDashboard(folder, {
      port,
      onListen: (address) => console.log(`${address} shows the runs in ${folder}; Ctrl-C ends`),
    });
    await server.finished;
  });
}
