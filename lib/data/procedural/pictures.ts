/** Small tileable pictures for the procedural objects. */
import { chance, integer, pick, type Random, uniform } from "../random.ts";

/** Red, green, blue, 0 to 1, as seen on a screen (sRGB). */
export type Rgb = [number, number, number];

/** A tileable RGBA picture, 8 bits a channel. */
export interface Picture {
  width: number;
  height: number;
  /** [height, width, 4] */
  data: Uint8Array<ArrayBuffer>;
}

/** A colour from hue (0 to 1), saturation and value. */
export function hsv(h: number, s: number, v: number): Rgb {
  const channel = (n: number): number => {
    const k = (n + h * 6) % 6;
    return v - v * s * Math.max(0, Math.min(k, 4 - k, 1));
  };
  return [channel(5), channel(3), channel(1)];
}

/** Any colour that paint or cloth may have. */
export function paint(random: Random): Rgb {
  return chance(random, 0.18)
    ? hsv(random(), 0.04, uniform(random, 0.25, 0.95))
    : hsv(random(), uniform(random, 0.35, 0.9), uniform(random, 0.45, 0.95));
}

/** A colour of wood, light pine to dark walnut. */
export function woodColor(random: Random): Rgb {
  return hsv(uniform(random, 0.05, 0.11), uniform(random, 0.35, 0.7), uniform(random, 0.35, 0.85));
}

/** A colour of stone or plaster. */
export function stoneColor(random: Random): Rgb {
  return hsv(uniform(random, 0.05, 0.6), uniform(random, 0.03, 0.2), uniform(random, 0.45, 0.9));
}

/** A colour of leaves. */
export function leafColor(random: Random): Rgb {
  return hsv(
    chance(random, 0.2) ? uniform(random, 0.03, 0.13) : uniform(random, 0.2, 0.38),
    uniform(random, 0.5, 0.85),
    uniform(random, 0.35, 0.75),
  );
}

/** `color` made lighter (k > 1) or darker. */
export function shade(color: Rgb, k: number): Rgb {
  return color.map((c) => Math.max(0, Math.min(1, c * k))) as Rgb;
}

/** A picture of `size` x `size` pixels from a colour for each (u, v), both from 0 to 1. */
function draw(size: number, color: (u: number, v: number) => Rgb): Picture {
  const data = new Uint8Array(size * size * 4).fill(255);
  for (let i = 0; i < size * size; i++) {
    const rgb = color((i % size + 0.5) / size, (Math.floor(i / size) + 0.5) / size);
    for (let c = 0; c < 3; c++) data[i * 4 + c] = Math.round(255 * Math.max(0, Math.min(1, rgb[c])));
  }
  return { width: size, height: size, data };
}

/** Smooth tileable noise of (u, v) around 0 (about -1 to 1) with `nx` x `ny` bumps. */
function bumps(random: Random, nx: number, ny: number): (u: number, v: number) => number {
  const grid = Float64Array.from({ length: nx * ny }, () => random() * 2 - 1);
  const smooth = (t: number): number => t * t * (3 - 2 * t);
  return (u, v) => {
    const x = u * nx, y = v * ny, i = Math.floor(x), j = Math.floor(y), s = smooth(x - i), t = smooth(y - j);
    const get = (a: number, b: number): number => grid[(b % ny) * nx + a % nx];
    return (get(i, j) * (1 - s) + get(i + 1, j) * s) * (1 - t) + (get(i, j + 1) * (1 - s) + get(i + 1, j + 1) * s) * t;
  };
}

/** Grain along v. */
export function wood(random: Random, color: Rgb): Picture {
  const wide = bumps(random, 6, 2), fine = bumps(random, 32, 3), strength = uniform(random, 0.1, 0.3);
  return draw(64, (u, v) => shade(color, 1 + strength * (0.6 * Math.sin(14 * wide(u, v)) + fine(u, v))));
}

/** Boards side by side, their grain along v. */
export function planks(random: Random, color: Rgb): Picture {
  const count = integer(random, 3, 6),
    grain = bumps(random, 32, 3),
    tones = Array.from({ length: count }, () => uniform(random, 0.8, 1.15));
  return draw(64, (u, v) => {
    const x = u * count, inside = x % 1;
    return shade(color, (inside < 0.07 ? 0.5 : tones[Math.floor(x)]) * (1 + 0.15 * grain(u, v)));
  });
}

/** Courses of bricks or blocks with mortar between them. */
export function bricks(random: Random, color: Rgb, mortar: Rgb): Picture {
  const courses = 2 * integer(random, 2, 4), across = integer(random, 2, 4), joint = uniform(random, 0.06, 0.14);
  const tone = bumps(random, across * 2, courses), dust = bumps(random, 32, 32);
  return draw(64, (u, v) => {
    const y = v * courses, x = u * across + (Math.floor(y) % 2) / 2;
    const isJoint = y % 1 < joint || x % 1 < joint * across / courses;
    const cell = tone((Math.floor(x) + 0.01) / (across * 2), (Math.floor(y) + 0.01) / courses);
    return shade(isJoint ? mortar : color, 1 + (isJoint ? 0 : 0.22 * cell) + 0.1 * dust(u, v));
  });
}

