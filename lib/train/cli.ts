/** The command line of a recipe: commander's flags and help, dotted config overrides, and one clear line for an expected error. */
import { Command } from "commander";
import { KernelError } from "../../ffi/kernels.ts";
import { CudaError } from "../../ffi/cudart.ts";
import { communicator, openCommunicator } from "../dist/communicator.ts";
import { findPlace } from "../dist/place.ts";
import { debugLevel, startDebug } from "../tensor/debug.ts";
import { openDevice } from "../tensor/device.ts";
import { OutOfMemoryError, parseBytes } from "../tensor/memory.ts";
import { ConfigError, describeConfig, type Json } from "./config.ts";
import { DryRun } from "./dry_run.ts";
import type { ConfigFlags } from "./presets.ts";

/** What the user must hear in one line, without a stack. */
export class UserError extends Error {
  override name = "UserError";
}

/** A command that needs no device. */
export function plainCommand(name: string, description: string): Command {
  return new Command(name).description(description).showHelpAfterError("(--help lists the options)");
}

/** A recipe's command with `--device` and `--memory-limit`, which {@linkcode openDeviceFrom} reads. */
export function recipeCommand(name: string, description: string): Command {
  return plainCommand(name, description)
    .option("--device <device>", "cpu, cuda or auto (default: DEVICE, else auto)")
    .option("--memory-limit <size>", "the most device memory to use, such as 24GiB");
}

/** Opens the device that the flags name: of several GPUs the one of this process's place on its machine. */
export function openDeviceFrom(options: { device?: string; memoryLimit?: string }): void {
  openDevice(options.device ?? (Deno.env.get("DEVICE") || "auto"), {
    ordinal: findPlace().localRank,
    ...(options.memoryLimit ? { memoryLimit: parseBytes(options.memoryLimit) } : {}),
  });
  startDebug();
}

/** Opens the device that the flags name, and joins the other processes of a launch. */
export function openTrainingDevice(flags: TrainingFlags): void {
  const timeout = Number(flags.rankTimeout);
  if (!(timeout > 0)) throw new UserError(`Cannot start: --rank-timeout is "${flags.rankTimeout}", it must be seconds above 0`);
  openDeviceFrom(flags);
  openCommunicator({ timeout });
}

/**
 * Takes `--key.key=value` (or `--key.key value`) out of the arguments where the name has a dot or is one of `keys`: config overrides, and the
 * rest. A `--` in front, which `deno task name -- ...` hands on, is dropped.
 */
