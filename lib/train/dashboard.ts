/** The dashboard's server: lists the runs below a folder and hands out their curves and sample pictures, on this machine alone. It only reads. */
import { dashboardHtml } from "../mesh/viewer.ts";
import { formatBytes } from "../tensor/memory.ts";
import { type MetricSeries, readMetrics } from "./metrics.ts";

/** What the page shows of a run. */
export interface DashboardRun {
  /** Its folder below the root. */
  name: string;
  /** Steps that it is to have; null where its config does not say. */
  steps: number | null;
  /** The last step with a record. */
  step: number;
  /** Seconds since its last record. */
  idle: number;
  /** The newest values, as text. */
  facts: Record<string, string>;
  /** Files in samples/, the oldest first. */
  samples: string[];
}

/** A curve of one run: null where a value is not finite. */
export interface DashboardSeries {
  name: string;
  step: number[];
  value: (number | null)[];
}

/** Folders below the root that are looked into, and points that a curve keeps. */
const MAX_DEPTH = 3, MAX_POINTS = 2000;

/** The runs below `root` (or `root` itself), those with the newest records first. A folder that is linked is not entered. */
export function listRuns(root: string): DashboardRun[] {
  const found: { name: string; path: string; time: number }[] = [];
  const look = (path: string, name: string, depth: number): void => {
    let time: Date | null | undefined;
    try {
      time = Deno.statSync(`${path}/metrics.jsonl`).mtime;
    } catch { /* no run */ }
    if (time) found.push({ name: name || ".", path, time: time.getTime() });
    else if (depth < MAX_DEPTH) {
      for (const entry of Deno.readDirSync(path)) {
        if (entry.isDirectory && !entry.name.startsWith(".")) {
          look(`${path}/${entry.name}`, name ? `${name}/${entry.name}` : entry.name, depth + 1);
        }
      }
    }
  };
  look(root, "", 0);
  return found.sort((a, b) => b.time - a.time).map(({ name, path, time }) => describe(name, path, time));
}

function describe(name: string, path: string, time: number): DashboardRun {
  const metrics = readMetrics(`${path}/metrics.jsonl`), last = (key: string): number | undefined => metrics[key]?.value.at(-1);
  const step = Object.values(metrics).reduce((most, s) => Math.max(most, s.step.at(-1) ?? 0), 0);
  const digits = (key: string, count = 4): string | undefined =>
    last(key)?.toPrecision(count).replace(/(\.\d*?)0+(?=$|e)/, "$1").replace(/\.$/, "");
  const used = last("memory_used"), peak = last("memory_peak"), mfu = last("mfu");
  const facts: Record<string, string | undefined> = {
    "loss": digits("loss"),
    "learning rate": digits("lr", 3),
    "gradient norm": digits("grad_norm", 3),
    "samples/s": digits("samples_per_second", 3),
    "MFU": mfu === undefined ? undefined : `${(100 * mfu).toFixed(1)} %`,
    "TFLOP/s": digits("tflops", 3),
    "memory": used === undefined ? undefined : formatBytes(used),
    "peak memory": peak === undefined ? undefined : formatBytes(peak),
  };
  return {
    name,
    steps: stepsOf(path),
    step,
    idle: Math.max(0, Math.round((Date.now() - time) / 1000)),
    facts: Object.fromEntries(Object.entries(facts).filter((f): f is [string, string] => f[1] !== undefined)),
    samples: samplesOf(path),
  };
}

function stepsOf(path: string): number | null {
  try {
    const { steps } = JSON.parse(Deno.readTextFileSync(`${path}/config.json`));
    return typeof steps === "number" ? steps : null;
  } catch {
    return null;
  }
}

function samplesOf(path: string): string[] {
  const step = (name: string): number => Number(name.match(/step(\d+)/)?.[1] ?? 0);
  try {
    const names = [...Deno.readDirSync(`${path}/samples`)].filter((e) => e.isFile && /^[\w.-]+\.png$/.test(e.name)).map((e) => e.name);
    return names.sort((a, b) => step(a) - step(b) || a.localeCompare(b));
  } catch {
    return [];
  }
}

/** The curves of a run, thinned to 2000 points each; the first and the last stay. */
export function seriesOf(name: string, metrics: Record<string, MetricSeries>): DashboardSeries[] {
  return Object.entries(metrics).map(([key, { step, value }]) => {
    const every = Math.ceil(step.length / MAX_POINTS), kept = (_: unknown, i: number): boolean => i % every === 0 || i === step.length - 1;
    return { name: `${name}/${key}`, step: step.filter(kept), value: value.filter(kept).map((v) => Number.isFinite(v) ? v : null) };
  });
}

const HEADERS = { "cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer" };

/** Answers the page's requests about the runs below `root`. What is no run that {@linkcode listRuns} finds, or no sample of it, does not exist. */
export function dashboardHandler(root: string): (request: Request) => Response {
  const page = dashboardHtml();
  const text = (body: string, type: string): Response =>
    new Response(body, { headers: { ...HEADERS, "content-type": `${type}; charset=utf-8` } });
  const missing = (): Response => new Response("not found\n", { status: 404, headers: HEADERS });
  return (request) => {
    const url = new URL(request.url), path = url.pathname;
    if (!/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(request.headers.get("host") ?? url.host)) { // a page elsewhere whose name leads here
      return new Response("this server answers to 127.0.0.1 alone\n", { status: 403, headers: HEADERS });
    }
    if (request.method !== "GET") return new Response("only GET\n", { status: 405, headers: HEADERS });
    if (path === "/") return text(page, "text/html");
    const runs = listRuns(root), folder = (name: string): string => name === "." ? root : `${root}/${name}`;
    if (path === "/api/runs") return text(JSON.stringify(runs), "application/json");
    const known = (name: string | null): DashboardRun | undefined => runs.find((run) => run.name === name);
    if (path === "/api/series") {
      const run = known(url.searchParams.get("run"));
      return run
        ? text(JSON.stringify(seriesOf(run.name, readMetrics(`${folder(run.name)}/metrics.jsonl`))), "application/json")
        : missing();
    }
    const [, name, file] = path.match(/^\/samples\/([^/]+)\/([^/]+)$/)?.map(decode) ?? [], run = known(name ?? null);
    if (!run || !run.samples.includes(file!)) return missing();
    return new Response(Deno.readFileSync(`${folder(run.name)}/samples/${file}`), { headers: { ...HEADERS, "content-type": "image/png" } });
  };
}

function decode(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** Serves the runs below `root` at 127.0.0.1 until the process ends. `port` 0 is any that is free. */
export function serveDashboard(root: string, { port, onListen }: { port: number; onListen: (address: string) => void }): Deno.HttpServer {
  try {
    if (!Deno.statSync(root).isDirectory) throw new Error("it is no folder");
  } catch (cause) {
    throw new Error(`Cannot show the runs in ${root}: the system says "${(cause as Error).message}", it must be a folder of runs`, {
      cause,
    });
  }
  const listen = { hostname: "127.0.0.1", port, onListen: (at: Deno.NetAddr) => onListen(`http://127.0.0.1:${at.port}/`) };
  try {
    return Deno.serve(listen, dashboardHandler(root));
  } catch (cause) {
    if (!(cause instanceof Deno.errors.AddrInUse)) throw cause;
    throw new Error(`Cannot show the runs in ${root}: port ${port} is in use, it must be free; --port 0 takes any`, { cause });
  }
}
