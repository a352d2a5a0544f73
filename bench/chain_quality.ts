/** How pictures turn into objects: whole-chain generation from held-out pictures, measured on renders beside the true asset. */
import * as e from "../mod.ts";

/** Pixels across and down of what is compared, and of a picture in a contact sheet. */
const S = 256, TILE = 192;
const SIDES = [45, 135, 225, 315].map((degrees) =>
  e.orbitCamera({ yaw: degrees * Math.PI / 180, pitch: 20 * Math.PI / 180 }, 2, 40 * Math.PI / 180)
);
/** Pictures that pass the structure's flow together, and voxels that pass the latents' flow together. */
const TOGETHER = 16, VOXELS_TOGETHER = 65_536;

/** What is compared with the truth. */
export interface Chain {
  /** Makes the voxels of a picture; null where only the colours of true voxels are to be measured. */
  structure: e.Pipeline | null;
  slat: e.SlatStage;
  encoder: e.SlatEncoder;
  /** The name of the encoder's features. */
  features: string;
}

/** How a picture is like the true one: PSNR in decibels, SSIM, and how far its object's mean colour is from the true one's, of 1 a channel. */
export interface PictureScore {
  psnr: number;
  ssim: number;
  color: number;
}

/** Means from the input view and from behind. */
export interface ViewScores {
  front: PictureScore;
  behind: PictureScore;
}

/** Strengths of the guidance of both stages. */
export interface Guidance {
  voxels: number;
  colors: number;
}

/** What was generated with one strength of the guidance a stage. */
export interface GeneratedScores {
  guidance: Guidance;
  /** Voxels and colours; null without a structure stage. */
  whole: ViewScores | null;
  onTrueVoxels: ViewScores;
  /** Both in the mean colour of the picture. */
  matched: { whole: ViewScores | null; onTrueVoxels: ViewScores };
  /** What each part alone costs: the true object's latents on the generated voxels, each voxel those of the nearest true one; null without a structure stage. */
  trueColors: ViewScores | null;
  /** On the true voxels, from the picture of another object: no worse than its own where the model does not look at pictures. */
  othersPicture: ViewScores;
  /** Of the voxels. */
  iou: number | null;
}

/** What was found. */
export interface ChainScores {
  objects: number;
  generated: GeneratedScores[];
  /** Through encoder and decoder; the training object with the nearest picture. */
  reconstructed: ViewScores;
  nearest: ViewScores;
  nearestIou: number;
}

/** The same camera on the other side of the object. */
function behindOf({ fov, cameraToWorld: m }: e.Camera): e.Camera {
  const [x, y, z] = [0, 1, 2].map((d) => m[d][3]), radius = Math.hypot(x, y, z);
  return e.orbitCamera({ yaw: Math.atan2(y, x) + Math.PI, pitch: Math.asin(z / radius) }, radius, fov);
}

/** A picture of an object on black [3, size, size], and the object's mean colour, of what covers the picture. */
interface View {
  pixels: Float32Array;
  color: number[];
}

function viewOf(pixels: Float32Array, covered: number): View {
  const area = pixels.length / 3;
  return {
    pixels,
    color: [0, 1, 2].map((c) => pixels.subarray(c * area, (c + 1) * area).reduce((a, b) => a + b, 0) / Math.max(1, covered)),
  };
}

/** Views of the asset that an object was made of. */
async function truthOf({ row }: e.DatasetItem, cameras: e.Camera[], size: number): Promise<View[]> {
  const { mesh } = e.normalizeMesh(await e.importMesh(row.local_path)), area = size * size;
  return e.renderMesh(mesh, cameras, { size }).map(({ rgba }) => {
    let covered = 0;
    for (let i = 0; i < area; i++) covered += rgba[i * 4 + 3] / 255;
    const pixels = Float32Array.from({ length: 3 * area }, (_, at) => {
      const i = at % area, c = Math.floor(at / area);
      return rgba[i * 4 + c] / 255 * rgba[i * 4 + 3] / 255;
    });
    return viewOf(pixels, covered);
  });
}

/** Latents on voxels, not normalised. */
type Latents = e.VoxelRows;

