/** The command line of a recipe: commander's flags and help, dotted config overrides, and one clear line for an expected error. */
import { Command } from "commander";
import { KernelError } from "../../ffi/kernels.ts";
import { CudaError } from "../../ffi/cudart.ts";
import { openDevice } from "../tensor/device.ts";
import { OutOfMemoryError, parseBytes } from "../tensor/memory.ts";
import { ConfigError, describeConfig, type Json } from "./config.ts";

/** What the user must hear in one line, without a stack. */
export class UserError extends Error {
  override name = "UserError";
}

/** A recipe's command with `--device` and `--memory-limit`, which {@linkcode openDeviceFrom} reads. */
export function recipeCommand(name: string, description: string): Command {
  return new Command(name).description(description)
    .option("--device <device>", "cpu, cuda or auto (default: DEVICE, else auto)")
    .option("--memory-limit <size>", "the most device memory to use, such as 24GiB")
    .showHelpAfterError("(--help lists the options)");
}

/** Opens the device that the flags name. */
export function openDeviceFrom(options: { device?: string; memoryLimit?: string }): void {
  openDevice(
    options.device ?? Deno.env.get("DEVICE") ?? "auto",
    options.memoryLimit ? { memoryLimit: parseBytes(options.memoryLimit) } : {},
  );
}

/** Takes `--key.key=value` and `--key.key value` out of the arguments: config overrides, and the rest. */
export function splitOverrides(args: string[]): { overrides: string[]; rest: string[] } {
  const overrides: string[] = [], rest: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const match = args[i].match(/^--([\w-]+(?:\.[\w-]+)+)(=.*)?$/s);
    if (!match) rest.push(args[i]);
    else if (match[2]) overrides.push(match[1] + match[2]);
    else if (i + 1 < args.length) overrides.push(`${match[1]}=${args[++i]}`);
    else throw new ConfigError(`Cannot read ${args[i]}: its value is missing, it must be ${args[i]}=value`);
  }
  return { overrides, rest };
}

/** Adds the config's keys and defaults to a command's help. */
export function helpWithConfig(command: Command, config: Json): Command {
  return command.addHelpText(
    "after",
    `\nSettings of the config and their defaults (--size and --config change them):\n${describeConfig(config).join("\n")}`,
  );
}

const EXPECTED = [UserError, ConfigError, OutOfMemoryError, CudaError, KernelError, RangeError, TypeError, Deno.errors.PermissionDenied];

/** Runs a recipe; an expected error ends it with one line and status 1, any other with its stack. `ESPALIER_DEBUG=1` shows every stack. */
export async function runRecipe(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    const plain = error instanceof Error && Deno.env.get("ESPALIER_DEBUG") !== "1" &&
      (EXPECTED.some((type) => error instanceof type) || /^Cannot /.test(error.message));
    console.error(plain ? `error: ${(error as Error).message}` : error);
    Deno.exit(1);
  }
}
