/** Finds shared libraries of the CUDA toolkit: the loader's path, CUDA_HOME, and the usual places. */

/** The folders that CUDA libraries are looked for in, in order; "" stands for the loader's own search. */
export function cudaFolders(): string[] {
  const home = Deno.env.get("CUDA_HOME") ?? Deno.env.get("CUDA_PATH");
  const installed: string[] = [];
  try {
    for (const entry of Deno.readDirSync("/usr/local")) {
      if (/^cuda(-\d|$)/.test(entry.name)) installed.push(`/usr/local/${entry.name}/lib64/`);
    }
  } catch { /* no /usr/local: nothing to add */ }
  const toolkits = installed.sort().reverse();
  return [
    "",
    ...(home ? [`${home}/lib64/`, `${home}/lib/`] : []),
    ...toolkits,
    "/usr/lib/x86_64-linux-gnu/",
    "/usr/lib64/",
    "/opt/cuda/lib64/",
  ];
}

/**
 * Opens the first of `names` (newest first) found in {@linkcode cudaFolders}. Throws an error that lists what was tried when there is none:
 * `what` names the library, `purpose` says what needs it.
 */
export function openCudaLibrary<const S extends Deno.ForeignLibraryInterface>(
  names: string[],
  symbols: S,
  { what, purpose }: { what: string; purpose: string },
): Deno.DynamicLibrary<S>["symbols"] {
  let said = "";
  const folders = cudaFolders();
  for (const folder of folders) {
    for (const name of names) {
      try {
        return Deno.dlopen(folder + name, symbols).symbols;
      } catch (error) {
        const text = (error as Error).message;
        if (!/No such file|cannot open shared object/.test(text)) said ||= text;
      }
    }
  }
  throw new Error(
    `Cannot open ${what}, which ${purpose}: ${names.join(" or ")} is in none of ${
      folders.map((f) => f || "the loader's path").join(", ")
    }` +
      `${
        said ? ` (the system said: ${said})` : ""
      }. Install the CUDA 12 or 13 runtime libraries, or set CUDA_HOME to the toolkit, or use DEVICE=cpu`,
  );
}
