"""Times training steps of the PyTorch model of ss_flow.py on each GPU alone, all at once, then data parallel on all, and an all-reduce. Writes JSON.

    python3 bench/peers/scaling.py OUT.json

A row is {"case", "name", "ms"}; times are medians of blocks of steps, that of the slowest GPU where they are joined.
"""
import json
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ss_flow import BATCH, CHANNELS, CONTEXT, DTYPE, Flow, HalfCopy, TOKENS, WIDTH

WARM_UP, ROUNDS, STEPS = 2, 3, 3


def block_ms(run, steps):
    torch.cuda.synchronize()
    dist.barrier(device_ids=[torch.cuda.current_device()])
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3 / steps


def rank_main(rank, world, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29610", NCCL_NVLS_ENABLE="0")
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=world)
    torch.manual_seed(rank)
    x, target = (torch.randn(BATCH, TOKENS, CHANNELS, device="cuda") for _ in range(2))
    time_in, context = (torch.randn(BATCH, *size, device="cuda") for size in ((256,), (CONTEXT, WIDTH)))

    def stepper(join):
        with torch.device("cuda"):
            model = Flow()
        for block in model.blocks:
            block.to(DTYPE).norm.float()
        forward = DistributedDataParallel(model, device_ids=[rank], bucket_cap_mb=64, gradient_as_bucket_view=True) if join else model
        optimizer = HalfCopy(model)

        def step():
            F.mse_loss(forward(x, time_in, context), target).backward()
            with torch.no_grad():
                optimizer.step()

        return step

    steps, times = [stepper(False), stepper(True)], [[], []]
    for i in range(ROUNDS + 1):
        for step, found in zip(steps, times):
            ms = block_ms(step, STEPS if i else WARM_UP)
            if i:
                found.append(ms)
    buffer = torch.randn(2**27, device="cuda").to(torch.bfloat16)
    large = statistics.median(block_ms(lambda: dist.all_reduce(buffer), 1) for _ in range(9))
    alone, joined = (statistics.median(found) for found in times)
    all_ranks = [None] * world
    dist.all_gather_object(all_ranks, (alone, joined, large))
    if rank == 0:
        name = f"PyTorch {torch.__version__}, eager"
        rows = [{"case": f"GPU {i} alone", "name": name, "ms": ms[0]} for i, ms in enumerate(all_ranks)]
        rows.append({"case": f"on {world}", "name": f"{name}, DDP", "ms": max(ms[1] for ms in all_ranks)})
        rows.append({"case": "all-reduce of 256 MiB bf16", "name": name, "ms": large})
        with open(out, "w") as file:
            json.dump(rows, file)
    dist.destroy_process_group()


if __name__ == "__main__":
    count = torch.cuda.device_count()
    mp.spawn(rank_main, args=(count, sys.argv[1]), nprocs=count)
