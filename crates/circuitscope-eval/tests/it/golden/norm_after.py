"""Effects of nodes, edges and circuits in models that normalise what attention and MLPs write.

Made with torch 2.15.0 and transformers 4.51.3 on one CPU thread:

    OMP_NUM_THREADS=1 python crates/circuitscope-eval/tests/it/golden/norm_after.py

Models: the golden Gemma 2 and Gemma 3 of circuitscope-model, eager attention, float64. Everything is done with
hooks on the modules of transformers: a head is replaced where `o_proj` reads it, and the norm after attention
is computed anew; what a head adds to the stream is `z W_O` through that norm with the norm's own scale.

For each model, metric (mean logit of the right answer less that of the wrong one) and, mean over pairs:
- `nodes.{ablation}`: input, then of each layer heads and MLP: metric of the model less metric with that one
  node replaced (by its value on the negative prompt, by zero, by its mean over all negative prompts);
- `nap`, `hisp`: z (or what the MLP, or the embedding, puts out) times gradient;
- `edges`, `eap`: `[writers][readers]`, readers in the order q of all heads, k and v of all key/value heads, MLP,
  layer by layer, then the logits: exactly, and to first order; null where a reader comes before a writer;
- `direct`: what a node adds to the answer's logit directly, before a soft cap;
- `circuit`: the metric with all heads but these replaced, in all that reads them.
"""

import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
FAMILIES = HERE / "../../../../circuitscope-model/tests/it/golden/families"
KEPT = [(0, 1), (0, 2), (1, 0), (1, 3)]
PAIRS = 3


def pairs():
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(PAIRS):
        clean = torch.randint(1, 40, (9,), generator=generator)
        corrupt = clean.clone()
        at = torch.randperm(8, generator=generator)[:3]
        corrupt[at] = torch.randint(1, 40, (3,), generator=generator)
        right, wrong = torch.randperm(39, generator=generator)[:2] + 1
        found.append({"clean": clean.tolist(), "corrupt": corrupt.tolist(), "right": int(right), "wrong": int(wrong)})
    return found


