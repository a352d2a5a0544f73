import assert from "node:assert/strict";
import { encodePng } from "../../lib/io/image.ts";
import { dashboardHandler, listRuns, serveDashboard } from "../../lib/train/dashboard.ts";
import { withFolder } from "../io/corrupt.ts";

const PICTURE = Uint8Array.from(encodePng({ width: 1, height: 1, channels: 3, data: new Uint8Array(3) }));

/** Two runs below a folder: one at step 4 of 10 that is being written, and one a level deeper. */
function makeRuns(folder: string): void {
  for (const name of ["a", "deep/b"]) {
    Deno.mkdirSync(`${folder}/${name}/samples`, { recursive: true });
    Deno.writeTextFileSync(`${folder}/${name}/config.json`, '{"steps": 10}');
    const lines = [1, 2, 3, 4].map((step) =>
      JSON.stringify({ step, loss: 1 / step, lr: 1e-4, mfu: 0.45, memory_used: 2 ** 30, bad: step === 2 ? NaN : 1 })
    );
    Deno.writeTextFileSync(`${folder}/${name}/metrics.jsonl`, lines.join("\n") + '\n{"step": 5, "lo');
    for (const step of [10, 2]) Deno.writeFileSync(`${folder}/${name}/samples/made_step${step}.png`, PICTURE);
  }
  Deno.writeTextFileSync(`${folder}/a/samples/notes.txt`, "mine");
  Deno.writeTextFileSync(`${folder}/secret.png`, "secret");
  Deno.symlinkSync(`${folder}/secret.png`, `${folder}/a/samples/linked.png`);
  Deno.symlinkSync("/etc", `${folder}/linked`);
}

Deno.test("listRuns() finds runs, how far they are, and their samples in order", () => {
  withFolder((folder) => {
    makeRuns(folder);
    const runs = listRuns(folder).sort((a, b) => a.name.localeCompare(b.name));
    assert.deepEqual(runs.map(({ name, steps, step, samples }) => ({ name, steps, step, samples })), [
      { name: "a", steps: 10, step: 4, samples: ["made_step2.png", "made_step10.png"] },
      { name: "deep/b", steps: 10, step: 4, samples: ["made_step2.png", "made_step10.png"] },
    ]);
    assert.deepEqual(runs[0].facts, { "loss": "0.25", "learning rate": "0.0001", "MFU": "45.0 %", "memory": "1.00 GiB" });
    assert.deepEqual(listRuns(`${folder}/a`).map(({ name }) => name), ["."]);
  });
});

Deno.test("dashboardHandler() hands out the page, curves and samples, and nothing else of the disk", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-dashboard-" });
  makeRuns(folder);
  const handle = dashboardHandler(folder),
    get = (path: string, options: RequestInit = {}) => handle(new Request(`http://127.0.0.1:8765${path}`, options));
  const page = await get("/").text();
  assert.match(page, /^<!doctype html>[\s\S]*connect-src 'self'[\s\S]*api\/runs/);
  assert.equal((await get("/api/runs").json()).length, 2);
  const series = await get("/api/series?run=deep%2Fb").json();
  assert.deepEqual(series.find((s: { name: string }) => s.name === "deep/b/bad"), {
    name: "deep/b/bad",
    step: [1, 2, 3, 4],
    value: [1, null, 1, 1],
  });
  const sample = get("/samples/deep%2Fb/made_step2.png");
  assert.deepEqual([sample.headers.get("content-type"), new Uint8Array(await sample.arrayBuffer())], ["image/png", PICTURE]);
  for (
    const path of [
      ...[
        "/api/series",
        "/api/series?run=..",
        "/api/series?run=/etc",
        "/samples/a/notes.txt",
        "/samples/a/linked.png",
        "/samples/..%2F/secret.png",
      ],
      ...[
        "/samples/a/..%2F..%2Fsecret.png",
        "/samples/linked/passwd",
        "/samples/%E0%A4%A/x.png",
        "/config.json",
        "/favicon.ico",
        "//etc/passwd",
      ],
    ]
  ) assert.equal(get(path).status, 404, path);
  assert.equal(get("/", { method: "POST" }).status, 405);
  assert.equal(handle(new Request("http://evil.example/api/runs")).status, 403, "a name that leads to 127.0.0.1");
  Deno.removeSync(folder, { recursive: true });
});

Deno.test("serveDashboard() listens on 127.0.0.1 alone", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "espalier-dashboard-" });
  let address = "";
  const server = serveDashboard(folder, { port: 0, onListen: (at) => address = at });
  assert.equal((server.addr as Deno.NetAddr).hostname, "127.0.0.1");
  assert.deepEqual(await (await fetch(`${address}api/runs`)).json(), []);
  const { port } = server.addr as Deno.NetAddr;
  assert.throws(() => serveDashboard(folder, { port, onListen: () => {} }), /port \d+ is in use, it must be free/);
  await server.shutdown();
  Deno.removeSync(folder, { recursive: true });
  assert.throws(() => serveDashboard(folder, { port: 0, onListen: () => {} }), /^Error: Cannot show the runs in /);
});
