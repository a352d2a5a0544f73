/**
 * Weights that PyTorch saved, as safetensors: a TRELLIS training run's `.pt` files, DINOv2's, any state dict. Nothing of the file is run.
 *
 *   deno task convert -- denoiser_ema0.9999_step0100000.pt models/ss_flow --config config.json
 */
import * as e from "../mod.ts";

/** The description of the model that `path` has the weights of, by the TRELLIS training config that it was trained with. */
function descriptionOf(path: string, config: string, model?: string): { name: string; args: Record<string, unknown> } {
  const { models } = e.readTrellisConfig(e.readJson(config)), names = Object.keys(models);
  const stem = path.split("/").at(-1)!, key = model ?? names.find((name) => stem.startsWith(`${name}_`) || stem === `${name}.pt`);
  if (!key || !Object.hasOwn(models, key)) {
    throw new e.UserError(
      `Cannot convert ${path}: its model is ${key ?? "not told by its name"}, --model must be one of ${names.join(", ")}`,
    );
  }
  const { name, args } = models[key];
  return { name: name.replace(/^Elastic/, ""), args };
}

if (import.meta.main) {
  await e.runRecipe(() => {
    const command = e.plainCommand("convert", "Writes the tensors of a .pt or .pth file as safetensors.")
      .argument("<file>", "the file that PyTorch saved")
      .argument("<output>", "the file to write, with or without .safetensors")
      .option(
        "--config <file>",
        "the TRELLIS training config (config.json of its run): <output>.json is written too, so that the pair can be loaded",
      )
      .option("--model <name>", "which of the config's models it is, where the file's name does not tell")
      .parse(Deno.args[0] === "--" ? Deno.args.slice(1) : Deno.args, { from: "user" });
    const [file, output] = command.args, { config, model } = command.opts<{ config?: string; model?: string }>();
    const { tensors, bytes, leftOut } = e.convertTorchFile(file, output, config ? descriptionOf(file, config, model) : undefined);
    console.log(`${tensors} tensors, ${e.formatBytes(bytes)}, in ${output.replace(/\.safetensors$/, "")}.safetensors`);
    if (leftOut.length) {
      console.log(`left out, since they are no tensors: ${leftOut.slice(0, 10).join(", ")}${leftOut.length > 10 ? ", ..." : ""}`);
    }
    return Promise.resolve();
  });
}
