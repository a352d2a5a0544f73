/** Procedural plants and creatures: each function makes one object about a unit high. */
import { chance, integer, type Random, uniform } from "../random.ts";
import type { Layer, Surface } from "./assemble.ts";
import { dots, hsv, leafColor, mottled, paint, pattern, shade, stripes, wood, woodColor } from "./pictures.ts";
import { box, cylinder, ellipsoid, lathe, move, roundedBox, type Shape, tube, turn, type Vec3, warp } from "./shapes.ts";

function barkSurface(random: Random): Surface {
  return { paint: wood(random, shade(woodColor(random), uniform(random, 0.5, 0.9))), repeat: 2 };
}

function leafSurface(random: Random): Surface {
  return { paint: mottled(random, leafColor(random), uniform(random, 0.15, 0.4)), repeat: integer(random, 1, 3) };
}

/** A lumpy ball, like a crown of leaves or a stone. */
function lump(random: Random, rx: number, ry: number, rz: number, rough: number): Shape {
  const waves = Array.from(
    { length: 5 },
    () => [uniform(random, 2, 6), uniform(random, 2, 6), uniform(random, 2, 6), uniform(random, 0, 6)],
  );
  return warp(ellipsoid(rx, ry, rz, 18), ([x, y, z]) => {
    const k = 1 + rough * waves.reduce((sum, [a, b, c, d]) => sum + Math.sin(a * x / rx + b * y / ry + c * z / rz + d), 0) / 5;
    return [x * k, y * k, z * k];
  });
}

/** A broad-leaved tree with a crown of lumps on branches. */
export function tree(random: Random): Layer[] {
  const high = uniform(random, 0.35, 0.8), r = uniform(random, 0.04, 0.09), trunk: Shape[] = [], crown: Shape[] = [], fruit: Shape[] = [];
  const bend = uniform(random, -0.12, 0.12),
    lumps = integer(random, 1, 6),
    size = uniform(random, 0.2, 0.38),
    rough = uniform(random, 0.1, 0.35),
    flat = uniform(random, 0.6, 1.1);
  trunk.push(tube([[0, 0, 0], [bend * 0.5, 0, high * 0.5], [bend, 0, high * 1.1]], [r * uniform(random, 1.2, 1.8), r, r * 0.6]));
  const top: Vec3 = [bend, 0, high];
  for (let i = 0; i < lumps; i++) {
    const angle = 2.4 * i + random(), out = i === 0 ? 0 : size * uniform(random, 0.6, 1.1), k = i === 0 ? 1 : uniform(random, 0.55, 0.9);
    const at: Vec3 = [top[0] + out * Math.cos(angle), out * Math.sin(angle), high + size * (i === 0 ? 0.7 : uniform(random, 0, 1))];
    if (i > 0) trunk.push(tube([[bend * 0.6, 0, high * 0.6], at], [r * 0.6, r * 0.3], { segments: 7 }));
    crown.push(move(lump(random, size * k, size * k, size * k * flat, rough), ...at));
    for (let f = chance(random, 0.3) ? 3 : 0; f > 0; f--) {
      const a = uniform(random, 0, 6.28);
      fruit.push(move(ellipsoid(0.035, 0.035, 0.035, 8), at[0] + size * k * Math.cos(a), at[1] + size * k * Math.sin(a), at[2]));
    }
  }
  return [{ surface: barkSurface(random), shapes: trunk }, { surface: leafSurface(random), shapes: crown }, {
    surface: { paint: paint(random) },
    shapes: fruit,
  }];
}

