/** Procedural vessels and other turned things: each function makes one object about a unit high. */
import { chance, integer, type Random, uniform } from "../random.ts";
import type { Layer, Surface } from "./assemble.ts";
import { frameSurface } from "./furniture.ts";
import { hsv, leafColor, mottled, paint, pattern, planks, shade, stripes, waves, woodColor } from "./pictures.ts";
import { box, cylinder, ellipsoid, lathe, move, scale, type Shape, torus, tube, turn, type Vec3, warp } from "./shapes.ts";

type Profile = [number, number][];

function glaze(random: Random): Surface {
  const color = paint(random);
  return {
    paint: chance(random, 0.4) ? waves(random, [color, paint(random), shade(color, 0.6)]) : pattern(random, color),
    repeat: integer(random, 1, 4),
  };
}

/** A smooth curve through (position 0 to 1, value) knots. */
function curve(knots: [number, number][]): (t: number) => number {
  return (t) => {
    const i = Math.min(knots.length - 2, Math.max(0, knots.findIndex(([at]) => at >= t) - 1));
    const [a, p] = knots[i], [b, q] = knots[i + 1], s = Math.min(1, Math.max(0, (t - a) / (b - a)));
    return p + (q - p) * s * s * (3 - 2 * s);
  };
}

/** A hollow vessel: the outer profile up, the inner one down again, `wall` thick. */
function hollow(radius: (t: number) => number, height: number, wall: number, segments = 32): Shape {
  const steps = 20, outer: Profile = [[0, 0]], inner: Profile = [];
  for (let i = 0; i <= steps; i++) {
    const t = i / steps, r = radius(t);
    outer.push([r, t * height]);
    if (t * height > wall) inner.push([Math.max(0.004, r - wall), t * height]);
  }
  return lathe([...outer, ...inner.reverse(), [0, wall]], { segments });
}

/** A handle between two heights at radius r0 and r1, in the x, z plane, reaching out by `reach`. */
function handle(r0: number, z0: number, r1: number, z1: number, reach: number, thick: number): Shape {
  const path = Array.from({ length: 13 }, (_, i): Vec3 => {
    const t = i / 12;
    return [r0 + (r1 - r0) * t + reach * Math.sin(Math.PI * t) ** 0.7 - thick * 0.4, 0, z0 + (z1 - z0) * t];
  });
  return tube(path, thick);
}

/** A vase or an amphora. */
export function vase(random: Random): Layer[] {
  const height = uniform(random, 0.6, 1.1),
    belly = uniform(random, 0.15, 0.4),
    foot = belly * uniform(random, 0.35, 0.8),
    neck = belly * uniform(random, 0.2, 0.7);
  const at = uniform(random, 0.3, 0.65),
    lip = neck * uniform(random, 1, 1.7),
    r = curve([[0, foot], [at, belly], [uniform(random, 0.78, 0.88), neck], [1, lip]]);
  let body = hollow(r, height, 0.025);
  if (chance(random, 0.3)) {
    const ribs = integer(random, 5, 14), deep = uniform(random, 0.03, 0.09);
    body = warp(body, ([x, y, z]) => {
      const k = 1 + deep * Math.cos(ribs * Math.atan2(y, x)) * Math.sin(Math.PI * z / height);
      return [x * k, y * k, z];
    });
  }
  const extra: Shape[] = [], plants: Shape[] = [], blooms: Shape[] = [];
  if (chance(random, 0.35)) {
    for (const side of [0, 180]) {
      extra.push(turn(handle(r(at) * 0.95, height * at, r(0.88), height * 0.9, uniform(random, 0.08, 0.18), 0.025), "z", side));
    }
  }
  if (chance(random, 0.35)) {
    const stems = integer(random, 3, 8);
    for (let i = 0; i < stems; i++) {
      const angle = 2 * Math.PI * (i + random() * 0.5) / stems,
        out = uniform(random, 0.05, 0.3),
        high = height + uniform(random, 0.15, 0.45);
      const tip: Vec3 = [out * Math.cos(angle), out * Math.sin(angle), high];
      plants.push(tube([[0, 0, height * 0.3], [tip[0] * 0.3, tip[1] * 0.3, height], tip], 0.012, { segments: 6 }));
      blooms.push(move(ellipsoid(0.06, 0.06, 0.045, 10), ...tip));
    }
  }
  const surface = glaze(random);
  return [{ surface, shapes: [body] }, { surface: chance(random, 0.5) ? surface : glaze(random), shapes: extra }, {
    surface: { paint: leafColor(random) },
    shapes: plants,
  }, { surface: { paint: paint(random) }, shapes: blooms }];
}

