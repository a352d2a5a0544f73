/**
 * The plot of the techniques: samples a second over the batch, a panel for each model and card. techniques_bench draws it; by itself it draws what is
 * in techniques.json.
 *
 *   deno run -P=train bench/techniques_plot.ts
 */
import { writeFileAtomic } from "../lib/io/atomic.ts";
import { resultOf, type Row } from "./harness.ts";

/** One measurement; ms and peak are null where it ran out of memory. */
export interface Point {
  model: string;
  technique: string;
  /** Of the card. */
  gib: number;
  batch: number;
  ms: number | null;
  /** GiB. */
  peak: number | null;
}

/** Rows of a point. */
const CASE = /^(.*), (\d+) GiB, batch (\d+), (.*): (training step|samples|peak|out of memory)$/;
const COLORS = ["#1b6ca8", "#c0392b", "#2e8b57", "#7f7f7f", "#8e44ad"], WIDTH = 300, HEIGHT = 210, LEFT = 46, TOP = 84, GAP = 30;

/** An SVG document of all points. */
export function techniquesSvg(points: Point[]): string {
  const unique = <T>(of: (p: Point) => T): T[] => [...new Set(points.map(of))];
  const models = unique((p) => p.model),
    cards = unique((p) => p.gib),
    techniques = unique((p) => p.technique),
    batches = unique((p) => p.batch).sort((a, b) => a - b);
  const out: string[] = [],
    text = (x: number, y: number, s: string, more = ""): number => out.push(`<text x="${x}" y="${y}" ${more}>${s}</text>`);
  techniques.forEach((t, i) => {
    const x = LEFT + (i % 2) * 420, y = 20 + 18 * Math.floor(i / 2);
    out.push(`<line x1="${x}" y1="${y - 4}" x2="${x + 24}" y2="${y - 4}" stroke="${COLORS[i % COLORS.length]}" stroke-width="2.5"/>`);
    text(x + 30, y, t);
  });
  models.forEach((model, r) => {
    const rates = points.filter((p) => p.model === model && p.ms !== null).map((p) => 1e3 * p.batch / p.ms!),
      top = niceAbove(Math.max(1, ...rates));
    cards.forEach((gib, c) => {
      const x0 = LEFT + c * (WIDTH + GAP), y0 = TOP + r * (HEIGHT + 62), bottom = y0 + HEIGHT;
      const x = (batch: number): number => x0 + 14 + (WIDTH - 28) * batches.indexOf(batch) / Math.max(1, batches.length - 1);
      const y = (rate: number): number => bottom - (HEIGHT - 16) * rate / top;
      out.push(`<rect x="${x0}" y="${y0}" width="${WIDTH}" height="${HEIGHT}" fill="none" stroke="#bbb"/>`);
      text(x0 + WIDTH / 2, y0 - 8, `${model}, a card of ${gib} GiB`, `text-anchor="middle" font-weight="bold"`);
      for (let k = 1; k <= 4; k++) {
        const v = top * k / 4;
        out.push(`<line x1="${x0}" y1="${y(v)}" x2="${x0 + WIDTH}" y2="${y(v)}" stroke="#eee"/>`);
        text(x0 - 6, y(v) + 4, String(Math.round(v)), `text-anchor="end"`);
      }
      for (const batch of batches) text(x(batch), bottom + 15, String(batch), `text-anchor="middle"`);
      text(x0 + WIDTH / 2, bottom + 31, "batch", `text-anchor="middle" fill="#666"`);
      techniques.forEach((technique, i) => {
        const mine = points.filter((p) => p.model === model && p.gib === gib && p.technique === technique).sort((a, b) =>
          a.batch - b.batch
        );
        const color = COLORS[i % COLORS.length], fits = mine.filter((p) => p.ms !== null);
        const path = fits.map((p) => `${x(p.batch).toFixed(1)},${y(1e3 * p.batch / p.ms!).toFixed(1)}`);
        if (path.length > 1) out.push(`<polyline points="${path.join(" ")}" fill="none" stroke="${color}" stroke-width="2"/>`);
        for (const at of path) out.push(`<circle cx="${at.split(",")[0]}" cy="${at.split(",")[1]}" r="3" fill="${color}"/>`);
        for (const p of mine.filter((p) => p.ms === null)) {
          text(
            x(p.batch) + 8 * (i - (techniques.length - 1) / 2),
            bottom - 4,
            "x",
            `text-anchor="middle" fill="${color}" font-weight="bold"`,
          );
        }
      });
    });
  });
  const width = LEFT + cards.length * (WIDTH + GAP), height = TOP + models.length * (HEIGHT + 62);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="white"/>
${out.join("\n")}
</svg>
`;
}

/** The smallest of 1, 2, 4, 5, 6, 8 times a power of ten that is at least v. */
function niceAbove(v: number): number {
  const power = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 4, 5, 6, 8, 10].map((k) => k * power).find((n) => n >= v)!;
}

/** The points of rows. */
export function pointsOf(rows: Row[]): Point[] {
  const found = new Map<string, Point>();
  for (const { case: name, ours } of rows) {
    const [, model, gib, batch, technique, what] = name.match(CASE) ?? [], key = `${model} ${gib} ${batch} ${technique}`;
    if (!model) continue;
    const point = found.get(key) ?? { model, technique, gib: Number(gib), batch: Number(batch), ms: null, peak: null };
    if (what === "training step") point.ms = ours;
    if (what === "peak") point.peak = ours;
    found.set(key, point);
  }
  return [...found.values()];
}

/** Writes bench/results/techniques.svg. */
export function drawTechniques(points: Point[]): void {
  const file = new URL("results/techniques.svg", import.meta.url).pathname;
  writeFileAtomic(file, new TextEncoder().encode(techniquesSvg(points.toSorted((a, b) => a.batch - b.batch))));
}

if (import.meta.main) drawTechniques(pointsOf(resultOf("techniques").rows));
