"""Writes state dicts as PyTorch pickles them, and pickles that must not be read.

Made with torch 2.15.0:

    python crates/circuitscope-model/tests/it/golden/pickle/make.py

- `lens.pth`: the state dict of `../attn_only_shortformer` (TransformerLens);
- `pytorch_model.bin`: that of `../gpt2_tiny` (Hugging Face), of parameters, one of them a transposed view;
- `pytorch_model-0000{1,2}-of-00002.bin` and their index: the same in two parts;
- `class.pth`: a state dict with an object of a class of its own; `code.pth`: a pickle that would run a command;
  `nested.pth`: a state dict inside another dictionary; `legacy.pth`: as PyTorch before 1.6 wrote.
"""

import collections
import json
import os
import pathlib
import pickle
import types

import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).parent


class Runs:
    def __reduce__(self):
        return os.system, ("touch it_ran",)


def main():
    lens = load_file(HERE.parent / "attn_only_shortformer/model.safetensors")
    torch.save(collections.OrderedDict(lens), HERE / "lens.pth")
    torch.save({**lens, "settings": types.SimpleNamespace(seed=1)}, HERE / "class.pth")
    torch.save({**lens, "extra": Runs()}, HERE / "code.pth")
    torch.save({"model": lens, "step": 3}, HERE / "nested.pth")
    torch.save(lens, HERE / "legacy.pth", _use_new_zipfile_serialization=False)

    gpt2 = load_file(HERE.parent / "gpt2_tiny/model.safetensors")
    gpt2 = {name: torch.nn.Parameter(value) for name, value in gpt2.items() if value.is_floating_point()}
    view = "transformer.h.1.mlp.c_fc.weight"
    gpt2[view] = gpt2[view].data.T.contiguous().T
    assert not gpt2[view].is_contiguous()
    torch.save(gpt2, HERE / "pytorch_model.bin")
    names = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    places = {name: names["h.0." in name] for name in gpt2}
    for part in names:
        torch.save({name: value for name, value in gpt2.items() if places[name] == part}, HERE / part)
    index = {"metadata": {}, "weight_map": places}
    (HERE / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
