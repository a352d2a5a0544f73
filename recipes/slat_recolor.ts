/** Structured latents of objects in other colours, encoded as they are drawn. */
import * as e from "../mod.ts";

/** Objects that are drawn in other colours. */
export interface Recolored {
  /** Draws colours for the objects `indices` and changes the pictures of `drawn` to them; an object's latents, normalised: `stored(k)` where it stays as it is. */
  draw(
    indices: readonly number[],
    stored: (k: number) => e.VoxelRows,
    drawn: e.DrawnConditions,
    options: e.RecolorOptions & { random: () => number },
  ): e.VoxelRows[];
  free(): void;
}

/**
 * The objects `items` with the `appearance` features that the encoder at `path` makes their latents of. Throws where there is no path, or where its
 * latents have other channels than C, another grid than R, or other features.
 */
export function openRecolored(
  items: readonly e.DatasetItem[],
  path: string | null,
  { C, R, normalization: { mean, std } }: { C: number; R: number; normalization: e.LatentStatistics },
): Recolored {
  if (path === null) {
    throw new e.ConfigError("Cannot recolor objects: recolor.encoder is null, it must be the latents' encoder; or set recolor.part to 0");
  }
  const encoder = e.loadSlatEncoder(path), { in_channels, latent_channels, resolution } = encoder.args;
  const sizes = [["latent_channels", latent_channels, C], ["resolution", resolution, R], [
    "in_channels",
    in_channels,
    e.APPEARANCE_CHANNELS,
  ]] as const;
  for (const [name, got, want] of sizes) {
    if (got !== want) throw new e.ConfigError(`Cannot recolor objects with the encoder ${path}: its ${name} is ${got}, it must be ${want}`);
  }
  const objects = e.openObjects(items, { features: "appearance", channels: in_channels, resolution: { prepared: R, model: R }, size: 1 });
  const encode = (places: readonly number[], colors: readonly e.Recolor[]): e.VoxelRows[] => {
    const rows = places.map((k) => objects[k].rows());
    const features = e.joinFloats(rows.map(({ feats }, i) => e.recolorFeatures(feats, in_channels, colors[i])));
    return e.step(() =>
      e.noGrad(() => {
        const voxels = e.makeVoxels(e.batchCoords(rows.map(({ coords }) => coords)), { B: rows.length });
        const z = e.slatEncode(encoder, { features: e.tensor(features, [voxels.N, in_channels]), voxels }).mean.read();
        for (let at = 0; at < z.length; at += C) for (let c = 0; c < C; c++) z[at + c] = (z[at + c] - mean[c]) / std[c];
        return rows.map(({ coords }, i) => ({ coords, feats: z.slice(voxels.starts[i] * C, voxels.starts[i + 1] * C) }));
      })
    );
  };
  return {
    draw(indices, stored, drawn, { random, ...options }) {
      const colors = indices.map(() => e.drawRecolor(options, random)),
        changed = [...colors.keys()].filter((b) => colors[b] !== e.SAME_COLORS);
      const area = Math.round(drawn.images[0].length / 3);
      for (const b of changed) {
        drawn.images[b] = e.exchangePlanes(drawn.images[b] as Uint8Array<ArrayBuffer>, colors[b], area);
        colors[b].gains.forEach((gain, c) => drawn.gains[3 * b + c] *= gain);
      }
      const made = changed.length ? encode(changed.map((b) => indices[b]), changed.map((b) => colors[b])) : [];
      return indices.map((k, b) => colors[b] === e.SAME_COLORS ? stored(k) : made[changed.indexOf(b)]);
    },
    free: () => e.freeLeaves(encoder.params),
  };
}
