/** Procedural buildings: each function makes one object about a unit high. */
import { chance, integer, type Random, uniform } from "../random.ts";
import type { Layer, Surface } from "./assemble.ts";
import { bricks, mottled, paint, planks, shade, stoneColor, stripes, tiles, windows, woodColor } from "./pictures.ts";
import { box, cylinder, ellipsoid, lathe, move, prism, type Shape, torus, tube, turn } from "./shapes.ts";

function wallSurface(random: Random): Surface {
  const kind = integer(random, 0, 3), color = stoneColor(random);
  if (kind === 0) {
    return { paint: bricks(random, [uniform(random, 0.5, 0.75), uniform(random, 0.25, 0.4), 0.25], shade(color, 1.1)), repeat: 2 };
  }
  if (kind === 1) return { paint: bricks(random, color, shade(color, 0.6)), repeat: 2 };
  if (kind === 2) return { paint: planks(random, chance(random, 0.5) ? woodColor(random) : color), repeat: 2 };
  return { paint: mottled(random, chance(random, 0.4) ? paint(random) : color, 0.1), repeat: 2 };
}

function roofSurface(random: Random): Surface {
  const color = chance(random, 0.6) ? shade([0.75, 0.35, 0.25], uniform(random, 0.6, 1.2)) : paint(random);
  return { paint: tiles(random, color), repeat: integer(random, 2, 3) };
}

/** A gabled, hipped or flat roof over [sx, sy] standing on z = 0. */
function roof(random: Random, sx: number, sy: number): Shape[] {
  const over = uniform(random, 0.03, 0.1), high = uniform(random, 0.15, 0.5) * Math.min(sx, sy) * 1.3, style = integer(random, 0, 3);
  const w = sx + 2 * over, d = sy + 2 * over;
  if (style === 0) return [box(w, d, high, uniform(random, 0, 0.35))];
  if (style === 1) {
    return [
      box(w, d, 0.04),
      ...[-1, 1].flatMap((s) => [move(box(w, 0.05, 0.1), 0, s * (d / 2 - 0.025), 0), move(box(0.05, d, 0.1), s * (w / 2 - 0.025), 0, 0)]),
    ];
  }
  const thick = 0.04,
    slope = (
      k: number,
    ): [number, number][] => [[-w / 2, 0], [-w / 2, -thick], [0, high - thick], [w / 2, -thick], [w / 2, 0], [0, high * k]];
  return [prism(slope(1), d), prism([[-sx / 2, 0], [sx / 2, 0], [0, high * (sx / w)]], sy)];
}

/** Windows and a door as shallow boxes on the four walls of [sx, sy, sz] standing on z = 0. */
function openings(
  random: Random,
  sx: number,
  sy: number,
  sz: number,
  hasDoor: boolean,
): { glass: Shape[]; frames: Shape[]; door: Shape[] } {
  const out = { glass: [] as Shape[], frames: [] as Shape[], door: [] as Shape[] };
  const storeys = Math.max(1, Math.round(sz / 0.4)), w = uniform(random, 0.1, 0.16), h = uniform(random, 0.14, 0.22), t = 0.03;
  const doorSide = integer(random, 0, 3);
  for (let side = 0; side < 4; side++) {
    const length = side % 2 ? sy : sx,
      out_ = (side % 2 ? sx : sy) / 2,
      count = Math.max(1, Math.round(length / uniform(random, 0.25, 0.45)));
    const put = (shape: Shape, along: number, z: number): Shape => turn(move(shape, along, -out_, z), "z", side * 90);
    for (let storey = 0; storey < storeys; storey++) {
      const z = sz * (storey + 0.5) / storeys - h / 2;
      for (let i = 0; i < count; i++) {
        const along = length * ((i + 0.5) / count - 0.5);
        if (hasDoor && side === doorSide && storey === 0 && i === Math.floor(count / 2)) {
          out.door.push(put(box(w * 1.2, t * 1.5, Math.min(sz * 0.8, h * 1.6)), along, 0));
          continue;
        }
        out.frames.push(put(box(w + 0.03, t, h + 0.03), along, z - 0.015));
        out.glass.push(put(box(w, t * 1.4, h), along, z));
      }
    }
  }
  return out;
}

