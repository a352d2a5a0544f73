import assert from "node:assert/strict";
const ROOT = new URL("../../", import.meta.url).pathname;

/** Launches `code` as a recipe; what the launcher did. */
async function launched(
  code: string,
  args: string[],
  kill?: (pid: number, folder: string) => Promise<void>,
): Promise<{ code: number; text: string }> {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${folder}/recipe.ts`, code.replaceAll("FOLDER", folder));
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-P=launch", "scripts/launch.ts", ...args, `${folder}/recipe.ts`, "--flag", "value"],
      cwd: ROOT,
      env: { NO_COLOR: "1" },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    await kill?.(child.pid, folder);
    const { code: status, stdout, stderr } = await child.output(), decoder = new TextDecoder();
    return { code: status, text: decoder.decode(stdout) + decoder.decode(stderr) };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const SAY = `console.log(Deno.env.get("RANK"), Deno.env.get("WORLD_SIZE"), Deno.env.get("LOCAL_RANK"), Deno.args.join(" "));`;

Deno.test("launch starts every rank under torchrun's names and shows what they say", async () => {
  const { code, text } = await launched(SAY, ["--nproc", "3"]);
  assert.equal(code, 0, text);
  for (const line of ["0 3 0 --flag value", "[rank 1] 1 3 1 --flag value", "[rank 2] 2 3 2 --flag value"]) {
    assert.ok(text.includes(line), text);
  }
});

Deno.test("a rank that fails ends all, and all start again as often as allowed", async () => {
  const code = `${SAY} const attempt = Number(Deno.env.get("TORCHELASTIC_RESTART_COUNT"));
    if (Deno.env.get("RANK") === "1" && attempt < 2) Deno.exit(9);
    if (attempt < 2) await new Promise((done) => setTimeout(done, 60_000));`;
  const twice = await launched(code, ["--nproc", "2", "--max-restarts", "2"]);
  assert.equal(twice.code, 0, twice.text);
  assert.match(twice.text, /rank 1 of 2 ended with status 9; the others are stopped/);
  assert.match(twice.text, /starting again from the newest checkpoint \(2 of 2 restarts\)/);
  const once = await launched(code, ["--nproc", "2", "--max-restarts", "1"]);
  assert.equal(once.code, 9, once.text);
});

for (const name of ["SIGTERM", "SIGUSR1"] as const) {
  Deno.test(`${name} to the launcher reaches all ranks`, async () => {
    const code = `Deno.addSignalListener("${name}", () => { console.log("heard " + Deno.env.get("RANK")); Deno.exit(130); });
      await new Promise((done) => setTimeout(done, 60_000));`;
    const { code: status, text } = await launched(code, ["--nproc", "2", "--max-restarts", "3"], async (pid) => {
      await new Promise((done) => setTimeout(done, 1500));
      Deno.kill(pid, name);
    });
    assert.equal(status, 130, text);
    assert.match(text, /heard 0/);
    assert.doesNotMatch(text, /starting again/);
  });
}

Deno.test("trainings stop where the launcher is killed", async () => {
  const code = `const stop = new Int32Array(new SharedArrayBuffer(4)), rank = Deno.env.get("RANK");
    const listener = new Worker("file://${ROOT}lib/train/stop_worker.ts", { type: "module" });
    listener.postMessage(stop);
    const files = () => [...Deno.readDirSync("FOLDER")].map(({ name }) => name);
    const until = async (there) => { while (!there()) await new Promise((done) => setTimeout(done, 50)); };
    setTimeout(() => Deno.exit(1), 30_000);
    Deno.writeTextFileSync("FOLDER/began" + rank, "");
    await until(() => Atomics.load(stop, 0));
    if (rank === "1") Deno.writeTextFileSync("FOLDER/ended", "");
    else await until(() => files().includes("ended"));
    if (rank === "0") console.log("both stopped");
    Deno.exit(0);`;
  const { text } = await launched(code, ["--nproc", "2"], async (pid, folder) => {
    for (let i = 0; i < 200 && [...Deno.readDirSync(folder)].length < 3; i++) await new Promise((done) => setTimeout(done, 50));
    Deno.kill(pid, "SIGKILL");
  });
  assert.match(text, /the launcher is gone, stopping after this step/);
  assert.match(text, /both stopped/);
});

Deno.test("launch on two machines numbers the ranks through", async () => {
  const say = `${SAY} console.log(Deno.env.get("MASTER_ADDR"), Deno.env.get("MASTER_PORT"));`;
  const { code, text } = await launched(say, ["--nproc", "2", "--nodes", "2", "--node-rank", "1", "--address", "node0", "--port", "29500"]);
  assert.equal(code, 0, text);
  for (const line of ["2 4 0 --flag value", "[rank 3] 3 4 1 --flag value", "node0 29500"]) assert.ok(text.includes(line), text);
});

Deno.test("launch refuses what it cannot run", async () => {
  const { code, text } = await launched(SAY, ["--nproc", "0"]);
  assert.notEqual(code, 0);
  assert.match(text, /whole number of at least 1/);
  assert.match((await launched(SAY, ["--nproc", "1", "--nodes", "2"])).text, /--port is missing/);
  assert.match((await launched(SAY, ["--nproc", "1", "--node-rank", "1"])).text, /--node-rank is 1, it must be below --nodes, 1/);
});
