/**
 * Espalier: what a recipe may use, layer by layer.
 *
 * @module
 */
export { hasCuda, openDevice } from "./lib/tensor/device.ts";
export type { DType, FloatDType } from "./lib/tensor/dtype.ts";
export { formatBytes, OutOfMemoryError, parseBytes } from "./lib/tensor/memory.ts";
export { device } from "./lib/tensor/device.ts";
export { Generator } from "./lib/tensor/random.ts";
export { keep, persist, step, tidy } from "./lib/tensor/scope.ts";
export { backward, checkpoint, noGrad } from "./lib/tensor/tape.ts";
export { empty, Tensor, tensor, zeros } from "./lib/tensor/tensor.ts";

export { cast, full } from "./lib/ops/cast.ts";
export { add, affine, div, exp, gelu, minimum, mul, relu, sigmoid, silu, sub } from "./lib/ops/elementwise.ts";
export { bceWithLogits, dice, klDivergence, l1, mse, mseRows, opacityRegularizer, volumeRegularizer } from "./lib/ops/loss.ts";
export { ssim, ssimMap } from "./lib/ops/ssim.ts";
export { linear, matmul } from "./lib/ops/matmul.ts";
export { broadcastTo, concat, permute, reshape, slice, split } from "./lib/ops/movement.ts";
export { mean, sum } from "./lib/ops/reduce.ts";
export { attention, crossAttention, selfAttention, type Sequences } from "./lib/ops/attention.ts";
export { conv3d } from "./lib/ops/conv3d.ts";
export { layerNorm } from "./lib/ops/layer_norm.ts";

export { batchCoords, makeVoxels } from "./lib/sparse/voxels.ts";
export type { SparseTensor, Voxels } from "./lib/sparse/voxels.ts";
export { inverseConv, sparseConv, stridedConv } from "./lib/sparse/conv.ts";
export { sparseDownsample, sparseSubdivide, sparseUpsample } from "./lib/sparse/resample.ts";

export { countParameters, freeLeaves, initialize, leaves } from "./lib/nn/parameters.ts";
export type { Parameters, ParameterSpec } from "./lib/nn/parameters.ts";

export { drawTimes, errorsByTime, flowPath, pathWeights } from "./lib/flow/path.ts";
export type { PathWeights, TimeSchedule } from "./lib/flow/path.ts";
export { meanBySample, repeatByRow } from "./lib/flow/ragged.ts";
export { sampleEuler, timeGrid } from "./lib/flow/sampler.ts";
export type { SamplerOptions } from "./lib/flow/sampler.ts";

export { dinoPatches } from "./lib/models/image_encoder.ts";
export type { Dino } from "./lib/models/image_encoder.ts";
export { lpips, LPIPS_VGG, lpipsSpec } from "./lib/models/lpips.ts";
export type { Lpips, LpipsArgs } from "./lib/models/lpips.ts";
export { patchCondition, patchEncoderSpec } from "./lib/models/patch_encoder.ts";
export type { PatchEncoderArgs } from "./lib/models/patch_encoder.ts";
export {
  PUBLISHED_SLAT_ENCODER,
  PUBLISHED_SLAT_FLOW,
  PUBLISHED_SLAT_GAUSSIAN_DECODER,
  PUBLISHED_SLAT_MESH_DECODER,
  PUBLISHED_SLAT_NORMALIZATION,
  PUBLISHED_SLAT_RADIANCE_DECODER,
  PUBLISHED_SS_DECODER,
  PUBLISHED_SS_ENCODER,
  PUBLISHED_SS_FLOW,
} from "./lib/models/published.ts";
export { slatDecodeGaussians, slatGaussianDecoderSpec } from "./lib/models/slat_decoder_gaussian.ts";
export type { GaussianConfig, Gaussians, SlatGaussianDecoder, SlatGaussianDecoderArgs } from "./lib/models/slat_decoder_gaussian.ts";
export { MESH_COLUMNS, slatDecodeMesh, slatMeshDecoderSpec } from "./lib/models/slat_decoder_mesh.ts";
export type { SlatMeshDecoder, SlatMeshDecoderArgs } from "./lib/models/slat_decoder_mesh.ts";
export { slatDecodeRadiance, slatRadianceDecoderSpec } from "./lib/models/slat_decoder_radiance.ts";
export type { RadianceField, SlatRadianceDecoder, SlatRadianceDecoderArgs } from "./lib/models/slat_decoder_radiance.ts";
export { slatEncode, slatEncoderSpec } from "./lib/models/slat_encoder.ts";
export type { SlatEncoder, SlatEncoderArgs } from "./lib/models/slat_encoder.ts";
export { slatFlow, slatFlowSpec } from "./lib/models/slat_flow.ts";
export type { SlatFlow, SlatFlowArgs } from "./lib/models/slat_flow.ts";
export { ssFlow, ssFlowSpec } from "./lib/models/ss_flow.ts";
export type { SsFlow, SsFlowArgs } from "./lib/models/ss_flow.ts";
export { samplePosterior, ssDecode, ssDecoderSpec, ssEncode, ssEncoderSpec } from "./lib/models/ss_vae.ts";
export type { SsDecoder, SsDecoderArgs, SsEncoder, SsEncoderArgs } from "./lib/models/ss_vae.ts";

