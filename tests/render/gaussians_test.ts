import assert from "node:assert/strict";
import { activateGaussians, type GaussianActivation, type RawGaussians, readSplats, splatsOf } from "../../lib/render/gaussians.ts";
import { step } from "../../lib/tensor/scope.ts";
import { tensor } from "../../lib/tensor/tensor.ts";
import { assertClose, checkOp, random } from "../check.ts";

const CONFIG: GaussianActivation = { scaling_bias: 4e-3, opacity_bias: 0.1, "3d_filter_kernel_size": 9e-4, scaling_activation: "softplus" };
const N = 5;

function rawOf(values: (seed: number, size: number) => ArrayLike<number> = random): RawGaussians {
  return {
    xyz: tensor(values(1, 3 * N), [N, 3]),
    featuresDc: tensor(values(2, 3 * N), [N, 1, 3]),
    scaling: tensor(values(3, 3 * N), [N, 3]),
    rotation: tensor(values(4, 4 * N), [N, 4]),
    opacity: tensor(values(5, N), [N, 1]),
  };
}

Deno.test("activateGaussians() of zeros is the bias: the centre, small, dim, unturned", () => {
  for (const scaling_activation of ["softplus", "exp"] as const) {
    step(() => {
      const zero = (_: number, size: number): Float32Array => new Float32Array(size);
      const { positions, opacities, scales, rotations, starts } = activateGaussians(rawOf(zero), [0, 2, 5], {
        ...CONFIG,
        scaling_activation,
      });
      assertClose("positions", positions.read(), new Array(3 * N).fill(-0.5));
      assertClose("opacities", opacities.read(), new Array(N).fill(0.1));
      assertClose("scales", scales.read(), new Array(3 * N).fill(Math.hypot(4e-3, 9e-4)));
      assert.deepEqual([...rotations.read()], new Array(N).fill([1, 0, 0, 0]).flat());
      assert.deepEqual(starts, [0, 2, 5]);
    });
  }
});

for (const name of ["softplus", "exp"] as const) {
  Deno.test(`activateGaussians() with ${name} and its gradients match the definition`, () => {
    const config = { ...CONFIG, scaling_activation: name };
    const part = (
      of: keyof ReturnType<typeof activateGaussians>,
      key: keyof RawGaussians,
      width: number,
      map: (v: number, i: number) => number,
    ) =>
      checkOp({
        inputs: { x: { shape: [N, width], data: random(7, N * width) } },
        run: ({ x }) => activateGaussians({ ...rawOf(), [key]: x }, [0, N], config)[of] as typeof x,
        reference: ({ x }) => x.map(map),
      });
    const b = config.scaling_bias;
    part("positions", "xyz", 3, (v) => v - 0.5);
    part("opacities", "opacity", 1, (v) => 1 / (1 + Math.exp(-v - Math.log(0.1 / 0.9))));
    part("rotations", "rotation", 4, (v, i) => v + Number(i % 4 === 0));
    part(
      "scales",
      "scaling",
      3,
      (v) => Math.hypot(name === "exp" ? b * Math.exp(v) : Math.log1p(Math.exp(v + Math.log(Math.expm1(b)))), 9e-4),
    );
  });
}

Deno.test("activateGaussians() says which bias cannot be", () => {
  step(() => {
    assert.throws(() => void activateGaussians(rawOf(), [0, N], { ...CONFIG, scaling_bias: 0 }), {
      message: "Cannot activate Gaussians: scaling_bias is 0, it must be above 0",
    });
    assert.throws(() => void activateGaussians(rawOf(), [0, N], { ...CONFIG, opacity_bias: 1 }), {
      message: "Cannot activate Gaussians: opacity_bias is 1, it must be between 0 and 1",
    });
  });
});

Deno.test("readSplats() gives each scene its own, and splatsOf() takes them back", () => {
  step(() => {
    const splats = activateGaussians(rawOf(), [0, 2, 2, 5], CONFIG), scenes = readSplats(splats), again = splatsOf(scenes);
    assert.deepEqual(scenes.map(({ opacities, rotations }) => [opacities.length, rotations.length]), [[2, 8], [0, 0], [3, 12]]);
    assert.deepEqual([...scenes[2].positions], [...splats.positions.read().slice(6)]);
    assert.deepEqual(again.starts, splats.starts);
    for (const name of ["positions", "colors", "opacities", "scales", "rotations"] as const) {
      assert.deepEqual([...again[name].read()], [...splats[name].read()]);
    }
    assert.equal(splatsOf([]).positions.shape[0], 0);
    assert.throws(() => void splatsOf([{ ...scenes[0], scales: new Float32Array(5) }]), {
      message: "Cannot take splats: scales of scene 0 has 5 values, it must have 6",
    });
    assert.throws(() => readSplats({ ...splats, colors: splats.scales }), {
      message: "Cannot read splats: colors is [5,3], it must be [N, K, 3]",
    });
  });
});
