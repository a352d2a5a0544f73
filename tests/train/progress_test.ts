import assert from "node:assert/strict";
import { formatSeconds } from "../../lib/train/progress.ts";
import { runProgram } from "../program.ts";

/** What a program that has the progress module at hand writes to a stderr that is no terminal. */
function outputOf(text: string): string {
  const { code, stderr } = runProgram(`import { startProgress } from("lib/train/progress.ts"); ${text}`);
  assert.equal(code, 0, stderr);
  return stderr;
}

Deno.test("formatSeconds() gives the two largest units", () => {
  assert.equal(formatSeconds(0.4), "0 s");
  assert.equal(formatSeconds(59.4), "59 s");
  assert.equal(formatSeconds(59.6), "1 min 00 s");
  assert.equal(formatSeconds(200), "3 min 20 s");
  assert.equal(formatSeconds(3600), "1 h 00 min");
  assert.equal(formatSeconds(3720 + 59), "1 h 02 min");
  assert.equal(formatSeconds(100 * 3600), "100 h 00 min");
  assert.equal(formatSeconds(NaN), "?");
});

Deno.test("startProgress() prints plain lines now and then where stderr is no terminal", () => {
  const text = outputOf(`
    const p = startProgress("job", 4, { everySeconds: 1000 });
    p.update(1, "a");
    p.update(2, "b");
    p.say("hello");
    p.update(3, "c");
    p.update(4, "d");
    p.end();`);
  assert.equal(text.replace(/\d+ s\n/g, "_ s\n"), "job 1/4  a  ETA _ s\nhello\njob 4/4  d  ETA _ s\n");
});

Deno.test("startProgress() reckons the time left from the units of this session alone", () => {
  const text = outputOf(`
    const p = startProgress("job", 1000, { first: 900, everySeconds: 0 });
    p.update(900, "resumed");
    const start = performance.now();
    while (performance.now() - start < 100);
    p.update(901, "one");`);
  assert.equal(text.replace(/\d+ s\n/, "_ s\n"), "job 900/1000  resumed  ETA ?\njob 901/1000  one  ETA _ s\n");
  const [seconds] = text.match(/\d+(?= s\n)/)!;
  assert.ok(Number(seconds) >= 9 && Number(seconds) <= 60, text);
});