/** A conifer of stacked cones, decorated at times. */
export function conifer(random: Random): Layer[] {
  const tiers = integer(random, 2, 6),
    high = uniform(random, 0.9, 1.3),
    r = uniform(random, 0.25, 0.45),
    stem = uniform(random, 0.08, 0.25),
    sides = chance(random, 0.3) ? 7 : 20;
  const crown: Shape[] = [],
    balls: Shape[] = [],
    overlap = uniform(random, 1.2, 1.9),
    droop = uniform(random, 0, 0.06),
    isDecorated = chance(random, 0.2);
  for (let i = 0; i < tiers; i++) {
    const wide = r * (1 - 0.75 * i / tiers),
      z = stem + (high - stem) * i / tiers,
      step = (high - stem) / tiers * (i === tiers - 1 ? 1 : overlap);
    crown.push(
      move(
        turn(lathe([[wide * 0.3, 0.02], [wide, -droop], [wide * 0.35, step * 0.6], [0, step]], { segments: sides }), "z", 25 * i),
        0,
        0,
        z,
      ),
    );
    for (let k = 0; isDecorated && k < 5; k++) {
      balls.push(
        move(ellipsoid(0.03, 0.03, 0.03, 8), wide * 0.95 * Math.cos(1.26 * k + i), wide * 0.95 * Math.sin(1.26 * k + i), z - droop),
      );
    }
  }
  if (isDecorated) balls.push(move(ellipsoid(0.06, 0.02, 0.06, 8), 0, 0, high + 0.03));
  return [{ surface: barkSurface(random), shapes: [cylinder(uniform(random, 0.03, 0.07), high * 0.7, { top: 0.02 })] }, {
    surface: leafSurface(random),
    shapes: crown,
  }, { surface: { paint: paint(random) }, shapes: balls }];
}

/** A leaf blade from the origin along +x, rising and drooping, folded along its middle. */
function frond(length: number, wide: number, rise: number, droop: number): Shape {
  const steps = 7,
    path = Array.from({ length: steps + 1 }, (_, i): Vec3 => {
      const t = i / steps;
      return [length * t, 0, rise * t - droop * t * t];
    });
  const leaf = tube(path, path.map((_, i) => wide * (0.25 + Math.sin(Math.PI * Math.min(1, 0.15 + 0.85 * i / steps)))), { segments: 6 });
  return warp(leaf, ([x, y, z]) => {
    const t = x / length, middle = rise * t - droop * t * t;
    return [x, y, middle + (z - middle) * 0.12 - Math.abs(y) * 0.4];
  });
}

/** A palm, or a plant with long leaves in a pot. */
export function palm(random: Random): Layer[] {
  const isPotted = chance(random, 0.5),
    high = isPotted ? uniform(random, 0.3, 0.4) : uniform(random, 0.7, 1.1),
    bend = isPotted ? 0 : uniform(random, -0.25, 0.25),
    leaves = integer(random, 6, 14);
  const trunk: Shape[] = [],
    pot: Shape[] = [],
    green: Shape[] = [],
    length = uniform(random, 0.3, 0.55),
    rise = isPotted ? uniform(random, 0.35, 0.7) : uniform(random, 0.1, 0.5),
    droop = isPotted ? rise * uniform(random, 0.5, 1) : rise + uniform(random, 0.05, 0.35);
  if (isPotted) {
    const r = uniform(random, 0.14, 0.24);
    pot.push(
      lathe([[0, 0], [r * 0.7, 0], [r, high * 0.9], [r * 1.1, high * 0.9], [r * 1.1, high], [r * 0.85, high], [r * 0.85, high * 0.93], [
        0,
        high * 0.93,
      ]]),
    );
  } else {
    trunk.push(
      tube(
        Array.from({ length: 8 }, (_, i) => [bend * (i / 7) ** 2, 0, high * i / 7]),
        Array.from({ length: 8 }, (_, i) => 0.055 - 0.002 * i + (i % 2) * 0.008),
      ),
    );
    for (let i = integer(random, 0, 4); i > 0; i--) {
      trunk.push(move(ellipsoid(0.05, 0.05, 0.06, 10), bend + 0.07 * Math.cos(1.6 * i), 0.07 * Math.sin(1.6 * i), high - 0.06));
    }
  }
  for (let i = 0; i < leaves; i++) {
    const k = uniform(random, 0.75, 1.1), up = isPotted && chance(random, 0.5) ? 2 : 1;
    green.push(
      move(
        turn(frond(length * k / up, uniform(random, 0.05, 0.08), rise * k * up, droop * k), "z", 360 * (i + random() * 0.4) / leaves),
        bend,
        0,
        high - 0.02,
      ),
    );
  }
  return [{ surface: barkSurface(random), shapes: trunk }, { surface: { paint: pattern(random, paint(random)), repeat: 2 }, shapes: pot }, {
    surface: leafSurface(random),
    shapes: green,
  }];
}

