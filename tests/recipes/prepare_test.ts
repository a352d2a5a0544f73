import assert from "node:assert/strict";
import { join } from "node:path";
import { readMetadata } from "../../lib/data/metadata.ts";
import { CUBE_OBJ, withFolder } from "../data/assets.ts";

const RECIPE = new URL("../../recipes/prepare.ts", import.meta.url).pathname;

/** Runs the recipe: its exit code, and what it says on either stream. */
async function prepare(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const command = new Deno.Command(Deno.execPath(), { args: ["run", "-q", "-P=train", RECIPE, ...args], env: { NO_COLOR: "1" } });
  const { code, stdout, stderr } = await command.output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

Deno.test("recipes/prepare.ts makes a dataset, tells what is unusable, and goes on where it was", async () => {
  await withFolder({ "in/a.obj": CUBE_OBJ, "in/b.obj": "v 1 2 3\n", "in/c/d.obj": CUBE_OBJ.replaceAll("-1", "-2") }, async (folder) => {
    const root = join(folder, "out");
    const args = [
      "--input",
      join(folder, "in"),
      "--output",
      root,
      "--views",
      "2",
      "--size",
      "32",
      "--resolution",
      "16",
      "--device",
      "cpu",
      "--workers",
      "2",
    ];
    const first = await prepare(...args);
    assert.deepEqual([first.code, first.out.split("\n")[1]], [
      0,
      `  unusable: b.obj: Cannot import ${join(folder, "in/b.obj")}: it has no triangles`,
    ], first.err);
    assert.match(first.out, /^3 objects in \d+ s: 2 made, 0 complete before, 0 twice in the input, 1 unusable\n/);
    assert.match(first.err, /^prepare 0\/3 .*\n(.*\n)*prepare 3\/3 .* objects\/s {2}1 unusable/);
    assert.deepEqual([...readMetadata(root).values()].map((row) => row.cond_rendered), ["True", "False", "True"]);
    assert.match((await prepare(...args)).out, /0 made, 2 complete before, 0 twice in the input, 1 unusable/);
  });
});

Deno.test("recipes/prepare.ts ends with one line where it cannot go on", async () => {
  await withFolder({ file: "x" }, async (folder) => {
    for (
      const [args, message] of [
        [["--output", join(folder, "file/out"), "--objects", "2"], /^error: Cannot write the dataset .*\n$/],
        [["--output", join(folder, "out"), "--input", join(folder, "none")], /^error: Cannot prepare .*none: .*\n$/],
        [["--output", join(folder, "out"), "--views", "many"], /^error: Cannot prepare a dataset: views is NaN.*\n$/],
        [
          ["--output", join(folder, "out"), "--features", "appearance,dinov2_vitl14_reg"],
          /^error: Cannot make dinov2_vitl14_reg features: --dino is missing.*\n$/,
        ],
        [
          ["--output", join(folder, "out"), "--features", "dinov2_vitl14_reg", "--dino", "x"],
          /^error: Cannot make .*: there are 0 training views.*\n$/,
        ],
        [["--output", join(folder, "out"), "--device", "tpu"], /^error: Cannot prepare a dataset: --device is tpu.*\n$/],
        [[], /^error: required option '--output <folder>' not specified\n/],
      ] as const
    ) {
      const { code, err } = await prepare(...args);
      assert.equal(code, 1);
      assert.match(err, message);
    }
  });
});
