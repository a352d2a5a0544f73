/** Charts of training curves, for the pages that show them. Runs in a browser, from a bundle. */
/// <reference lib="dom" />
import uPlot from "uplot";
import css from "uplot/dist/uPlot.min.css" with { type: "text" };

/** A curve. */
export interface Series {
  name: string;
  step: number[];
  value: (number | null)[];
}

const COLORS = ["#2f7ed8", "#e07b39", "#3c9d5d", "#b0479b", "#c9a227", "#5a6b7b"];
const MIN_CHART_WIDTH = 460, GAP = 16;

/** Series whose names end alike (`train/loss`, `val/loss`) share a chart. */
export function groupByLastPart(series: Series[]): Map<string, Series[]> {
  const groups = new Map<string, Series[]>();
  for (const one of series) {
    const key = one.name.split("/").at(-1)!;
    groups.set(key, [...groups.get(key) ?? [], one]);
  }
  return groups;
}

/** The exponential moving average of a series, free of the pull towards 0 at its start; gaps stay gaps. */
function smooth(values: (number | null)[], strength: number): (number | null)[] {
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = strength * sum + (1 - strength) * value;
    weight = strength * weight + (1 - strength);
    return sum / weight;
  });
}

function shortNumber(y: number): string {
  const [unit, name] = ([[1e9, " G"], [1e6, " M"], [1, ""]] as const).find(([unit]) => Math.abs(y) >= unit) ?? [1, ""];
  return `${Number((y / unit).toPrecision(5))}${name}`;
}

/** A chart of series, as an element of this width. */
export function makeChart(
  title: string,
  series: Series[],
  { width, height = 300, log, strength }: { width: number; height?: number; log: boolean; strength: number },
): HTMLElement {
  const place = document.createElement("div");
  const lines = series.map(({ step, value }) => {
    const shown = smooth(value, strength).map((y) => log && y !== null && y <= 0 ? null : y);
    return [step, shown] as uPlot.AlignedData;
  });
  const ink = getComputedStyle(document.body).color, grid = { stroke: "rgba(128,128,128,0.2)" };
  const axis = { stroke: ink, grid, ticks: grid };
  new uPlot(
    {
      title,
      width,
      height,
      scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
      axes: [axis, {
        ...axis,
        size: 70,
        values: (_: uPlot, ticks: (number | null)[]) => ticks.map((y) => y === null ? "" : shortNumber(y)),
      }],
      series: [
        { label: "step" },
        ...series.map(({ name }, i) => ({
          label: name,
          stroke: COLORS[i % COLORS.length],
          width: 1.5,
          spanGaps: series.length > 1,
          value: (_: uPlot, y: number | null) => y === null || y === undefined ? "–" : shortNumber(y),
        })),
      ],
    },
    lines.length === 1 ? lines[0] : uPlot.join(lines),
    place,
  );
  return place;
}

/** The width of a chart where as many as fit stand beside each other in `place`. */
export function chartWidth(place: HTMLElement, least = MIN_CHART_WIDTH): number {
  const columns = Math.max(1, Math.floor((place.clientWidth + GAP) / (least + GAP)));
  return Math.floor((place.clientWidth - (columns - 1) * GAP) / columns);
}

/** Puts the charts' style into the page. */
export function addChartStyle(): void {
  document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
}
