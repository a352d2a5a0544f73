import { expectFaults, GOOD } from "./project.ts";

Deno.test("check_layers finds imports against the arrows", () => {
  expectFaults("check_layers.ts", GOOD, [
    [
      { "lib/ops/add.ts": 'import { linear } from "../nn/linear.ts";' },
      /^lib\/ops\/add\.ts may not import lib\/nn\/linear\.ts: lib\/nn stands above lib\/ops\n/,
    ],
    [
      { "lib/nn/linear.ts": 'import { openLibc } from "../../ffi/host.ts";' },
      /^lib\/nn\/linear\.ts may not import ffi\/host\.ts: lib\/nn never sees an address\n/,
    ],
    [{ "lib/models/a.ts": 'import "../optim/b.ts";', "lib/optim/b.ts": "" }, /lib\/models and lib\/optim stand side by side\n/],
    [
      { "recipes/a.ts": 'import { X } from "../lib/io/png.ts";' },
      /^recipes\/a\.ts may not import lib\/io\/png\.ts: a recipe imports mod\.ts alone\n/,
    ],
    [{ "lib/ops/add.ts": 'const m = await import("../nn/linear.ts");' }, /lib\/nn stands above lib\/ops\n/],
    [{ "other/a.ts": "" }, /^other\/a\.ts lies in no layer, it must be in one of /],
  ]);
});
