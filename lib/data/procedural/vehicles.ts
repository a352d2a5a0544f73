/** Procedural vehicles, nose towards -x: each function makes one object about a unit long. */
import { chance, integer, type Random, uniform } from "../random.ts";
import type { Layer, Surface } from "./assemble.ts";
import { mottled, paint, planks, shade, stripes, windows, woodColor } from "./pictures.ts";
import {
  box,
  cylinder,
  ellipsoid,
  lathe,
  loft,
  move,
  prism,
  roundedBox,
  scale,
  type Shape,
  torus,
  tube,
  turn,
  type Vec3,
} from "./shapes.ts";

const RUBBER: Surface = { paint: [0.12, 0.12, 0.13] };

function bodySurface(random: Random): Surface {
  const color = paint(random);
  if (chance(random, 0.25)) return { paint: stripes(random, [color, paint(random)]), repeat: integer(random, 1, 2) };
  return { paint: chance(random, 0.2) ? mottled(random, color, 0.15) : color, repeat: 1 };
}

function glassSurface(random: Random): Surface {
  return { paint: shade([0.5, 0.7, 0.85], uniform(random, 0.35, 1)) };
}

/** Wheels and hubs of radius r at (x, +-y). */
function wheels(at: number[], y: number, r: number, thick: number): { tyres: Shape[]; hubs: Shape[] } {
  const tyres: Shape[] = [], hubs: Shape[] = [];
  for (const x of at) {
    for (const side of [-1, 1]) {
      const put = (s: Shape): Shape => move(turn(s, "x", 90), x, side * y, r);
      tyres.push(
        put(
          move(
            lathe([[r * 0.55, 0], [r * 0.92, 0], [r, thick * 0.2], [r, thick * 0.8], [r * 0.92, thick], [r * 0.55, thick]], {
              segments: 20,
            }),
            0,
            0,
            -thick / 2,
          ),
        ),
      );
      hubs.push(put(move(cylinder(r * 0.58, thick * 0.9, { segments: 14 }), 0, 0, -thick * 0.45)));
    }
  }
  return { tyres, hubs };
}

/** A car: saloon, estate, coupe or jeep, by its outline. */
export function car(random: Random): Layer[] {
  const length = uniform(random, 0.9, 1.2),
    width = uniform(random, 0.4, 0.52),
    r = uniform(random, 0.08, 0.14),
    belt = r * 0.7 + uniform(random, 0.13, 0.2),
    cabin = uniform(random, 0.12, 0.22);
  const hood = uniform(random, -0.3, -0.12) * length,
    tail = uniform(random, 0.2, 0.48) * length,
    rake = uniform(random, 0.02, 0.14),
    rear = uniform(random, 0, 0.14),
    L = length / 2,
    floor = r * 0.7;
  const low: [number, number][] = [[-L, floor], [L, floor], [L, belt - 0.02], [L - 0.03, belt], [hood, belt], [
    -L + 0.04,
    belt - uniform(random, 0.02, 0.08),
  ], [-L, floor + 0.06]];
  const high: [number, number][] = [[hood, belt - 0.01], [tail, belt - 0.01], [Math.max(hood + rake + 0.12, tail - rear), belt + cabin], [
    hood + rake,
    belt + cabin,
  ]];
  const inner = high.map(([x, z]): [number, number] => [x * 0.94 + (hood + tail) * 0.03, belt + (z - belt) * 0.86 - 0.004]);
  const taper = (s: Shape): Shape => ({
    ...s,
    points: s.points.map(([x, y, z]): Vec3 => [x, y * (1 - 0.25 * Math.max(0, (z - belt) / cabin)), z]),
  });
  const body = [prism(low, width), taper(prism(high, width * 0.9))];
  const glass = [
    taper(prism(inner, width * 0.93)),
    move(
      turn(box(0.02, width * 0.66, cabin * 0.62), "y", Math.atan2(rake, cabin) * 180 / Math.PI),
      hood + rake * 0.35 - 0.01,
      0,
      belt + 0.02,
    ),
  ];
  const { tyres, hubs } = wheels(
    [-L * uniform(random, 0.55, 0.68), L * uniform(random, 0.55, 0.68)],
    width / 2 - 0.01,
    r,
    uniform(random, 0.07, 0.11),
  );
  const light = [-1, 1].flatMap((
    s,
  ) => [
    move(ellipsoid(0.03, 0.04, 0.03, 10), -L, s * width * 0.34, belt - 0.09),
    move(box(0.03, 0.07, 0.04), L, s * width * 0.36, belt - 0.09),
  ]);
  const trim = [move(box(0.05, width * 0.96, 0.05), -L, 0, floor), move(box(0.05, width * 0.96, 0.05), L, 0, floor)];
  const top = belt + cabin, middle = (hood + tail) / 2;
  if (chance(random, 0.2)) trim.push(move(box(0.1, 0.2, 0.05), middle, 0, top));
  if (chance(random, 0.2)) { for (const s of [-1, 1]) trim.push(move(box(0.3, 0.02, 0.03), middle, s * width * 0.25, top)); }
  if (chance(random, 0.2)) {
    trim.push(
      move(box(0.08, width * 0.9, 0.02), L - 0.05, 0, belt + 0.08),
      ...[-1, 1].map((s) => move(box(0.03, 0.02, 0.08), L - 0.05, s * width * 0.3, belt)),
    );
  }
  return [
    { surface: bodySurface(random), shapes: body },
    { surface: glassSurface(random), shapes: glass },
    { surface: RUBBER, shapes: tyres },
    { surface: { paint: [0.7, 0.7, 0.72] }, shapes: hubs },
    {
      surface: { paint: [1, 0.92, 0.6] },
      shapes: light,
    },
    { surface: { paint: shade([1, 1, 1], uniform(random, 0.15, 0.6)) }, shapes: trim },
  ];
}

