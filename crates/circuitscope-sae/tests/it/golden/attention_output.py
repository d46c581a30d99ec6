"""Makes `attention-output/`: a dictionary as the training code of attention-output-saes saves it (a state dict of four tensors and
its configuration), and what it makes of two vectors by the equations there: relu((x - b_dec) W_enc + b_enc).

    python attention_output.py        # torch 2.15, safetensors
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

D, N = 6, 9
generator = torch.Generator().manual_seed(3)


def normal(*shape):
    return torch.randn(*shape, generator=generator)


folder = Path(__file__).parent / "attention-output"
folder.mkdir(exist_ok=True)
w_dec = normal(N, D)
state = {
    "W_enc": normal(D, N),
    "W_dec": w_dec / w_dec.norm(dim=-1, keepdim=True),
    "b_enc": normal(N),
    "b_dec": normal(D),
}
name = "tiny_L1_Hcat_z_v9"
torch.save(state, folder / f"{name}.pt")
cfg = {
    "seed": 49,
    "lr": 0.0012,
    "l1_coeff": 0.5,
    "enc_dtype": "fp32",
    "model_name": "tiny",
    "site": "z",
    "layer": 1,
    "device": "cuda",
    "head": "cat",
    "concat_heads": True,
    "act_name": "blocks.1.attn.hook_z",
    "act_size": D,
    "dict_size": N,
}
(folder / f"{name}_cfg.json").write_text(json.dumps(cfg) + "\n")
x = normal(4, D)
f = torch.relu((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
y = f @ state["W_dec"] + state["b_dec"]
save_file({"x": x, "features": f, "reconstruction": y}, folder / "expected.safetensors")
