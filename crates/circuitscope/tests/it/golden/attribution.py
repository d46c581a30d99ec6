"""Attribution scores of one model of each kind, computed in PyTorch alone, in float64.

    python crates/circuitscope/tests/it/golden/attribution.py

Reads datasets/reference (GPT-2: sequential) and three models of circuitscope-model's golden families (GPT-NeoX: parallel
residual; Llama: grouped queries, RMS norms, gated MLP; Gemma 2: norms after attention and MLP, soft caps, windows), and
writes attribution.safetensors beside itself, one prefix a model. The forward pass is written out here; its logits are
compared with those that transformers recorded for the families. Prompts are random tokens of two lengths: what is
compared is arithmetic.

Conventions: writers input, then per layer its heads (without b_O) and its MLP; readers per layer the q, k and v inputs of
all heads (k and v: of the key/value heads) and the MLP's input, the logits' input last; positive = the part raises the
metric; metric = mean logit of the right tokens less that of the wrong ones at the last position; mean over prompts.

- `eap`, `eap_ig` [writers, readers]: difference of the writer's output (positive prompt less negative one) times the
  gradient at what the reader reads; `eap_ig` with the gradient averaged over five inputs between the two prompts.
- `nap` [writers]: the same of what the node puts out and the gradient there; of a head that is its z.
- `hisp` [writers]: size of output times gradient, prompt by prompt.

Where a norm follows attention, what a head writes for edges is what it adds to the stream: its part of the sum, divided
by the scale of the sum as it is in that run, times the gain. Gradients at z go through the norm, scale and all.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
ROOT = HERE.parents[4]
FAMILIES = ROOT / "crates" / "circuitscope-model" / "tests" / "it" / "golden" / "families"
STEPS = 5


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def gelu_exact(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def silu(x):
    return x * torch.sigmoid(x)


def cap(x, bound):
    return x if bound is None else bound * torch.tanh(x / bound)


class Model:
    """Weights input-first: W_Q [d_model, heads, d_head], W_O [heads, d_head, d_model], matrices [in, out]."""

    parallel, rms, gated = False, False, False
    rotary, base, window, attn_cap, logit_cap, embed_scale, b_u = 0, 10000.0, None, None, None, 1.0, None
    w_pos = None

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}
        self.load(self.config, self.w)
        self.groups = self.heads // self.kv_heads

    def norm(self, x, name):
        weight, bias = name
        if not self.rms:
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * weight
        return x if bias is None else x + bias

    def rotated(self, x):
        """[batch, pos, head, d_head]; the first `rotary` entries turn, in halves."""
        if not self.rotary:
            return x
        half = self.rotary // 2
        # Rates are rounded to f32, as everywhere.
        rates = 1.0 / torch.tensor(self.base).float() ** (torch.arange(0, self.rotary, 2).float() / self.rotary)
        angles = torch.arange(x.shape[1]).float()[:, None] * rates
        cos, sin = angles.double().cos()[:, None], angles.double().sin()[:, None]
        a, b, rest = x[..., :half], x[..., half : self.rotary], x[..., self.rotary :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

    def embed(self, tokens):
        x = self.w_e[tokens] * self.embed_scale
        return x if self.w_pos is None else x + self.w_pos[: tokens.shape[1]]

    def run(self, start):
        """Logits, outputs of all writers and nodes, and tracked zeros at every reader and at every node."""
        readers, at_nodes, writers, nodes = [], [], [], []
        width = start.shape[-1]

        def tracked(x, zeros):
            zero = torch.zeros_like(x).requires_grad_()
            zeros.append(zero)
            return x + zero

        def read(x, heads):
            return tracked(x.unsqueeze(2).expand(-1, -1, heads, -1), readers)

        def node(x, heads):
            """`[batch, pos, nodes, d]`: seen, and tracked."""
            nodes.append(x.unflatten(-1, (heads, -1)).detach())
            return tracked(x.unflatten(-1, (heads, -1)), at_nodes).flatten(-2)

        x = node(start, 1)
        writers.append(start)
        pos = x.shape[1]
        distance = torch.arange(pos)[:, None] - torch.arange(pos)
        for layer, block in enumerate(self.blocks):
            q, k, v = (
                torch.einsum("bphd,dhe->bphe", self.norm(read(x, heads), block["ln1"]), block[f"w_{port}"]) + block[f"b_{port}"]
                for port, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads))
            )
            q, k = self.rotated(q), self.rotated(k)
            k, v = (t.repeat_interleave(self.groups, 2) for t in (k, v))
            scores = cap(torch.einsum("bqhe,bkhe->bhqk", q, k) / self.divisor, self.attn_cap)
            hidden = distance < 0
            if self.window is not None and layer % 2 == 0:
                hidden = hidden | (distance >= self.window)
            pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            z = torch.einsum("bhqk,bkhe->bqhe", pattern, v)
            z = node(z.flatten(-2), self.heads).unflatten(-1, (self.heads, -1))
            result = torch.einsum("bphe,hed->bphd", z, block["w_o"])
            out = result.sum(2) + block["b_o"]
            if "ln1_post" in block:
                # What each head adds to the stream, with the scale of their sum.
                scale = (out.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
                result = result / scale.unsqueeze(2) * block["ln1_post"][0]
                out = self.norm(out, block["ln1_post"])
            writers.extend(result.unbind(2))
            mlp_in = x if self.parallel else x + out
            hidden = self.norm(read(mlp_in, 1).squeeze(2), block["ln2"])
            if self.gated:
                hidden = self.act(hidden @ block["w_gate"]) * (hidden @ block["w_in"])
            else:
                hidden = self.act(hidden @ block["w_in"] + block["b_in"])
            mlp = hidden @ block["w_out"] + block["b_out"]
            if "ln2_post" in block:
                mlp = self.norm(mlp, block["ln2_post"])
            writers.append(mlp)
            x = x + out + node(mlp, 1)
        x = self.norm(read(x, 1).squeeze(2), self.ln_final)
        logits = cap(x @ self.w_u, self.logit_cap)
        return logits, torch.stack(writers, 2).detach(), nodes, readers, at_nodes


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.double)


class Gpt2(Model):
    def load(self, c, w):
        w = {k.removeprefix("transformer."): v for k, v in w.items()}
        self.heads = self.kv_heads = c["n_head"]
        width, self.eps, self.act = c["n_embd"], c["layer_norm_epsilon"], gelu_tanh
        size = width // self.heads
        self.divisor = size**0.5
        self.w_e, self.w_pos = w["wte.weight"], w["wpe.weight"]
        self.w_u = w.get("lm_head.weight", self.w_e).T
        norm = lambda name: (w[f"{name}.weight"], w[f"{name}.bias"])
        self.ln_final = norm("ln_f")
        self.blocks = []
        for layer in range(c["n_layer"]):
            h = f"h.{layer}"
            block = {"ln1": norm(f"{h}.ln_1"), "ln2": norm(f"{h}.ln_2")}
            for part, port in enumerate("qkv"):
                columns = slice(part * width, (part + 1) * width)
                block[f"w_{port}"] = w[f"{h}.attn.c_attn.weight"][:, columns].reshape(width, self.heads, size)
                block[f"b_{port}"] = w[f"{h}.attn.c_attn.bias"][columns].reshape(self.heads, size)
            block["w_o"] = w[f"{h}.attn.c_proj.weight"].reshape(self.heads, size, width)
            block["b_o"] = w[f"{h}.attn.c_proj.bias"]
            block["w_in"], block["b_in"] = w[f"{h}.mlp.c_fc.weight"], w[f"{h}.mlp.c_fc.bias"]
            block["w_out"], block["b_out"] = w[f"{h}.mlp.c_proj.weight"], w[f"{h}.mlp.c_proj.bias"]
            self.blocks.append(block)


class GptNeox(Model):
    parallel = True

    def load(self, c, w):
        self.heads = self.kv_heads = c["num_attention_heads"]
        width, self.eps, self.act = c["hidden_size"], c["layer_norm_eps"], gelu_exact
        size = width // self.heads
        self.divisor, self.rotary = size**0.5, int(size * c["rotary_pct"])
        self.w_e, self.w_u = w["gpt_neox.embed_in.weight"], w["embed_out.weight"].T
        norm = lambda name: (w[f"{name}.weight"], w[f"{name}.bias"])
        self.ln_final = norm("gpt_neox.final_layer_norm")
        self.blocks = []
        for layer in range(c["num_hidden_layers"]):
            h = f"gpt_neox.layers.{layer}"
            block = {"ln1": norm(f"{h}.input_layernorm"), "ln2": norm(f"{h}.post_attention_layernorm")}
            qkv = w[f"{h}.attention.query_key_value.weight"].reshape(self.heads, 3, size, width)
            bias = w[f"{h}.attention.query_key_value.bias"].reshape(self.heads, 3, size)
            for part, port in enumerate("qkv"):
                block[f"w_{port}"] = qkv[:, part].permute(2, 0, 1)
                block[f"b_{port}"] = bias[:, part]
            block["w_o"] = w[f"{h}.attention.dense.weight"].T.reshape(self.heads, size, width)
            block["b_o"] = w[f"{h}.attention.dense.bias"]
            block["w_in"], block["b_in"] = w[f"{h}.mlp.dense_h_to_4h.weight"].T, w[f"{h}.mlp.dense_h_to_4h.bias"]
            block["w_out"], block["b_out"] = w[f"{h}.mlp.dense_4h_to_h.weight"].T, w[f"{h}.mlp.dense_4h_to_h.bias"]
            self.blocks.append(block)


class Llama(Model):
    rms, gated, act = True, True, staticmethod(silu)
    before_mlp = "post_attention_layernorm"

    def load(self, c, w):
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        width, size, self.eps = c["hidden_size"], c["head_dim"], c["rms_norm_eps"]
        self.divisor, self.rotary, self.base = size**0.5, size, c["rope_theta"]
        self.w_e = w["model.embed_tokens.weight"]
        self.w_u = w.get("lm_head.weight", self.w_e).T
        norm = lambda name: (w[f"{name}.weight"] + self.gain_offset, None)
        self.ln_final = norm("model.norm")
        self.blocks = []
        for layer in range(c["num_hidden_layers"]):
            h = f"model.layers.{layer}"
            block = {"ln1": norm(f"{h}.input_layernorm"), "ln2": norm(f"{h}.{self.before_mlp}")}
            for port, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
                block[f"w_{port}"] = w[f"{h}.self_attn.{port}_proj.weight"].T.reshape(width, heads, size)
                block[f"b_{port}"] = zeros(heads, size)
            block["w_o"] = w[f"{h}.self_attn.o_proj.weight"].T.reshape(self.heads, size, width)
            block["b_o"], block["b_out"] = zeros(width), zeros(width)
            for ours, theirs in (("w_gate", "gate"), ("w_in", "up"), ("w_out", "down")):
                block[ours] = w[f"{h}.mlp.{theirs}_proj.weight"].T
            self.after(block, h, norm)
            self.blocks.append(block)

    gain_offset = 0

    def after(self, block, h, norm):
        pass


class Gemma2(Llama):
    gain_offset, act, before_mlp = 1, staticmethod(gelu_tanh), "pre_feedforward_layernorm"

    def load(self, c, w):
        super().load(c, w)
        self.divisor, self.window = c["query_pre_attn_scalar"] ** 0.5, c["sliding_window"]
        self.attn_cap, self.logit_cap = c["attn_logit_softcapping"], c["final_logit_softcapping"]
        self.embed_scale = c["hidden_size"] ** 0.5

    def after(self, block, h, norm):
        block["ln1_post"] = norm(f"{h}.post_attention_layernorm")
        block["ln2_post"] = norm(f"{h}.post_feedforward_layernorm")


def metric(logits, right, wrong):
    rows = torch.arange(len(right)).unsqueeze(1)
    return logits[:, -1][rows, right].mean(1) - logits[:, -1][rows, wrong].mean(1)


def gradients(model, start, right, wrong):
    """At all readers, and at all nodes."""
    logits, _, _, readers, at_nodes = model.run(start)
    found = torch.autograd.grad(metric(logits, right, wrong).sum(), readers + at_nodes)
    return torch.cat(found[: len(readers)], 2), found[len(readers) :]


def products(nodes, slopes):
    """`[batch, nodes]`"""
    return torch.cat([torch.einsum("bphd,bphd->bh", a, b) for a, b in zip(nodes, slopes)], 1)


def scores(model, clean, corrupt, right, wrong):
    with torch.no_grad():
        (here, nodes), (other, instead) = (model.run(model.embed(tokens))[1:3] for tokens in (clean, corrupt))
    difference = here - other
    start, end = model.embed(corrupt), model.embed(clean)
    readers, slopes = gradients(model, end, right, wrong)
    integrated = sum(gradients(model, start + k / STEPS * (end - start), right, wrong)[0] for k in range(1, STEPS + 1))
    return {
        "eap": torch.einsum("bpwd,bprd->wr", difference, readers),
        "eap_ig": torch.einsum("bpwd,bprd->wr", difference, integrated / STEPS),
        "nap": products([a - b for a, b in zip(nodes, instead)], slopes).sum(0),
        "hisp": products(nodes, slopes).abs().sum(0),
    }


def seen(model):
    """Which reader sees which writer."""
    per_layer, ports = model.heads + 1, model.heads + 2 * model.kv_heads
    layers = len(model.blocks)
    mask = torch.zeros(1 + layers * per_layer, layers * (ports + 1) + 1)
    for layer in range(layers):
        before, first = 1 + layer * per_layer, layer * (ports + 1)
        mask[:before, first : first + ports] = 1
        mask[: before + (0 if model.parallel else model.heads), first + ports] = 1
    mask[:, -1] = 1
    return mask


def check(model, folder):
    """The logits are those that transformers recorded."""
    recorded = load_file(folder / "reference.safetensors")
    with torch.no_grad():
        logits = model.run(model.embed(recorded["input_ids"].long()))[0]
    gap = (logits - recorded["hf.logits"]).abs().max().item()
    print(f"{folder.name}: logits within {gap:.1e} of transformers in float32")
    assert gap < 2e-5, gap


def add(out, name, model, lengths, first_token, begin, spans):
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.w_e.shape[0]
    draw = lambda *shape: torch.randint(first_token, vocabulary, shape, generator=generator)
    total, count = None, 0
    for length, prompts in lengths:
        clean = draw(prompts, length)
        clean[:, 0] = begin
        corrupt = clean.clone()
        corrupt[:, spans] = draw(prompts, 4)
        right, wrong = draw(prompts, 2), draw(prompts, 3)
        part = scores(model, clean, corrupt, right, wrong)
        total = part if total is None else {k: v + part[k] for k, v in total.items()}
        count += prompts
        for kind, value in (("clean", clean), ("corrupt", corrupt), ("right", right), ("wrong", wrong)):
            out[f"{name}.{kind}.{length}"] = value
    for kind, value in total.items():
        value = value / count * (seen(model) if value.dim() == 2 else 1)
        out[f"{name}.{kind}"] = value.float().contiguous()


def main():
    out = {}
    add(out, "gpt2", Gpt2(ROOT / "datasets" / "reference"), ((12, 4), (17, 4)), 4, 1, slice(2, 6))
    for name, family in (("gpt_neox", GptNeox), ("llama", Llama), ("gemma2", Gemma2)):
        model = family(FAMILIES / name)
        check(model, FAMILIES / name)
        add(out, name, model, ((9, 4), (12, 4)), 1, 0, slice(2, 6))
    save_file(out, HERE / "attribution.safetensors")
    print({name: list(value.shape) for name, value in out.items()})


if __name__ == "__main__":
    main()
