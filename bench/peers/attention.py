"""Times PyTorch's attention as bench/attention_bench.ts times ours, and writes the medians as JSON.

    python3 bench/peers/attention.py OUT.json

A row is {"case", "name", "ms"}; ms is null, with a "note", where this PyTorch cannot run the case. A backward pass whose runs differ, since it
adds in any order, has a second row that says so.
"""
import json
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

WARM_UP, RUNS = 3, 20
BATCH, HEADS = 8, 16
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "FlashAttention": SDPBackend.FLASH_ATTENTION}
BF16 = {"device": "cuda", "dtype": torch.bfloat16}
spacer = torch.empty(2**28, dtype=torch.uint8, device="cuda")
rows = []


def median_ms(run):
    """Of the device alone: the zeros give the host time to get ahead, and leave nothing of the inputs in the cache. The card rests first."""
    times = []
    torch.cuda.synchronize()
    time.sleep(0.3)
    for i in range(WARM_UP + RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(8):
            spacer.zero_()
        spacer.view(torch.float32).sum()  # or zeros would still be on their way to memory while it runs
        start.record()
        run()
        end.record()
        end.synchronize()
        if i >= WARM_UP:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def differs(run, times=4):
    """Whether runs on the same inputs differ in a bit."""
    first = run()
    return any(not torch.equal(a, b) for _ in range(times) for a, b in zip(first, run()))


def measure(case, name, forward, inputs):
    """Rows of one case: forward without a graph, then backward alone."""
    def inference():
        with torch.no_grad():
            forward()

    def record(direction, make):
        row = {"case": f"{case} {direction}", "name": f"{name} (PyTorch {torch.__version__})", "ms": None}
        try:
            run = make()
            row["ms"] = median_ms(run)
            if direction == "backward" and differs(run):
                rows.append({**row, "case": f"{row['case']} in any order"})
        except Exception as error:  # a backend may be absent or refuse a shape
            row["note"] = str(error).strip().split("\n")[0][:200]
        rows.append(row)
        print(f"{row['case']}: {row['name']} " + (f"{row['ms']:.4f} ms" if row["ms"] else row.get("note", "")), flush=True)

    def backward():
        y = forward()
        dy = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)

    record("forward", lambda: inference)
    record("backward", backward)


def dense(length, keys, width):
    shape = lambda n: (BATCH, HEADS, n, width)
    q, k, v = (torch.randn(shape(n), **BF16, requires_grad=True) for n in (length, keys, keys))
    for name, backend in BACKENDS.items():
        def forward():
            with sdpa_kernel(backend):
                return sdpa(q, k, v)
        measure(f"bf16 B {BATCH} H {HEADS} D {width} {length} x {keys}", name, forward, (q, k, v))


def shell_windows(samples, resolution=64, window=8):
    """Voxels of sphere shells, sorted by shifted window: their order, and the windows' offsets."""
    axis = torch.arange(resolution, device="cuda")
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    distance = (grid - (resolution - 1) / 2).double().norm(dim=-1)
    cells = (grid[(distance >= resolution / 2 - 1.25) & (distance <= resolution / 2)] + window // 2) // window
    side = resolution // window + 1
    windows = (cells[:, 0] * side + cells[:, 1]) * side + cells[:, 2]
    windows = torch.cat([windows + b * side**3 for b in range(samples)])
    lengths = torch.bincount(windows)
    lengths = lengths[lengths > 0]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    return torch.argsort(windows, stable=True), offsets, int(lengths.max())


def varlen(q, k, v, offsets, longest):
    """FlashAttention over sequences: its own package where it is installed, else what PyTorch brings."""
    try:
        from flash_attn import flash_attn_varlen_func
        return flash_attn_varlen_func(q, k, v, offsets, offsets, longest, longest)
    except ImportError:
        pass
    try:
        from torch.nn.attention.varlen import varlen_attn
        return varlen_attn(q, k, v, offsets, offsets, longest, longest)
    except ImportError:
        return torch.ops.aten._flash_attention_forward(q, k, v, offsets, offsets, longest, longest, 0.0, False, False)[0]


def windowed(samples, heads=12, width=64):
    """Windows as TRELLIS attends in them: gather the rows, attend, scatter."""
    order, offsets, longest = shell_windows(samples)
    back = torch.argsort(order)
    qkv = torch.randn((len(order), 3, heads, width), **BF16, requires_grad=True)

    def forward():
        q, k, v = qkv[order].unbind(1)
        return varlen(q, k, v, offsets, longest)[back]
    measure(f"bf16 windows of {len(order)} voxels H {heads} D {width}", "gather, FlashAttention, scatter", forward, (qkv,))


def main():
    for length, keys, width in ((4096, 4096, 64), (4096, 1374, 64), (4096, 4096, 128), (4096, 1374, 128)):
        dense(length, keys, width)
    for samples in (1, 4):
        windowed(samples)
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file, indent=2)


main()