class Hooked:
    """A model whose nodes and readers can be changed, one run at a time."""

    def __init__(self, folder):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        self.model = self.model.double().eval()
        # Layers, heads, key/value heads.
        config = self.model.config
        self.layers, self.heads, self.groups = self.model.model.layers, config.num_attention_heads, config.num_key_value_heads
        self.width = config.head_dim
        self.writers = [("input",)]
        self.readers = []
        for layer in range(len(self.layers)):
            self.writers += [("head", layer, head) for head in range(self.heads)] + [("mlp", layer)]
            self.readers += [("q", layer, head) for head in range(self.heads)]
            self.readers += [(port, layer, group) for port in "kv" for group in range(self.groups)]
            self.readers.append(("mlp", layer))
        self.readers.append(("logits",))

    def visible(self, reader):
        """How many writers come before a reader."""
        if reader[0] == "logits":
            return len(self.writers)
        before = 1 + reader[1] * (self.heads + 1)
        return before + self.heads if reader[0] == "mlp" else before

    def run(self, ids, nodes=None, reads=None, kept=None, track=False):
        """Logits at the last position, and what was seen on the way.

        `nodes`: value for each site ("input", ("z", layer), ("mlp", layer)) as a function of what is there.
        `reads`: reader and what is taken from the stream that it reads.
        `kept`: for each layer which heads are kept, and what the others add to the stream.
        """
        seen, handles = {}, []

        def site(name, value):
            if nodes and name in nodes:
                value = nodes[name](value)
            if track:
                value = value.detach().requires_grad_() if name == "input" else value + torch.zeros_like(value)
                value.retain_grad()
            seen[name] = value
            return value

        def before(module, change):
            handles.append(module.register_forward_pre_hook(lambda _, args, kwargs: change(args, kwargs), with_kwargs=True))

        def after(module, change):
            handles.append(module.register_forward_hook(change))

        after(self.model.model.embed_tokens, lambda m, i, out: self.scaled(site, out))
        for index, layer in enumerate(self.layers):
            attn = layer.self_attn

            def z(args, kwargs, index=index):
                value = args[0].unflatten(-1, (self.heads, self.width))
                return (site(("z", index), value).flatten(-2), *args[1:]), kwargs

            def stream(m, inputs, index=index):
                seen["stream", index] = inputs[0]

            def attn_out(m, inputs, out, index=index, attn=attn):
                weight = attn.o_proj.weight.unflatten(1, (self.heads, self.width))
                each = torch.einsum("bphd,mhd->bphm", seen["z", index], weight)
                scale = torch.rsqrt(inputs[0].pow(2).mean(-1, keepdim=True) + m.eps)
                adds = each * scale[:, :, None] * (1 + m.weight)
                assert torch.allclose(adds.sum(2), out, atol=1e-12)
                seen["adds", index] = adds
                if kept:
                    mask, others = kept[index]
                    out = (adds * mask[:, None] + others * (1 - mask[:, None])).sum(2)
                return out

            handles.append(layer.input_layernorm.register_forward_pre_hook(stream))
            before(attn.o_proj, z)
            after(layer.post_attention_layernorm, attn_out)
            after(layer.post_feedforward_layernorm, lambda m, i, out, index=index: site(("mlp", index), out))
            if reads and reads[0][0] in "qkv" and reads[0][1] == index:
                port, _, slot = reads[0]

                def change(m, inputs, out, layer=layer, index=index, slot=slot):
                    norm = layer.input_layernorm
                    other = m(norm(seen["stream", index] - reads[1]))
                    columns = slice(slot * self.width, (slot + 1) * self.width)
                    out = out.clone()
                    out[..., columns] = other[..., columns]
                    return out

                after(getattr(attn, f"{port}_proj"), self.once(change))
            if reads and reads[0] == ("mlp", index):
                before(layer.pre_feedforward_layernorm, lambda args, kwargs: ((args[0] - reads[1],), kwargs))
            if track:

                def mid(args, kwargs, index=index):
                    value = args[0] + torch.zeros_like(args[0])
                    value.retain_grad()
                    seen["mlp_in", index] = value
                    return (value,), kwargs

                before(layer.pre_feedforward_layernorm, mid)
                for port in "qkv":

                    def out_of(m, i, out, index=index, port=port):
                        out.retain_grad()
                        seen[port, index] = out

                    after(getattr(attn, f"{port}_proj"), out_of)

        def last(args, kwargs):
            value = args[0] - (reads[1] if reads and reads[0] == ("logits",) else 0)
            if track:
                value.retain_grad()
            seen["last"] = value
            return (value,), kwargs

        before(self.model.model.norm, last)
        with torch.set_grad_enabled(track):
            logits = self.model(ids, use_cache=False).logits[:, -1]
        for handle in handles:
            handle.remove()
        return logits, seen

    @staticmethod
    def once(change):
        """A hook that does not answer to the calls that it makes itself."""
        busy = []

        def hook(module, inputs, out):
            if busy:
                return out
            busy.append(1)
            out = change(module, inputs, out)
            busy.pop()
            return out

        return hook

    def scaled(self, site, out):
        """In Gemma 2 the embedding is scaled after the module, in Gemma 3 within it."""
        scale = 1.0 if hasattr(self.model.model.embed_tokens, "embed_scale") else self.model.config.hidden_size**0.5
        return site("input", out * scale) / scale

    def value(self, seen, writer, raw=False):
        """What a node puts out: what it adds to the stream, or its z."""
        if writer[0] == "head":
            return seen["z" if raw else "adds", writer[1]][:, :, writer[2]]
        return seen["input" if writer[0] == "input" else writer]


def metric(logits, pair):
    return logits[0, pair["right"]] - logits[0, pair["wrong"]]


def node_change(writer, value):
    """The changes of `Hooked.run` that put `value` in a node's place."""
    if writer[0] != "head":
        return {"input" if writer[0] == "input" else writer: lambda _: value}

    def one(z):
        z = z.clone()
        z[:, :, writer[2]] = value
        return z

    return {("z", writer[1]): one}


