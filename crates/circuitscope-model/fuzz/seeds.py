"""Writes the seeds of the fuzz targets from the golden models of the tests: python seeds.py"""

import json
import pathlib

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "it" / "golden"
seeds = HERE / "seeds"
for target in ("config", "weights", "model"):
    (seeds / target).mkdir(parents=True, exist_ok=True)

for config in sorted(GOLDEN.rglob("config*.json")):
    name = "_".join(config.relative_to(GOLDEN).with_suffix("").parts)
    text = json.dumps(json.loads(config.read_text()), separators=(",", ":")).encode()
    (seeds / "config" / name).write_bytes(text)
    weights = config.parent / "model.safetensors"
    if config.name == "config.json" and weights.exists():
        data = weights.read_bytes()
        if len(data) < 60_000:
            (seeds / "model" / name).write_bytes(len(text).to_bytes(2, "little") + text + data)

# The tiny GPT-2 that the target `weights` expects, and damaged copies of it.
shapes = {
    "wte.weight": [4, 2], "wpe.weight": [3, 2], "ln_f.weight": [2], "ln_f.bias": [2],
    "h.0.ln_1.weight": [2], "h.0.ln_1.bias": [2], "h.0.ln_2.weight": [2], "h.0.ln_2.bias": [2],
    "h.0.attn.c_attn.weight": [2, 6], "h.0.attn.c_attn.bias": [6],
    "h.0.attn.c_proj.weight": [2, 2], "h.0.attn.c_proj.bias": [2],
    "h.0.mlp.c_fc.weight": [2, 2], "h.0.mlp.c_fc.bias": [2],
    "h.0.mlp.c_proj.weight": [2, 2], "h.0.mlp.c_proj.bias": [2],
}
header, at = {}, 0
for name, shape in shapes.items():
    size = 4
    for n in shape:
        size *= n
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
    at += size
text = json.dumps(header, separators=(",", ":")).encode()
whole = len(text).to_bytes(8, "little") + text + bytes(at)
(seeds / "weights" / "whole").write_bytes(whole)
(seeds / "weights" / "truncated").write_bytes(whole[:-5])
(seeds / "weights" / "header_only").write_bytes(whole[:8])
(seeds / "weights" / "huge_header").write_bytes(b"\xff" * 7 + b"\x00" + text)
