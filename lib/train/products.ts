/** The products of a run whose algorithms were chosen by time: chosen once, kept in its folder, taken by all of its processes and whenever it goes on. */
import { communicator } from "../dist/communicator.ts";
import { writeFileAtomic } from "../io/atomic.ts";
import { choicesFit, type ProductChoices, tuneProducts, useChoices } from "../memory/tune.ts";
import { device } from "../tensor/device.ts";

/** Options of {@linkcode openProducts}. */
export interface ProductsOptions {
  /** Whether algorithms are chosen where none are kept yet. */
  tune?: boolean;
  say: (text: string) => void;
}

/**
 * Does the large products of `pass` by the algorithms that `<folder>/products.json` has; with `tune`, those that it does not have are timed and kept
 * there. Rank 0 chooses for all ranks. `pass` is run on a simulated device. What is kept for another GPU or cuBLASLt is passed over, and the log says
 * so: then bits differ from before.
 */
export function openProducts(folder: string, pass: () => unknown, { tune = false, say }: ProductsOptions): void {
  if (device().name !== "cuda") return;
  const ranks = communicator(), file = `${folder}/products.json`;
  const [choices] = ranks.exchange(ranks.rank === 0 ? choose() : null);
  if (choices) useChoices(choices);

  function choose(): ProductChoices | null {
    const kept = readChoices(file), fits = kept && choicesFit(kept);
    if (kept && !fits) {
      const what = tune ? "they are chosen anew" : "they are not used";
      say(`the algorithms of products in ${file} are for ${kept.gpu} and cuBLASLt ${kept.cublasLt}, this is another: ${what}`);
    }
    const known = fits ? kept : undefined;
    if (!tune) return known ?? null;
    const made = tuneProducts(pass, known)!, all = Object.values(made.products);
    writeFileAtomic(file, new TextEncoder().encode(JSON.stringify(made, null, 2) + "\n"));
    const faster = all.filter(({ ms, first }) => ms < first).length;
    say(`${all.length} products by their fastest algorithms, ${faster} of them not the first of the heuristic: ${file}`);
    return made;
  }
}

function readChoices(file: string): ProductChoices | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`Cannot read ${file}: it is not JSON, it must be as a training with --tune wrote it; remove it to choose anew`);
  }
}
