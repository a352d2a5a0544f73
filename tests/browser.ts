/** A headless Chromium for tests of pages, by the DevTools protocol. */
import { type Image, readImage } from "../lib/io/image.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell"];
const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
  ...["--ignore-gpu-blocklist", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0"],
];

/** The path of an installed Chromium: the variable CHROMIUM, or one on the PATH; undefined where there is none. */
export function findChromium(): string | undefined {
  const named = Deno.env.get("CHROMIUM");
  if (named) return named;
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    for (const name of NAMES) {
      try {
        if (Deno.statSync(`${folder}/${name}`).isFile) return `${folder}/${name}`;
      } catch { /* not here */ }
    }
  }
  return undefined;
}

/** Sends commands to one page. */
interface Page {
  send(method: string, params?: Record<string, unknown>): Promise<Record<string, unknown>>;
  close(): void;
}

function connect(address: string): Promise<Page> {
  const socket = new WebSocket(address), waiting = new Map<number, (result: Record<string, unknown>) => void>();
  let next = 1;
  socket.onmessage = ({ data }) => {
    const { id, result, error } = JSON.parse(data);
    waiting.get(id)?.(result ?? { error });
    waiting.delete(id);
  };
  const page: Page = {
    send(method, params = {}) {
      const id = next++;
      socket.send(JSON.stringify({ id, method, params }));
      return new Promise((resolve) => waiting.set(id, resolve));
    },
    close: () => socket.close(),
  };
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(page);
    socket.onerror = () => reject(new Error(`Cannot reach ${address}`));
  });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The address that a browser says it listens at, from what it writes on its error stream. */
async function addressOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let text = "";
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`Cannot start the browser: ${text.slice(-300)}`);
    text += value;
    const found = text.match(/DevTools listening on ws:\/\/([\w.:]+)/);
    if (!found) continue;
    (async () => {
      while (!(await reader.read()).done);
    })(); // or it waits for a reader
    return found[1];
  }
}

/**
 * What a page looks like once its body's `data-state` is no longer empty and the picture is as `accept` wants it, or else after `seconds`; and that
 * state. `hash` are the keys it is to press.
 */
export async function screenshot(
  page: string,
  { hash = "", size = [640, 480] as const, seconds = 120, accept = () => true }: {
    hash?: string;
    size?: readonly [number, number];
    seconds?: number;
    accept?: (picture: Image) => boolean;
  } = {},
): Promise<{ picture: Image; state: string; message: string }> {
  const folder = Deno.makeTempDirSync({ prefix: "espalier_browser_" }), [width, height] = size;
  Deno.writeTextFileSync(`${folder}/page.html`, page);
  const child = new Deno.Command(findChromium()!, {
    args: [
      ...FLAGS,
      ...(Deno.env.get("CHROMIUM_FLAGS") ?? "").split(" ").filter(Boolean),
      `--user-data-dir=${folder}/profile`,
      "about:blank",
    ],
    stdout: "null",
    stderr: "piped",
  }).spawn();
  try {
    const host = await addressOf(child.stderr), list = await (await fetch(`http://${host}/json/list`)).json();
    const tab = await connect(list.find((t: { type: string }) => t.type === "page").webSocketDebuggerUrl);
    const value = async (expression: string): Promise<string> => {
      const { result } = await tab.send("Runtime.evaluate", { expression }) as { result?: { value?: string } };
      return result?.value ?? "";
    };
    await tab.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    await tab.send("Page.navigate", { url: `file://${folder}/page.html${hash ? "#" + hash : ""}` });
    const start = Date.now();
    let state = "";
    while (!state && Date.now() - start < seconds * 1000) {
      await sleep(200);
      state = await value("document.body?.dataset.state ?? ''");
    }
    const capture = async (): Promise<Image> => {
      const { data } = await tab.send("Page.captureScreenshot", { format: "png" }) as { data: string };
      Deno.writeFileSync(`${folder}/shot.png`, Uint8Array.fromBase64(data));
      return readImage(`${folder}/shot.png`);
    };
    let picture = await capture();
    while (!accept(picture) && Date.now() - start < seconds * 1000) {
      await sleep(500);
      picture = await capture();
    }
    const message = await value("document.getElementById('message')?.textContent ?? ''");
    tab.close();
    return { picture, state, message };
  } finally {
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await child.status;
    Deno.removeSync(folder, { recursive: true });
  }
}
