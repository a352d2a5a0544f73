/**
 * Structured latents on real assets: how well held-out objects come back through a trained SLat-VAE, and how well pictures of them turn into objects
 * through the whole chain. The models are trained before, with the recipes; the environment says where they are:
 *
 *   DATA      the dataset: deno task prepare -- --input KAYKIT --output $DATA --views 12 --size 256 --renders 24 --render-size 256 --features appearance
 *   SLAT_VAE  models of deno task train:slat-vae -- --size small --data $DATA
 *   PIPELINE  models of deno task train:slat-flow, for pictures turned into objects (left out where it is not set)
 *   STRUCTURE models of deno task train:ss-flow, for their voxels (without it the true ones are coloured alone)
 *   OBJECTS   how many held-out objects are made of pictures, by default all
 *   GUIDANCE  strengths of the guidance of voxels and colours, 3:1,1:1 for instance; the first is the contact sheet's; by default the pipelines' own
 *   COMMANDS  a text file with the commands of the training, to be recorded
 *
 * Writes bench/results/slat_kaykit.json and pictures in bench/results/slat_kaykit/.
 */
import * as e from "../mod.ts";
import { contactSheet, measureQuality } from "../recipes/slat_vae_quality.ts";
import { measureChain, type ViewScores } from "./chain_quality.ts";
import { benchmark, type Findings, measured, type Row } from "./harness.ts";

const HOLD_OUT = 10, S = 256, FEATURES = "appearance";
const { DATA, SLAT_VAE, PIPELINE, STRUCTURE, OBJECTS, GUIDANCE } = Deno.env.toObject();
const RESULTS = new URL("results/slat_kaykit/", import.meta.url).pathname;

function vaeRows(folder: string, heldOut: e.DatasetItem[]): Row[] {
  const encoder = e.loadSlatEncoder(`${folder}/encoder`), decoder = e.loadSlatGaussianDecoder(`${folder}/decoder`);
  const R = encoder.args.resolution, resolution = { prepared: R, model: R }, models = { encoder, decoder };
  const objects = e.openObjects(heldOut, { resolution, features: FEATURES, channels: encoder.args.in_channels, size: S });
  const { psnr, ssim } = measureQuality(models, objects, S),
    what = `SLat-VAE small at ${R}^3, ${objects.length} held-out objects, 8 views each at ${S} x ${S} on black`;
  const every = Math.max(1, Math.floor(objects.length / 12)), shown = objects.filter((_, k) => k % every === 0).slice(0, 12);
  Deno.mkdirSync(RESULTS, { recursive: true });
  e.writePng(`${RESULTS}reconstructions.png`, contactSheet(models, shown, S));
  e.freeLeaves([encoder.params, decoder.params]);
  return [
    measured({ case: what, metric: "PSNR", unit: "dB", ours: psnr }),
    measured({ case: what, metric: "SSIM", unit: "", ours: ssim }),
  ];
}

async function chainRows(
  vae: string,
  pipeline: string,
  { train, heldOut }: { train: e.DatasetItem[]; heldOut: e.DatasetItem[] },
): Promise<Row[]> {
  const count = Number(OBJECTS ?? heldOut.length),
    some = heldOut.filter((_, k) => Math.floor((k + 1) * count / heldOut.length) > Math.floor(k * count / heldOut.length));
  const slat = e.loadSlatStage(pipeline),
    encoder = e.loadSlatEncoder(`${vae}/encoder`),
    structure = STRUCTURE ? e.loadPipeline(STRUCTURE) : null;
  const own = { voxels: structure?.sampler.cfgStrength ?? 0, colors: slat.sampler.cfgStrength };
  const guidance = GUIDANCE
    ? GUIDANCE.split(",").map((pair) => pair.split(":").map(Number)).map(([voxels, colors]) => ({ voxels, colors }))
    : [own];
  const { scores, sheet } = await measureChain({ structure, slat, encoder, features: FEATURES }, { train, heldOut: some }, { guidance });
  e.writePng(`${RESULTS}whole_chain.png`, sheet);
  const named = scores.generated.flatMap((
    { guidance: { voxels: v, colors: c }, whole, onTrueVoxels, matched, trueColors, othersPicture },
  ) =>
    ([
      [`picture to object, guidance ${v} and ${c}, in the picture's mean colour`, matched.whole],
      [`picture to object, guidance ${v} and ${c}, colours as sampled`, whole],
      [`picture and true voxels to colours, guidance ${c}, in the picture's mean colour`, matched.onTrueVoxels],
      [`picture and true voxels to colours, guidance ${c}, as sampled`, onTrueVoxels],
      [`another object's picture and true voxels to colours, guidance ${c}`, othersPicture],
      [`picture to voxels, guidance ${v}, in the true colours`, trueColors],
    ] as const).flatMap(([name, scores]) => scores ? [{ name, scores }] : [])
  );
  const kinds: { name: string; scores: ViewScores }[] = [
    ...new Map(named.map((of) => [of.name, of])).values(),
    { name: "reconstruction through the VAE, no picture", scores: scores.reconstructed },
  ];
  const rows = kinds.flatMap(({ name, scores: { front, behind } }) =>
    ([["input view", front, scores.nearest.front], ["from behind", behind, scores.nearest.behind]] as const).flatMap(([view, ours, peer]) =>
      ([["psnr", "PSNR", "dB"], ["ssim", "SSIM", ""], ["color", "error of the mean colour", "of 1 a channel"]] as const).map((
        [key, metric, unit],
      ) =>
        measured({
          case: `${name}, at ${slat.flow.args.resolution}^3, ${scores.objects} held-out objects, ${view}`,
          ...{ metric, unit, ours: ours[key], peer: peer[key], peer_name: "the training asset with the nearest picture" },
          ratio: key === "color" ? peer[key] / ours[key] : ours[key] / peer[key],
        })
      )
    )
  );
  const peer = { peer: scores.nearestIou, peer_name: "the training asset with the nearest picture" };
  const voxels = scores.generated.flatMap(({ guidance, iou }) =>
    iou === null ? [] : [
      measured({
        case: `picture to voxels, guidance ${guidance.voxels}, at ${slat.flow.args.resolution}^3`,
        metric: "IoU",
        unit: "",
        ours: iou,
        ...peer,
        ratio: iou / peer.peer,
      }),
    ]
  );
  return [...rows, ...voxels];
}

async function measure(root: string, vae: string, pipeline: string | undefined): Promise<Findings> {
  const require = [`feature_${FEATURES}`, "rendered", ...(pipeline ? ["cond_rendered"] : [])];
  const split = e.holdOut(e.openDataset(root, { require, maxVoxels: 32_768 }).items, HOLD_OUT);
  const rows = [...vaeRows(vae, split.heldOut), ...(pipeline ? await chainRows(vae, pipeline, split) : [])];
  const commands = Deno.env.get("COMMANDS");
  return {
    rows,
    notes: [
      `${split.train.length} game assets to train on and ${split.heldOut.length} to test on, every tenth by name order; those with more than 32768 voxels are left out.`,
      "The same studio lights as in the dataset. Input view: the condition view nearest to 25 degrees above; behind: the same camera on the other side.",
    ],
    ...(commands ? { training: Deno.readTextFileSync(commands).trim().split("\n") } : {}),
  };
}

if (DATA && SLAT_VAE) benchmark("slat_kaykit", () => measure(DATA, SLAT_VAE, PIPELINE));
else Deno.bench({ name: "slat_kaykit (DATA and SLAT_VAE must name a dataset and models)", ignore: true, fn: () => {} });
