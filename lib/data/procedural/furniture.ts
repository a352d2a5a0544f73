/** Procedural furniture: each function makes one object about a unit high. */
import { chance, integer, pick, type Random, uniform } from "../random.ts";
import type { Layer, Surface } from "./assemble.ts";
import { mottled, paint, pattern, planks, shade, wood, woodColor } from "./pictures.ts";
import { box, cylinder, ellipsoid, lathe, move, prism, roundedBox, scale, type Shape, torus, tube, turn } from "./shapes.ts";

/** Wood, painted wood or metal, for frames. */
export function frameSurface(random: Random): Surface {
  const kind = integer(random, 0, 3);
  if (kind === 0) return { paint: paint(random) };
  if (kind === 1) return { paint: mottled(random, paint(random), 0.08), repeat: 1 };
  return { paint: (chance(random, 0.5) ? wood : planks)(random, woodColor(random)), repeat: integer(random, 1, 3) };
}

/** Cloth in some pattern. */
export function clothSurface(random: Random): Surface {
  return { paint: pattern(random, paint(random)), repeat: integer(random, 2, 5) };
}

/** Legs of one style at the four corners of a rectangle, from the ground to `height`. */
export function legs(random: Random, width: number, depth: number, height: number): Shape[] {
  const thick = uniform(random, 0.03, 0.07), style = integer(random, 0, 3), splay = chance(random, 0.4) ? uniform(random, 0, 0.12) : 0;
  const made = [-1, 1].flatMap((sx) =>
    [-1, 1].map((sy) => {
      const x = sx * (width / 2 - thick), y = sy * (depth / 2 - thick);
      if (style === 0) return move(box(thick, thick, height), x, y, 0);
      if (style === 1) return tube([[x * (1 + splay), y * (1 + splay), 0], [x, y, height]], [thick * 0.35, thick * 0.65]);
      if (style === 2) {
        const k = uniform(random, 0.95, 1.05) * thick * 0.6;
        return move(
          lathe([[k * 0.7, 0], [k, 0.06], [k * 0.6, height * 0.2], [k * 1.25, height * 0.45], [k * 0.7, height * 0.7], [k, height * 0.8], [
            k,
            height,
          ]], { segments: 12 }),
          x,
          y,
          0,
        );
      }
      return move(box(thick, thick, height, 1.5), x, y, 0);
    })
  );
  if (style < 2 && chance(random, 0.4)) {
    const z = height * uniform(random, 0.2, 0.5), bar = thick * 0.5;
    for (const sy of [-1, 1]) made.push(move(box(width - thick * 2, bar, bar), 0, sy * (depth / 2 - thick), z));
    for (const sx of [-1, 1]) made.push(move(box(bar, depth - thick * 2, bar), sx * (width / 2 - thick), 0, z));
  }
  return made;
}

/** A chair or, lower and without a back, a stool. */
export function chair(random: Random): Layer[] {
  const width = uniform(random, 0.4, 0.6),
    depth = uniform(random, 0.4, 0.55),
    seat = uniform(random, 0.35, 0.6),
    thick = uniform(random, 0.03, 0.07);
  const isRound = chance(random, 0.25), hasBack = chance(random, 0.85), back = uniform(random, 0.3, 0.65), lean = uniform(random, 0, 14);
  const frame = legs(random, width * (isRound ? 0.75 : 1), depth * (isRound ? 0.75 : 1), seat), soft: Shape[] = [];
  frame.push(move(isRound ? scale(cylinder(0.5, thick, { segments: 28 }), width, depth, 1) : box(width, depth, thick), 0, 0, seat));
  if (chance(random, 0.5)) soft.push(move(roundedBox(width * 0.85, depth * 0.85, 0.06, 0.03), 0, 0, seat + thick));
  if (hasBack) {
    const parts: Shape[] = [], style = integer(random, 0, 3), w = isRound ? width * 0.7 : width;
    if (style === 0) parts.push(box(w, 0.04, back));
    else {
      for (const side of [-1, 1]) parts.push(move(box(0.045, 0.04, back), side * (w / 2 - 0.022), 0, 0));
      parts.push(move(box(w, 0.045, 0.08), 0, 0, back - 0.08));
      const bars = integer(random, 2, 5);
      for (let i = 1; i <= bars; i++) {
        if (style === 1) parts.push(move(box(w, 0.025, 0.04), 0, 0, back * i / (bars + 1)));
        else {parts.push(
            move(
              style === 2 ? box(0.03, 0.025, back - 0.04) : cylinder(0.014, back - 0.04, { segments: 8 }),
              w * (i / (bars + 1) - 0.5),
              0,
              0,
            ),
          );}
      }
    }
    frame.push(...parts.map((part) => move(turn(part, "x", -lean), 0, depth / 2 - 0.02, seat + thick * 0.5)));
    if (style === 0 && chance(random, 0.5)) {
      soft.push(move(turn(roundedBox(w * 0.85, 0.05, back * 0.8, 0.025), "x", -lean), 0, depth / 2 - 0.05, seat + thick + back * 0.1));
    }
  }
  if (hasBack && !isRound && chance(random, 0.35)) {
    const high = uniform(random, 0.16, 0.26);
    for (const side of [-1, 1]) {
      frame.push(
        move(box(0.05, depth, 0.035), side * (width / 2), 0, seat + high),
        move(box(0.04, 0.04, high), side * (width / 2), -depth / 2 + 0.04, seat),
      );
    }
  }
  return [{ surface: frameSurface(random), shapes: frame }, { surface: clothSurface(random), shapes: soft }];
}

