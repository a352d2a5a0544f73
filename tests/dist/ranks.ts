/** Runs one program as the ranks of a job, and what each of them did. */
import { openCudart, probeCuda } from "../../ffi/cudart.ts";
import { program } from "../program.ts";

/** GPUs that this process sees. */
export function countGpus(): number {
  if (!probeCuda().available) return 0;
  const count = new Int32Array(1);
  openCudart().cudaGetDeviceCount(count);
  return count[0];
}

/** Whether Open MPI is here. */
export function hasMpirun(): boolean {
  try {
    return new Deno.Command("mpirun", { args: ["--version"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** What a rank did. */
export interface RankOutcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `code` (see program.ts) as `world` ranks that meet through a file. In it `rank`, `world` and `ranks`, an open communicator, are there. */
export async function runRanks(
  world: number,
  code: string,
  { timeout = 20, device = "cpu", args = [], env: more = {} }: {
    timeout?: number;
    device?: "cpu" | "cuda";
    args?: string[];
    env?: Record<string, string>;
  } = {},
): Promise<RankOutcome[]> {
  const folder = Deno.makeTempDirSync(), decoder = new TextDecoder();
  const head = `
    import { openCommunicator } from("lib/dist/communicator.ts");
    import { findPlace } from("lib/dist/place.ts");
    import { openDevice } from("lib/tensor/device.ts");
    openDevice("${device}", { ordinal: findPlace().localRank });
    const ranks = openCommunicator({ timeout: ${timeout} }), { rank, world } = ranks;
  `;
  try {
    return await Promise.all(Array.from({ length: world }, async (_, rank) => {
      const env = {
        ...{ RANK: `${rank}`, WORLD_SIZE: `${world}`, LOCAL_RANK: `${rank}` },
        ...{ TORCHELASTIC_RUN_ID: folder, ESPALIER_RENDEZVOUS: `${folder}/meet` },
        ...more,
      };
      const { code: status, stdout, stderr } = await program(head + code, { env, args }).output();
      return { code: status, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
    }));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
