"""Times data parallel training steps of the PyTorch model of ss_flow.py on one GPU and on all, and an all-reduce, and writes medians as JSON.

    python3 bench/peers/scaling.py OUT.json

A row is {"case", "name", "ms"}.
"""
import json
import os
import statistics
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ss_flow import BATCH, CHANNELS, CONTEXT, DTYPE, Flow, HalfCopy, NAME, TOKENS, WIDTH

WARM_UP, RUNS = 3, 7


def median_ms(run):
    times = []
    for i in range(WARM_UP + RUNS):
        dist.barrier()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if i >= WARM_UP:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def rank_main(rank, world, port, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NCCL_NVLS_ENABLE="0")
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=world)
    torch.manual_seed(rank)
    model = Flow().cuda()
    for block in model.blocks:
        block.to(DTYPE).norm.float()
    shared = DistributedDataParallel(model, device_ids=[rank], bucket_cap_mb=64, gradient_as_bucket_view=True)
    x, target = (torch.randn(BATCH, TOKENS, CHANNELS, device="cuda") for _ in range(2))
    time_in, context = (torch.randn(BATCH, *size, device="cuda") for size in ((256,), (CONTEXT, WIDTH)))
    optimizer = HalfCopy(model)

    def step():
        F.mse_loss(shared(x, time_in, context), target).backward()
        with torch.no_grad():
            optimizer.step()

    rows = [{"case": f"{NAME} training step on {world}", "name": f"PyTorch {torch.__version__} DDP, eager", "ms": median_ms(step)}]
    if world > 1:
        buffer = torch.randn(2**27, device="cuda").to(torch.bfloat16)
        rows.append({"case": "all-reduce of 256 MiB bf16", "name": f"PyTorch {torch.__version__}", "ms": median_ms(lambda: dist.all_reduce(buffer))})
    if rank == 0:
        with open(f"{out}.{world}", "w") as file:
            json.dump(rows, file)
    dist.destroy_process_group()


if __name__ == "__main__":
    rows = []
    for world in (1, torch.cuda.device_count()):
        mp.spawn(rank_main, args=(world, 29610 + world, sys.argv[1]), nprocs=world)
        with open(f"{sys.argv[1]}.{world}") as file:
            rows += json.load(file)
        os.remove(f"{sys.argv[1]}.{world}")
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file)
