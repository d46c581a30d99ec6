"""Edge attribution scores of the reference model, computed in PyTorch alone, in float64.

    python crates/circuitscope/tests/it/golden/attribution.py

Reads datasets/reference and writes attribution.safetensors beside itself. The prompts are random tokens of two lengths:
what is compared is arithmetic. Conventions: writers input, then per layer its heads (without b_O) and its MLP; readers
per layer the q, k and v inputs of all heads and the MLP's input, the logits' input last; [writers, readers], positive =
the edge raises the metric; metric = mean logit of the right tokens less that of the wrong ones at the last position.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
REFERENCE = HERE.parents[4] / "datasets" / "reference"
CONFIG = json.loads((REFERENCE / "config.json").read_text())
LAYERS, HEADS, WIDTH = CONFIG["n_layer"], CONFIG["n_head"], CONFIG["n_embd"]
SIZE = WIDTH // HEADS
EPS = CONFIG["layer_norm_epsilon"]
STEPS = 5
W = {k.removeprefix("transformer."): v.double() for k, v in load_file(REFERENCE / "model.safetensors").items()}
UNEMBED = W["lm_head.weight"] if "lm_head.weight" in W else W["wte.weight"]


def norm(x, name):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt()
    return x * W[f"{name}.weight"] + W[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def embed(tokens):
    return W["wte.weight"][tokens] + W["wpe.weight"][: tokens.shape[1]]


def run(start, right, wrong):
    """Metric of each prompt, outputs of all writers, and a tracked zero at every reader."""
    writers, zeros = [start], []

    def reader(x, heads):
        zero = torch.zeros(*x.shape[:2], heads, WIDTH, dtype=torch.double, requires_grad=True)
        zeros.append(zero)
        return x.unsqueeze(2) + zero

    x = start
    pos = x.shape[1]
    mask = torch.triu(torch.ones(pos, pos, dtype=torch.bool), 1)
    for layer in range(LAYERS):
        h = f"h.{layer}"
        w, b = W[f"{h}.attn.c_attn.weight"], W[f"{h}.attn.c_attn.bias"]
        qkv = []
        for part in range(3):
            columns = slice(part * WIDTH, (part + 1) * WIDTH)
            inputs = norm(reader(x, HEADS), f"{h}.ln_1")
            per_head = w[:, columns].reshape(WIDTH, HEADS, SIZE)
            qkv.append(torch.einsum("bphd,dhe->bphe", inputs, per_head) + b[columns].reshape(HEADS, SIZE))
        q, k, v = qkv
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / SIZE**0.5
        pattern = scores.masked_fill(mask, -torch.inf).softmax(-1)
        z = torch.einsum("bhqk,bkhe->bqhe", pattern, v)
        w_o = W[f"{h}.attn.c_proj.weight"].reshape(HEADS, SIZE, WIDTH)
        result = torch.einsum("bphe,hed->bphd", z, w_o)
        writers.extend(result.unbind(2))
        x = x + result.sum(2) + W[f"{h}.attn.c_proj.bias"]
        inputs = norm(reader(x, 1).squeeze(2), f"{h}.ln_2")
        hidden = gelu(inputs @ W[f"{h}.mlp.c_fc.weight"] + W[f"{h}.mlp.c_fc.bias"])
        out = hidden @ W[f"{h}.mlp.c_proj.weight"] + W[f"{h}.mlp.c_proj.bias"]
        writers.append(out)
        x = x + out
    x = norm(reader(x, 1).squeeze(2), "ln_f")
    logits = x[:, -1] @ UNEMBED.T
    rows = torch.arange(len(right))
    value = (logits[rows.unsqueeze(1), right]).mean(1) - (logits[rows.unsqueeze(1), wrong]).mean(1)
    return value, torch.stack(writers, 2).detach(), zeros


def gradients(start, right, wrong):
    value, _, zeros = run(start, right, wrong)
    found = torch.autograd.grad(value.sum(), zeros)
    return torch.cat(found, 2)


def scores(clean, corrupt, right, wrong):
    with torch.no_grad():
        here = run(embed(clean), right, wrong)[1]
        other = run(embed(corrupt), right, wrong)[1]
    difference = here - other
    points = [embed(corrupt) + k / STEPS * (embed(clean) - embed(corrupt)) for k in range(1, STEPS + 1)]
    eap = gradients(embed(clean), right, wrong)
    integrated = sum(gradients(point, right, wrong) for point in points) / STEPS
    return [torch.einsum("bpwd,bprd->wr", difference, g) for g in (eap, integrated)]


def main():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randint(4, CONFIG["vocab_size"], shape, generator=generator)
    total, count, out = None, 0, {}
    for length, prompts in ((12, 4), (17, 4)):
        clean = draw(prompts, length)
        clean[:, 0] = 1
        corrupt = clean.clone()
        corrupt[:, 2:6] = draw(prompts, 4)
        right, wrong = draw(prompts, 2), draw(prompts, 3)
        part = scores(clean, corrupt, right, wrong)
        total = part if total is None else [a + b for a, b in zip(total, part)]
        count += prompts
        for name, value in (("clean", clean), ("corrupt", corrupt), ("right", right), ("wrong", wrong)):
            out[f"{name}.{length}"] = value
    readers = total[0].shape[1]
    writers = total[0].shape[0]
    seen = torch.zeros(writers, readers)
    per_layer, reads = HEADS + 1, 3 * HEADS + 1
    for layer in range(LAYERS):
        before = 1 + layer * per_layer
        seen[:before, layer * reads : layer * reads + 3 * HEADS] = 1
        seen[: before + HEADS, layer * reads + 3 * HEADS] = 1
    seen[:, -1] = 1
    for name, value in zip(("eap", "eap_ig"), total):
        out[name] = (value / count * seen).float().contiguous()
    save_file(out, HERE / "attribution.safetensors")
    print({name: list(value.shape) for name, value in out.items()})


main()