/** A table, desk or bench, with things on it at times. */
export function table(random: Random): Layer[] {
  const width = uniform(random, 0.6, 1.6),
    depth = uniform(random, 0.45, 0.9),
    height = uniform(random, 0.3, 0.8),
    thick = uniform(random, 0.03, 0.08);
  const isRound = chance(random, 0.35), frame: Shape[] = [], top: Shape[] = [], extra: Shape[] = [];
  if (isRound) {
    const r = width / 2;
    top.push(move(cylinder(r, thick, { segments: 32 }), 0, 0, height));
    const foot = uniform(random, 0.3, 0.6) * r, post = uniform(random, 0.04, 0.12);
    if (chance(random, 0.6)) {
      frame.push(
        lathe([[foot, 0], [foot, 0.03], [post, 0.1], [post * uniform(random, 0.5, 1.6), height * 0.5], [post, height]], { crease: 50 }),
      );
    } else frame.push(...legs(random, r * 1.2, r * 1.2, height));
  } else {
    top.push(move(chance(random, 0.3) ? roundedBox(width, depth, thick, thick / 2) : box(width, depth, thick), 0, 0, height));
    const isPanelled = chance(random, 0.25);
    if (isPanelled) { for (const side of [-1, 1]) frame.push(move(box(0.06, depth * 0.9, height), side * (width / 2 - 0.08), 0, 0)); }
    else frame.push(...legs(random, width * 0.95, depth * 0.95, height));
    if (chance(random, 0.4)) frame.push(move(box(width * 0.85, depth * 0.8, 0.08), 0, 0, height - 0.08));
    if (isPanelled && chance(random, 0.7)) {
      const n = integer(random, 2, 3), w = width * 0.3;
      for (let i = 0; i < n; i++) {
        const z = height * (0.15 + 0.85 * i / n);
        frame.push(move(box(w, depth * 0.85, height * 0.7 / n), width / 2 - w / 2 - 0.1, 0, z));
        extra.push(move(ellipsoid(0.02, 0.02, 0.02, 8), width / 2 - w / 2 - 0.1, -depth * 0.44, z + height * 0.35 / n));
      }
    }
  }
  const things = chance(random, 0.5) ? integer(random, 1, 4) : 0;
  for (let i = 0; i < things; i++) {
    const x = uniform(random, -0.3, 0.3) * width,
      y = uniform(random, -0.3, 0.3) * Math.min(depth, width),
      r = uniform(random, 0.03, 0.08),
      z = height + thick;
    extra.push(
      move(
        pick(random, [
          () => ellipsoid(r, r, r, 14),
          () => cylinder(r, r * 3, { top: r * uniform(random, 0.4, 1.3) }),
          () => turn(box(r * 3, r * 2, r), "z", uniform(random, 0, 90)),
        ])(),
        x,
        y,
        z + r * 0.3,
      ),
    );
  }
  return [{ surface: frameSurface(random), shapes: frame }, { surface: frameSurface(random), shapes: top }, {
    surface: { paint: paint(random) },
    shapes: extra,
  }];
}

