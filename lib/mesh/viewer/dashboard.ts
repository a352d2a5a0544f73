/** The page of the dashboard: asks its server for the runs, their curves and sample pictures, again every two seconds. Runs in a browser, from a bundle. */
/// <reference lib="dom" />
import { addChartStyle, chartWidth, groupByLastPart, makeChart, type Series } from "./chart.ts";

/** A run as the server lists it. */
interface RunInfo {
  name: string;
  steps: number | null;
  step: number;
  /** Seconds since it wrote a record. */
  idle: number;
  facts: Record<string, string>;
  samples: string[];
}

const POLL_MS = 2000, CHART_HEIGHT = 230, LEAST_WIDTH = 380, STALE_SECONDS = 120;
/** Charts that come first, in this order; the others follow by name. */
const FIRST = [
  "loss",
  "held_out",
  "lr",
  "grad_norm",
  "samples_per_second",
  "mfu",
  "tflops",
  "memory_used",
  "memory_peak",
  "memory",
  "memory_predicted",
  "remade_share",
  "skipped",
  "log_scale",
];

const element = <T extends HTMLElement = HTMLElement>(id: string): T => document.getElementById(id) as T;
const chosen = new Set<string>();
let runs: RunInfo[] = [], series: Series[] = [], seen = "", firstTime = true;

function make(tag: string, text = "", attributes: Record<string, string> = {}): HTMLElement {
  const made = Object.assign(document.createElement(tag), { textContent: text });
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function stateOf({ step, steps, idle }: RunInfo): string {
  return steps !== null && step >= steps ? "done" : idle > STALE_SECONDS ? "silent" : "running";
}

function showRuns(): void {
  const list = element("runs");
  list.replaceChildren(...runs.map((run) => {
    const row = make("label", "", { class: "run" }), box = make("input", "", { type: "checkbox" }) as HTMLInputElement;
    box.checked = chosen.has(run.name);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(run.name);
      else chosen.delete(run.name);
      void refresh();
    });
    const state = stateOf(run);
    row.append(
      box,
      make("span", run.name, { class: "name" }),
      make("span", `${run.step}${run.steps ? ` / ${run.steps}` : ""}`),
      make("span", state, { class: state }),
    );
    return row;
  }));
  if (!runs.length) list.append(make("p", "No run yet: a run appears with its first record."));
}

function showFacts(): void {
  const shown = runs.filter((run) => chosen.has(run.name));
  element("facts").replaceChildren(...shown.map((run) => {
    const card = make("div", "", { class: "facts" });
    card.append(make("h2", run.name));
    for (const [name, value] of Object.entries(run.facts)) {
      const tile = make("div", "", { class: "tile" });
      tile.append(make("b", value), make("span", name));
      card.append(tile);
    }
    return card;
  }));
}

function showCharts(): void {
  const place = element("charts"),
    log = element<HTMLInputElement>("log").checked,
    strength = Number(element<HTMLInputElement>("smooth").value);
  const rank = (name: string): number =>
    (FIRST.indexOf(name) + FIRST.length + 1) % (FIRST.length + 1) || (FIRST.includes(name) ? 0 : FIRST.length);
  const groups = [...groupByLastPart(series)].sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b));
  const options = { width: chartWidth(place, LEAST_WIDTH), height: CHART_HEIGHT, log, strength };
  place.replaceChildren(...groups.map(([title, list]) => makeChart(title, list, options)));
}

function showSamples(): void {
  const pictures = runs.filter((run) => chosen.has(run.name)).flatMap((run) =>
    run.samples.slice(-3).reverse().map((file) => {
      const figure = make("figure"), address = `samples/${encodeURIComponent(run.name)}/${encodeURIComponent(file)}`;
      figure.append(
        make("img", "", { src: address, alt: file, loading: "lazy" }),
        make("figcaption", `${run.name}: ${file.replace(/\.png$/, "")}`),
      );
      return figure;
    })
  );
  element("samples").replaceChildren(...pictures);
}

async function ask<T>(path: string): Promise<T> {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`the server says ${answer.status}`);
  return await answer.json();
}

async function refresh(): Promise<void> {
  try {
    runs = await ask<RunInfo[]>("api/runs");
    if (firstTime && runs.length) {
      const asked = new URLSearchParams(location.hash.slice(1)).getAll("run");
      for (const { name } of asked.length ? runs.filter((run) => asked.includes(run.name)) : runs.slice(0, 1)) chosen.add(name);
      firstTime = false;
    }
    showRuns();
    const now = JSON.stringify([
      [...chosen],
      runs.filter((run) => chosen.has(run.name)).map(({ name, step, samples }) => [name, step, samples]),
    ]);
    showFacts();
    if (now !== seen) {
      const lists = await Promise.all([...chosen].map((name) => ask<Series[]>(`api/series?run=${encodeURIComponent(name)}`)));
      series = lists.flat();
      seen = now;
      showCharts();
      showSamples();
    }
    element("message").textContent = "";
  } catch (error) {
    element("message").textContent = `The server does not answer (${(error as Error).message}); asking again.`;
  }
  document.body.dataset.state = "ready";
}

addChartStyle();
for (const id of ["log", "smooth"]) element(id).addEventListener("input", showCharts);
addEventListener("resize", showCharts);
void refresh();
setInterval(() => void refresh(), POLL_MS);