/** A house of one or two wings, with a chimney at times. */
export function house(random: Random): Layer[] {
  const walls: Shape[] = [], roofs: Shape[] = [], glass: Shape[] = [], frames: Shape[] = [], door: Shape[] = [];
  const wings = integer(random, 1, 2);
  for (let i = 0; i < wings; i++) {
    const sx = uniform(random, 0.5, 1),
      sy = uniform(random, 0.5, 1),
      sz = uniform(random, 0.35, 0.9),
      x = i * uniform(random, 0.4, 0.6),
      y = i * uniform(random, -0.3, 0.3);
    const put = (shape: Shape): Shape => move(shape, x, y, 0);
    const holes = openings(random, sx, sy, sz, i === 0), turned = chance(random, 0.5);
    walls.push(put(box(sx, sy, sz)));
    roofs.push(...(turned ? roof(random, sy, sx).map((r) => turn(r, "z", 90)) : roof(random, sx, sy)).map((r) => put(move(r, 0, 0, sz))));
    glass.push(...holes.glass.map(put));
    frames.push(...holes.frames.map(put));
    door.push(...holes.door.map(put));
    if (i === 0 && chance(random, 0.5)) {
      walls.push(move(box(0.12, 0.12, 0.5), sx * uniform(random, -0.35, 0.35), sy * uniform(random, -0.35, 0.35), sz));
    }
  }
  if (chance(random, 0.4)) frames.push(box(1.5, 1.5, 0.03));
  return [
    { surface: wallSurface(random), shapes: walls },
    { surface: roofSurface(random), shapes: roofs },
    { surface: { paint: shade([0.45, 0.65, 0.8], uniform(random, 0.5, 1.1)) }, shapes: glass },
    { surface: { paint: shade(stoneColor(random), 1.2) }, shapes: frames },
    { surface: { paint: paint(random) }, shapes: door },
  ];
}

/** A castle tower, alone or as a keep with corner towers and walls. */
export function castle(random: Random): Layer[] {
  const walls: Shape[] = [], roofs: Shape[] = [], dark: Shape[] = [];
  const tower = (x: number, y: number, r: number, high: number): void => {
    const isRound = chance(random, 0.65),
      wide = r * uniform(random, 1.05, 1.3),
      sides = isRound ? 20 : 4,
      spin = isRound ? 0 : 45,
      put = (s: Shape): Shape => move(turn(s, "z", spin), x, y, 0);
    walls.push(
      put(
        lathe([[r * uniform(random, 1, 1.2), 0], [r, high * 0.3], [r, high * 0.82], [wide, high * 0.88], [wide, high]], {
          segments: sides,
        }),
      ),
    );
    if (chance(random, 0.5)) {
      const peak = uniform(random, 0.8, 2.4) * r;
      roofs.push(put(move(lathe([[wide * 1.15, 0], [0, peak]], { segments: sides }), 0, 0, high)));
      if (chance(random, 0.4)) {
        roofs.push(
          move(prism([[0, 0], [0.14, 0.05], [0, 0.1]], 0.015), x, y, high + peak),
          move(cylinder(0.012, 0.16), x, y, high + peak - 0.04),
        );
      }
    } else {
      const teeth = isRound ? 8 : 12;
      for (let i = 0; i < teeth; i++) {
        const angle = 360 * i / teeth,
          far = isRound
            ? wide * 0.88
            : wide * 0.63 / Math.max(Math.abs(Math.cos(angle * Math.PI / 180)), Math.abs(Math.sin(angle * Math.PI / 180)));
        walls.push(move(turn(move(box(r * 0.2, r * 0.3, r * 0.35), far, 0, 0), "z", angle), x, y, high));
      }
    }
    const slits = integer(random, 1, 4), out = isRound ? r * 0.99 : r * 0.7;
    for (let i = 0; i < slits; i++) {
      dark.push(
        move(
          turn(move(box(0.04, 0.06, 0.14), out, 0, high * uniform(random, 0.35, 0.7)), "z", isRound ? 360 * i / slits : 90 * i),
          x,
          y,
          0,
        ),
      );
    }
  };
  const isKeep = chance(random, 0.5), size = uniform(random, 0.4, 0.6), high = uniform(random, 0.35, 0.6);
  if (isKeep) {
    const r = uniform(random, 0.12, 0.2), corner = high * uniform(random, 1.1, 1.6);
    for (const [x, y] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) tower(x * size, y * size, r, corner * uniform(random, 0.95, 1.05));
    for (let side = 0; side < 4; side++) walls.push(turn(move(box(size * 2, 0.1, high), 0, size, 0), "z", side * 90));
    if (chance(random, 0.7)) tower(0, uniform(random, 0, 0.15), uniform(random, 0.2, 0.3), corner * uniform(random, 1, 1.5));
    dark.push(move(box(0.22, 0.05, high * 0.6), 0, -size - 0.05, 0));
    walls.push(move(box(size * 2.2, size * 2.2, 0.04), 0, 0, -0.04));
  } else {
    const r = uniform(random, 0.18, 0.35);
    tower(0, 0, r, uniform(random, 0.8, 1.3));
    dark.push(move(box(r * 0.5, r * 0.3, r * 0.9), 0, -r, 0));
    if (chance(random, 0.4)) tower(r * 1.3, 0, r * uniform(random, 0.4, 0.6), uniform(random, 0.7, 1.5));
  }
  return [{ surface: wallSurface(random), shapes: walls }, { surface: roofSurface(random), shapes: roofs }, {
    surface: { paint: [0.15, 0.12, 0.1] },
    shapes: dark,
  }];
}

