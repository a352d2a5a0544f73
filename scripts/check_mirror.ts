/** Fails where a module of lib/ or ffi/ has no test: tests/<folder>/<name>_test.ts, or one that a test of its folder imports by name. */
import { listFiles, report, ROOT } from "./files.ts";

const tests = listFiles("tests", ["_test.ts"]);
const imported = new Set(
  tests.flatMap((test) =>
    [...Deno.readTextFileSync(ROOT + test).matchAll(/from "(\.[^"]+)"/g)].map(([, to]) => new URL(to, `file:///${test}`).pathname.slice(1))
  ),
);
const faults = [...listFiles("lib", [".ts"]), ...listFiles("ffi", [".ts"])]
  .filter((file) => file !== "ffi/symbols.ts" && !file.includes("/viewer/"))
  .filter((file) => !tests.includes(`tests/${file.replace(/^lib\//, "").replace(/\.ts$/, "_test.ts")}`) && !imported.has(file))
  .filter((file) => /^export (?:async )?(?:function|class)/m.test(Deno.readTextFileSync(ROOT + file)))
  .map((file) =>
    `${file} has no test, it must have tests/${file.replace(/^lib\//, "").replace(/\.ts$/, "_test.ts")} or be imported by a test`
  );
const orphans = tests.filter((test) => {
  const source = test.replace(/^tests\//, "").replace(/_test\.ts$/, ".ts");
  const text = Deno.readTextFileSync(ROOT + test);
  return !["", "lib/"].some((folder) => exists(folder + source)) && !/from "\.[^"]*(lib|ffi|recipes|scripts|kernels|mod)/.test(text);
});

function exists(path: string): boolean {
  try {
    return Deno.statSync(ROOT + path).isFile;
  } catch {
    return false;
  }
}

report("mirror", [...faults, ...orphans.map((test) => `${test} tests nothing of the project`)]);
