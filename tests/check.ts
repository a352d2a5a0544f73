/**
 * The one helper of the op tests. {@linkcode checkOp} compares an op with a plain TypeScript reference in f64, and its gradients with finite
 * differences of that reference under a random cotangent. {@linkcode checkDevices} compares CUDA with the CPU at real sizes in f32, f16 and bf16.
 */
import { device, hasCuda } from "../lib/tensor/device.ts";
import type { Memory } from "../lib/tensor/memory.ts";
import { type FloatDType, fromBf16, toBf16 } from "../lib/tensor/dtype.ts";
import { square } from "../lib/ops/elementwise.ts";
import { step, tidy } from "../lib/tensor/scope.ts";
import { type Choice, withChoice } from "../lib/tensor/storage.ts";
import { backward } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";

/** An input's shape and values; `grad: false` for what has no gradient (indices, targets). */
export interface Input {
  shape: number[];
  data: Float32Array<ArrayBuffer>;
  grad?: boolean;
  /** Kept in this dtype in every run of checkDevices; others follow the run's dtype. */
  dtype?: "f32" | "i32" | "u8";
}

/** One op on given inputs. */
export interface OpCase<Names extends string = string> {
  inputs: Record<Names, Input>;
  run(t: Record<Names, Tensor>): Tensor;
  /** The same in f64. */
  reference(a: Record<Names, Float64Array>): ArrayLike<number>;
  rtol?: number;
  atol?: number;
}

/** Reproducible values in [-1, 1), different for every seed. */
export function random(seed: number, size: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(size);
  let s = Math.imul(seed + 1, 0x9e3779b1) >>> 0;
  for (let i = 0; i < size; i++) {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    out[i] = ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  }
  return out;
}

/** Throws, naming the worst element, unless |got - want| <= atol + rtol |want| everywhere. A NaN is never close. */
export function assertClose(what: string, got: ArrayLike<number>, want: ArrayLike<number>, { rtol = 1e-5, atol = 1e-6 } = {}): void {
  if (got.length !== want.length) throw new Error(`${what}: ${got.length} values, it must be ${want.length}`);
  let worst = 0, at = -1;
  for (let i = 0; i < got.length; i++) {
    const over = Math.abs(got[i] - want[i]) / (atol + rtol * Math.abs(want[i]));
    if (!(over <= worst)) {
      worst = over;
      at = i;
      if (Number.isNaN(over)) break;
    }
  }
  if (!(worst <= 1)) throw new Error(`${what}: [${at}] is ${got[at]}, it must be ${want[at]} (${worst.toFixed(2)} x the tolerance)`);
}

/** Throws unless max |got - want| <= tolerance * max |want|: how reference files are compared. */
export function assertNear(what: string, got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): void {
  let scale = 0;
  for (let i = 0; i < want.length; i++) scale = Math.max(scale, Math.abs(want[i]));
  assertClose(what, got, want, { rtol: 0, atol: tolerance * scale || tolerance });
}

const GUARD = 256;

/**
 * Runs `body` with a sentinel behind every buffer that it takes from the device: 256 bytes that nobody may write. Looks at them when a buffer is
 * freed, and throws at the end where one was overwritten.
 */
export function guarded<T>(body: () => T): T {
  const memory = device().memory as { -readonly [K in keyof Memory]: Memory[K] }, { alloc, free } = memory, damaged: string[] = [];
  const pattern = new Uint8Array(GUARD).fill(0xa5), seen = new Uint8Array(GUARD), mine = new Set<bigint>();
  memory.alloc = (bytes) => {
    const address = alloc(bytes + GUARD);
    memory.upload(address + BigInt(bytes), pattern);
    mine.add(address);
    return address;
  };
  memory.free = (address, bytes) => {
    if (!mine.delete(address)) return free(address, bytes);
    memory.download(seen, address + BigInt(bytes));
    const at = seen.findIndex((v) => v !== 0xa5);
    if (at >= 0) damaged.push(`byte ${at} behind a buffer of ${bytes} bytes`);
    free(address, bytes + GUARD);
  };
  let result: T;
  try {
    result = body();
  } finally {
    Object.assign(memory, { alloc, free });
  }
  if (damaged.length) throw new Error(`${damaged.length} buffers were overrun, the first at ${damaged[0]}`);
  return result;
}

