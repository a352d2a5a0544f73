/** Pages that open from a file, without a network: a mesh and Gaussians to look at, curves to read. */
import { gzipSync } from "fflate";
import type { GaussianCloud } from "../io/ply_gaussians.ts";
import { splatFile } from "../io/splat_file.ts";

/** Options of {@linkcode viewerHtml}. */
export interface ViewerOptions {
  /** A whole GLB file. */
  glb: Uint8Array;
  title: string;
  /** The picture the mesh was made from: a whole PNG or JPEG file. */
  picture?: Uint8Array;
  /** Voxels that can be shown in place of the mesh: coords [N,3] of a grid with `resolution` voxels a side. */
  voxels?: { coords: Int32Array; resolution: number };
  /** Gaussians that can be shown in place of the mesh, in the world's axes. */
  splats?: GaussianCloud;
  /** Rows of the table in the corner. */
  info?: Record<string, string>;
}

/** One curve: `value[i]` at `step[i]`, steps ascending. A value that is not finite is a gap. */
export interface CurveSeries {
  step: readonly number[];
  value: readonly number[];
}

/** Options of {@linkcode curvesHtml}. */
export interface CurvesOptions {
  title?: string;
}

/** The most voxels a side that fit the page's 16-bit coordinates. */
const MAX_RESOLUTION = 65536;
/** Lets a page run its own script and show its own data, and nothing else. */
const POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src data: blob:";
/** And to ask the server that it came from. */
const SERVED_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self'; connect-src 'self'";

/** The same with what draws Gaussians: compiled code and a worker of its own. */
const SPLAT_POLICY = `${POLICY.replace("'unsafe-inline';", "'unsafe-inline' 'wasm-unsafe-eval' blob:;")}; worker-src blob:`;

const COMMON_STYLE = `
:root { color-scheme: light dark; --ink: #1d2733; --paper: #f4f3f0; --low: #d9dad8; --card: #ffffffd9; --line: #0000001f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #30343a; --low: #15171a; --card: #1b1e22d9; --line: #ffffff26; } }
body { margin: 0; color: var(--ink); font: 14px/1.4 system-ui, sans-serif; }
h1 { font-size: 16px; margin: 0 0 6px; overflow-wrap: anywhere; }`;

const VIEWER_STYLE = `
html, body { height: 100%; overflow: hidden; }
body { background: radial-gradient(circle at 50% 35%, var(--paper), var(--low)); }
canvas { position: fixed; inset: 0; width: 100%; height: 100%; display: block; touch-action: none; }
.card { position: fixed; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
#about { top: 14px; left: 14px; max-width: min(320px, 60vw); max-height: calc(100% - 90px); overflow: auto; }
td { padding: 1px 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { opacity: 0.65; padding-right: 12px; white-space: nowrap; }
#picture { top: 14px; right: 14px; padding: 8px; }
#picture img { display: block; max-width: min(220px, 30vw); max-height: 30vh; border-radius: 4px; }
#buttons { bottom: 14px; left: 50%; transform: translateX(-50%); display: flex; gap: 6px; padding: 6px; }
button { font: inherit; color: inherit; background: none; border: 1px solid transparent; border-radius: 6px; padding: 5px 10px; cursor: pointer; }
button { white-space: nowrap; }
button:hover { border-color: var(--line); }
button[aria-pressed=true] { background: var(--ink); color: var(--paper); }
#message { position: fixed; top: 50%; left: 0; right: 0; text-align: center; padding: 0 20px; }`;

const CURVES_STYLE = `
body { background: var(--paper); padding: 16px; }
header { display: flex; flex-wrap: wrap; gap: 6px 24px; align-items: baseline; margin-bottom: 12px; }
label { display: inline-flex; gap: 6px; align-items: center; }
#charts { display: flex; flex-wrap: wrap; gap: 16px; }`;

const DASHBOARD_STYLE = `
body { background: var(--paper); display: grid; grid-template-columns: 300px 1fr; min-height: 100vh; }
nav { padding: 16px; border-right: 1px solid var(--line); background: var(--card); }
main { padding: 16px; min-width: 0; }
header { display: flex; flex-wrap: wrap; gap: 6px 24px; align-items: baseline; margin-bottom: 12px; }
label { display: inline-flex; gap: 6px; align-items: center; }
.run { display: grid; grid-template-columns: auto 1fr auto auto; gap: 8px; padding: 4px 0; font-variant-numeric: tabular-nums; }
.name { overflow-wrap: anywhere; }
.running { color: #2d9d5b; } .silent { color: #c97b22; } .done { opacity: 0.6; }
h2 { font-size: 14px; margin: 0 0 4px; flex-basis: 100%; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin-bottom: 14px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; display: grid; min-width: 90px; }
.tile b { font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; } .tile span { opacity: 0.65; font-size: 12px; }
#charts { display: flex; flex-wrap: wrap; gap: 16px; }
#samples { display: flex; flex-wrap: wrap; gap: 16px; margin-top: 16px; }
figure { margin: 0; } figure img { max-width: 100%; border-radius: 6px; border: 1px solid var(--line); } figcaption { font-size: 12px; opacity: 0.7; }
#message { color: #c4453c; min-height: 1.4em; }
@media (max-width: 760px) { body { grid-template-columns: 1fr; } nav { border-right: 0; } }`;