export { imaginedRanks } from "./lib/dist/communicator.ts";
export { createOptimizer, OPTIMIZER_DEFAULTS } from "./lib/optim/optimizer.ts";
export type { Optimizer, OptimizerConfig, OptimizerState } from "./lib/optim/optimizer.ts";

export { cardFor, CARDS } from "./lib/memory/cards.ts";
export { plannedMemory } from "./lib/memory/elastic.ts";
export type { ElasticMemory, MemoryReport, PassOptions } from "./lib/memory/elastic.ts";

export { writeFileAtomic } from "./lib/io/atomic.ts";
export { convertTorchFile } from "./lib/io/convert.ts";
export { encodePng, imageGrid, readImage, resizeImage, writePng } from "./lib/io/image.ts";
export type { Image } from "./lib/io/image.ts";
export { loadParameters, readModelDescription, savePretrained } from "./lib/io/pretrained.ts";
export { writeVoxels } from "./lib/io/ply.ts";
export { hasFfmpeg, writeVideo } from "./lib/io/video.ts";
export { readGaussians, writeGaussians } from "./lib/io/ply_gaussians.ts";
export type { GaussianCloud, GaussianPlyOptions } from "./lib/io/ply_gaussians.ts";

export { orbitCamera, renderCameras } from "./lib/render/camera.ts";
export type { Camera, Direction } from "./lib/render/camera.ts";
export { activateGaussians, readSplats, splatsOf } from "./lib/render/gaussians.ts";
export type { GaussianActivation, RawGaussians, SplatArrays } from "./lib/render/gaussians.ts";
export { normalizeMesh } from "./lib/render/mesh.ts";
export { renderMesh } from "./lib/render/render_mesh.ts";
export { renderVoxels } from "./lib/render/render_voxels.ts";
export { type CutOut, matchColors } from "./lib/render/match_colors.ts";
export { rasterize, renderSplats } from "./lib/render/splat.ts";
export type { SplatOptions, SplatPictures, Splats } from "./lib/render/splat.ts";

export { meshCamera } from "./lib/mesh/raster.ts";
export { removeSmallParts, simplifyMesh, smoothMesh } from "./lib/mesh/clean.ts";
export { bakeColors, projectColors } from "./lib/mesh/color.ts";
export { fitCamera } from "./lib/mesh/fit_camera.ts";
export type { CameraFit } from "./lib/mesh/fit_camera.ts";
export { glbBytes, writeGlb } from "./lib/mesh/glb.ts";
export { fillInterior } from "./lib/mesh/grid.ts";
export { isoSurface } from "./lib/mesh/iso_surface.ts";
export { meshStats } from "./lib/mesh/mesh.ts";
export type { Mesh } from "./lib/mesh/mesh.ts";
export { curvesHtml, viewerHtml } from "./lib/mesh/viewer.ts";

export { APPEARANCE_CHANNELS, appearanceFeatures } from "./lib/data/appearance.ts";
export { clearestPictures, conditionPictures, drawConditions, PLAIN_PICTURES } from "./lib/data/condition_batch.ts";
export type { ConditionPictures, DrawnConditions, PictureVariation } from "./lib/data/condition_batch.ts";
export { cutOutOf, prepareImage } from "./lib/data/condition_image.ts";
export { clearestView, countViews, holdOut, loadCondition, loadVoxels, markObjects, openDataset } from "./lib/data/dataset.ts";
export type { DatasetItem } from "./lib/data/dataset.ts";
export { openObjects } from "./lib/data/loaded_objects.ts";
export type { LoadedObject, LoadedObjectOptions } from "./lib/data/loaded_objects.ts";
export { drawRecolor, exchangePlanes, NO_RECOLOR, recolorFeatures, SAME_COLORS } from "./lib/data/recolor.ts";
export type { Recolor, RecolorOptions } from "./lib/data/recolor.ts";
export { conditionCamerasOf, fourSides, loadRender, renderCamerasOf } from "./lib/data/renders.ts";
export { DINO_FEATURES, extractViewFeatures } from "./lib/data/view_features.ts";
export type { ViewEncoder, ViewFeatureOptions } from "./lib/data/view_features.ts";
export { createEpochSampler } from "./lib/data/epoch_sampler.ts";
export type { SamplerState } from "./lib/data/epoch_sampler.ts";
export { mirrorVoxels, occupancyBatch, remember, voxelIou, voxelsAbove } from "./lib/data/occupancy.ts";
export { importMesh } from "./lib/data/import_mesh.ts";
export { assetPaths } from "./lib/data/layout.ts";
export {
  type LatentStatistics,
  loadLatents,
  readFeatures,
  readLatents,
  readStatistics,
  sumStatistics,
  type VoxelRows,
  writeLatents,
  writeSsLatent,
  writeStatistics,
} from "./lib/data/latents.ts";
export { prepareDataset } from "./lib/data/prepare.ts";
export type { PrepareOptions, PrepareSummary } from "./lib/data/prepare.ts";
export { chance, createRandom, integer, uniform } from "./lib/data/random.ts";