/** Overlapping rows of round or straight tiles. */
export function tiles(random: Random, color: Rgb): Picture {
  const rows = 2 * integer(random, 2, 4), across = integer(random, 4, 8), round = chance(random, 0.5);
  const tone = bumps(random, across, rows);
  return draw(64, (u, v) => {
    const y = v * rows, x = u * across + (Math.floor(y) % 2) / 2, inside = x % 1 - 0.5;
    const edge = y % 1 < (round ? 0.15 + 1.6 * inside * inside : 0.18);
    return shade(
      color,
      (edge ? 0.6 : 1 - 0.2 * (y % 1)) * (Math.abs(inside) > 0.45 ? 0.7 : 1) *
        (1 + 0.2 * tone(Math.floor(x) / across % 1, Math.floor(y) / rows)),
    );
  });
}

/** Straight bands across u (or v, or slanted) in two colours or three. */
export function stripes(random: Random, colors: Rgb[]): Picture {
  const count = integer(random, 1, 4), slant = pick(random, [[1, 0], [0, 1], [1, 1], [1, -1]]), duty = uniform(random, 0.3, 0.7);
  return draw(64, (u, v) => {
    const t = ((u * slant[0] + v * slant[1]) * count + 4) % 1;
    return t < duty ? colors[0] : t < duty + (1 - duty) / 2 ? colors.at(-1)! : colors[1];
  });
}

/** A chessboard, or a tartan where bands cross. */
export function checks(random: Random, colors: Rgb[]): Picture {
  const count = integer(random, 1, 4), isTartan = chance(random, 0.4);
  return draw(64, (u, v) => {
    const a = Math.floor(u * count * 2) % 2, b = Math.floor(v * count * 2) % 2;
    if (isTartan) return colors[0].map((c, k) => (2 * c + (a ? colors[1][k] : c) + (b ? colors.at(-1)![k] : c)) / 4) as Rgb;
    return a === b ? colors[0] : colors[1];
  });
}

/** Round spots. */
export function dots(random: Random, colors: Rgb[]): Picture {
  const count = integer(random, 1, 3), radius = uniform(random, 0.2, 0.36);
  return draw(64, (u, v) => {
    const far = (x: number, y: number): number => Math.hypot(x - Math.round(x), y - Math.round(y));
    return Math.min(far(u * count, v * count), far(u * count + 0.5, v * count + 0.5)) < radius ? colors[1] : colors[0];
  });
}

/** Cloudy variation of one colour: stone, plaster, leaves, rust. */
export function mottled(random: Random, color: Rgb, strength = 0.25): Picture {
  const scales = [4, 9, 21].map((n) => bumps(random, n, n));
  return draw(64, (u, v) => shade(color, 1 + strength * scales.reduce((sum, f, i) => sum + f(u, v) / (1 + 0.6 * i), 0)));
}

/** Zigzag or wavy bands, as on pottery. */
export function waves(random: Random, colors: Rgb[]): Picture {
  const bands = integer(random, 2, 4), teeth = integer(random, 2, 5), isSharp = chance(random, 0.5), height = uniform(random, 0.2, 0.45);
  return draw(64, (u, v) => {
    const phase = u * teeth % 1, swing = isSharp ? Math.abs(phase * 2 - 1) : 0.5 + 0.5 * Math.cos(2 * Math.PI * phase);
    const band = Math.floor(v * bands + height * swing + bands) % bands;
    return colors[band % colors.length];
  });
}

/** A wall with a grid of windows, some of them lit. */
export function windows(random: Random, wall: Rgb): Picture {
  const across = integer(random, 2, 4), rows = integer(random, 2, 4), w = uniform(random, 0.35, 0.75), h = uniform(random, 0.45, 0.75);
  const glass = hsv(uniform(random, 0.5, 0.62), 0.5, uniform(random, 0.25, 0.6)),
    light = hsv(0.13, 0.5, 0.95),
    litShare = uniform(random, 0, 0.4);
  const isLit = Array.from({ length: across * rows }, () => chance(random, litShare)), dust = bumps(random, 24, 24);
  return draw(64, (u, v) => {
    const x = u * across, y = v * rows, dx = Math.abs(x % 1 - 0.5) * 2, dy = Math.abs(y % 1 - 0.5) * 2;
    if (dx > w || dy > h) return shade(wall, (dx < w + 0.15 && dy < h + 0.15 ? 0.75 : 1) + 0.06 * dust(u, v));
    if (dx < 0.08 || Math.abs(dy) < 0.06) return shade(wall, 1.15);
    return isLit[Math.floor(y) * across + Math.floor(x)] ? light : shade(glass, 1.1 - 0.3 * (y % 1));
  });
}

/** A picture for cloth, pottery or paint: plain, mottled or one of the patterns. */
export function pattern(random: Random, color: Rgb): Picture {
  const other = paint(random), colors: Rgb[] = chance(random, 0.5) ? [color, other] : [color, other, shade(color, 0.6)];
  const kind = integer(random, 0, 6);
  if (kind === 0) return stripes(random, colors);
  if (kind === 1) return checks(random, colors);
  if (kind === 2) return dots(random, colors);
  if (kind === 3) return waves(random, colors);
  return mottled(random, color, uniform(random, 0.03, 0.2));
}
