"""Times gsplat's rasterizer as bench/splat_bench.ts times ours, and writes the medians as JSON. Needs torch and gsplat.

    python3 bench/peers/splat.py OUT.json

A row is {"case", "name", "ms"}; ms is null, with a "note", where gsplat cannot run the case.
"""
import json
import math
import statistics
import sys
import time

import gsplat
import torch

WARM_UP, RUNS = 3, 20
SIZE, FOV, RADIUS = 512, math.radians(40), 2.0
spacer = torch.empty(2**28, dtype=torch.uint8, device="cuda")
random = torch.Generator(device="cuda").manual_seed(1)
rows = []


def median_ms(prepare, run):
    """Of the device: the zeros give the host time to get ahead, and leave nothing of the inputs in the cache. The card rests first."""
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


def uniform(*shape, least=0.0, most=1.0):
    return least + (most - least) * torch.rand(*shape, device="cuda", generator=random)


def shell(per_voxel, opacity, scale):
    """Gaussians around the voxels of a spherical shell in 64^3, as splat_bench.ts has them."""
    at = torch.arange(64, device="cuda") - 31.5
    grid = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).reshape(-1, 3)
    far = grid.norm(dim=-1)
    centres = grid[(far >= 28.23) & (far <= 30)].repeat_interleave(per_voxel, 0)
    n = len(centres)
    return {
        "means": (centres + uniform(n, 3, least=-0.75, most=0.75)) / 64,
        "quats": torch.randn(n, 4, device="cuda", generator=random),
        "scales": scale * uniform(n, 3, least=0.4, most=1.6),
        "opacities": uniform(n, least=opacity[0], most=opacity[1]),
        "colors": uniform(n, 3),
    }


def cameras(count):
    """World to camera, x right, y down, z forward, from around the origin."""
    views = []
    for v in range(count):
        yaw, pitch = 0.4 + 1.9 * v, 0.35 - 0.2 * v
        back = torch.tensor([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
        right = torch.tensor([-math.sin(yaw), math.cos(yaw), 0.0])
        view = torch.eye(4)
        view[:3, :3] = torch.stack([right, -torch.linalg.cross(back, right), -back])
        view[2, 3] = RADIUS
        views.append(view)
    return torch.stack(views).cuda()


def measure(case, scene, views):
    focal = SIZE / 2 / math.tan(FOV / 2)
    k = torch.tensor([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]], device="cuda").expand(views, 3, 3).contiguous()
    viewmats, background = cameras(views), torch.zeros(views, 4, device="cuda")
    inputs = [t.requires_grad_() for t in scene.values()]

    def forward():
        return gsplat.rasterization(
            **scene, viewmats=viewmats, Ks=k, width=SIZE, height=SIZE, near_plane=0.2, eps2d=0.1, packed=False,
            rasterize_mode="antialiased", render_mode="RGB+D", backgrounds=background,
        )[:2]

    d_y = [torch.randn_like(t) for t in forward()]

    def inference(_):
        with torch.no_grad():
            forward()

    def record(direction, prepare, run):
        row = {"case": f"{case} {direction}", "name": f"gsplat {gsplat.__version__}", "ms": None}
        try:
            row["ms"] = median_ms(prepare, run)
        except Exception as error:
            row["note"] = str(error).strip().split("\n")[0][:200]
        rows.append(row)
        print(f"{row['case']}: {row['name']} " + (f"{row['ms']:.4f} ms" if row["ms"] else row.get("note", "")), flush=True)

    record("forward", lambda: None, inference)
    record("backward", forward, lambda y: torch.autograd.grad(y, inputs, d_y))
    record("forward and backward", lambda: None, lambda _: torch.autograd.grad(forward(), inputs, d_y))


measure("640k Gaussians", shell(32, (0.1, 1.0), 0.004), 1)
measure("640k dim Gaussians", shell(32, (0.02, 0.2), 0.004), 1)
measure("160k Gaussians in 8 views", shell(8, (0.1, 1.0), 0.004), 8)
with open(sys.argv[1], "w") as file:
    json.dump(rows, file)
