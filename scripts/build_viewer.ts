/**
 * Bundles the pages of lib/mesh/viewer: writes `*.bundle.js` with the SHA-256 of its sources in the first line.
 * `--check` writes nothing and exits with 1 where a bundle was not made from the sources that are here.
 */
import { sha256 } from "./hash.ts";

interface Bundle {
  entry: string;
  output: string;
  /** Files whose change makes the bundle stale. */
  sources: string[];
  /** Packages that are bundled, and whose they are. */
  packages: Partial<Record<"three" | "uplot" | "@sparkjsdev/spark", string>>;
}

const FOLDER = new URL("../lib/mesh/viewer/", import.meta.url);
const THREE = "Copyright © 2010-2026 three.js authors", UPLOT = "Copyright (c) 2022 Leon Sorokin";
const BUNDLES: Bundle[] = [
  { entry: "main.ts", output: "viewer.bundle.js", sources: ["main.ts", "view.ts", "stage.ts"], packages: { three: THREE } },
  {
    entry: "main_splats.ts",
    output: "viewer_splats.bundle.js",
    sources: ["main_splats.ts", "view.ts", "stage.ts"],
    packages: { three: THREE, "@sparkjsdev/spark": "Copyright © 2025 WORLD LABS TECHNOLOGIES, INC." },
  },
  { entry: "curves.ts", output: "curves.bundle.js", sources: ["curves.ts", "chart.ts"], packages: { uplot: UPLOT } },
  { entry: "dashboard.ts", output: "dashboard.bundle.js", sources: ["dashboard.ts", "chart.ts"], packages: { uplot: UPLOT } },
];
/** The MIT License, which all packages carry and ask to be kept with every copy. */
const MIT = `Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in
all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN
THE SOFTWARE.`;
/** Text that would end or break the script a bundle is put into. */
const UNSAFE = /<\/script|<!--/i;

/** The first line of a bundle: what it was made from. */
async function headerOf({ sources, packages }: Bundle): Promise<string> {
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  const names = Object.keys(packages), texts = await Promise.all(sources.map((source) => Deno.readTextFile(new URL(source, FOLDER))));
  const hash = await sha256(new TextEncoder().encode([...names.map((name) => imports[name]), ...texts].join("\0")));
  return `// sources sha256 ${hash} (${names.map((name) => imports[name]).join(", ")}); made by scripts/build_viewer.ts`;
}

async function buildBundle(bundle: Bundle): Promise<void> {
  const temp = await Deno.makeTempFile({ suffix: ".js" });
  try {
    const entry = new URL(bundle.entry, FOLDER).pathname;
    const args = ["bundle", "-q", "--platform", "browser", "--minify", "-o", temp, entry];
    const { success, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    if (!success) throw new Error(`Cannot bundle ${bundle.entry}: ${new TextDecoder().decode(stderr)}`);
    const code = await Deno.readTextFile(temp), unsafe = code.match(UNSAFE)?.[0];
    if (unsafe) throw new Error(`Cannot bundle ${bundle.entry}: it has ${unsafe} in it, it must be fit for a script element`);
    const owners = Object.entries(bundle.packages).map(([name, copyright]) => `${name}, The MIT License\n${copyright}`).join("\n");
    const text = `${await headerOf(bundle)}\n/* ${owners}\n\n${MIT}\n*/\n${code.trimEnd()}\n`;
    await Deno.writeTextFile(new URL(bundle.output, FOLDER), text);
    console.log(`${bundle.output}: ${(text.length / 1024).toFixed(0)} KiB`);
  } finally {
    await Deno.remove(temp);
  }
}

async function isFresh(bundle: Bundle): Promise<boolean> {
  const text = await Deno.readTextFile(new URL(bundle.output, FOLDER)).catch(() => "");
  return text.slice(0, text.indexOf("\n")) === await headerOf(bundle);
}

if (Deno.args.includes("--check")) {
  for (const bundle of BUNDLES) {
    if (await isFresh(bundle)) continue;
    console.error(`${bundle.output} is stale; run: deno run -P=tools scripts/build_viewer.ts`);
    Deno.exitCode = 1;
  }
} else {
  for (const bundle of BUNDLES) await buildBundle(bundle);
}