/** One mushroom or a group. */
export function mushroom(random: Random): Layer[] {
  const stems: Shape[] = [],
    caps: Shape[] = [],
    count = integer(random, 1, 4),
    pointed = uniform(random, 0.4, 1.3),
    rim = uniform(random, 0, 0.1);
  for (let i = 0; i < count; i++) {
    const k = i === 0 ? 1 : uniform(random, 0.35, 0.75),
      x = i === 0 ? 0 : 0.35 * Math.cos(2.2 * i),
      y = i === 0 ? 0 : 0.35 * Math.sin(2.2 * i);
    const high = uniform(random, 0.4, 0.8) * k,
      r = uniform(random, 0.06, 0.13) * k,
      wide = uniform(random, 0.25, 0.42) * k,
      tall = wide * pointed;
    stems.push(move(lathe([[r * 1.4, 0], [r, high * 0.4], [r * 0.85, high]]), x, y, 0));
    const cap: [number, number][] = [[0, 0.02], [wide * 0.85, -rim * k], [wide, -rim * k * 0.5]];
    for (let s = 1; s <= 8; s++) cap.push([wide * Math.cos(Math.PI / 2 * s / 8), tall * Math.sin(Math.PI / 2 * s / 8)]);
    caps.push(move(lathe(cap, { segments: 28 }), x, y, high - 0.02));
  }
  const color = paint(random);
  return [{ surface: { paint: mottled(random, shade([0.95, 0.9, 0.8], uniform(random, 0.7, 1)), 0.1) }, shapes: stems }, {
    surface: {
      paint: chance(random, 0.6) ? dots(random, [color, [0.95, 0.93, 0.88]]) : mottled(random, color, 0.25),
      repeat: integer(random, 1, 3),
    },
    shapes: caps,
  }];
}

/** A cactus with arms, in a pot at times. */
export function cactus(random: Random): Layer[] {
  const high = uniform(random, 0.5, 1),
    r = uniform(random, 0.09, 0.2),
    ribs = integer(random, 6, 12),
    green: Shape[] = [],
    pot: Shape[] = [],
    blooms: Shape[] = [],
    base = chance(random, 0.6) ? uniform(random, 0.15, 0.3) : 0;
  const rounded = (radius: number, length: number): Shape => {
    const profile: [number, number][] = [[0, 0], [radius * 0.9, 0]];
    for (let i = 0; i <= 8; i++) {
      profile.push([radius * Math.cos(Math.PI / 2 * i / 8), length - radius + radius * Math.sin(Math.PI / 2 * i / 8)]);
    }
    return warp(lathe(profile, { segments: ribs * 4, crease: 60 }), ([x, y, z]) => {
      const k = 1 + 0.08 * Math.cos(ribs * Math.atan2(y, x));
      return [x * k, y * k, z];
    });
  };
  green.push(move(rounded(r, high), 0, 0, base));
  blooms.push(move(ellipsoid(0.05, 0.05, 0.04, 10), 0, 0, base + high));
  const arms = integer(random, 0, 3);
  for (let i = 0; i < arms; i++) {
    const z = base + high * uniform(random, 0.3, 0.6),
      k = r * uniform(random, 0.45, 0.7),
      out = r + k + uniform(random, 0.05, 0.12),
      up = high * uniform(random, 0.2, 0.45),
      spin = 360 * (i + random() * 0.5) / arms;
    green.push(
      turn(move(turn(rounded(k, out + k), "y", 90), 0, 0, z), "z", spin),
      turn(move(rounded(k, up), out, 0, z - k * 0.6), "z", spin),
    );
    if (chance(random, 0.5)) blooms.push(turn(move(ellipsoid(0.035, 0.035, 0.03, 10), out, 0, z - k * 0.6 + up), "z", spin));
  }
  if (base) {
    pot.push(
      lathe([[0, 0], [r * 1.2, 0], [r * 1.7, base * 0.8], [r * 1.9, base * 0.8], [r * 1.9, base], [r * 1.6, base], [0, base * 0.95]]),
    );
  }
  return [{ surface: leafSurface(random), shapes: green }, { surface: { paint: pattern(random, paint(random)), repeat: 2 }, shapes: pot }, {
    surface: { paint: paint(random) },
    shapes: blooms,
  }];
}

