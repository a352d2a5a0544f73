/** Which of several processes this one is, as its launcher says: torchrun's names, Slurm's, Open MPI's or PMI's, in this order. */

/** A process's place among those of its job. */
export interface Place {
  /** From 0 to world - 1; rank 0 writes the files. */
  rank: number;
  world: number;
  /** Its number on its machine: which GPU is its own. */
  localRank: number;
  /** Where rank 0 listens, for one that was launched with others. */
  address: string;
  port: number;
  /** Equal for all processes of a job and of no other one, as far as the launcher tells. */
  job: string;
  /** A file through which rank 0 says where it listens, in place of address and port. */
  file?: string;
}

/** The place of a process that is alone. */
export const ALONE: Place = { rank: 0, world: 1, localRank: 0, address: "127.0.0.1", port: 0, job: "" };

type Env = Record<string, string | undefined>;

const NAMES = [
  {
    launcher: "torchrun",
    rank: "RANK",
    world: "WORLD_SIZE",
    local: "LOCAL_RANK",
    job: ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"],
  },
  {
    launcher: "Slurm",
    rank: "SLURM_PROCID",
    world: "SLURM_NTASKS",
    local: "SLURM_LOCALID",
    job: ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"],
  },
  {
    launcher: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    world: "OMPI_COMM_WORLD_SIZE",
    local: "OMPI_COMM_WORLD_LOCAL_RANK",
    job: ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"],
  },
  { launcher: "PMI", rank: "PMI_RANK", world: "PMI_SIZE", local: "MPI_LOCALRANKID", job: ["PMI_JOBID", "PMI_ID_JOB"] },
];

function count(env: Env, name: string, least: number): number {
  const text = env[name]!, value = Number(text);
  if (!/^\d+$/.test(text.trim()) || value < least) {
    throw new RangeError(`Cannot find this process's place: ${name} is "${text}", it must be a whole number of at least ${least}`);
  }
  return value;
}

/** The first machine of Slurm's list, such as node003 of "node[003-005,9],gpu7". */
export function firstHost(list: string): string {
  const [, prefix, inner, rest] = list.match(/^([^,[]+)(?:\[(\d+)[^\]]*\]([^,]*))?/) ?? [];
  if (!prefix) {
    throw new RangeError(`Cannot find rank 0's machine: the list of machines is "${list}", it must be names with commas between them`);
  }
  return prefix + (inner ?? "") + (rest ?? "");
}

/** A 64-bit FNV-1a hash: what processes of one job tell each other apart from others' by. */
export function jobToken(job: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(job)) hash = (hash ^ BigInt(byte)) * 0x100000001b3n & 0xffffffffffffffffn;
  return hash;
}

/** Slurm gives its variables to shells too: only a step of several tasks is a launch. */
function launchedBy(env: Env): typeof NAMES[number] | undefined {
  const interactive = ["bash", "sh", "zsh", "interactive"].includes(env.SLURM_JOB_NAME ?? "");
  return NAMES.find(({ launcher, rank, world }) =>
    env[rank] !== undefined && env[world] !== undefined && !(launcher === "Slurm" && (interactive || env.SLURM_STEP_ID === undefined))
  );
}

/**
 * The place that the environment tells; {@linkcode ALONE} where it tells none. MASTER_ADDR and MASTER_PORT say where rank 0 listens, whatever the
 * launcher; else Slurm's first machine, or this one, and a port made from the job's name. ESPALIER_RENDEZVOUS names a shared file instead.
 */
export function findPlace(env: Env = Deno.env.toObject()): Place {
  const names = launchedBy(env);
  if (!names) return ALONE;
  const world = count(env, names.world, 1), rank = count(env, names.rank, 0);
  if (rank >= world) {
    throw new RangeError(`Cannot find this process's place: ${names.rank} is ${rank}, it must be below ${names.world}, ${world}`);
  }
  const localRank = env[names.local] === undefined ? rank : count(env, names.local, 0);
  const job = names.job.map((name) => env[name] ?? "").join("."), hosts = env.SLURM_JOB_NODELIST ?? env.SLURM_STEP_NODELIST;
  return {
    rank,
    world,
    localRank,
    address: env.MASTER_ADDR || (names.launcher === "Slurm" && hosts ? firstHost(hosts) : "127.0.0.1"),
    port: env.MASTER_PORT ? count(env, "MASTER_PORT", 1) : 20_000 + Number(jobToken(job) % 20_000n),
    job,
    ...(env.ESPALIER_RENDEZVOUS ? { file: env.ESPALIER_RENDEZVOUS } : {}),
  };
}