/** A truck or a bus. */
export function truck(random: Random): Layer[] {
  const length = uniform(random, 1, 1.4),
    width = uniform(random, 0.36, 0.46),
    r = uniform(random, 0.08, 0.12),
    isBus = chance(random, 0.35),
    L = length / 2,
    floor = r * 0.9;
  const cabin: Shape[] = [], load: Shape[] = [], glass: Shape[] = [], trim: Shape[] = [];
  const cab = uniform(random, 0.22, 0.34), high = uniform(random, 0.32, 0.5);
  if (isBus) {
    load.push(move(roundedBox(length, width, high, 0.05), 0, 0, floor));
    cabin.push(move(roundedBox(length * 0.95, width * 0.94, 0.04, 0.02), 0, 0, floor + high - 0.01));
    glass.push(move(box(0.02, width * 0.85, high * 0.42), -L, 0, floor + high * 0.45));
  } else {
    cabin.push(move(roundedBox(cab, width, high * uniform(random, 0.75, 1), 0.03), -L + cab / 2, 0, floor));
    if (chance(random, 0.4)) cabin.push(move(roundedBox(0.2, width * 0.85, high * 0.45, 0.03), -L - 0.08, 0, floor));
    glass.push(
      move(box(0.03, width * 0.86, high * 0.26), -L, 0, floor + high * 0.44),
      move(box(cab * 0.5, width * 1.02, high * 0.24), -L + cab * 0.5, 0, floor + high * 0.44),
    );
    trim.push(move(box(length, width * 0.5, 0.05), 0, 0, floor));
    const room = length - cab - 0.04, x = L - room / 2, kind = integer(random, 0, 3);
    if (kind === 0) load.push(move(box(room, width * 1.05, high * uniform(random, 0.9, 1.4)), x, 0, floor + 0.05));
    else if (kind === 1) {
      load.push(
        move(
          turn(
            lathe([[0, 0], [width * 0.4, 0.02], [width * 0.45, 0.06], [width * 0.45, room - 0.06], [width * 0.4, room - 0.02], [0, room]]),
            "y",
            90,
          ),
          L - room,
          0,
          floor + 0.05 + width * 0.45,
        ),
      );
    } else {
      load.push(move(box(room, width, 0.04), x, 0, floor + 0.05));
      for (const s of [-1, 1]) {
        load.push(
          move(box(room, 0.03, 0.12), x, s * width * 0.48, floor + 0.05),
          move(box(0.03, width, 0.12), x + s * room * 0.49, 0, floor + 0.05),
        );
      }
      for (let i = integer(random, 1, 4); i > 0; i--) {
        const k = uniform(random, 0.1, 0.2),
          put = (s: Shape): Shape => move(s, x + room * uniform(random, -0.3, 0.3), width * uniform(random, -0.2, 0.2), floor + 0.09);
        trim.push(put(kind === 2 ? box(k, k, k) : move(turn(cylinder(k * 0.5, room * 0.5), "y", 90), -room * 0.25, 0, k * 0.5)));
      }
    }
    if (chance(random, 0.4)) trim.push(move(cylinder(0.018, high * 1.2), -L + cab + 0.01, width * 0.42, floor));
  }
  const axles = isBus || chance(random, 0.4) ? [-L + 0.17, L - 0.2] : [-L + 0.13, L - 0.32, L - 0.12];
  const { tyres, hubs } = wheels(axles, width / 2 - 0.02, r, 0.08);
  const loadSurface: Surface = isBus ? { paint: windows(random, paint(random)), repeat: integer(random, 2, 3) } : bodySurface(random);
  return [
    { surface: bodySurface(random), shapes: cabin },
    { surface: loadSurface, shapes: load },
    { surface: glassSurface(random), shapes: glass },
    { surface: RUBBER, shapes: tyres },
    {
      surface: { paint: [0.65, 0.65, 0.67] },
      shapes: hubs,
    },
    { surface: { paint: mottled(random, woodColor(random), 0.15), repeat: 2 }, shapes: trim },
  ];
}