/** An animal on four legs, facing -x. */
export function animal(random: Random): Layer[] {
  const long = uniform(random, 0.5, 0.85),
    thick = uniform(random, 0.13, 0.24),
    leg = uniform(random, 0.15, 0.45),
    r = uniform(random, 0.03, 0.065),
    neck = uniform(random, 0.05, 0.4),
    head = uniform(random, 0.1, 0.17);
  const z = leg + thick * 0.8,
    front = -long / 2,
    body = [move(lump(random, long / 2, thick, thick * uniform(random, 0.85, 1.15), 0.06), 0, 0, z)],
    dark: Shape[] = [],
    eyes: Shape[] = [];
  const at: Vec3 = [front - neck * uniform(random, 0.2, 0.6) - head * 0.3, 0, z + thick * 0.4 + neck];
  body.push(
    tube([[front * 0.7, 0, z], [front - neck * 0.15, 0, z + thick * 0.5], at], [thick * 0.75, head * 0.75, head * 0.7]),
    move(ellipsoid(head * 1.15, head, head), ...at),
  );
  const snout = uniform(random, 0.3, 1.1) * head;
  body.push(move(ellipsoid(head * 0.4 + snout, head * 0.55, head * 0.5), at[0] - head * 0.7, 0, at[2] - head * 0.25));
  dark.push(move(ellipsoid(head * 0.2, head * 0.25, head * 0.2, 10), at[0] - head * 1.05 - snout, 0, at[2] - head * 0.2));
  for (const s of [-1, 1]) eyes.push(move(ellipsoid(0.02, 0.02, 0.02, 8), at[0] - head * 0.8, s * head * 0.6, at[2] + head * 0.35));
  for (const x of [front * 0.62, -front * 0.62]) {
    for (const s of [-1, 1]) {
      body.push(tube([[x, s * thick * 0.55, z], [x, s * thick * 0.6, 0.03]], [r * 1.5, r]));
      dark.push(move(cylinder(r * 1.15, 0.05), x - 0.01, s * thick * 0.6, 0));
    }
  }
  const ears = integer(random, 0, 2), big = uniform(random, 0.5, 1.3) * head;
  for (const s of [-1, 1]) {
    const ear = ears === 0
      ? cylinder(big * 0.4, big, { top: 0.005 })
      : ellipsoid(big * 0.25, big * 0.45, big * (ears === 1 ? 0.5 : 1.1), 10);
    body.push(move(turn(ear, "x", s * -uniform(random, 10, 45)), at[0] + head * 0.3, s * head * 0.6, at[2] + head * 0.7));
    if (chance(random, 0.2)) {
      dark.push(
        tube([[at[0], s * head * 0.4, at[2] + head * 0.8], [at[0] + 0.02, s * head, at[2] + head * 1.4], [
          at[0] - 0.05,
          s * head * 1.3,
          at[2] + head * 2,
        ]], [0.025, 0.02, 0.005]),
      );
    }
  }
  const tail = uniform(random, 0.08, 0.4), lift = uniform(random, -0.25, 0.3);
  body.push(
    tube([[-front * 0.9, 0, z + thick * 0.3], [-front + tail * 0.5, 0, z + thick * 0.3 + lift * 0.5], [
      -front + tail,
      0,
      z + thick * 0.3 + lift,
    ]], [r * 1.2, r * 0.8, r * uniform(random, 0.3, 1.4)]),
  );
  const color = chance(random, 0.7)
      ? hsv(uniform(random, 0.03, 0.12), uniform(random, 0.05, 0.6), uniform(random, 0.3, 0.95))
      : paint(random),
    other = shade(color, chance(random, 0.5) ? 0.35 : 1.6);
  const coat = chance(random, 0.3)
    ? dots(random, [color, other])
    : chance(random, 0.3)
    ? stripes(random, [color, other])
    : mottled(random, color, 0.15);
  return [{ surface: { paint: coat, repeat: integer(random, 2, 4) }, shapes: body }, {
    surface: { paint: shade(color, 0.35) },
    shapes: dark,
  }, { surface: { paint: [0.06, 0.05, 0.05] }, shapes: eyes }];
}