export function splitOverrides(args: string[], keys: string[]): { overrides: string[]; rest: string[] } {
  const overrides: string[] = [], rest: string[] = [];
  for (let i = args[0] === "--" ? 1 : 0; i < args.length; i++) {
    const [, name, value] = args[i].match(/^--([\w-]+(?:\.[\w-]+)*)(=.*)?$/s) ?? [];
    if (!name || !(name.includes(".") || keys.includes(name))) rest.push(args[i]);
    else if (value) overrides.push(name + value);
    else if (args[i + 1]?.startsWith("--") === false) overrides.push(`${name}=${args[++i]}`);
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

/** What a training recipe's command line says. */
export interface TrainingFlags {
  output: string;
  ckpt: string;
  device?: string;
  memoryLimit?: string;
  profile?: boolean;
  tune?: boolean;
  record?: boolean;
  dryRun?: boolean;
  /** Seconds that a process waits for the others. */
  rankTimeout?: string;
}

/** What of it a recipe's loop needs; ckpt is "latest" by default. */
export type RunFlags = Pick<TrainingFlags, "output"> & Partial<Pick<TrainingFlags, "ckpt" | "profile" | "tune" | "record" | "dryRun">>;

/** A training recipe's command: sizes, config file, output folder, checkpoint to go on from. */
export function trainingCommand(name: string, description: string, sizes: Record<string, unknown>): Command {
  return recipeCommand(name, description)
    .option("--data <roots>", "the dataset, or several with commas between them (data.root)")
    .option("--output <folder>", "where everything is written", `runs/${name.replace(/^train:/, "").replaceAll("-", "_")}`)
    .option("--size <size>", `the settings to start from: ${Object.keys(sizes).join(", ")}`, "tiny")
    .option("--config <file>", "a JSON file laid over them: ours (config.json of a run) or TRELLIS's")
    .option("--ckpt <which>", "the checkpoint to go on from: latest, none or a step", "latest")
    .option("--keep <count>", "how many checkpoints to keep (log.keep); log.milestoneEvery keeps more of them for good")
    .option("--dry-run", "build and check everything, the checkpoint to go on from too, then say what would be trained and stop")
    .option("--overfit", "train on one batch alone (batch.overfit), which a model that works learns by heart")
    .option("--profile", "time every kernel in some of the first steps: profile.txt, and profile.json for chrome://tracing")
    .option("--rank-timeout <seconds>", "how long a process of several waits for the others before it gives up", "60");
}

/** Parses a training command line into its flags and where its config comes from. */
export function parseTraining(
  command: Command,
  args: string[],
  sizes: Record<string, Json | unknown>,
): { flags: TrainingFlags; config: ConfigFlags } {
  const keys = Object.keys(Object.values(sizes)[0] as object).filter((key) => !command.options.some((o) => o.long === `--${key}`));
  const { overrides, rest } = splitOverrides(args, keys), at = rest.indexOf("--size");
  const size = rest.find((a) => a.startsWith("--size="))?.slice("--size=".length) ?? (at < 0 ? "tiny" : rest[at + 1]);
  if (Object.hasOwn(sizes, size)) helpWithConfig(command, sizes[size] as Json);
  const flags = command.parse(rest, { from: "user" }).opts<
    TrainingFlags & { size: string; config?: string; data?: string; vae?: string; latents?: string; keep?: string; overfit?: boolean }
  >();
  if (flags.data) overrides.unshift(`data.root=${JSON.stringify(flags.data)}`);
  if (flags.keep) overrides.unshift(`log.keep=${flags.keep}`);
  if (flags.overfit) overrides.unshift("batch.overfit=true");
  if (flags.latents) overrides.unshift(`data.latents=${JSON.stringify(flags.latents)}`);
  if (flags.vae) overrides.unshift(`vae=${JSON.stringify(flags.vae)}`);
  return { flags, config: { size: flags.size, file: flags.config, overrides } };
}

const EXPECTED = [UserError, ConfigError, OutOfMemoryError, CudaError, KernelError];

/** Errors that the project throws: "Cannot <do>: ..."; JavaScript's own, such as "Cannot read properties of undefined (...)", are faults of ours. */
const OURS = /^Cannot .+?: /s;

/** What the system says of a file or folder, as an error of ours; undefined for any other error. */
function fileFault(error: Error & { code?: string }): string | undefined {
  if (!error.code || !/^E[A-Z]+$/.test(error.code)) return undefined;
  const advice = error.code === "ENOSPC" || error.code === "EDQUOT" ? "free some space or choose" : "choose";
  return `Cannot use a file or folder: the system says "${error.message}", it must be there and usable; ${advice} another path`;
}

/** Runs a recipe, which several processes leave together; an expected error ends it with one line and status 1, any other, and one of a process that waited in vain for another, with its stack. `DEBUG=1` shows every stack. */
export async function runRecipe(main: () => Promise<void>): Promise<void> {
  try {
    await main();
    communicator().close();
  } catch (error) {
    if (error instanceof DryRun) {
      if (error.message) console.log(error.message); // of several processes the first one tells
      Deno.exit(0);
    }
    const amongRanks = error instanceof KernelError && communicator().world > 1; // where each was when one of them went missing
    const quiet = error instanceof Error && debugLevel() === 0 && !amongRanks;
    const plain = !quiet
      ? undefined
      : EXPECTED.some((type) => error instanceof type) || OURS.test(error.message)
      ? error.message
      : fileFault(error);
    console.error(plain ? `error: ${plain}` : error);
    Deno.exit(1);
  }
}