/** A shelf with books, or a cabinet with doors or drawers. */
export function shelf(random: Random): Layer[] {
  const width = uniform(random, 0.5, 1.2),
    depth = uniform(random, 0.2, 0.45),
    height = uniform(random, 0.5, 1.5),
    t = uniform(random, 0.025, 0.05);
  const rows = integer(random, 2, 5),
    columns = chance(random, 0.4) ? integer(random, 2, 3) : 1,
    foot = chance(random, 0.5) ? uniform(random, 0.04, 0.15) : 0;
  const frame: Shape[] = foot ? legs(random, width, depth, foot) : [],
    doors: Shape[] = [],
    knobs: Shape[] = [],
    books: Shape[][] = [[], [], []];
  for (let i = 0; i <= rows; i++) frame.push(move(box(width, depth, t), 0, 0, foot + (height - t) * i / rows));
  for (let i = 0; i <= columns; i++) frame.push(move(box(t, depth, height), (width - t) * (i / columns - 0.5), 0, foot));
  frame.push(move(box(width, t / 2, height), 0, depth / 2 - t / 4, foot));
  const doorShare = pick(random, [0, 0, 0.4, 1]), cellW = width / columns, cellH = (height - t) / rows;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const x = (column + 0.5) * cellW - width / 2, z = foot + row * cellH + t;
      if (chance(random, doorShare)) {
        doors.push(move(box(cellW - t * 0.7, t, cellH - t * 0.7), x, -depth / 2, z - t * 0.15));
        knobs.push(
          move(ellipsoid(0.018, 0.03, 0.018, 8), x + pick(random, [-0.3, 0, 0.3]) * cellW, -depth / 2 - t / 2 - 0.01, z + cellH * 0.45),
        );
        continue;
      }
      if (chance(random, 0.25)) continue;
      for (let at = x - cellW / 2 + t; at < x + cellW / 2 - t - 0.06;) {
        const thick = uniform(random, 0.02, 0.06), high = (cellH - t) * uniform(random, 0.55, 0.92);
        pick(random, books).push(move(box(thick * 0.92, depth * uniform(random, 0.55, 0.8), high), at + thick / 2, depth * 0.05, z));
        at += thick;
        if (chance(random, 0.12)) at += uniform(random, 0.05, 0.2);
      }
    }
  }
  return [
    { surface: frameSurface(random), shapes: frame },
    { surface: frameSurface(random), shapes: doors },
    { surface: { paint: paint(random) }, shapes: knobs },
    ...books.map((shapes): Layer => ({ surface: { paint: paint(random) }, shapes })),
  ];
}

/** A bed with a blanket and pillows, or a bunk bed. */
export function bed(random: Random): Layer[] {
  const width = uniform(random, 0.5, 1.1),
    length = uniform(random, 1.1, 1.4),
    low = uniform(random, 0.1, 0.3),
    thick = uniform(random, 0.1, 0.2);
  const levels = chance(random, 0.2) ? 2 : 1,
    gap = uniform(random, 0.6, 0.8),
    frame: Shape[] = [],
    sheet: Shape[] = [],
    blanket: Shape[] = [];
  const head = uniform(random, 0.25, 0.6), tail = chance(random, 0.6) ? uniform(random, 0.1, 0.3) : 0, cover = uniform(random, 0.45, 0.8);
  for (let level = 0; level < levels; level++) {
    const z = low + level * gap;
    frame.push(move(box(width, length, 0.08), 0, 0, z - 0.08));
    sheet.push(move(roundedBox(width * 0.96, length * 0.97, thick, 0.05), 0, 0, z));
    blanket.push(move(roundedBox(width * 1.03, length * cover, thick * 1.05, 0.04), 0, -length * (0.49 - cover / 2), z + 0.02));
    const pillows = width > 0.8 ? 2 : 1;
    for (let i = 0; i < pillows; i++) {
      sheet.push(
        move(roundedBox(width * 0.8 / pillows, 0.24, 0.09, 0.045), width * 0.45 * (i + 0.5 - pillows / 2), length * 0.37, z + thick * 0.95),
      );
    }
  }
  const top = low + (levels - 1) * gap;
  if (levels === 2) {
    frame.push(...legs(random, width, length, top + head), move(box(width, 0.04, head * 0.4), 0, length / 2, top + head * 0.5));
  } else {
    frame.push(...legs(random, width, length, low));
    const arch = prism(
      Array.from(
        { length: 13 },
        (_, i) => [width / 2 * Math.cos(Math.PI * i / 12), head * (0.7 + 0.3 * Math.sin(Math.PI * i / 12))] as [number, number],
      ).concat([[
        -width / 2,
        0,
      ], [width / 2, 0]]),
      0.06,
    );
    frame.push(move(chance(random, 0.5) ? arch : box(width, 0.06, head), 0, length / 2, low));
    if (tail) frame.push(move(box(width, 0.06, tail + thick), 0, -length / 2, low));
  }
  return [{ surface: frameSurface(random), shapes: frame }, {
    surface: { paint: shade([1, 1, 1], uniform(random, 0.75, 0.95)) },
    shapes: sheet,
  }, { surface: clothSurface(random), shapes: blanket }];
}

