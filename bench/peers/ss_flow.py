"""Times training steps of a plain PyTorch flow transformer of SS-Flow image-L's shape, and writes their time and peak memory as JSON.

    python3 bench/peers/ss_flow.py OUT.json

Blocks of modulated self-attention, cross-attention and MLP on 4096 tokens with 1374 context tokens; a step is forward, backward, clipping, fused
AdamW on f32 masters under bf16 autocast, and an exponential mean. A row is {"case", "name", "ms"}; rows of peak memory have GiB in "ms".
"""
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

WIDTH, HEADS, BLOCKS, TOKENS, CONTEXT, CHANNELS = 1024, 16, 24, 4096, 1374, 8
BATCH, WARM_UP, RUNS = 8, 2, 5
DTYPE = torch.bfloat16
NAME = f"SS-Flow image-L bf16 batch {BATCH}"


class HeadNorm(nn.Module):
    """RMS norm of each head's vectors."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(HEADS, WIDTH // HEADS))

    def forward(self, x):  # [B, L, H, D]
        return (F.normalize(x.float(), dim=-1) * self.gamma * (WIDTH // HEADS) ** 0.5).to(x.dtype)


def attend(q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q_norm, self.k_norm = HeadNorm(), HeadNorm()
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.cross_q, self.cross_kv, self.cross_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x, mod, context):
        parts = self.modulation(F.silu(mod)).unsqueeze(1).chunk(6, dim=-1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        heads = lambda t, n: t.unflatten(-1, (n, HEADS, WIDTH // HEADS)).unbind(2)
        plain = lambda t: F.layer_norm(t.float(), (WIDTH,), eps=1e-6).to(DTYPE)
        q, k, v = heads(self.qkv(plain(x) * (1 + scale) + shift), 3)
        x = x + gate * self.proj(attend(self.q_norm(q), self.k_norm(k), v))
        (q,), (k, v) = heads(self.cross_q(self.norm(x.float()).to(DTYPE)), 1), heads(self.cross_kv(context), 2)
        x = x + self.cross_proj(attend(q, k, v))
        return x + gate_mlp * self.down(F.gelu(self.up(plain(x) * (1 + scale_mlp) + shift_mlp), approximate="tanh"))


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.output = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.time = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.position = nn.Buffer(torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))

    def forward(self, x, time, context):
        h, mod, context = (self.input(x) + self.position).to(DTYPE), self.time(time).to(DTYPE), context.to(DTYPE)
        for block in self.blocks:
            h = block(h, mod, context)
        return self.output(F.layer_norm(h.float(), (WIDTH,)))


class HalfCopy:
    """f32 masters beside a model of bf16 weights: the gradients go up, the new weights down."""

    def __init__(self, model):
        self.weights = list(model.parameters())
        self.masters = [w.detach().float().clone() for w in self.weights]
        self.mean = [m.clone() for m in self.masters]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-4, weight_decay=0.0, fused=True)

    def step(self):
        for master, weight in zip(self.masters, self.weights):
            master.grad = weight.grad.float()
        nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.optimizer.step()
        torch._foreach_copy_(self.weights, self.masters)
        torch._foreach_lerp_(self.mean, self.masters, 1e-4)
        for w in self.weights:
            w.grad = None


def measure(rows, how, compiled):
    torch.manual_seed(0)
    model = Flow().cuda()
    for block in model.blocks:
        block.to(DTYPE).norm.float()
    x, target = (torch.randn(BATCH, TOKENS, CHANNELS, device="cuda") for _ in range(2))
    time_in, context = (torch.randn(BATCH, *size, device="cuda") for size in ((256,), (CONTEXT, WIDTH)))
    optimizer = HalfCopy(model)
    if compiled:
        for block in model.blocks:
            block.compile()

    def step():
        loss = F.mse_loss(model(x, time_in, context), target)
        loss.backward()
        with torch.no_grad():
            optimizer.step()

    began, start, end = time.time(), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
    for i in range(WARM_UP + RUNS):
        if i == WARM_UP:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            start.record()
        step()
        if i == 0:
            torch.cuda.synchronize()
            print(f"{how}: first step after {time.time() - began:.0f} s", flush=True)
    end.record()
    end.synchronize()
    name, peak = f"{how} (PyTorch {torch.__version__})", torch.cuda.max_memory_allocated() / 2**30
    rows.append({"case": f"{NAME} training step", "name": name, "ms": start.elapsed_time(end) / RUNS})
    rows.append({"case": f"{NAME} peak GiB", "name": name, "ms": peak})
    print(f"{name}: {rows[-2]['ms']:.1f} ms, {peak:.1f} GiB", flush=True)


def main():
    rows = []
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        for compiled in (False, True):
            if backend is SDPBackend.FLASH_ATTENTION and (rows or not compiled):
                continue  # the slower backend: for where there is no other
            how = f"{'torch.compile' if compiled else 'eager'}, {backend.name.lower()}"
            try:
                with sdpa_kernel(backend):
                    measure(rows, how, compiled)
            except Exception as error:  # a backend may be absent or refuse a shape
                print(f"{how}: {str(error).strip().splitlines()[0][:200]}", flush=True)
            torch.cuda.empty_cache()
            with open(sys.argv[1], "w") as file:
                json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