/** Views of what a decoder makes of latents, in the mean colour of `picture` where it is given. */
function drawn(
  decoder: e.SlatGaussianDecoder,
  { coords, feats }: Latents,
  { cameras, size, picture }: { cameras: e.Camera[]; size: number; picture?: e.CutOut },
): View[] {
  if (coords.length === 0) return cameras.map(() => viewOf(new Float32Array(3 * size * size), 0));
  const blur = decoder.args.representation_config["2d_filter_kernel_size"], N = coords.length / 3;
  return e.step(() =>
    e.noGrad(() => {
      const x = { features: e.tensor(feats, [N, feats.length / N]), voxels: e.makeVoxels(e.batchCoords([coords])) };
      const made = e.splatsOfLatents(decoder, x),
        splats = picture ? e.splatsOf([e.matchColors(e.readSplats(made)[0], picture, { blur })]) : made;
      const { color, alpha } = e.renderSplats(splats, [cameras], { size, blur }), area = size * size;
      const pixels = e.minimum(color, e.tensor([1], [1])).read(), covered = e.sum(alpha, { axes: [1, 2] }).read();
      return cameras.map((_, v) => viewOf(pixels.slice(v * 3 * area, (v + 1) * 3 * area), covered[v]));
    })
  );
}

/** Of views at S x S. */
function score(made: View, truth: View): PictureScore {
  const color = Math.hypot(...made.color.map((v, c) => v - truth.color[c]));
  return e.step(() =>
    e.noGrad(() => {
      const [a, b] = [made, truth].map(({ pixels }) => e.tensor(pixels, [3, S, S, 1]));
      return { psnr: -10 * Math.log10(Math.max(e.mse(a, b).item(), 1e-10)), ssim: e.ssim(a, b).item(), color };
    })
  );
}

/** Scores of objects from in front and behind, and their means. */
function scoreSum(): { add(made: View[], truth: View[]): void; mean(): ViewScores } {
  const all: PictureScore[][] = [[], []];
  return {
    add: (made, truth) => all.forEach((list, v) => void list.push(score(made[v], truth[v]))),
    mean() {
      const [front, behind] = all.map((list) => e.meanOf(list.map((score) => ({ ...score }))) as unknown as PictureScore);
      return { front, behind };
    },
  };
}

/** Voxels of each picture. */
function sampleVoxels(
  { condition, flow, decoder, sampler, normalization }: e.Pipeline,
  pictures: Float32Array[],
  seed: number,
): Int32Array<ArrayBuffer>[] {
  const { in_channels: C, resolution: r } = flow.args, size = condition.config.image_size, out: Int32Array<ArrayBuffer>[] = [];
  for (let first = 0; first < pictures.length; first += TOGETHER) {
    const group = pictures.slice(first, first + TOGETHER), B = group.length;
    const logits = e.step(() =>
      e.noGrad(() => {
        const tokens = condition.encode(e.tensor(e.joinFloats(group), [B, 3, size, size]));
        const noise = e.concat(group.map((_, k) => new e.Generator(seed + first + k).normal([1, C, r, r, r])), 0);
        const z = e.sampleEuler((x, t, cond) => e.ssFlow(flow, x, t, cond), noise, tokens, e.zeros(tokens.shape), sampler);
        return e.ssDecode(decoder, e.denormalize(z, normalization)).read();
      })
    );
    const n = logits.length / B, R = Math.round(Math.cbrt(n));
    group.forEach((_, k) => out.push(e.voxelsAbove(logits.slice(k * n, (k + 1) * n), R) as Int32Array<ArrayBuffer>));
  }
  return out;
}

/** Latents on voxels for each picture; an object without voxels has none. */
function sampleColors({ slat }: Chain, voxels: Int32Array<ArrayBuffer>[], pictures: Float32Array[], seed: number): Latents[] {
  const C = slat.flow.args.in_channels, { mean, std } = slat.normalization;
  const out = voxels.map((coords): Latents => ({ coords, feats: new Float32Array(0) }));
  const places = voxels.keys().filter((k) => voxels[k].length > 0).toArray();
  for (const group of e.groupByLoad(places.map((k) => voxels[k].length / 3), VOXELS_TOGETHER)) {
    const objects = group.map((at) => places[at]).map((k) => ({ coords: voxels[k], picture: pictures[k], seed: seed + k }));
    e.sampleLatents(slat, objects, slat.sampler).forEach((z, i) =>
      out[places[group[i]]].feats = z.map((v, at) => v * std[at % C] + mean[at % C])
    );
  }
  return out;
}

