/** Trained models by the folders that recipes write them to. */
import { loadParameters, readModelDescription } from "../io/pretrained.ts";
import { type SsDecoder, type SsDecoderArgs, ssDecoderSpec, type SsEncoder, type SsEncoderArgs, ssEncoderSpec } from "../models/ss_vae.ts";
import { type Lpips, LPIPS_VGG, lpipsSpec } from "../models/lpips.ts";
import { type SlatGaussianDecoder, type SlatGaussianDecoderArgs, slatGaussianDecoderSpec } from "../models/slat_decoder_gaussian.ts";
import { type SlatEncoder, type SlatEncoderArgs, slatEncoderSpec } from "../models/slat_encoder.ts";
import type { FloatDType } from "../tensor/dtype.ts";
import { type Precision, trainingDtype } from "./batch.ts";

/** The arguments of the model pair `path`, which must be of class `name` and have the options `needed`. */
export function argsOf<A>(path: string, name: string, needed: readonly (keyof A & string)[] = []): A {
  const found = readModelDescription(path);
  if (found.name !== name && found.name !== `Elastic${name}`) {
    throw new Error(`Cannot load ${path}: its class is ${found.name}, it must be ${name}`);
  }
  const missing = needed.filter((key) => found.args[key] === undefined);
  if (missing.length) {
    throw new Error(`Cannot load ${path}: its args are without ${missing.join(", ")}, they must be all of ${needed.join(", ")}`);
  }
  return found.args as A;
}

const NEEDED = ["latent_channels", "num_res_blocks", "channels"] as const;

/** Loads a SparseStructureDecoder pair; with precision "auto" its blocks are f16 on a GPU where it says use_fp16, else f32. */
export function loadSsDecoder(path: string, precision: Precision = "auto"): SsDecoder {
  const args = argsOf<SsDecoderArgs>(path, "SparseStructureDecoder", ["out_channels", ...NEEDED]),
    dtype = trainingDtype(precision, args.use_fp16 ?? false);
  return { args, dtype, params: loadParameters(ssDecoderSpec(args, dtype), `${path}.safetensors`) };
}

/** Loads a SparseStructureEncoder pair, in the dtypes of {@linkcode loadSsDecoder}. */
export function loadSsEncoder(path: string, precision: Precision = "auto"): SsEncoder {
  const args = argsOf<SsEncoderArgs>(path, "SparseStructureEncoder", ["in_channels", ...NEEDED]),
    dtype = trainingDtype(precision, args.use_fp16 ?? false);
  return { args, dtype, params: loadParameters(ssEncoderSpec(args, dtype), `${path}.safetensors`) };
}

const SLAT_NEEDED = ["resolution", "model_channels", "latent_channels", "num_blocks"] as const;

/** Loads an SLatEncoder pair, in the dtypes of {@linkcode loadSsDecoder}. */
export function loadSlatEncoder(path: string, precision: Precision = "auto"): SlatEncoder {
  const args = argsOf<SlatEncoderArgs>(path, "SLatEncoder", ["in_channels", ...SLAT_NEEDED]),
    dtype = trainingDtype(precision, args.use_fp16 ?? false);
  return { args, dtype, params: loadParameters(slatEncoderSpec(args, dtype), `${path}.safetensors`) };
}

/** Loads an SLatGaussianDecoder pair, in the dtypes of {@linkcode loadSsDecoder}. */
export function loadSlatGaussianDecoder(path: string, precision: Precision = "auto"): SlatGaussianDecoder {
  const args = argsOf<SlatGaussianDecoderArgs>(path, "SLatGaussianDecoder", ["representation_config", ...SLAT_NEEDED]),
    dtype = trainingDtype(precision, args.use_fp16 ?? false);
  return { args, dtype, params: loadParameters(slatGaussianDecoderSpec(args, dtype), `${path}.safetensors`) };
}

/** Loads the `encoder` and `decoder` pairs of a folder. */
export function loadSsVae(folder: string, precision: Precision = "auto"): { encoder: SsEncoder; decoder: SsDecoder } {
  try {
    Deno.statSync(`${folder}/encoder.json`);
  } catch {
    throw new Error(`Cannot load the VAE: ${folder} has no encoder.json, it must be the models folder of a train:ss-vae run`);
  }
  return { encoder: loadSsEncoder(`${folder}/encoder`, precision), decoder: loadSsDecoder(`${folder}/decoder`, precision) };
}

/** How to get the weights of LPIPS. */
const LPIPS_RECIPE = `python -c 'import lpips; from safetensors.torch import save_file; d = lpips.LPIPS(net="vgg").state_dict(); ` +
  `save_file({k: v.contiguous() for k, v in d.items() if k.startswith("net.") or k[:3] == "lin" and k[3] != "s"}, "lpips_vgg.safetensors")'`;

/**
 * Loads LPIPS with VGG-16 from a safetensors file under the names of {@linkcode LpipsSpec}; `dtype` is that of its convolutions. Throws an Error that
 * says how to make the file where none is named or it cannot be used.
 */
export function loadLpips(path: string | null, dtype: FloatDType = "f32"): Lpips {
  const advice =
    `loss.lpipsWeights must name the weights of lpips.LPIPS(net="vgg") as safetensors, or loss.lpips must be 0. To make the file: ${LPIPS_RECIPE}`;
  if (path === null) throw new Error(`Cannot use LPIPS: no weights are named, ${advice}`);
  try {
    return { args: LPIPS_VGG, dtype, params: loadParameters(lpipsSpec(LPIPS_VGG, dtype), path) };
  } catch (error) {
    throw new Error(`Cannot use LPIPS: ${(error as Error).message}; ${advice}`, { cause: error });
  }
}
