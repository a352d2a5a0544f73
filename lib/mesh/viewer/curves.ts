/** The page of curvesHtml: plots the series that stand in it. Runs in a browser, from a bundle. */
/// <reference lib="dom" />
import { addChartStyle, chartWidth, groupByLastPart, makeChart } from "./chart.ts";

function show(): void {
  addChartStyle();
  const groups = groupByLastPart(JSON.parse(document.getElementById("series")!.textContent!));
  const charts = document.getElementById("charts")!, log = document.getElementById("log") as HTMLInputElement;
  const smoothing = document.getElementById("smooth") as HTMLInputElement;
  const draw = (): void => {
    const options = { width: chartWidth(charts), log: log.checked, strength: Number(smoothing.value) };
    charts.replaceChildren(...[...groups].map(([title, series]) => makeChart(title, series, options)));
    document.body.dataset.state = "ready";
  };
  log.addEventListener("change", draw);
  smoothing.addEventListener("input", draw);
  addEventListener("resize", draw);
  log.checked = location.hash === "#log";
  draw();
}

show();
