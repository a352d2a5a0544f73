import assert from "node:assert/strict";
import { ALONE, findPlace, firstHost, jobToken } from "../../lib/dist/place.ts";
import { hasMpirun } from "./ranks.ts";

Deno.test("a process that no launcher started is alone", () => {
  assert.equal(findPlace({}), ALONE);
  assert.equal(findPlace({ SLURM_JOB_ID: "7", SLURM_PROCID: "0", SLURM_NTASKS: "4", SLURM_JOB_NAME: "bash", SLURM_STEP_ID: "0" }), ALONE);
  assert.equal(findPlace({ SLURM_JOB_ID: "7", SLURM_PROCID: "0", SLURM_NTASKS: "4" }), ALONE); // a batch script, not a step
});

Deno.test("torchrun's variables come first", () => {
  const place = findPlace({
    ...{ RANK: "3", WORLD_SIZE: "4", LOCAL_RANK: "1", MASTER_ADDR: "gpu1", MASTER_PORT: "29500", TORCHELASTIC_RUN_ID: "r" },
    ...{ OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "2" },
  });
  assert.deepEqual(place, { rank: 3, world: 4, localRank: 1, address: "gpu1", port: 29500, job: "r." });
});

Deno.test("Slurm's variables, with its first machine and a port of the job", () => {
  const env = {
    ...{ SLURM_JOB_ID: "12", SLURM_STEP_ID: "0", SLURM_PROCID: "5", SLURM_NTASKS: "8", SLURM_LOCALID: "1" },
    SLURM_JOB_NODELIST: "node[003-005,9],gpu7",
  };
  const place = findPlace(env), other = findPlace({ ...env, SLURM_JOB_ID: "13" });
  assert.deepEqual([place.rank, place.world, place.localRank, place.address], [5, 8, 1, "node003"]);
  assert.ok(place.port >= 20_000 && place.port < 40_000 && place.port !== other.port);
  assert.equal(findPlace({ ...env, MASTER_ADDR: "10.0.0.1", MASTER_PORT: "4000" }).port, 4000);
});

Deno.test("Open MPI's and PMI's variables", () => {
  const mpi = { OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "2", OMPI_COMM_WORLD_LOCAL_RANK: "1", PMIX_NAMESPACE: "a" };
  assert.deepEqual([findPlace(mpi).rank, findPlace(mpi).world, findPlace(mpi).job], [1, 2, "a."]);
  const pmi = findPlace({ PMI_RANK: "2", PMI_SIZE: "3", ESPALIER_RENDEZVOUS: "/shared/meet" });
  assert.deepEqual([pmi.rank, pmi.world, pmi.localRank, pmi.file], [2, 3, 2, "/shared/meet"]);
});

Deno.test("places that make no sense are refused", () => {
  assert.throws(
    () => findPlace({ RANK: "4", WORLD_SIZE: "4" }),
    /Cannot find this process's place: RANK is 4, it must be below WORLD_SIZE, 4/,
  );
  assert.throws(() => findPlace({ RANK: "-1", WORLD_SIZE: "4" }), /RANK is "-1", it must be a whole number of at least 0/);
  assert.throws(() => findPlace({ RANK: "0", WORLD_SIZE: "two" }), /WORLD_SIZE is "two"/);
});

Deno.test("the first of Slurm's machines", () => {
  assert.equal(firstHost("node[003-005,9],gpu7"), "node003");
  assert.equal(firstHost("gpu7,gpu8"), "gpu7");
  assert.equal(firstHost("rack1-n[12,14]-ib"), "rack1-n12-ib");
  assert.throws(() => firstHost(""), /the list of machines is ""/);
});

Deno.test("tokens of jobs differ", () => {
  assert.equal(jobToken(""), 0xcbf29ce484222325n);
  assert.equal(jobToken("a"), 0xaf63dc4c8601ec8cn);
  assert.notEqual(jobToken("1.0"), jobToken("1.1"));
});

const ROOT = new URL("../../", import.meta.url).pathname;
const SAY = `import { openCommunicator } from "${ROOT}lib/dist/communicator.ts";
const ranks = openCommunicator({ timeout: 20 });
if (ranks.rank === 0) console.log("sum " + ranks.exchange(ranks.rank + 1).reduce((a, b) => a + b) + " of " + ranks.world);
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