/** Checks the forward values and every gradient of `op` on the open device. Small sizes: a finite difference costs two references an element. */
export function checkOp<N extends string>({ inputs, run, reference, rtol = 1e-5, atol = 1e-6 }: OpCase<N>): void {
  const names = Object.keys(inputs) as N[];
  const plain = () => Object.fromEntries(names.map((k) => [k, Float64Array.from(inputs[k].data)])) as Record<N, Float64Array>;
  guarded(() =>
    step(() => {
      const t = Object.fromEntries(names.map((k) => {
        const { shape, data, grad = true, dtype = "f32" } = inputs[k];
        return [k, tensor(data, shape, { dtype, requiresGrad: grad && dtype === "f32" })];
      })) as Record<N, Tensor>;
      const wanted = names.filter((k) => t[k].requiresGrad);
      const y = tidy(() => run(t));
      assertClose("forward", y.read(), reference(plain()), { rtol, atol });
      if (wanted.length === 0) return;
      const dy = random(7, y.size);
      backward(y, tensor(dy, y.shape));
      for (const k of wanted) {
        const want = new Float64Array(inputs[k].data.length), h = 1e-4;
        for (let i = 0; i < want.length; i++) {
          const dot = (d: number) => {
            const a = plain();
            a[k][i] += d;
            const v = reference(a);
            let s = 0;
            for (let j = 0; j < dy.length; j++) s += v[j] * dy[j];
            return s;
          };
          want[i] = (dot(h) - dot(-h)) / (2 * h);
        }
        const g = t[k].grad;
        if (!g) throw new Error(`${k} has no gradient`);
        assertClose(`d${k}`, g.read(), want, { rtol: Math.max(rtol * 20, 1e-4), atol: Math.max(atol * 20, 1e-5) });
      }
    })
  );
  guarded(() => checkRebuilt({ inputs, run }));
}

/** What an op's result is used for must not depend on whether it was kept for the backward pass or made again there. */
function checkRebuilt<N extends string>({ inputs, run }: Pick<OpCase<N>, "inputs" | "run">): void {
  const gradients = (choice: Choice): (Float32Array | undefined)[] =>
    step(() => {
      const t = Object.entries<Input>(inputs).map(([k, { shape, data, grad = true, dtype = "f32" }]) => {
        return [k, tensor(data, shape, { dtype, requiresGrad: grad && dtype === "f32" })] as const;
      });
      const y = withChoice(() => choice, () => tidy(() => square(tidy(() => run(Object.fromEntries(t) as Record<N, Tensor>)))));
      if (y.requiresGrad) backward(y, tensor(random(7, y.size), y.shape));
      return t.map(([, input]) => input.grad?.read());
    });
  const kept = gradients("keep"), rebuilt = gradients("drop");
  if (kept.some((grad, i) => grad?.some((v, j) => !Object.is(v, rebuilt[i]![j])))) {
    throw new Error("the gradients are others where the op's result was made again: its recipe must give the same bits");
  }
}

/** Relative L2 errors that a 16-bit op may show against f32 on the same rounded inputs. */
const DEVICE_TOLERANCE: Record<FloatDType, number> = { f32: 2e-5, f16: 2e-3, bf16: 1.5e-2 };

function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let difference = 0, norm = 0;
  for (let i = 0; i < want.length; i++) {
    if (!Number.isFinite(got[i])) return NaN;
    difference += (got[i] - want[i]) ** 2;
    norm += want[i] ** 2;
  }
  return Math.sqrt(difference) / (Math.sqrt(norm) || 1);
}

/** A case without a reference: the CPU library is one. */
export type DeviceCase<N extends string = string> = Omit<OpCase<N>, "reference"> & {
  /** By default all three. */
  dtypes?: FloatDType[];
  /** Overrides the relative L2 error allowed in a dtype. */
  tolerance?: Partial<Record<FloatDType, number>>;
};

const ROUND: Record<FloatDType, (a: Float32Array<ArrayBuffer>) => Float32Array<ArrayBuffer>> = {
  f32: (a) => a,
  f16: (a) => Float32Array.from(Float16Array.from(a)),
  bf16: (a) => fromBf16(toBf16(a)),
};

interface Outcome {
  y: Float32Array;
  grads: Record<string, Float32Array>;
}

/** Output and gradients of a case in `dtype` on the open device. */
export function runCase<N extends string>({ inputs, run }: DeviceCase<N>, dtype: FloatDType): Outcome {
  return guarded(() =>
    step(() => {
      const t = Object.fromEntries(
        (Object.entries(inputs) as [N, Input][]).map(([k, { shape, data, grad = true, dtype: fixed }]) => {
          const kind = fixed ?? dtype;
          return [
            k,
            tensor(kind === dtype ? ROUND[dtype](data) : data, shape, {
              dtype: kind,
              requiresGrad: grad && kind !== "i32" && kind !== "u8",
            }),
          ];
        }),
      ) as Record<N, Tensor>;
      const y = tidy(() => run(t));
      const out: Outcome = { y: y.read(), grads: {} };
      if (y.requiresGrad) {
        const rounding = y.dtype === "f16" || y.dtype === "bf16" ? ROUND[y.dtype] : ROUND.f32;
        backward(y, tensor(rounding(random(7, y.size)), y.shape, { dtype: y.dtype }));
        for (const k of Object.keys(t) as N[]) if (t[k].grad) out.grads[k] = t[k].grad!.read();
      }
      return out;
    })
  );
}

