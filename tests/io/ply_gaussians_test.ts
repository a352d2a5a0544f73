import assert from "node:assert/strict";
import { readPly, writePly } from "../../lib/io/ply.ts";
import { type GaussianCloud, readGaussians, writeGaussians } from "../../lib/io/ply_gaussians.ts";
import { assertClose, random } from "../check.ts";

function cloudOf(N: number, K: number): GaussianCloud {
  return {
    positions: random(1, 3 * N),
    colors: random(2, 3 * N * K),
    opacities: random(3, N).map((v) => 0.5 + 0.49 * v),
    scales: random(4, 3 * N).map((v) => 0.02 + 0.01 * v),
    rotations: random(5, 4 * N).map((v) => v + 0.1),
  };
}

function inFile<T>(body: (path: string) => T): T {
  const folder = Deno.makeTempDirSync();
  try {
    return body(`${folder}/asset.ply`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

const HEADER = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split(" ");

Deno.test("writeGaussians() writes the properties that viewers expect, in their order", () => {
  inFile((path) => {
    writeGaussians(path, {
      positions: Float32Array.of(1, 2, 3),
      colors: Float32Array.of(0.1, 0.2, 0.3),
      opacities: Float32Array.of(0.25),
      scales: Float32Array.of(1, Math.E, Math.E ** 2),
      rotations: Float32Array.of(2, 0, 0, 0),
    });
    const { vertex } = readPly(path).elements;
    assert.deepEqual(Object.keys(vertex.columns), HEADER);
    const h = Math.SQRT1_2;
    const want = [1, -3, 2, 0, 0, 0, 0.1, 0.2, 0.3, Math.log(1 / 3), 0, 1, 2, h, h, 0, 0];
    assertClose("row", Object.values(vertex.columns).map((c) => c[0]), want);
    assert.match(
      new TextDecoder().decode(Deno.readFileSync(path)).slice(0, 80),
      /^ply\nformat binary_little_endian 1\.0\nelement vertex 1\nproperty float x\n/,
    );
  });
});

for (const [turned, N, K] of [[true, 6, 1], [false, 6, 1], [false, 4, 4], [false, 3, 16], [true, 0, 1]] as const) {
  Deno.test(`readGaussians() brings ${N} Gaussians of ${K} coefficients back${turned ? ", turned" : ""}`, () => {
    inFile((path) => {
      const cloud = cloudOf(N, K);
      writeGaussians(path, cloud, { turned });
      const got = readGaussians(path, { turned });
      for (const name of ["positions", "colors", "opacities", "scales"] as const) assertClose(name, got[name], cloud[name]);
      for (let n = 0; n < N; n++) {
        const [a, b] = [got, cloud].map(({ rotations }) => [...rotations.subarray(4 * n, 4 * n + 4)]);
        assertClose("rotation", a.map((v) => v / Math.hypot(...a)), b.map((v) => v / Math.hypot(...b)));
      }
    });
  });
}

Deno.test("writeGaussians() turns a rotation with the positions", () => {
  inFile((path) => {
    const cloud = cloudOf(1, 1);
    writeGaussians(path, cloud);
    const { columns } = readPly(path).elements.vertex, q = [0, 1, 2, 3].map((i) => columns[`rot_${i}`][0]);
    const axis = ([w, x, y, z]: number[], s = 1 / Math.hypot(w, x, y, z) ** 2): number[] => [
      1 - 2 * s * (y * y + z * z),
      2 * s * (x * y + w * z),
      2 * s * (x * z - w * y),
    ];
    const [x, y, z] = axis([...cloud.rotations]);
    assertClose("the first axis", axis(q), [x, -z, y], { atol: 1e-6 });
  });
});

Deno.test("writeGaussians() keeps opacities of 0 and 1 finite", () => {
  inFile((path) => {
    writeGaussians(path, { ...cloudOf(2, 1), opacities: Float32Array.of(0, 1) });
    assert.ok([...readPly(path).elements.vertex.columns.opacity].every(Number.isFinite));
    assertClose("opacities", readGaussians(path).opacities, [0, 1], { atol: 2e-7 });
  });
});

Deno.test("writeGaussians() refuses what no viewer could read, and writes nothing", () => {
  inFile((path) => {
    const cloud = cloudOf(2, 1);
    const fails = (change: Partial<GaussianCloud>, message: string, options = {}) => {
      assert.throws(() => writeGaussians(path, { ...cloud, ...change }, options), { message: `Cannot write ${path}: ${message}` });
      assert.ok(!exists(path));
    };
    fails({ scales: new Float32Array(5) }, "scales has 5 values, it must have 6");
    fails({ positions: Float32Array.of(0, 0, 0, 0, NaN, 0) }, "positions[4] is NaN, it must be finite");
    fails({ scales: Float32Array.of(1, 1, 1, 1, 0, 1) }, "scales[4] is 0, it must be above 0");
    fails({ opacities: Float32Array.of(0.5, 1.5) }, "opacities[1] is 1.5, it must be from 0 to 1");
    fails({ colors: new Float32Array(12) }, "there are 2 coefficients, it must be 1, 4, 9 or 16");
    fails({ colors: new Float32Array(24) }, "there are 4 coefficients, with `turned` it must be 1");
  });
});

Deno.test("readGaussians() says what a file of another layout lacks", () => {
  inFile((path) => {
    writePly(path, { vertex: { x: Float32Array.of(1), y: Float32Array.of(1), z: Float32Array.of(1) } });
    assert.throws(() => readGaussians(path), { message: `Cannot read ${path}: it has no vertex rot_0, it must be a file of Gaussians` });
    const columns = Object.fromEntries(HEADER.map((name) => [name, Float32Array.of(1)]));
    writePly(path, { vertex: { ...columns, f_rest_0: Float32Array.of(1) } });
    assert.throws(() => readGaussians(path), { message: `Cannot read ${path}: it has 1 f_rest properties, it must have 0, 9, 24 or 45` });
    writePly(path, { vertex: { ...columns, scale_1: Float32Array.of(NaN) } });
    assert.throws(() => readGaussians(path), { message: `Cannot read ${path}: scale_1 of vertex 0 is NaN, it must be finite` });
    assert.throws(() => readGaussians(new Uint8Array([1, 2])), /^Error: Cannot read PLY data/);
  });
});
