/** The same program under the launchers of clusters: Open MPI's mpirun where it is installed, and Slurm's variables. */
import assert from "node:assert/strict";

const ROOT = new URL("../../", import.meta.url).pathname;
const SAY = `import { openCommunicator } from "${ROOT}lib/dist/communicator.ts";
const ranks = openCommunicator({ timeout: 20 });
if (ranks.rank === 0) console.log(`sum ${ranks.exchange(ranks.rank + 1).reduce((a, b) => a + b)} of ${ranks.world}`);
else ranks.exchange(ranks.rank + 1);
ranks.close();`;

async function withProgram(body: (file: string, folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  Deno.writeTextFileSync(`${folder}/say.ts`, SAY);
  try {
    await body(`${folder}/say.ts`, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const deno = (file: string): string[] => ["run", "-q", "-P=train", "--no-check", "--config", `${ROOT}deno.json`, file];
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function hasMpirun(): boolean {
  try {
    return new Deno.Command("mpirun", { args: ["--version"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

Deno.test({
  name: hasMpirun() ? "four ranks under mpirun" : "four ranks under mpirun (skipped: mpirun is not installed)",
  ignore: !hasMpirun(),
  fn: () =>
    withProgram(async (file) => {
      const args = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "4", Deno.execPath(), ...deno(file)];
      const { success, stdout, stderr } = await new Deno.Command("mpirun", { args, env: { DEVICE: "cpu" } }).output();
      assert.ok(success, decode(stderr));
      assert.match(decode(stdout), /sum 10 of 4/);
    }),
});

Deno.test("three tasks of a Slurm step on one machine", () =>
  withProgram(async (file, folder) => {
    const outcomes = await Promise.all([0, 1, 2].map((rank) =>
      new Deno.Command(Deno.execPath(), {
        args: deno(file),
        env: {
          ...{ DEVICE: "cpu", SLURM_JOB_ID: folder, SLURM_STEP_ID: "0", SLURM_JOB_NAME: "espalier", SLURM_JOB_NODELIST: "localhost" },
          ...{ SLURM_PROCID: `${rank}`, SLURM_NTASKS: "3", SLURM_LOCALID: `${rank}` },
        },
      }).output()
    ));
    for (const { success, stderr } of outcomes) assert.ok(success, decode(stderr));
    assert.match(decode(outcomes[0].stdout), /sum 6 of 3/);
  }));