/**
 * Registers tests that run `op` on CUDA in each dtype and compare output and gradients with the CPU library in f32 on the same rounded inputs
 * (computed in a process of its own, since a process has one device). Twice on CUDA must agree to the bit. Skips where there is no GPU.
 * `file` is `import.meta.url` of the test, `name` must be unique in it.
 */
export function checkDevices<N extends string>(name: string, file: string, op: DeviceCase<N>): void {
  const dtypes = op.dtypes ?? ["f32", "f16", "bf16"];
  if (Deno.env.get("ESPALIER_CASE") === `${file}#${name}`) return answer(op, dtypes);
  if (Deno.env.get("ESPALIER_CASE")) return;
  for (const dtype of dtypes) {
    Deno.test({
      name: `${name} on CUDA agrees with the CPU in ${dtype}`,
      ignore: !hasCuda() || device().name !== "cuda",
      fn: async () => {
        const want = await reference(file, name, dtype), got = runCase(op, dtype), again = runCase(op, dtype);
        const limit = op.tolerance?.[dtype] ?? DEVICE_TOLERANCE[dtype];
        const compare = (what: string, a: Float32Array, b: Float32Array, c: Float32Array) => {
          const error = relativeError(a, b);
          if (!(error <= limit)) throw new Error(`${what}: the relative L2 error is ${error}, it must be at most ${limit}`);
          for (let i = 0; i < a.length; i++) {
            if (!Object.is(a[i], c[i])) throw new Error(`${what}: [${i}] is ${a[i]}, then ${c[i]}: two runs must agree to the bit`);
          }
        };
        compare("forward", got.y, want.y, again.y);
        for (const k of Object.keys(want.grads)) compare(`d${k}`, got.grads[k], want.grads[k], again.grads[k]);
      },
    });
  }
}

const answers = new Map<string, Promise<Record<string, Outcome>>>();

/** The CPU's outcome of a case, from a child process that runs the test file's case with DEVICE=cpu. */
async function reference(file: string, name: string, dtype: FloatDType): Promise<Outcome> {
  const key = `${file}#${name}`;
  const all = answers.get(key) ?? (async () => {
    const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-q", "-P=test", file],
      env: { DEVICE: "cpu", ESPALIER_CASE: key },
      stdout: "piped",
      stderr: "piped",
    }).output();
    if (!success) throw new Error(`Cannot run ${name} on the CPU: ${new TextDecoder().decode(stderr)}`);
    return decode(stdout);
  })();
  answers.set(key, all);
  return (await all)[dtype];
}

/** In the child: writes the outcomes as one JSON line of layout and the values behind it. */
function answer<N extends string>(op: DeviceCase<N>, dtypes: FloatDType[]): void {
  const layout: { dtype: string; what: string; size: number }[] = [], parts: Float32Array[] = [];
  for (const dtype of dtypes) {
    const rounded = Object.fromEntries(
      (Object.entries(op.inputs) as [N, Input][]).map((
        [k, input],
      ) => [k, { ...input, data: input.dtype ? input.data : ROUND[dtype](input.data) }]),
    ) as Record<N, Input>;
    const { y, grads } = runCase({ ...op, inputs: rounded }, "f32");
    for (const [what, values] of [["y", y], ...Object.entries(grads)] as [string, Float32Array][]) {
      layout.push({ dtype, what, size: values.length });
      parts.push(values);
    }
  }
  const head = new TextEncoder().encode(JSON.stringify(layout) + "\n");
  writeAll(head);
  for (const p of parts) writeAll(new Uint8Array(p.buffer, p.byteOffset, p.byteLength));
}

function writeAll(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

function decode(bytes: Uint8Array): Record<string, Outcome> {
  const end = bytes.indexOf(10), out: Record<string, Outcome> = {};
  let at = end + 1;
  for (
    const { dtype, what, size } of JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))) as {
      dtype: string;
      what: string;
      size: number;
    }[]
  ) {
    const values = new Float32Array(bytes.slice(at, at += size * 4).buffer);
    out[dtype] ??= { y: values, grads: {} };
    if (what === "y") out[dtype].y = values;
    else out[dtype].grads[what] = values;
  }
  return out;
}
