/** `--profile` of a training run: some steps are profiled, written as a table and a trace, and the table is said. */
import { writeFileAtomic } from "../io/atomic.ts";
import { chromeTrace, type Profile, profileTable, startProfile } from "../tensor/profile.ts";

/** Steps before the profile begins, and steps in it. */
const WARM_UP = 3, STEPS = 3;

/** Follows a run's steps. */
export interface RunProfile {
  /** To be called after each step, with how many are done since the run began. */
  stepDone(done: number): void;
}

/** Profiles steps 4 to 6 of a run into `folder`: profile.txt, and profile.json for chrome://tracing or ui.perfetto.dev. */
export function profileRun(folder: string, say: (text: string) => void): RunProfile {
  let stop: (() => Profile) | undefined;
  return {
    stepDone(done) {
      if (done === WARM_UP) stop = startProfile();
      if (done !== WARM_UP + STEPS || !stop) return;
      const profile = stop(), table = profileTable(profile, STEPS), encode = (text: string) => new TextEncoder().encode(text + "\n");
      writeFileAtomic(`${folder}/profile.txt`, encode(table));
      writeFileAtomic(`${folder}/profile.json`, encode(chromeTrace(profile)));
      say(`profile of ${STEPS} steps, also in ${folder}/profile.txt; the trace is in ${folder}/profile.json\n${table}`);
    },
  };
}
