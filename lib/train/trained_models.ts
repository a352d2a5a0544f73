/** Trained models by the folders that recipes write them to. */
import { loadParameters, readModelDescription } from "../io/pretrained.ts";
import { type SsDecoder, type SsDecoderArgs, ssDecoderSpec, type SsEncoder, type SsEncoderArgs, ssEncoderSpec } from "../models/ss_vae.ts";
import { trainingDtype } from "./batch.ts";

/** The arguments of the model pair `path`, which must be of class `name`. */
export function argsOf<A>(path: string, name: string): A {
  const found = readModelDescription(path);
  if (found.name !== name) throw new Error(`Cannot load ${path}: its class is ${found.name}, it must be ${name}`);
  return found.args as A;
}

/** Loads a SparseStructureDecoder pair; its blocks are f16 on a GPU where it says use_fp16, else f32. */
export function loadSsDecoder(path: string): SsDecoder {
  const args = argsOf<SsDecoderArgs>(path, "SparseStructureDecoder"), dtype = trainingDtype("auto", args.use_fp16 ?? false);
  return { args, dtype, params: loadParameters(ssDecoderSpec(args, dtype), `${path}.safetensors`) };
}

/** Loads the `encoder` and `decoder` pairs of a folder. */
export function loadSsVae(folder: string): { encoder: SsEncoder; decoder: SsDecoder } {
  const path = `${folder}/encoder`,
    args = argsOf<SsEncoderArgs>(path, "SparseStructureEncoder"),
    dtype = trainingDtype("auto", args.use_fp16 ?? false);
  return {
    encoder: { args, dtype, params: loadParameters(ssEncoderSpec(args, dtype), `${path}.safetensors`) },
    decoder: loadSsDecoder(`${folder}/decoder`),
  };
}