export { balancedMicroBatches, groupByLoad } from "./lib/train/balance.ts";
export {
  byteDistance,
  bytesTensor,
  channelStatistics,
  denormalize,
  formatCount,
  inGroups,
  joinFloats,
  layersInFp8,
  meanOf,
  microBatches,
  normalizeChannels,
  readScalars,
  splitEvenly,
  stepGenerator,
  toBytes,
  trainingDtype,
} from "./lib/train/batch.ts";
export type { Later, Precision } from "./lib/train/batch.ts";
export {
  openDeviceFrom,
  openTrainingDevice,
  parseTraining,
  plainCommand,
  recipeCommand,
  runRecipe,
  splitOverrides,
  trainingCommand,
  UserError,
} from "./lib/train/cli.ts";
export type { RunFlags } from "./lib/train/cli.ts";
export { conditionTensors, dropTokens, encodeDrawn, latentHead, loadDino, openCondition, randomCondition } from "./lib/train/condition.ts";
export type { Condition, ConditionConfig } from "./lib/train/condition.ts";
export { ConfigError, overlay, readJson } from "./lib/train/config.ts";
export type { Json } from "./lib/train/config.ts";
export {
  CONDITION_SCHEMA,
  FLOW_DEFAULTS,
  FLOW_PRECISION_SCHEMA,
  FLOW_SCHEMA,
  PRECISION_SCHEMA,
  SAMPLER_DEFAULTS,
  SAMPLER_SCHEMA,
  trellisFlow,
} from "./lib/train/flow_config.ts";
export type { FlowSampler, FlowSettings } from "./lib/train/flow_config.ts";
export { MEMORY_DEFAULTS, MEMORY_SCHEMA, memoryValues, openMemory, trellisMemory } from "./lib/train/memory_config.ts";
export type { MemoryConfig } from "./lib/train/memory_config.ts";
export { serveDashboard } from "./lib/train/dashboard.ts";
export { predictTraining } from "./lib/train/predict.ts";
export type { Prediction, Training } from "./lib/train/predict.ts";
export { readMetrics } from "./lib/train/metrics.ts";
export { loadPipeline, savePipeline } from "./lib/train/pipeline.ts";
export type { Pipeline, PipelineToSave } from "./lib/train/pipeline.ts";
export { resolveConfig } from "./lib/train/presets.ts";
export type { ConfigFlags } from "./lib/train/presets.ts";
export { meshPictures, pictureOnWhite, splatPictures, turntable } from "./lib/train/preview.ts";
export { formatSeconds, startProgress } from "./lib/train/progress.ts";
export { openRun } from "./lib/train/run.ts";
export type { LogConfig, Run } from "./lib/train/run.ts";
export { channelColors, columnsOf, conditionPicture, voxelPicture } from "./lib/train/samples.ts";
export {
  BATCH_SCHEMA,
  COUNT,
  LOG_SCHEMA,
  OPTIMIZER_SCHEMA,
  PATCH_ENCODER_ARGS,
  RECOLOR_SCHEMA,
  SLAT_ENCODER_ARGS,
  SLAT_FLOW_ARGS,
  SLAT_GAUSSIAN_DECODER_ARGS,
  SS_DECODER_ARGS,
  SS_ENCODER_ARGS,
  SS_FLOW_ARGS,
} from "./lib/train/schemas.ts";
export type { BatchConfig } from "./lib/train/schemas.ts";
export {
  loadLpips,
  loadSlatEncoder,
  loadSlatGaussianDecoder,
  loadSsDecoder,
  loadSsEncoder,
  loadSsVae,
} from "./lib/train/trained_models.ts";
export { type ObjectToSample, sampleLatents, splatsOfLatents } from "./lib/train/slat_sample.ts";
export { expectStageParts, hasSlatStage, loadSlatStage, saveSlatStage } from "./lib/train/slat_stage.ts";
export type { SlatStage, SlatStageToSave } from "./lib/train/slat_stage.ts";
export { readTrellisConfig, trellisModel, trellisTrainer } from "./lib/train/trellis.ts";
export { z } from "zod";