/** A mug or a cup, on a saucer at times. */
export function cup(random: Random): Layer[] {
  const height = uniform(random, 0.35, 0.8), top = uniform(random, 0.22, 0.4), bottom = top * uniform(random, 0.5, 1.05);
  const r = curve([[0, bottom], [0.5, (top + bottom) / 2 * uniform(random, 0.9, 1.15)], [1, top]]), lift = chance(random, 0.4) ? 0.05 : 0;
  const body = [move(hollow(r, height, 0.035), 0, 0, lift)], plate: Shape[] = [];
  if (chance(random, 0.85)) {
    body.push(
      move(
        handle(
          r(0.2),
          height * uniform(random, 0.15, 0.3),
          r(0.8),
          height * uniform(random, 0.7, 0.9),
          uniform(random, 0.1, 0.25),
          uniform(random, 0.025, 0.045),
        ),
        0,
        0,
        lift,
      ),
    );
  }
  if (lift) {
    plate.push(lathe([[0, 0], [top * 0.8, 0], [top * 1.7, 0.08], [top * 1.7, 0.1], [top * 0.8, 0.045], [0, 0.045]], { segments: 36 }));
  }
  const drink: Shape[] = chance(random, 0.6) ? [move(cylinder(r(0.85) - 0.02, 0.02), 0, 0, lift + height * 0.85)] : [];
  const surface = glaze(random);
  return [{ surface, shapes: body }, { surface: chance(random, 0.6) ? surface : glaze(random), shapes: plate }, {
    surface: { paint: hsv(uniform(random, 0.02, 0.14), 0.7, uniform(random, 0.2, 0.6)) },
    shapes: drink,
  }];
}

/** A bottle with a label and a cap or a cork. */
export function bottle(random: Random): Layer[] {
  const height = uniform(random, 0.8, 1.2),
    r = uniform(random, 0.12, 0.28),
    neck = r * uniform(random, 0.22, 0.5),
    shoulder = uniform(random, 0.45, 0.72);
  const body: Profile = [[0, 0], [r * 0.94, 0], [r, 0.03]], rise = uniform(random, 0.1, 0.2);
  for (let i = 0; i <= 8; i++) body.push([neck + (r - neck) * (0.5 + 0.5 * Math.cos(Math.PI * i / 8)), height * (shoulder + rise * i / 8)]);
  body.push([neck, height], [neck * 1.2, height], [neck * 1.2, height * 1.03], [0, height * 1.03]);
  const isSquare = chance(random, 0.25),
    square = (shape: Shape): Shape =>
      isSquare
        ? warp(shape, ([x, y, z]) => {
          const k = 0.9 * Math.hypot(x, y) / Math.max(1e-6, Math.abs(x), Math.abs(y));
          return [x * k, y * k, z];
        })
        : shape;
  const label = [
    square(move(cylinder(r * 1.012, height * shoulder * uniform(random, 0.3, 0.6), { segments: 40 }), 0, 0, height * shoulder * 0.2)),
  ];
  const stopper = [
    move(cylinder(neck * 0.95, height * uniform(random, 0.05, 0.12), { top: neck * uniform(random, 0.8, 1.2) }), 0, 0, height * 1.03),
  ];
  return [
    {
      surface: { paint: hsv(random(), uniform(random, 0.2, 0.8), uniform(random, 0.2, 0.8)) },
      shapes: [square(lathe(body, { segments: 40 }))],
    },
    { surface: glaze(random), shapes: label },
    { surface: chance(random, 0.5) ? { paint: woodColor(random) } : { paint: paint(random) }, shapes: stopper },
  ];
}

/** A teapot, a pitcher or a watering can: spout, handle, lid. */
export function pot(random: Random): Layer[] {
  const r = uniform(random, 0.28, 0.42), height = uniform(random, 0.4, 0.85), top = r * uniform(random, 0.4, 0.85);
  const profile = curve([[0, r * uniform(random, 0.55, 0.95)], [uniform(random, 0.3, 0.55), r], [1, top]]),
    body = [hollow(profile, height, 0.03)];
  const reach = uniform(random, 0.2, 0.4), tip = height * uniform(random, 0.85, 1.15), thick = uniform(random, 0.05, 0.08);
  body.push(
    tube([[-profile(0.3) * 0.85, 0, height * 0.3], [-r - reach * 0.4, 0, height * 0.45], [-r - reach * 0.75, 0, tip * 0.8], [
      -r - reach,
      0,
      tip,
    ]], [thick * 1.3, thick, thick * 0.7, thick * 0.6]),
  );
  body.push(handle(profile(0.15), height * 0.15, profile(0.85), height * 0.88, uniform(random, 0.15, 0.3), uniform(random, 0.025, 0.045)));
  const lid = chance(random, 0.7)
    ? [
      move(lathe([[0, 0], [top * 1.05, 0], [top * 0.8, 0.07], [top * 0.2, 0.12], [0, 0.12]]), 0, 0, height),
      move(ellipsoid(0.05, 0.05, 0.05, 12), 0, 0, height + 0.15),
    ]
    : [];
  const surface = glaze(random);
  return [{ surface, shapes: body }, { surface: chance(random, 0.5) ? surface : glaze(random), shapes: lid }];
}

