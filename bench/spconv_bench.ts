/**
 * Times submanifold convolutions of 3³ taps on sphere shells on CUDA: forward, both gradients together and apart, and the building of their map
 * from voxels in order and in any order, in medians of CUDA events, beside FlexGEMM in the same run (where python3 has it), and writes
 * bench/results/spconv.json. Useful work alone is counted: 2 pairs Cin Cout a pass.
 *
 *   deno task bench bench/spconv_bench.ts
 */
import { partsFor, type Places, spconv, type SpconvMap, spconvMap, spconvTable } from "../lib/ops/spconv.ts";
import { Generator } from "../lib/tensor/random.ts";
import { step } from "../lib/tensor/scope.ts";
import { backward, noGrad } from "../lib/tensor/tape.ts";
import { type Tensor, tensor } from "../lib/tensor/tensor.ts";
import { shells } from "./shells.ts";
import { benchmark, fastest, measured, type PeerTime, type Row, time, timePeers } from "./harness.ts";

/** Dense 16-bit TFLOP/s of an H100 or H200 by its data sheet, and the bytes a second that an H200 copies at. */
const LIMIT = 989, BANDWIDTH = 4.3e12;
/** Bytes a row of 27 taps that the map's results have, written once: table, order and about 13 pairs. */
const MAP_BYTES = 27 * 4 + 4 + 13 * 8;

type FloatType = "f16" | "bf16";

/** Maps take six to eight launches and nine allocations: how often they are timed, and how long a head start the host has. */
const MAP_RUNS = 41, MAP_SPACERS = 32;

/** One convolution of Cin to Cout channels on shells that fill grids of `sides`. */
function convolution(peers: PeerTime[], name: string, sides: number[], Cin: number, Cout: number, dtype: FloatType): Row[] {
  return step(() => {
    const coords = shells(sides), N = coords.length / 4, random = new Generator(1), options = { dtype };
    const at: Places = { coords: tensor(coords, [N, 4], { dtype: "i32" }), B: sides.length, side: Math.max(...sides) };
    const build = (places: Places): SpconvMap => {
      const map = spconvMap(spconvTable(places, places, { kernel: 3, padding: 1 }));
      map.walk(partsFor(map.table, Cin));
      map.pairs();
      return map;
    };
    const map = build(at), pairs = map.pairs().offsets.read()[27], tflop = 2 * pairs * Cin * Cout / 1e12;
    const x = random.normal([N, Cin], options), bias = random.normal([Cout], options);
    const weight = random.normal([Cout, 3, 3, 3, Cin], options), run = (): Tensor => spconv(x, weight, bias, map);
    const dy = random.normal([N, Cout], options);
    const rate = (pass: string, ms: number, work: number): Row => {
      const ours = 1e3 * work / ms, peer = fastest(peers, `${name} ${pass}`);
      const beside = peer && { peer: 1e3 * work / peer.ms, peer_name: peer.name, ratio: peer.ms / ms };
      return measured({
        case: `${name} ${pass}`,
        metric: "rate",
        unit: "TFLOP/s",
        ours,
        limit: LIMIT,
        fraction_of_limit: ours / LIMIT,
        ...beside,
      });
    };
    const gradients = (dx: boolean, dw: boolean): number =>
      time(() => {
        for (const t of [x, weight]) t.grad = null;
        x.requiresGrad = dx;
        weight.requiresGrad = dw;
        return run();
      }, (y) => backward(y, dy));
    const rows = [
      rate("forward", time(() => {}, () => void noGrad(run)), tflop),
      rate("backward", gradients(true, true), 2 * tflop),
      rate("input gradient", gradients(true, false), tflop),
      rate("weight gradient", gradients(false, true), tflop),
    ];
    const mapping = (name: string, places: Places): Row => {
      const ms = time(() => {}, () => void build(places), MAP_RUNS, MAP_SPACERS), peer = fastest(peers, name);
      const limit = 1e6 * N * MAP_BYTES / BANDWIDTH;
      const beside = peer && { peer: 1e3 * peer.ms, peer_name: peer.name, ratio: peer.ms / ms };
      return measured({ case: name, metric: "time", unit: "µs", ours: 1e3 * ms, limit, fraction_of_limit: limit / (1e3 * ms), ...beside });
    };
    const mixed = { ...at, coords: tensor(mix(coords), [N, 4], { dtype: "i32" }) };
    return [...rows, mapping(`${name} map`, at), mapping(`${name} map, any order`, mixed)];
  });
}

/** The rows of `coords` in an order drawn at random. */
function mix(coords: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const mixed = coords.slice(), draws = step(() => new Generator(2).uniform([coords.length / 4]).read());
  for (let n = draws.length - 1; n > 0; n--) {
    const from = 4 * Math.floor(draws[n] * n), row = mixed.slice(4 * n, 4 * n + 4);
    mixed.copyWithin(4 * n, from, from + 4);
    mixed.set(row, from);
  }
  return mixed;
}

const TABLE = [[32, 1024], [64, 128], [64, 1024], [128, 512], [256, 256], [512, 128]];
/** Grids whose shells have 16,000 to 20,000 voxels. */
const BATCH = [66, 67, 68, 69, 70, 71, 72, 73];
/** The side, Cin and Cout of SLat-Flow's convolutions, of which a batch of 4 has 60,768 and 15,360 voxels here. */
const SLAT_FLOW = [[64, 128, 128], [64, 2048, 128], [32, 128, 1024], [32, 1024, 1024]];

benchmark("spconv", () => {
  const peers = timePeers("spconv");
  return [
    ...(["f16", "bf16"] as const).flatMap((dtype) => [
      ...TABLE.flatMap(([side, C]) => convolution(peers, `${dtype} ${side}³ C ${C}`, [side], C, C, dtype)),
      ...[64, 128, 256, 512, 1024].flatMap((C) => convolution(peers, `${dtype} batch of 8 C ${C}`, BATCH, C, C, dtype)),
    ]),
    ...SLAT_FLOW.flatMap(([side, Cin, Cout]) =>
      convolution(peers, `f16 SLat-Flow ${side}³ C ${Cin} to ${Cout}`, Array(4).fill(side), Cin, Cout, "f16")
    ),
  ];
});
