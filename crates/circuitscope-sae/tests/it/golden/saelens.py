"""Writes saelens/: a small autoencoder saved by SAELens itself, inputs, and its activations on them.

    python saelens.py                     (SAELens 6.18, CPU)
    python saelens.py check FOLDER        loads a folder that circuitscope wrote, with SAELens; where expected.safetensors
                                          lies in it, what SAELens computes must be what circuitscope did
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE, StandardSAE, StandardSAEConfig

if sys.argv[1:2] == ["check"]:
    sae = SAE.load_from_disk(sys.argv[2])
    x = torch.linspace(-1, 1, 3 * sae.cfg.d_in).reshape(3, sae.cfg.d_in)
    f = sae.encode(x)
    by_hand = torch.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc)
    assert torch.equal(f, by_hand)
    assert torch.equal(sae.decode(f), f @ sae.W_dec + sae.b_dec)
    expected = pathlib.Path(sys.argv[2], "expected.safetensors")
    if expected.exists():
        expected = load_file(expected)
        f = sae.encode(expected["x"])
        for name, found in [("features", f), ("reconstruction", sae.decode(f))]:
            gap = (found - expected[name]).abs().max() / expected[name].abs().max()
            print(name, f"differ by {gap:.1e} of the largest")
            assert gap <= 1e-6
    print(sae.cfg)
    print("encoder norms", sae.W_enc.norm(dim=0).aminmax())
    print("decoder norms by coordinate", sae.W_dec.norm(dim=0).aminmax())
    print("decoder norms by atom", sae.W_dec.norm(dim=1).aminmax())
    sys.exit()

torch.manual_seed(0)
folder = pathlib.Path(__file__).with_name("saelens")
sae = StandardSAE(StandardSAEConfig(d_in=5, d_sae=7))
with torch.no_grad():
    for p in sae.parameters():
        p.copy_(torch.randn_like(p))
sae.save_model(folder)
x = torch.randn(4, 5)
f = sae.encode(x)
save_file(
    {"x": x, "features": f.detach(), "reconstruction": sae.decode(f).detach()},
    folder / "expected.safetensors",
)
