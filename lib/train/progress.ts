/** The live line of a long job: rewritten in place on a terminal, printed now and then elsewhere. */

/** A progress line. */
export interface Progress {
  /** Shows how far the job is: `done` of the total, and what else to say. */
  update(done: number, text: string): void;
  /** Prints a line of its own above the progress line. */
  say(text: string): void;
  /** Ends the line. */
  end(): void;
}

/** `seconds` for people: "1 h 02 min", "3 min 20 s", "12 s". */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const s = Math.round(seconds), two = (v: number) => String(v).padStart(2, "0");
  return s >= 3600
    ? `${Math.floor(s / 3600)} h ${two(Math.floor(s % 3600 / 60))} min`
    : s >= 60
    ? `${Math.floor(s / 60)} min ${two(s % 60)} s`
    : `${s} s`;
}

/** Starts a line for a job of `total` units, of which `first` are done already. Plain output gets a line every `everySeconds`. */
export function startProgress(
  label: string,
  total: number,
  { first = 0, everySeconds = 15 }: { first?: number; everySeconds?: number } = {},
): Progress {
  const terminal = Deno.stderr.isTerminal(), start = performance.now(), encoder = new TextEncoder();
  let shown = -Infinity;
  const write = (text: string): void => void Deno.stderr.writeSync(encoder.encode(text));
  return {
    update(done, text) {
      const now = performance.now();
      if (done < total && now - shown < (terminal ? 100 : everySeconds * 1000)) return;
      shown = now;
      const left = done > first ? (now - start) / 1000 / (done - first) * (total - done) : NaN;
      const line = `${label} ${done}/${total}  ${text}  ETA ${formatSeconds(left)}`;
      write(terminal ? `\r\x1b[2K${line.slice(0, Deno.consoleSize().columns - 1)}` : `${line}\n`);
    },
    say: (text) => write(terminal ? `\r\x1b[2K${text}\n` : `${text}\n`),
    end: () => terminal && write("\n"),
  };
}
