/** What ends the preparation of a whole dataset. */

/** The dataset cannot be written (a full disk, a folder without permission): no object will fare better. */
export class OutputError extends Error {
  override name = "OutputError";
}

/** What `write` returns; what it throws becomes an {@linkcode OutputError}. */
export function writing<T>(write: () => T): T {
  try {
    return write();
  } catch (error) {
    throw new OutputError((error as Error).message, { cause: error });
  }
}
