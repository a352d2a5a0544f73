/** What made a file: the version of the code, of its kernels and of Deno. */
import { ABI_VERSION } from "../../ffi/kernels.ts";

/** What a checkpoint says of the code that wrote it. */
export interface CodeVersion {
  espalier: string;
  /** The commit of the checkout; null where there is none. */
  commit: string | null;
  kernels: number;
  deno: string;
}

/** The version of this code. */
export function codeVersion(): CodeVersion {
  const { version } = JSON.parse(Deno.readTextFileSync(new URL("../../deno.json", import.meta.url)));
  return { espalier: version, commit: readCommit(), kernels: ABI_VERSION, deno: Deno.version.deno };
}

/** The commit that is checked out, read without git. */
function readCommit(): string | null {
  try {
    const root = new URL("../../", import.meta.url), read = (url: URL): string => Deno.readTextFileSync(url).trim();
    const folder = Deno.statSync(new URL(".git", root)).isFile
      ? new URL(`${read(new URL(".git", root)).replace("gitdir: ", "")}/`, root) // a linked work tree
      : new URL(".git/", root);
    const head = read(new URL("HEAD", folder));
    if (!head.startsWith("ref: ")) return head;
    const shared = new URL("../../", folder), name = head.slice("ref: ".length);
    for (const place of [folder, shared]) {
      try {
        return read(new URL(name, place));
      } catch { /* packed, or in the other place */ }
    }
    for (const place of [folder, shared]) {
      try {
        const line = read(new URL("packed-refs", place)).split("\n").find((l) => l.endsWith(` ${name}`));
        if (line) return line.split(" ")[0];
      } catch { /* none there */ }
    }
  } catch { /* no checkout */ }
  return null;
}