/** A robot on legs, wheels or a block. */
export function robot(random: Random): Layer[] {
  const metal: Shape[] = [],
    joints: Shape[] = [],
    lights: Shape[] = [],
    leg = uniform(random, 0.15, 0.4),
    w = uniform(random, 0.28, 0.5),
    d = uniform(random, 0.2, 0.34),
    high = uniform(random, 0.3, 0.5),
    round = uniform(random, 0.01, 0.12);
  const isBarrel = chance(random, 0.25);
  metal.push(move(isBarrel ? cylinder(w / 2, high, { top: w / 2 * uniform(random, 0.7, 1.1) }) : roundedBox(w, d, high, round), 0, 0, leg));
  const legsCount = integer(random, 0, 3);
  if (legsCount === 0) {
    for (const s of [-1, 1]) joints.push(move(turn(cylinder(leg * 0.7, 0.1), "y", 90), s * w * 0.45 - 0.05, 0, leg * 0.7));
    metal.push(move(box(w * 0.5, d * 0.6, leg), 0, 0, leg * 0.3));
  } else {
    for (let i = 0; i < Math.max(2, legsCount); i++) {
      const x = w * 0.6 * (i / (Math.max(2, legsCount) - 1) - 0.5);
      joints.push(move(cylinder(0.04, leg), x, 0, 0));
      metal.push(move(roundedBox(0.12, d * 0.9, 0.08, 0.02), x, -0.03, 0));
    }
  }
  const top = leg + high,
    neck = uniform(random, 0.02, 0.08),
    hw = w * uniform(random, 0.5, 1),
    hh = uniform(random, 0.16, 0.3),
    isBall = chance(random, 0.35);
  joints.push(move(cylinder(0.05, neck + 0.02), 0, 0, top));
  metal.push(move(isBall ? move(ellipsoid(hw / 2, hw / 2, hh / 2), 0, 0, hh / 2) : roundedBox(hw, d * 0.85, hh, round), 0, 0, top + neck));
  const face = isBall ? hw * 0.44 : d * 0.42, eyes = integer(random, 1, 3);
  for (let i = 0; i < eyes; i++) {
    lights.push(move(ellipsoid(0.035, 0.03, 0.035, 12), hw * 0.45 * (eyes === 1 ? 0 : i / (eyes - 1) - 0.5), -face, top + neck + hh * 0.6));
  }
  if (chance(random, 0.6)) lights.push(move(box(hw * 0.4, 0.03, 0.03), 0, -face, top + neck + hh * 0.2));
  for (let i = integer(random, 0, 2); i > 0; i--) {
    const x = (i - 1) * hw * 0.5, tall = uniform(random, 0.08, 0.2);
    joints.push(move(cylinder(0.012, tall), x, 0, top + neck + hh * 0.9));
    lights.push(move(ellipsoid(0.03, 0.03, 0.03, 10), x, 0, top + neck + hh * 0.9 + tall));
  }
  const lift = uniform(random, -60, 80), reach = uniform(random, 0.2, 0.4);
  for (const s of [-1, 1]) {
    const arm = [
      turn(move(tube([[0, 0, 0], [0, 0, -reach]], 0.04), 0, 0, 0), "y", 0),
      move(chance(random, 0.5) ? ellipsoid(0.06, 0.06, 0.06, 12) : box(0.1, 0.1, 0.08), 0, 0, -reach - 0.03),
    ];
    joints.push(...arm.map((a) => move(turn(a, "y", -s * (15 + Math.max(0, lift))), s * (w / 2 + 0.03), 0, leg + high * 0.85)));
    metal.push(move(ellipsoid(0.065, 0.065, 0.065, 12), s * (w / 2 + 0.03), 0, leg + high * 0.85));
  }
  for (let i = integer(random, 0, 4); i > 0; i--) {
    lights.push(move(box(0.04, 0.03, 0.04), w * (i / 5 - 0.5), isBarrel ? -w * 0.44 : -d / 2, leg + high * uniform(random, 0.3, 0.7)));
  }
  const color = paint(random);
  return [{ surface: { paint: chance(random, 0.4) ? pattern(random, color) : color, repeat: 2 }, shapes: metal }, {
    surface: { paint: shade([0.5, 0.5, 0.55], uniform(random, 0.4, 1.3)) },
    shapes: joints,
  }, { surface: { paint: hsv(random(), 0.7, 1) }, shapes: lights }];
}