def effects(hooked, given):
    ids = lambda pair, side: torch.tensor([pair[side]])
    corrupt = [hooked.run(ids(pair, "corrupt"))[1] for pair in given]
    raw = {writer: [hooked.value(seen, writer, raw=True) for seen in corrupt] for writer in hooked.writers}
    means = {writer: torch.cat(values).mean((0, 1)) for writer, values in raw.items()}
    found = {"metric": 0.0, "direct": 0.0, "nap": 0.0, "hisp": 0.0, "edges": 0.0, "eap": 0.0, "circuit": 0.0}
    found |= {f"nodes.{ablation}": 0.0 for ablation in ("patching", "zero", "mean")}
    absent = torch.tensor([[at >= hooked.visible(r) for r in hooked.readers] for at in range(len(hooked.writers))])
    for at, pair in enumerate(given):
        clean, seen = hooked.run(ids(pair, "clean"))
        whole = metric(clean, pair)
        changed = lambda **change: whole - metric(hooked.run(ids(pair, "clean"), **change)[0], pair)
        values = {
            "patching": lambda writer: raw[writer][at],
            "zero": lambda writer: torch.zeros_like(raw[writer][at]),
            "mean": lambda writer: means[writer].expand_as(raw[writer][at]),
        }
        one = {"metric": whole}
        for ablation, value in values.items():
            each = [changed(nodes=node_change(writer, value(writer))) for writer in hooked.writers]
            one[f"nodes.{ablation}"] = torch.stack(each)
        delta = [hooked.value(seen, w) - hooked.value(corrupt[at], w) for w in hooked.writers]
        edges = torch.zeros(absent.shape, dtype=torch.float64)
        for to, reader in enumerate(hooked.readers):
            for writer in range(hooked.visible(reader)):
                edges[writer, to] = changed(reads=(reader, delta[writer]))
        one["edges"] = edges

        mask = torch.zeros(len(hooked.layers), hooked.heads, dtype=torch.float64)
        for layer, head in KEPT:
            mask[layer, head] = 1
        kept = [(mask[layer], corrupt[at]["adds", layer]) for layer in range(len(hooked.layers))]
        one["circuit"] = metric(hooked.run(ids(pair, "clean"), kept=kept)[0], pair)

        logits, tracked = hooked.run(ids(pair, "clean"), track=True)
        metric(logits, pair).backward()
        slope = lambda w: tracked["z", w[1]].grad[:, :, w[2]] if w[0] == "head" else hooked.value(tracked, w).grad
        nap, hisp = [], []
        for writer in hooked.writers:
            here = hooked.value(seen, writer, raw=True)
            nap.append(((here - raw[writer][at]) * slope(writer)).sum())
            hisp.append((here * slope(writer)).sum().abs())
        one["nap"], one["hisp"] = torch.stack(nap), torch.stack(hisp)

        eap = torch.zeros_like(edges)
        for to, reader in enumerate(hooked.readers):
            if reader[0] == "logits":
                gradient = tracked["last"].grad
            elif reader[0] == "mlp":
                gradient = tracked["mlp_in", reader[1]].grad
            else:
                port, layer, slot = reader
                block = hooked.layers[layer]
                columns = slice(slot * hooked.width, (slot + 1) * hooked.width)
                weight = getattr(block.self_attn, f"{port}_proj").weight[columns]
                at_norm = tracked[port, layer].grad[..., columns] @ weight
                stream = seen["stream", layer].detach().requires_grad_()
                with torch.enable_grad():
                    (gradient,) = torch.autograd.grad(block.input_layernorm(stream), stream, at_norm)
            for writer in range(hooked.visible(reader)):
                eap[writer, to] = (delta[writer] * gradient).sum()
        one["eap"] = eap

        norm = hooked.model.model.norm
        direction = hooked.model.lm_head.weight[pair["right"]] - hooked.model.lm_head.weight[pair["wrong"]]
        scale = torch.rsqrt(seen["last"][:, -1].pow(2).mean() + norm.eps) * (1 + norm.weight)
        parts = [(hooked.value(seen, writer)[0, -1] * scale[None] * direction).sum() for writer in hooked.writers]
        one["direct"] = torch.stack(parts)
        found = {name: value + one[name].detach() / len(given) for name, value in found.items()}
    for name in ("edges", "eap"):
        rows = found[name].tolist()
        found[name] = [[None if gone else x for x, gone in zip(*row)] for row in zip(rows, absent.tolist())]
    return {name: value.tolist() if torch.is_tensor(value) else value for name, value in found.items()}


def rounded(value):
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return float(f"{value:.9g}") if isinstance(value, float) else value


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = pairs()
    written = {"pairs": given, "kept": KEPT}
    for family in ("gemma2", "gemma3_text"):
        written[family] = effects(Hooked(FAMILIES / family), given)
    (HERE / "norm_after.json").write_text(json.dumps(rounded(written), separators=(",", ":")) + "\n")
