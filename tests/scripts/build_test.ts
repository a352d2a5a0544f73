import assert from "node:assert/strict";
import { type Project, withProject } from "./project.ts";

/** Stands in for g++ and nvcc: writes the file after -o, fails on a source with FAULT in it, and notes in the file $LOG that it ran. */
const COMPILER = `#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
for word in "$@"; do
  [ "$last" = -o ] && out="$word"
  case "$word" in *.cpp|*.cu) source="$word";; esac
  last="$word"
done
[ -n "$source" ] && grep -q FAULT "$source" && { echo "a fault on line 1"; exit 1; }
echo "made of $source" > "$out"
`;

const SOURCES = {
  "kernels/libraries.json": JSON.stringify({ ops: { cpu: ["add", "mul"], cuda: ["add"] } }),
  "kernels/include/k.h": "// library: all\n",
  "kernels/include/add.h": '// library: ops\n#include "k.h"\n',
  "kernels/cpu/k.cpp": '#include "host.hpp"\n',
  "kernels/cpu/omp.cpp": "",
  "kernels/cpu/host.hpp": '#include "../include/k.h"\n',
  "kernels/cpu/add.cpp": '#include "../include/add.h"\n#include "host.hpp"\n',
  "kernels/cpu/mul.cpp": '#include "host.hpp"\n',
  "kernels/cuda/k.cu": '#include "../include/k.h"\n',
  "kernels/cuda/add.cu": '#include "../include/add.h"\n',
  "cuda/lib64/libcudart_static.a": "",
};

/** A project with two libraries; `build` runs the script with compilers that only copy, and says which commands they ran. */
function withKernels(body: (project: Project, build: (...args: string[]) => { code: number; text: string; ran: string[] }) => void): void {
  withProject(["build.ts", "hash.ts"], (project) => {
    for (const [path, text] of Object.entries(SOURCES)) project.write(path, text);
    for (const name of ["g++", "nvcc"]) {
      project.write(`bin/${name}`, COMPILER);
      Deno.chmodSync(`${project.root}bin/${name}`, 0o755);
    }
    const log = `${project.root}log`;
    body(project, (...args) => {
      Deno.writeTextFileSync(log, "");
      const env = { PATH: `${project.root}bin:${Deno.env.get("PATH")}`, CUDA_HOME: `${project.root}cuda`, LOG: log };
      const outcome = project.run("build.ts", { args, env }), ran = Deno.readTextFileSync(log).trim().split("\n").filter(Boolean);
      return { ...outcome, ran: ran.map((line) => line.match(/^\S+| -c \S+/g)!.join("")) };
    });
  });
}

Deno.test("build makes each library once, and again only what a change touches", () => {
  withKernels(({ root, write }, build) => {
    assert.equal(build("--check").code, 1);
    const first = build();
    assert.equal(first.code, 0, first.text);
    assert.deepEqual(
      first.ran.toSorted(),
      [
        ...["g++", "g++ -c kernels/cpu/add.cpp", "g++ -c kernels/cpu/k.cpp", "g++ -c kernels/cpu/mul.cpp", "g++ -c kernels/cpu/omp.cpp"],
        ...["g++", "nvcc -c kernels/cuda/add.cu", "nvcc -c kernels/cuda/k.cu"],
      ].toSorted(),
    );
    const prebuilt = `${root}kernels/prebuilt/linux-x86_64/`;
    assert.deepEqual([...Deno.readDirSync(prebuilt)].map((e) => e.name).sort(), ["SOURCES", "libops_cpu.so", "libops_cuda.so"]);
    assert.deepEqual(build().ran, []);
    assert.deepEqual(build("--check"), { code: 0, text: "", ran: [] });

    write("kernels/include/add.h", "// library: ops\n// changed\n");
    const stale = build("--check");
    assert.equal(stale.code, 1);
    assert.match(stale.text, /libops_cpu\.so: SOURCES is older than its sources[\s\S]*libops_cuda\.so: /);
    assert.deepEqual(build("ops_cpu").ran, ["g++ -c kernels/cpu/add.cpp", "g++"]);
    assert.doesNotMatch(build("--check").text, /libops_cpu/);
    assert.deepEqual(build().ran, ["nvcc -c kernels/cuda/add.cu", "g++"]);
    write("kernels/cpu/host.hpp", "// changed too\n");
    assert.equal(build("--check").text.match(/libops_\w+/g)!.join(), "libops_cpu");
  });
});

Deno.test("build leaves a library as it is where a source does not compile, and refuses a name that is no library", () => {
  withKernels(({ root, write }, build) => {
    assert.equal(build("ops_cpu").code, 0);
    const file = `${root}kernels/prebuilt/linux-x86_64/libops_cpu.so`, before = Deno.readTextFileSync(file);
    write("kernels/cpu/mul.cpp", "FAULT\n");
    const broken = build("ops_cpu");
    assert.equal(broken.code, 1);
    assert.match(broken.text, /a fault on line 1[\s\S]*Cannot build: "g\+\+ .*mul\.cpp.*" ended with status 1/);
    assert.equal(Deno.readTextFileSync(file), before);
    assert.equal(build("--check", "ops_cpu").code, 1);
    const unknown = build("ops_gpu");
    assert.equal(unknown.code, 2);
    assert.match(unknown.text, /^Cannot build ops_gpu: it is no library, it must be one of ops_cpu, ops_cuda\n$/);
  });
});