/** A sofa or armchair. */
export function sofa(random: Random): Layer[] {
  const seats = integer(random, 1, 3),
    w = uniform(random, 0.42, 0.58),
    width = w * seats,
    depth = uniform(random, 0.5, 0.7),
    foot = uniform(random, 0.04, 0.14);
  const arm = uniform(random, 0.1, 0.18),
    armHigh = uniform(random, 0.3, 0.48),
    back = uniform(random, 0.5, 0.8),
    round = uniform(random, 0.02, 0.08);
  const body = [
    move(roundedBox(width, depth, 0.16, round), 0, 0, foot),
    move(roundedBox(width + 2 * arm, 0.18, back - foot, round), 0, depth / 2 - 0.02, foot),
  ];
  const hasArms = chance(random, 0.85), soft: Shape[] = [];
  if (hasArms) {
    for (const side of [-1, 1]) body.push(move(roundedBox(arm, depth + 0.06, armHigh - foot, round), side * (width + arm) / 2, 0, foot));
  }
  for (let i = 0; i < seats; i++) {
    soft.push(move(roundedBox(w * 0.97, depth * 0.88, 0.14, 0.05), w * (i + 0.5 - seats / 2), -0.03, foot + 0.14));
    if (chance(random, 0.6)) {
      soft.push(move(turn(roundedBox(w * 0.8, 0.12, 0.3, 0.05), "x", -12), w * (i + 0.5 - seats / 2), depth / 2 - 0.18, foot + 0.27));
    }
  }
  const main = clothSurface(random);
  return [{ surface: main, shapes: body }, { surface: chance(random, 0.5) ? main : clothSurface(random), shapes: soft }, {
    surface: frameSurface(random),
    shapes: legs(random, width * 0.95, depth * 0.9, foot),
  }];
}

/** A standing, table or street lamp. */
export function lamp(random: Random): Layer[] {
  const height = uniform(random, 0.5, 1.4),
    r = uniform(random, 0.12, 0.3),
    post = uniform(random, 0.015, 0.035),
    shadeHigh = uniform(random, 0.15, 0.35);
  const foot = uniform(random, 0.1, 0.22),
    metal: Shape[] = [lathe([[foot, 0], [foot, 0.03], [post, uniform(random, 0.05, 0.15)], [post, height]], { crease: 50 })],
    light: Shape[] = [];
  let x = 0;
  const style = integer(random, 0, 3);
  if (style === 1) {
    x = uniform(random, 0.2, 0.45);
    metal.push(
      tube(
        Array.from({ length: 9 }, (_, i) => [x / 2 * (1 - Math.cos(Math.PI * i / 8)), 0, height + x / 2 * Math.sin(Math.PI * i / 8)]),
        post,
      ),
    );
    light.push(
      move(
        lathe([[r, 0], [r * 0.9, 0.02], [r * 0.3, shadeHigh * 0.7], [post, shadeHigh * 0.8], [0, shadeHigh * 0.8]]),
        x,
        0,
        height - shadeHigh * 0.7,
      ),
    );
  } else if (style === 2) light.push(move(ellipsoid(r, r, r * uniform(random, 0.8, 1.3)), 0, 0, height + r * 0.7));
  else if (style === 3) {
    const arms = integer(random, 2, 5);
    for (let i = 0; i < arms; i++) {
      const arm = tube([[0, 0, height * 0.8], [0.2, 0, height * 0.78], [0.28, 0, height * 0.85], [0.28, 0, height * 0.95]], post * 0.8);
      metal.push(turn(arm, "z", 360 * i / arms));
      light.push(turn(move(ellipsoid(0.08, 0.08, 0.1, 14), 0.28, 0, height), "z", 360 * i / arms));
    }
  } else {
    const top = r * uniform(random, 0.4, 0.95);
    light.push(move(lathe([[r, 0], [top, shadeHigh], [top - 0.02, shadeHigh], [r - 0.02, 0], [r, 0]]), 0, 0, height - shadeHigh * 0.6));
    metal.push(
      move(ellipsoid(0.06, 0.06, 0.08, 12), 0, 0, height - 0.05),
      move(box(2 * top - 0.02, post, post), 0, 0, height + shadeHigh * 0.3),
    );
    if (chance(random, 0.4)) metal.push(move(torus(foot * 0.8, 0.02), 0, 0, 0.04));
  }
  return [{ surface: frameSurface(random), shapes: metal }, {
    surface: chance(random, 0.5) ? clothSurface(random) : { paint: shade([1, 0.9, 0.65], uniform(random, 0.8, 1)) },
    shapes: light,
  }];
}
