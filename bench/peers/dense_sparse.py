"""Times cuDNN's dense 3D convolutions as bench/dense_sparse_bench.ts times ours, with 80 GiB of memory, and writes medians and peaks as JSON.

    python3 bench/peers/dense_sparse.py OUT.json

A row is {"case", "name", "ms"}, where "ms" is GiB in the rows of peak memory; it is null, with a "note", where memory does not suffice.
"""
import json
import statistics
import sys
import time

import torch

BATCH, WARM_UP, RUNS, GIB = 8, 2, 5, 2**30
CASES = (
    ("SLat-Flow input block", 128, 128, 3),
    ("SLat-Flow first output block", 2048, 128, 3),
    ("SLat-VAE input stage", 1024, 768, 1),
)
F16 = {"device": "cuda", "dtype": torch.float16}
NAME = f"cuDNN (PyTorch {torch.__version__})"


def cost(side, inputs, outputs, kernel):
    """Milliseconds and GiB of forward and backward, channels last. The card rests first."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    layout = {"memory_format": torch.channels_last_3d}
    x = torch.empty((BATCH, inputs, side, side, side), **F16, **layout).normal_().requires_grad_()
    weight = torch.randn((outputs, inputs, kernel, kernel, kernel), **F16).to(**layout).requires_grad_()
    dy = torch.empty((BATCH, outputs, side, side, side), **F16, **layout).normal_()
    times = []
    torch.cuda.synchronize()
    time.sleep(0.3)
    for i in range(WARM_UP + RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        y = torch.nn.functional.conv3d(x, weight, padding=kernel // 2)
        torch.autograd.grad(y, (x, weight), dy)
        end.record()
        end.synchronize()
        del y
        if i >= WARM_UP:
            times.append(start.elapsed_time(end))
    return statistics.median(times), torch.cuda.max_memory_allocated() / GIB


def main():
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 80 * GIB / total))
    rows = []
    for side in (64, 128):
        for what, inputs, outputs, kernel in CASES:
            case = f"{what} {inputs} -> {outputs}, {kernel}³ taps, {side}³, batch {BATCH}"
            try:
                ms, gib = cost(side, inputs, outputs, kernel)
                found = [{"case": f"{case} time", "name": NAME, "ms": ms}, {"case": f"{case} peak GiB", "name": NAME, "ms": gib}]
            except RuntimeError as error:  # out of memory, or more elements than it takes
                found = [{"case": f"{case} time", "name": NAME, "ms": None, "note": str(error).split("\n")[0][:200]}]
            rows += found
            print(*found, sep="\n", flush=True)
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file, indent=2)


main()