/** The training object that has the picture nearest to each of `pictures`, in pixels. */
function nearestOf(pictures: Float32Array[], train: e.DatasetItem[], size: number): e.DatasetItem[] {
  const { picture, views } = e.conditionPictures(train, size);
  return pictures.map((values) => {
    const wanted = e.toBytes(values);
    let nearest = train[0], least = Infinity;
    train.forEach((item, j) => {
      for (let v = 0; v < views[j]; v++) {
        const distance = e.byteDistance(wanted, picture(j, v), least);
        if (distance < least) [nearest, least] = [item, distance];
      }
    });
    return nearest;
  });
}

/**
 * Measures `chain` on held-out objects, from each one's clearest view, guided by each of `guidance`; the contact sheet shows `shown`
 * of the objects with the first: input, truth, ours from four sides.
 */
export async function measureChain(
  chain: Chain,
  { train, heldOut }: { train: e.DatasetItem[]; heldOut: e.DatasetItem[] },
  { guidance, shown = 10, seed = 0 }: { guidance: Guidance[]; shown?: number; seed?: number },
): Promise<{ scores: ChainScores; sheet: e.Image }> {
  const { structure, slat, encoder } = chain, R = slat.flow.args.resolution;
  const size = slat.condition.config.image_size, seen = e.clearestPictures(heldOut, size);
  const trueVoxels = heldOut.map((item) => e.voxelsAbove(e.loadVoxels(item, R), R) as Int32Array<ArrayBuffer>);
  const structurePictures = structure && e.clearestPictures(heldOut, structure.condition.config.image_size);
  const others = seen.map((_, k) => seen[(k + 1) % seen.length]), known = new Map<number, Latents[][]>();
  /** Of the true voxels, from the objects' own pictures and from others'. */
  const onTrueVoxels = (guided: Chain, strength: number): Latents[][] => {
    const lists = known.get(strength) ?? [seen, others].map((pictures) => sampleColors(guided, trueVoxels, pictures, seed));
    known.set(strength, lists);
    return lists;
  };
  const made = guidance.map((strength) => {
    const guided = { ...chain, slat: { ...slat, sampler: { ...slat.sampler, cfgStrength: strength.colors } } };
    const voxels = structure &&
      sampleVoxels({ ...structure, sampler: { ...structure.sampler, cfgStrength: strength.voxels } }, structurePictures!, seed);
    const iou = voxels && voxels.reduce((sum, list, k) => sum + e.voxelIou(trueVoxels[k], list, R), 0) / heldOut.length;
    const [onTrue, mistaken] = onTrueVoxels(guided, strength.colors);
    const whole = voxels && sampleColors(guided, voxels, seen, seed);
    const sums = { whole: scoreSum(), onTrue: scoreSum(), mistaken: scoreSum(), trueColors: scoreSum() };
    const matched = { whole: scoreSum(), onTrue: scoreSum() };
    return { matched, guidance: strength, iou, voxels, whole, onTrue, mistaken, sums };
  });
  const nearest = nearestOf(seen, train, size), sums = { reconstructed: scoreSum(), nearest: scoreSum() }, tiles: e.Image[] = [];
  let nearestIou = 0;
  const picture = (values: Float32Array, size: number) => e.conditionPicture(values, size, TILE);
  for (const [k, item] of heldOut.entries()) {
    const view = e.clearestView(item), front = e.conditionCamerasOf(item)[view], cameras = [front, behindOf(front)];
    const truth = await truthOf(item, cameras, S), rows = e.readFeatures(e.assetPaths(item.root, item.sha256).features(chain.features));
    const latents = encoded(encoder, rows), cutOut = e.readImage(e.assetPaths(item.root, item.sha256).view(view));
    const draw = (of: Latents, picture?: e.CutOut): View[] => drawn(slat.decoder, of, { cameras, size: S, picture });
    for (const { voxels, whole, onTrue, mistaken, sums, matched } of made) {
      if (voxels) sums.trueColors.add(draw(carried(latents, voxels[k], R)), truth);
      if (whole) sums.whole.add(draw(whole[k]), truth), matched.whole.add(draw(whole[k], cutOut), truth);
      sums.onTrue.add(draw(onTrue[k]), truth);
      matched.onTrue.add(draw(onTrue[k], cutOut), truth);
      sums.mistaken.add(draw(mistaken[k]), truth);
    }
    sums.reconstructed.add(draw(latents), truth);
    sums.nearest.add(await truthOf(nearest[k], cameras, S), truth);
    nearestIou += e.voxelIou(trueVoxels[k], e.voxelsAbove(e.loadVoxels(nearest[k], R), R), R) / heldOut.length;
    if (k % Math.max(1, Math.floor(heldOut.length / shown)) === 0 && tiles.length < 9 * shown) {
      tiles.push(picture(seen[k], size), ...(await truthOf(item, SIDES, TILE)).map(({ pixels }) => picture(pixels, TILE)));
      const { whole, onTrue } = made[0];
      const shown = { cameras: SIDES, size: TILE, picture: slat.matchColors ? cutOut : undefined };
      tiles.push(...drawn(slat.decoder, (whole ?? onTrue)[k], shown).map(({ pixels }) => picture(pixels, TILE)));
    }
  }
  const generated = made.map(({ guidance, iou, whole, sums, matched }) => ({
    ...{ guidance, iou, whole: whole && sums.whole.mean(), onTrueVoxels: sums.onTrue.mean(), othersPicture: sums.mistaken.mean() },
    trueColors: whole && sums.trueColors.mean(),
    matched: { whole: whole && matched.whole.mean(), onTrueVoxels: matched.onTrue.mean() },
  }));
  return {
    scores: { objects: heldOut.length, generated, reconstructed: sums.reconstructed.mean(), nearest: sums.nearest.mean(), nearestIou },
    sheet: e.imageGrid(tiles, { columns: 9, padding: 2 }),
  };
}

