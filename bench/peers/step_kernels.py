"""Times torch.compile on some of what bench/step_kernels_bench.ts times, and writes the medians as JSON.

    python3 bench/peers/step_kernels.py OUT.json
"""
import json
import statistics
import sys
import time

import torch
from torch.nn import functional as F

WARM_UP, RUNS = 3, 11
B, L, C = 8, 4096, 1024
BF16 = {"device": "cuda", "dtype": torch.bfloat16}
NAME = f"torch.compile (PyTorch {torch.__version__})"
spacer = torch.empty(2**28, dtype=torch.uint8, device="cuda")
rows = []


def median_ms(prepare, run):
    """Of the device alone: the zeros give the host time to get ahead, and leave nothing of the inputs in the cache. The card rests first."""
    times = []
    torch.cuda.synchronize()
    time.sleep(0.3)
    for i in range(WARM_UP + RUNS):
        made = prepare()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(8):
            spacer.zero_()
        spacer.view(torch.float32).sum()  # or zeros would still be on their way to memory while it runs
        start.record()
        run(made)
        end.record()
        end.synchronize()
        if i >= WARM_UP:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def note(case, name, ms):
    rows.append({"case": case, "name": name, "ms": ms})
    print(f"{case}: {name} {ms:.4f} ms", flush=True)


def measure(case, function, *inputs):
    compiled, leaves = torch.compile(function), [t for t in inputs if t.requires_grad]
    with torch.no_grad():
        note(f"{case} forward", NAME, median_ms(lambda: None, lambda _: compiled(*inputs)))
    dy = torch.randn_like(function(*inputs))
    note(f"{case} backward", NAME, median_ms(lambda: compiled(*inputs), lambda y: torch.autograd.grad(y, leaves, dy)))


def modulated(x, shift, scale):
    return F.layer_norm(x.float(), (C,), eps=1e-6).to(x.dtype) * (1 + scale) + shift


def optimizer(case, n=555_500_000):
    master, copy = torch.nn.Parameter(torch.randn(n, device="cuda")), torch.empty(n, **BF16)
    mean, master.grad = master.detach().clone(), torch.randn(n, device="cuda") * 1e-4
    adamw = torch.optim.AdamW([master], lr=1e-4, weight_decay=0.0, fused=True)

    def step(_):
        with torch.no_grad():
            torch.nn.utils.clip_grad_norm_([master], 1.0)
            adamw.step()
            mean.lerp_(master.detach(), 1e-4)
            copy.copy_(master)
    note(case, f"fused AdamW, clip, lerp, copy (PyTorch {torch.__version__})", median_ms(lambda: None, step))


def main():
    x, h = (torch.randn(B, L, C, **BF16, requires_grad=True) for _ in range(2))
    shift, scale, gate = (torch.randn(B, 1, C, **BF16, requires_grad=True) for _ in range(3))
    optimizer("optimizer, 555.5 M parameters")
    measure("LayerNorm, modulate", modulated, x, shift, scale)
    measure("gated residual, LayerNorm, modulate", lambda x, h, gate, shift, scale: modulated(x + h * gate, shift, scale), x, h, gate, shift, scale)
    measure("GELU", lambda z: F.gelu(z, approximate="tanh"), torch.randn(B, L, 4 * C, **BF16, requires_grad=True))
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file, indent=2)


main()