/** An office or apartment tower of stacked blocks. */
export function skyscraper(random: Random): Layer[] {
  const blocks = integer(random, 1, 4), faces: Shape[] = [], caps: Shape[] = [];
  let sx = uniform(random, 0.3, 0.55), sy = uniform(random, 0.3, 0.55), z = 0, x = 0, y = 0;
  const isRound = chance(random, 0.2), twist = chance(random, 0.25) ? uniform(random, 5, 20) : 0;
  for (let i = 0; i < blocks; i++) {
    const high = uniform(random, 0.25, 0.8),
      body = isRound ? cylinder(sx / 2, high, { segments: 28 }) : box(sx, sy, high, chance(random, 0.15) ? 0.85 : 1);
    faces.push(move(turn(body, "z", twist * i), x, y, z));
    z += high;
    caps.push(
      move(
        turn(isRound ? cylinder(sx / 2 + 0.015, 0.03, { segments: 28 }) : box(sx + 0.03, sy + 0.03, 0.03), "z", twist * i),
        x,
        y,
        z - 0.01,
      ),
    );
    const k = uniform(random, 0.55, 0.95);
    if (!isRound && chance(random, 0.3)) [x, y] = [x + sx * (1 - k) / 2, y - sy * (1 - k) / 2];
    [sx, sy] = [sx * k, sy * (isRound ? k : uniform(random, 0.55, 0.95))];
  }
  if (chance(random, 0.5)) caps.push(move(cylinder(0.02, uniform(random, 0.15, 0.5), { top: 0.004, segments: 8 }), x, y, z));
  for (let i = integer(random, 0, 3); i > 0; i--) {
    caps.push(
      move(
        box(uniform(random, 0.04, 0.12), uniform(random, 0.04, 0.12), 0.08),
        x + sx * uniform(random, -0.3, 0.3),
        y + sy * uniform(random, -0.3, 0.3),
        z,
      ),
    );
  }
  if (chance(random, 0.5)) caps.push(box(0.9, 0.9, 0.03));
  return [{
    surface: { paint: windows(random, chance(random, 0.5) ? stoneColor(random) : paint(random)), repeat: integer(random, 2, 4) },
    shapes: faces,
  }, { surface: wallSurface(random), shapes: caps }];
}

/** A windmill or a lighthouse. */
export function mill(random: Random): Layer[] {
  const high = uniform(random, 0.8, 1.2),
    low = uniform(random, 0.22, 0.36),
    top = low * uniform(random, 0.45, 0.8),
    sides = chance(random, 0.4) ? 8 : 24;
  const body = [lathe([[low, 0], [top, high]], { segments: sides, crease: sides === 8 ? 30 : 50 })],
    cap: Shape[] = [],
    wood: Shape[] = [],
    light: Shape[] = [];
  wood.push(move(box(low * 0.5, 0.06, low * 0.9), 0, -low * 0.95, 0));
  const isMill = chance(random, 0.55);
  if (isMill) {
    const rise = uniform(random, 0.15, 0.35),
      hub = high + rise * 0.3,
      blades = integer(random, 3, 6),
      reach = uniform(random, 0.4, 0.65),
      tilt = uniform(random, 0, 60),
      wide = uniform(random, 0.1, 0.18);
    cap.push(
      move(
        chance(random, 0.5) ? lathe([[top * 1.1, 0], [top * 0.8, rise * 0.6], [0, rise]]) : ellipsoid(top * 1.1, top * 1.1, rise),
        0,
        0,
        high,
      ),
    );
    wood.push(move(turn(cylinder(0.03, top + 0.15), "x", 90), 0, 0, hub));
    for (let i = 0; i < blades; i++) {
      const arm = [box(0.03, 0.03, reach), move(box(wide, 0.02, reach * 0.75), wide / 2, 0, reach * 0.22)];
      (chance(random, 0.5) ? wood : light).push(...arm.map((s) => move(turn(s, "y", tilt + 360 * i / blades), 0, -top - 0.13, hub)));
    }
  } else {
    cap.push(move(cylinder(top * 1.35, 0.04), 0, 0, high), move(cylinder(top * 1.1, 0.14, { top: 0 }), 0, 0, high + 0.24));
    light.push(move(cylinder(top * 0.7, 0.22), 0, 0, high + 0.02));
    wood.push(move(torus(top * 1.3, 0.012), 0, 0, high + 0.14));
    for (let i = 0; i < 8; i++) {
      wood.push(turn(tube([[top * 1.3, 0, high + 0.03], [top * 1.3, 0, high + 0.14]], 0.01, { segments: 6 }), "z", 45 * i));
    }
  }
  const surface: Surface = isMill ? wallSurface(random) : { paint: stripes(random, [paint(random), [0.92, 0.92, 0.9]]), repeat: 1 };
  return [{ surface, shapes: body }, { surface: roofSurface(random), shapes: cap }, {
    surface: { paint: planks(random, woodColor(random)), repeat: 3 },
    shapes: wood,
  }, { surface: { paint: [0.95, 0.9, 0.7] }, shapes: light }];
}
