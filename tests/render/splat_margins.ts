/**
 * Scenes that every device draws by the same decisions. Whether a pixel skips a splat (alpha below 1/255) or holds its alpha (at 0.99) and which
 * tiles a splat reaches changes at a bound: where a value lies nearer to it than f32 rounds, one device draws what another leaves out.
 */
import type { Camera } from "../../lib/render/camera.ts";
import { Decisions, type Drawn, type PlainSplats, project } from "./splat_reference.ts";

/** How far apart two f32 computations of a splat's middle may be, in parts of the picture's side, and of its conic, in parts of itself. */
const PLACE = 1.5e-7, SHAPE = 2e-6;
const BOUNDS = [Math.log(1 / 255), Math.log(0.99)];

function nearBound({ m, conic: [a, b, c], opacity }: Drawn, S: number): boolean {
  const det = a * c - b * b, reach = 2 * Math.log(255 * opacity) + 0.01, loss = SHAPE * a * c / det, off = PLACE * S;
  const [wide, high] = [c, a].map((v) => Math.sqrt(Math.max(0, reach * v / det)));
  const [x0, y0] = [m[0] - wide, m[1] - high].map((v) => Math.max(0, Math.floor(v)));
  const [x1, y1] = [m[0] + wide, m[1] + high].map((v) => Math.min(S - 1, Math.ceil(v)));
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      const dx = x - m[0], dy = y - m[1], terms = a * dx * dx + 2 * Math.abs(b * dx * dy) + c * dy * dy;
      const log = Math.log(opacity) - 0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy;
      const margin = off * (Math.abs(a * dx + b * dy) + Math.abs(b * dx + c * dy)) + loss * (1 + terms);
      if (BOUNDS.some((bound) => Math.abs(log - bound) <= margin)) return true;
    }
  }
  return false;
}

/** Whether the splat's radius is so near to a whole number, or the end of its box to a tile's, that it may reach other tiles elsewhere. */
function nearTile({ m, conic: [a, b, c] }: Drawn, S: number): boolean {
  const det = a * c - b * b, middle = (a + c) / (2 * det), spread = middle ** 2 - 1 / det, loss = SHAPE * a * c / det;
  const radius = 3 * Math.sqrt(middle + Math.sqrt(Math.max(0.1, spread))), whole = Math.ceil(radius), slack = 4 * PLACE * S;
  return Math.abs(radius - Math.round(radius)) <= loss * radius ||
    m.some((v) => [v - whole, v + whole].some((end) => Math.abs(end / 16 - Math.round(end / 16)) * 16 <= slack));
}

/** The Gaussians of every scene, `starts` of them, that no view of size S x S has near a bound, by their numbers. */
export function clearSplats(splats: PlainSplats, K: number, starts: number[], views: Camera[][], S: number): number[][] {
  return views.map((cameras, b) =>
    Array.from({ length: starts[b + 1] - starts[b] }, (_, i) => starts[b] + i).filter((n) =>
      cameras.every((camera) => {
        const drawn = project(splats, n, K, camera, S, new Decisions(), 0.2, 0.1);
        return !drawn || !(nearBound(drawn, S) || nearTile(drawn, S));
      })
    )
  );
}
