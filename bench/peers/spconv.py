"""Times FlexGEMM's submanifold convolution as bench/spconv_bench.ts times ours, and writes the medians as JSON.

    python3 bench/peers/spconv.py OUT.json

A row is {"case", "name", "ms"}; ms is null, with a "note", where it cannot run the case. Needs PyTorch and the package flex_gemm, with its default
algorithm, whose backward pass cannot do without the weight's gradient. It tunes its kernels the first time that it meets a size, which takes
minutes, and keeps what it found in a cache of its own: FLEX_GEMM_AUTOTUNE_CACHE_PATH names one.
"""
import json
import statistics
import sys
import time

try:
    import torch
    import flex_gemm
    from flex_gemm.ops.spconv import SubMConv3dFunction, sparse_submanifold_conv3d
except ImportError as error:
    sys.exit(f"cannot time FlexGEMM: {error}")

WARM_UP, RUNS, SPACERS = 3, 20, 8
MAP_RUNS, MAP_SPACERS = 41, 32
TABLE = ((32, 1024), (64, 128), (64, 1024), (128, 512), (256, 256), (512, 128))
BATCH, BATCH_CHANNELS = tuple(range(66, 74)), (64, 128, 256, 512, 1024)
# SLat-Flow's: with 1024 channels on both sides it is tuned as in TABLE; of the others, for which it would tune for minutes, only maps are timed.
SLAT_FLOW = ((64, 128, 128), (64, 2048, 128), (32, 128, 1024), (32, 1024, 1024))
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}
NAME = f"FlexGEMM (PyTorch {torch.__version__})"
spacer = torch.empty(2**28, dtype=torch.uint8, device="cuda")


def cases():
    """The name, the sides of the samples' grids, Cin, Cout and dtype of every case."""
    for dtype in DTYPES:
        for side, channels in TABLE:
            yield f"{dtype} {side}³ C {channels}", (side,), channels, channels, dtype
        for channels in BATCH_CHANNELS:
            yield f"{dtype} batch of {len(BATCH)} C {channels}", BATCH, channels, channels, dtype
    for side, inputs, outputs in SLAT_FLOW:
        yield f"f16 SLat-Flow {side}³ C {inputs} to {outputs}", (side,) * 4, inputs, outputs, "f16"


def shells(sides):
    """Coordinates [N, 4] of sphere shells, one a sample, each filling a grid of its side; and the grid that holds them all."""
    samples = []
    for b, side in enumerate(sides):
        axis = torch.arange(side, device="cuda", dtype=torch.float64) - (side - 1) / 2
        for x in range(side):
            squares = axis[x] ** 2 + axis[:, None] ** 2 + axis[None, :] ** 2
            y, z = torch.nonzero((squares >= (side / 2 - 1.25) ** 2) & (squares <= (side / 2) ** 2), as_tuple=True)
            samples.append(torch.stack([torch.full_like(y, b), torch.full_like(y, x), y, z], -1))
    return torch.cat(samples).int().contiguous(), torch.Size([len(sides), 1, *[max(sides)] * 3])


def median_ms(run, runs=RUNS, spacers=SPACERS):
    """Of the device alone: the zeros give the host time to get ahead, and leave nothing of the inputs in the cache. The card rests first."""
    times = []
    torch.cuda.synchronize()
    time.sleep(0.3)
    for i in range(WARM_UP + runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(spacers):
            spacer.zero_()
        spacer.view(torch.float32).sum()  # or zeros would still be on their way to memory while it runs
        start.record()
        run()
        end.record()
        end.synchronize()
        if i >= WARM_UP:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def passes(sides, inputs, outputs, dtype):
    """What is timed of one case, by name: each makes its inputs and returns what to run."""
    coords, shape = shells(sides)
    options = {"device": "cuda", "dtype": DTYPES[dtype]}
    x, bias = torch.randn(len(coords), inputs, **options), torch.randn(outputs, **options)
    weight = torch.randn(outputs, 3, 3, 3, inputs, **options) / (13 * inputs) ** 0.5
    build = lambda coords=coords: SubMConv3dFunction._compute_neighbor_cache(coords, shape, (3, 3, 3), (1, 1, 1), True)
    cache = build()
    run = lambda: sparse_submanifold_conv3d(x, coords, shape, weight, bias, cache)[0]

    def forward():
        def inference():
            with torch.no_grad():
                run()
        return inference

    def gradient(*wanted):
        def backward():
            for t in (x, weight):
                t.requires_grad_(any(t is w for w in wanted))
            y = run()
            dy = torch.randn_like(y)
            return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)
        return backward

    def any_order():
        mixed = coords[torch.randperm(len(coords), device="cuda")].contiguous()
        return lambda: build(mixed)

    return {
        "forward": forward,
        "backward": gradient(x, weight),
        "weight gradient": gradient(weight),
        "map": lambda: build,
        "map, any order": any_order,
    }


def main():
    rows = []
    for case, sides, inputs, outputs, dtype in cases():
        for name, make in passes(sides, inputs, outputs, dtype).items():
            if "SLat-Flow" in case and inputs * outputs != 1024**2 and not name.startswith("map"):
                continue
            row = {"case": f"{case} {name}", "name": NAME, "ms": None}
            try:
                row["ms"] = median_ms(make(), MAP_RUNS, MAP_SPACERS) if name.startswith("map") else median_ms(make())
            except Exception as error:  # it may refuse a case, or run out of memory
                row["note"] = str(error).strip().split("\n")[0][:200]
            rows.append(row)
            print(f"{row['case']}: {row['name']} " + (f"{row['ms']:.4f} ms" if row["ms"] else row.get("note", "")), flush=True)
        torch.cuda.empty_cache()
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