/** A bowl with fruit. */
export function bowl(random: Random): Layer[] {
  const r = uniform(random, 0.4, 0.6), height = uniform(random, 0.2, 0.4), foot = r * uniform(random, 0.3, 0.6);
  const fruit: Shape[][] = [[], [], []], count = integer(random, 0, 9);
  for (let i = 0; i < count; i++) {
    const k = uniform(random, 0.09, 0.15), angle = 2.4 * i, out = r * 0.55 * Math.sqrt(i / 9);
    const ball = scale(ellipsoid(k, k, k, 14), 1, 1, uniform(random, 0.85, 1.2));
    fruit[i % 3].push(move(ball, out * Math.cos(angle), out * Math.sin(angle), height * 0.5 + k + (i < 3 ? k * 0.9 : 0)));
  }
  return [
    { surface: glaze(random), shapes: [hollow(curve([[0, foot], [0.15, foot * 1.1], [1, r]]), height, 0.035)] },
    ...fruit.map((shapes): Layer => ({
      surface: { paint: mottled(random, hsv(uniform(random, 0, 0.35), 0.8, uniform(random, 0.6, 0.95)), 0.1), repeat: 2 },
      shapes,
    })),
  ];
}

/** A barrel, a drum or a bucket. */
export function barrel(random: Random): Layer[] {
  const height = uniform(random, 0.7, 1.2),
    r = uniform(random, 0.28, 0.45),
    bulge = uniform(random, 1, 1.35),
    hoops = integer(random, 2, 4),
    isOpen = chance(random, 0.35);
  const radius = (t: number): number => r * (1 + (bulge - 1) * Math.sin(Math.PI * t)) * (isOpen ? 0.85 + 0.2 * t : 1);
  const solid: Profile = [
    [0, 0],
    ...Array.from({ length: 13 }, (_, i): [number, number] => [radius(i / 12), height * i / 12]),
    [radius(1) * 0.9, height],
    [radius(1) * 0.9, height * 0.97],
    [0, height * 0.97],
  ];
  const bands = Array.from({ length: hoops }, (_, i) => {
    const t = hoops === 2 ? 0.2 + 0.6 * i : 0.1 + 0.8 * i / (hoops - 1);
    return move(
      lathe([[radius(t) * 0.95, -0.03], [radius(t) * 1.02 + 0.01, -0.03], [radius(t) * 1.02 + 0.01, 0.03], [radius(t) * 0.95, 0.03]], {
        segments: 28,
      }),
      0,
      0,
      height * t,
    );
  });
  if (isOpen) {
    const top = radius(1);
    bands.push(
      tube(
        Array.from({ length: 13 }, (_, i) => [top * Math.cos(Math.PI * i / 12), 0, height + top * 0.9 * Math.sin(Math.PI * i / 12)]),
        0.02,
      ),
    );
  }
  const surface: Surface = chance(random, 0.75)
    ? { paint: planks(random, woodColor(random)), repeat: 2 }
    : { paint: stripes(random, [paint(random), paint(random)]), repeat: 1 };
  return [{ surface, shapes: [isOpen ? hollow(radius, height, 0.04) : lathe(solid, { segments: 28 })] }, {
    surface: { paint: shade([0.6, 0.6, 0.62], uniform(random, 0.4, 1.1)) },
    shapes: bands,
  }];
}

/** A cake, layered, with candles. */
export function cake(random: Random): Layer[] {
  const tiers = integer(random, 1, 3), bodies: Shape[] = [], trim: Shape[] = [], flames: Shape[] = [], plate: Shape[] = [];
  let z = 0.05, r = uniform(random, 0.35, 0.5);
  plate.push(lathe([[0, 0], [r * 1.25, 0], [r * 1.3, 0.05], [0, 0.05]], { segments: 36 }));
  for (let i = 0; i < tiers; i++) {
    const high = uniform(random, 0.18, 0.35);
    bodies.push(move(cylinder(r, high, { segments: 36 }), 0, 0, z));
    trim.push(move(torus(r, 0.03), 0, 0, z + high));
    z += high;
    if (i + 1 < tiers) r *= uniform(random, 0.55, 0.75);
  }
  const candles = integer(random, 0, 6), isSlim = chance(random, 0.5);
  for (let i = 0; i < candles; i++) {
    const angle = 2 * Math.PI * i / candles,
      x = r * 0.6 * Math.cos(angle),
      y = r * 0.6 * Math.sin(angle),
      high = uniform(random, 0.12, 0.2);
    trim.push(move(isSlim ? cylinder(0.018, high, { segments: 8 }) : box(0.04, 0.04, high), x, y, z));
    flames.push(move(ellipsoid(0.018, 0.018, 0.035, 8), x, y, z + high + 0.03));
  }
  return [
    { surface: glaze(random), shapes: bodies },
    { surface: { paint: paint(random) }, shapes: trim },
    { surface: { paint: [1, 0.75, 0.2] }, shapes: flames },
    { surface: frameSurface(random), shapes: plate },
  ];
}
