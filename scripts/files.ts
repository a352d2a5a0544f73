/** The project's own files, as the checks see them. */

/** The project's root, with a slash at its end. */
export const ROOT: string = decodeURIComponent(new URL("../", import.meta.url).pathname);

const SKIPPED = new Set([".git", ".gpu", ".build", "node_modules", "out", "runs", "prebuilt", "results"]);

/** Paths below `folder` (relative to the root) with one of the endings, sorted. */
export function listFiles(folder: string, endings: string[]): string[] {
  const found: string[] = [];
  const visit = (path: string): void => {
    for (const entry of Deno.readDirSync(ROOT + path)) {
      const child = path ? `${path}/${entry.name}` : entry.name;
      if (entry.isDirectory && !SKIPPED.has(entry.name)) visit(child);
      else if (entry.isFile && endings.some((e) => entry.name.endsWith(e))) found.push(child);
    }
  };
  try {
    visit(folder);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return found.sort();
}

/** Prints what is wrong and ends with status 1, or says that all is well. */
export function report(check: string, faults: string[]): void {
  for (const fault of faults) console.error(fault);
  if (faults.length) Deno.exit(1);
  console.error(`${check}: ok`);
}