/** The posterior's mean. */
function encoded(encoder: e.SlatEncoder, { coords, feats }: e.VoxelRows): Latents {
  return e.step(() =>
    e.noGrad(() => {
      const voxels = e.makeVoxels(e.batchCoords([coords]));
      const { mean } = e.slatEncode(encoder, { features: e.tensor(feats, [voxels.N, feats.length / voxels.N]), voxels });
      return { coords, feats: mean.read() as Float32Array<ArrayBuffer> };
    })
  );
}

/** Latents on other voxels in a grid with R cells a side: each voxel has those of the nearest one, in steps along the axes. */
function carried({ coords, feats }: Latents, to: Int32Array<ArrayBuffer>, R: number): Latents {
  const C = feats.length / (coords.length / 3), nearest = new Int32Array(R ** 3).fill(-1), queue = new Int32Array(R ** 3);
  let end = 0;
  const visit = (cell: number, n: number): void => {
    if (nearest[cell] < 0) nearest[cell] = n, queue[end++] = cell;
  };
  const cellOf = (list: Int32Array, n: number): number => (list[3 * n] * R + list[3 * n + 1]) * R + list[3 * n + 2];
  for (let n = 0; n < coords.length / 3; n++) visit(cellOf(coords, n), n);
  for (let first = 0; first < end; first++) {
    const cell = queue[first], n = nearest[cell];
    for (const side of [1, R, R * R]) {
      const at = Math.floor(cell / side) % R;
      if (at > 0) visit(cell - side, n);
      if (at < R - 1) visit(cell + side, n);
    }
  }
  const out = new Float32Array(to.length / 3 * C);
  for (let n = 0; n < to.length / 3; n++) out.set(feats.subarray(nearest[cellOf(to, n)] * C, (nearest[cellOf(to, n)] + 1) * C), n * C);
  return { coords: to, feats: out };
}