/** A hull section at x: half-width w, from the keel to the deck. */
function section(x: number, w: number, keel: number, deck: number): Vec3[] {
  return Array.from({ length: 13 }, (_, i): Vec3 => {
    const a = Math.PI * i / 12;
    return [x, -w * Math.cos(a), deck + (keel - deck) * Math.sin(a) ** 0.8];
  });
}

/** A boat: sailing, fishing or a steamer. */
export function boat(random: Random): Layer[] {
  const length = uniform(random, 0.9, 1.3),
    w = uniform(random, 0.14, 0.26),
    draught = uniform(random, 0.12, 0.22),
    sheer = uniform(random, 0.03, 0.14),
    steps = 12;
  const stern = uniform(random, 0.5, 0.95),
    rings = Array.from({ length: steps + 1 }, (_, i) => {
      const t = i / steps,
        wide = Math.min(1, Math.sin(Math.PI / 2 * Math.min(1, t * 1.9))) * (t > 0.55 ? 1 - (1 - stern) * ((t - 0.55) / 0.45) ** 2 : 1);
      return section(length * (t - 0.5), Math.max(0.008, w * wide), -draught * Math.min(1, 0.25 + t * 2), sheer * (2 * t - 1) ** 2);
    });
  const hull = [loft(rings)], upper: Shape[] = [], wood: Shape[] = [], cloth: Shape[] = [], kind = integer(random, 0, 2);
  wood.push(move(box(length * 0.72, w * 1.5, 0.02), length * 0.08, 0, 0.005));
  if (kind === 0) {
    const masts = integer(random, 1, 2), high = uniform(random, 0.7, 1.2);
    for (let m = 0; m < masts; m++) {
      const x = length * (masts === 1 ? -0.05 : -0.2 + 0.4 * m),
        h = high * (m ? 0.8 : 1),
        reach = length * uniform(random, 0.25, 0.4) / masts;
      wood.push(
        move(cylinder(0.02, h, { top: 0.01, segments: 10 }), x, 0, 0),
        move(turn(cylinder(0.012, reach, { segments: 8 }), "y", 90), x, 0, 0.12),
      );
      cloth.push(move(prism([[0.015, 0.14], [reach, 0.14], [0.015, h * 0.95]], 0.02), x, 0, 0));
      if (m === 0 && chance(random, 0.7)) cloth.push(move(prism([[-0.02, h * 0.85], [-length * 0.35, 0.1], [-0.05, 0.12]], 0.02), x, 0, 0));
      if (chance(random, 0.4)) cloth.push(move(prism([[0, 0], [0.12, 0.03], [0, 0.06]], 0.015), x, 0, h - 0.06));
    }
  } else {
    const decks = integer(random, 1, 3);
    let l = length * uniform(random, 0.25, 0.5), z = 0.01;
    const x = length * uniform(random, -0.05, 0.18);
    for (let i = 0; i < decks; i++) {
      upper.push(move(roundedBox(l, w * uniform(random, 1, 1.4), 0.13, 0.02), x, 0, z));
      z += 0.13;
      l *= uniform(random, 0.5, 0.85);
    }
    const funnels = kind === 2 ? integer(random, 1, 3) : 0;
    for (let i = 0; i < funnels; i++) {
      wood.push(move(turn(cylinder(0.045, 0.25), "y", uniform(random, 0, 12)), x + (i - (funnels - 1) / 2) * 0.13, 0, z - 0.02));
    }
    if (kind === 1) {
      wood.push(
        move(cylinder(0.015, uniform(random, 0.4, 0.7), { segments: 8 }), x, 0, z),
        tube([[x, 0, z + 0.3], [x + length * 0.3, 0, z + 0.1]], 0.012, { segments: 6 }),
      );
    }
    cloth.push(move(turn(torus(0.05, 0.016, 16), "x", 90), x, -w * 0.72, 0.08));
  }
  const wooden: Surface = { paint: planks(random, woodColor(random)), repeat: 3 };
  return [
    { surface: chance(random, 0.5) ? bodySurface(random) : wooden, shapes: hull },
    { surface: { paint: windows(random, shade([1, 1, 1], 0.9)), repeat: 4 }, shapes: upper },
    { surface: wooden, shapes: wood },
    {
      surface: { paint: stripes(random, [[0.95, 0.95, 0.92], paint(random)]), repeat: integer(random, 1, 2) },
      shapes: cloth,
    },
  ];
}