/** The page of the dashboard, which asks the server it comes from for `api/runs`, `api/series?run=` and `samples/<run>/<file>`. */
export function dashboardHtml(): string {
  const body = [
    `<nav><h1>Runs</h1><div id="runs"></div><div id="message"></div></nav><main><header><h1>Training</h1>`,
    `<label><input type="checkbox" id="log"> logarithmic</label>`,
    `<label>smoothing <input type="range" id="smooth" min="0" max="0.99" step="0.01" value="0"></label></header>`,
    `<div id="facts"></div><div id="charts"></div><div id="samples"></div></main>`,
  ];
  return pageHtml({
    title: "Training",
    style: DASHBOARD_STYLE,
    body: body.join("\n"),
    bundle: "dashboard.bundle.js",
    policy: SERVED_POLICY,
  });
}

/**
 * A page that shows a mesh in any browser, from a file and offline: orbit with the mouse, wireframe, flat shading, colours or clay, Gaussians,
 * voxels, the input picture and a table of facts. Text is escaped; `#wv` at the end of the page's address presses the keys w and v.
 * Throws a RangeError where a voxel lies outside of the resolution.
 */
export function viewerHtml({ glb, title, picture, voxels, splats, info = {} }: ViewerOptions): string {
  const rows = Object.entries(info).map(([name, value]) => `<tr><td>${escapeHtml(name)}</td><td>${escapeHtml(value)}</td></tr>`);
  const kind = picture?.[0] === 0xff ? "image/jpeg" : "image/png";
  const body = [
    `<canvas id="canvas"></canvas>`,
    `<div id="about" class="card"><h1>${escapeHtml(title)}</h1><table id="facts">${rows.join("")}</table></div>`,
    picture ? `<div id="picture" class="card"><img alt="input picture" src="data:${kind};base64,${picture.toBase64()}"></div>` : "",
    `<div id="buttons" class="card"></div><div id="message"></div>`,
    `<script type="text/plain" id="glb">${glb.toBase64()}</script>`,
    splats ? `<script type="text/plain" id="splats">${gzipSync(splatFile(splats), { mtime: 0 }).toBase64()}</script>` : "",
    voxels ? `<script type="text/plain" id="voxels" data-resolution="${voxels.resolution}">${packVoxels(voxels)}</script>` : "",
  ];
  return pageHtml({
    title,
    style: VIEWER_STYLE,
    body: body.join("\n"),
    ...(splats ? { bundle: "viewer_splats.bundle.js", policy: SPLAT_POLICY } : { bundle: "viewer.bundle.js" }),
  });
}

/**
 * A page of training curves, from a file and offline: a chart for each last part of the names, so that `train/loss` and `val/loss` share one;
 * logarithmic y and smoothing can be switched. Throws a RangeError where a series has not as many steps as values.
 */
export function curvesHtml(series: Record<string, CurveSeries>, { title = "Training curves" }: CurvesOptions = {}): string {
  const list = Object.entries(series).map(([name, { step, value }]) => {
    if (step.length !== value.length) {
      throw new RangeError(`Cannot plot ${name}: it has ${value.length} values, it must have one for each of its ${step.length} steps`);
    }
    return { name, step, value };
  });
  const body = [
    `<header><h1>${escapeHtml(title)}</h1><label><input type="checkbox" id="log"> logarithmic</label>`,
    `<label>smoothing <input type="range" id="smooth" min="0" max="0.99" step="0.01" value="0"></label></header><div id="charts"></div>`,
    `<script type="application/json" id="series">${JSON.stringify(list).replaceAll("<", "\\u003c")}</script>`,
  ];
  return pageHtml({ title, style: CURVES_STYLE, body: body.join("\n"), bundle: "curves.bundle.js" });
}

function pageHtml(
  { title, style, body, bundle, policy = POLICY }: { title: string; style: string; body: string; bundle: string; policy?: string },
): string {
  const script = Deno.readTextFileSync(new URL(`./viewer/${bundle}`, import.meta.url));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${COMMON_STYLE}${style}</style>
</head>
<body>
${body}
<script>
${script}</script>
</body>
</html>
`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replaceAll("'", "&#39;");
}

/** The coordinates as 16-bit numbers in base64. */
function packVoxels({ coords, resolution }: { coords: Int32Array; resolution: number }): string {
  if (!(Number.isInteger(resolution) && resolution >= 1 && resolution <= MAX_RESOLUTION)) {
    throw new RangeError(`Cannot show voxels: resolution is ${resolution}, it must be a whole number of 1 to ${MAX_RESOLUTION}`);
  }
  const bad = coords.find((c) => c < 0 || c >= resolution);
  if (bad !== undefined) throw new RangeError(`Cannot show voxels: a coordinate is ${bad}, it must be of 0 to ${resolution - 1}`);
  return new Uint8Array(Uint16Array.from(coords).buffer).toBase64();
}
