# Small files of torch.save: how those in this folder were made (PyTorch 2.11).
import sys, json, io, torch, numpy as np
out = sys.argv[1]
g = torch.Generator().manual_seed(3)
r = lambda *s: torch.randn(*s, generator=g)
expect = {}
def save(name, obj, **kw):
    torch.save(obj, f"{out}/{name}.pt", **kw)
def describe(d):
    return {k: {"dtype": str(v.dtype), "shape": list(v.shape), "values": [float(x) for x in v.detach().float().reshape(-1)]} for k, v in d.items()}
sd = {"a.weight": r(3, 4), "a.bias": r(3).half(), "b": r(2, 2).bfloat16(), "idx": torch.arange(5), "i32": torch.arange(3, dtype=torch.int32), "mask": torch.tensor([True, False]), "u8": torch.tensor([1, 255], dtype=torch.uint8), "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "f64": r(2).double()}
save("state_dict", sd); expect["state_dict"] = describe(sd)
flat = r(20)
views = {"x": flat[2:8].view(2, 3), "y": flat[8:20].view(3, 4), "t": flat[0:6].view(2, 3).t()}
save("views", views); expect["views"] = describe(views)
m = torch.nn.Linear(4, 2)
with torch.no_grad(): m.weight.copy_(r(2, 4)); m.bias.copy_(r(2))
save("module_state", m.state_dict()); expect["module_state"] = describe(m.state_dict())
save("legacy", sd, _use_new_zipfile_serialization=False)
opt = torch.optim.AdamW(m.parameters(), lr=1e-3); m(r(5, 4)).sum().backward(); opt.step()
misc = {"optimizer": opt.state_dict(), "step": 7, "data_sampler": {"epoch": 1, "idx": 3}, "log_scale": 20.5, "grad_clip": {"max_norm": np.float32(1.0), "buffer": np.arange(3, dtype=np.float32)}}
save("misc", misc)
json.dump(expect, open(f"{out}/expected.json", "w"))
print(torch.__version__, "files written")