/** A plane: jet, propeller or biplane. */
export function plane(random: Random): Layer[] {
  const length = uniform(random, 0.9, 1.2),
    r = uniform(random, 0.06, 0.12),
    span = uniform(random, 0.9, 1.4),
    chord = uniform(random, 0.16, 0.3),
    sweep = uniform(random, 0, 0.3),
    levels = chance(random, 0.3) ? 2 : 1;
  const nose = uniform(random, 0.05, 0.2),
    profile: [number, number][] = [[0, 0], [r * 0.5, nose * length * 0.3], [r, nose * length], [r, length * 0.6], [
      r * uniform(random, 0.15, 0.4),
      length,
    ], [0, length]];
  const body = [move(turn(lathe(profile), "y", 90), -length / 2, 0, 0)], wings: Shape[] = [], glass: Shape[] = [], engine: Shape[] = [];
  const wing = (reach: number, c: number, back: number, x: number, z: number, rise: number): Shape[] =>
    [-1, 1].map((s) => {
      const slice = (y: number, k: number, dx: number, dz: number): Vec3[] =>
        ([[-0.5, 0], [0, -0.06], [0.5, 0], [0, 0.06]] as [number, number][]).map((
          [a, b],
        ): Vec3 => [x + dx + a * c * k, s * y, z + dz + b * c * k]);
      return loft([slice(0, 1, 0, 0), slice(reach, 0.5, back, rise)]);
    });
  const x = -length * uniform(random, 0.02, 0.15), low = uniform(random, -0.7, 0.7) * r, rise = uniform(random, -0.02, 0.1);
  for (let i = 0; i < levels; i++) wings.push(...wing(span / 2, chord, sweep, x, levels === 2 ? (i ? r * 2.2 : -r * 0.8) : low, rise));
  if (levels === 2) {
    for (const s of [-1, 1]) {
      for (const k of [0.2, 0.7]) {
        engine.push(move(cylinder(0.008, r * 3, { segments: 6 }), x + sweep * k, s * span / 2 * k, -r * 0.8 + rise * k));
      }
    }
  }
  wings.push(...wing(span * 0.2, chord * 0.6, sweep * 0.4, length * 0.42, 0, 0));
  wings.push(prism([[length * 0.33, 0], [length * 0.5, 0], [length * 0.52, r * 2.4], [length * 0.44, r * 2.4]], 0.02));
  glass.push(move(ellipsoid(length * 0.09, r * 0.75, r * 0.8), -length * 0.22, 0, r * 0.6));
  if (levels === 2 || chance(random, 0.5)) {
    engine.push(move(turn(cylinder(0.02, 0.08), "y", -90), -length / 2 + 0.02, 0, 0));
    const blades = integer(random, 2, 4);
    for (let i = 0; i < blades; i++) engine.push(move(turn(box(0.015, 0.035, r * 2), "x", 360 * i / blades), -length / 2 - 0.04, 0, 0));
  } else {
    const pairs = integer(random, 1, 2);
    for (let i = 1; i <= pairs; i++) {
      for (const s of [-1, 1]) {
        engine.push(
          move(
            turn(lathe([[0.02, 0], [0.045, 0.02], [0.045, 0.14], [0.025, 0.18]]), "y", 90),
            x - 0.12 + sweep * 0.3 * i,
            s * span * 0.15 * i,
            low - 0.05 + rise * 0.3 * i,
          ),
        );
      }
    }
  }
  if (chance(random, 0.6)) {
    for (const s of [-1, 1]) {
      engine.push(
        tube([[x, 0, -r * 0.6], [x - 0.02, s * r, -r * 1.8]], 0.01, { segments: 6 }),
        move(turn(cylinder(0.04, 0.03), "x", 90), x - 0.02, s * r + 0.015, -r * 1.8),
      );
    }
  }
  const surface = bodySurface(random);
  return [{ surface, shapes: body }, { surface: chance(random, 0.5) ? surface : bodySurface(random), shapes: wings }, {
    surface: glassSurface(random),
    shapes: glass,
  }, { surface: { paint: [0.3, 0.3, 0.32] }, shapes: engine }];
}

/** A rocket on its fins. */
export function rocket(random: Random): Layer[] {
  const high = uniform(random, 0.8, 1.3),
    r = uniform(random, 0.11, 0.2),
    tip = uniform(random, 0.2, 0.4),
    bulge = uniform(random, 0, 0.25),
    fins = integer(random, 3, 5),
    reach = uniform(random, 0.12, 0.28);
  const body: [number, number][] = [[r * 0.6, 0.08]], nose: [number, number][] = [];
  for (let i = 0; i <= 8; i++) body.push([r * (1 + bulge * Math.sin(Math.PI * i / 8)), 0.12 + (high * (1 - tip) - 0.12) * i / 8]);
  for (let i = 0; i <= 8; i++) {
    nose.push([r * Math.cos(Math.PI / 2 * i / 8), high * (1 - tip) + high * tip * (i / 8) ** uniform(random, 0.9, 1)]);
  }
  const wings = Array.from(
    { length: fins },
    (_, i) =>
      turn(
        prism([[r * 0.7, 0.1], [r + reach, 0], [r + reach * 0.9, 0.12], [r * 0.8, high * uniform(random, 0.3, 0.42)]], 0.025),
        "z",
        360 * i / fins,
      ),
  );
  const parts: Shape[] = [cylinder(r * 0.5, 0.1, { top: r * 0.35 })];
  for (let i = integer(random, 0, 3); i > 0; i--) {
    parts.push(move(scale(turn(torus(r * 0.35, 0.02, 18), "x", 90), 1, 1, 1), 0, -r * (1 + bulge * 0.8), high * 0.2 * (i + 0.6)));
  }
  if (chance(random, 0.35)) {
    for (const s of [-1, 1]) {
      parts.push(move(lathe([[r * 0.4, 0], [r * 0.45, 0.05], [r * 0.45, high * 0.4], [0, high * 0.52]]), s * r * 1.4, 0, 0.05));
    }
  }
  return [{ surface: bodySurface(random), shapes: [lathe(body)] }, { surface: bodySurface(random), shapes: [lathe(nose), ...wings] }, {
    surface: { paint: shade([0.7, 0.75, 0.8], uniform(random, 0.4, 1.2)) },
    shapes: parts,
  }];
}
