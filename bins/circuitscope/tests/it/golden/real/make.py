"""Writes `golden.safetensors`: what transformers computes from SmolLM2-135M-Instruct (Q4_1).

Made with torch 2.15.0, transformers 5.24.0, gguf 0.19.0 and accelerate 1.15.0, float32:

    cargo xtask real-model
    python bins/circuitscope/tests/it/golden/real/make.py [--check] [.models/smollm2-135m-instruct/model.gguf]

transformers dequantises the file through the `gguf` package. No beginning-of-sequence token: the model's
tokenizer adds none. Nothing here knows how circuitscope works.

For the lines of `prompts.txt` (English, digits, code, other scripts, emoji, blanks at the ends):
- `prompts.ids.{line}` [tokens];
- `prompts.top.{line}` [500], `prompts.logits.{line}` [500]: ids and logits at the last position: the 200 largest
  and 300 drawn at random, ids ascending.

For the pairs of `ioi.jsonl` (`ioi.*`, metric: logit difference, mean over right answers less mean over wrong) and
of `greater_than.jsonl` (`greater_than.*`, metric: probability of all right answers less that of all wrong ones),
the metric being higher where the behaviour is shown:
- `clean`, `corrupt` [pairs, grouped by length]: the metric on the positive prompt, and on the negative prompt with
  the same answers;
- `patching` [layers, heads]: metric as it is less metric with the head's z (its part of the input of `o_proj`), at
  all positions, taken from the negative prompt, everything downstream recomputed; mean over pairs;
- `mean` [layers, heads]: the same with z replaced by the head's mean z over all positions of all negative prompts;
- `nap` [layers, heads]: sum over positions of (z - z of the negative prompt) · dm/dz; mean over pairs;
- `hisp` [layers, heads]: size of the sum over positions of z · dm/dz, pair by pair; mean over pairs;
- `eap` [layers, heads]: of the head's edges to everything that reads it (q inputs of later query heads, k and v
  inputs of later key/value heads, inputs of MLPs from its own layer's on, the unembedding) the size of the largest.
  Edge: sum over positions of (output - output on the negative prompt) · gradient at what that reader alone reads,
  before its norm; mean over pairs.

The model has no biases, so none of these depends on how norms are folded.

`--check` computes some of it by other means, in float64: effects of six heads of each task by plain hooks on the
whole model, prompt by prompt; the strongest edges of six heads by central differences, moving what one reader
reads; and that the edges of every head add up to its nap.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parents[5] / ".models/smollm2-135m-instruct/model.gguf"
METRIC = {"ioi": "logit-difference", "greater_than": "probability-difference"}


class Real:
    def __init__(self, path: pathlib.Path) -> None:
        load = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(**load)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(**load, dtype=torch.float32)
        self.model.set_attn_implementation("eager")
        self.model.eval().requires_grad_(False)
        config = self.model.config
        self.blocks, self.heads = self.model.model.layers, config.num_attention_heads
        self.groups = config.num_key_value_heads
        self.width = config.hidden_size // self.heads

    def ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text).input_ids
        # The model's own tokenizer splits digits off first. Where conversions differ, no golden is to be had.
        assert ids == self.own_ids(text), text
        return ids

    def own_ids(self, text: str) -> list[int]:
        from tokenizers import Tokenizer, pre_tokenizers

        own = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        own.pre_tokenizer = pre_tokenizers.Sequence(parts)
        return own.encode(text).ids

    def from_block(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        """Logits at the last position, from what block `layer` reads."""
        pos = stream.shape[1]
        tables = self.model.model.rotary_emb(stream, torch.arange(pos)[None])
        mask = torch.full((pos, pos), torch.finfo(stream.dtype).min, dtype=stream.dtype).triu(1)[None, None]
        for block in self.blocks[layer:]:
            stream = block(stream, attention_mask=mask, position_embeddings=tables)
        return self.model.lm_head(self.model.model.norm(stream[:, -1]))


class Pairs:
    """Pairs of one length."""

    def __init__(self, real: Real, name: str, rows: list[dict]) -> None:
        word = lambda text: real.ids(text)[0]
        vocabulary = real.model.config.vocab_size
        self.metric = METRIC[name]
        self.clean = torch.tensor([real.ids(row["positive"]) for row in rows])
        self.corrupt = torch.tensor([real.ids(row["negative"]) for row in rows])
        sides = []
        for key in ["answers", "wrong_answers"]:
            side = torch.zeros(len(rows), vocabulary)
            for row, pair in enumerate(rows):
                tokens = [word(text) for text in pair[key]]
                assert all(len(real.ids(text)) == 1 for text in pair[key]) and len(set(tokens)) == len(tokens), pair
                side[row, tokens] = 1.0
            sides.append(side)
        self.right, self.wrong = sides

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        copies = logits.shape[0] // self.right.shape[0]
        right, wrong = self.right.repeat(copies, 1).to(logits), self.wrong.repeat(copies, 1).to(logits)
        if self.metric == "logit-difference":
            right, wrong = right / right.sum(1, keepdim=True), wrong / wrong.sum(1, keepdim=True)
            return (logits * (right - wrong)).sum(1)
        return (logits.softmax(1) * (right - wrong)).sum(1)


def load(real: Real, name: str) -> list[Pairs]:
    lines = (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    by_length: dict[int, list[dict]] = {}
    for row in map(json.loads, lines):
        lengths = {len(real.ids(row[side])) for side in ["positive", "negative"]}
        assert len(lengths) == 1, row
        by_length.setdefault(lengths.pop(), []).append(row)
    return [Pairs(real, name, rows) for rows in by_length.values()]


def watched(real: Real, ids: torch.Tensor):
    """What every block reads, and the inputs of every o_proj."""
    streams, z, handles = [], [], []
    for block in real.blocks:
        handles.append(block.register_forward_pre_hook(lambda _, args: streams.append(args[0].clone())))
        handles.append(block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: z.append(args[0].clone())))
    logits = real.model(ids, use_cache=False).logits[:, -1]
    for handle in handles:
        handle.remove()
    return streams, z, logits


@torch.no_grad()
def exact(real: Real, parts: list[Pairs]) -> dict[str, torch.Tensor]:
    shape = len(real.blocks), real.heads
    sums = {"patching": torch.zeros(shape, dtype=torch.float64), "mean": torch.zeros(shape, dtype=torch.float64)}
    here, other = [watched(real, part.clean) for part in parts], [watched(real, part.corrupt) for part in parts]
    positions = sum(part.corrupt.numel() for part in parts)
    means = [sum(run[1][layer].sum((0, 1)) for run in other) / positions for layer in range(shape[0])]
    total = sum(len(part.clean) for part in parts)
    for part, (streams, z, logits), (_, z_other, _) in zip(parts, here, other):
        clean = part.values(logits)
        assert torch.allclose(part.values(real.from_block(0, streams[0])), clean, atol=1e-4)
        for layer in range(shape[0]):
            copies = streams[layer].repeat(real.heads, 1, 1)
            for kind, replacement in [("patching", z_other[layer]), ("mean", means[layer].expand_as(z_other[layer]))]:
                changed = z[layer][None].repeat(real.heads, 1, 1, 1)
                for head in range(real.heads):
                    own = slice(head * real.width, (head + 1) * real.width)
                    changed[head, :, :, own] = replacement[:, :, own]
                hook = real.blocks[layer].self_attn.o_proj.register_forward_pre_hook(lambda *_: (changed.flatten(0, 1),))
                found = part.values(real.from_block(layer, copies)).view(real.heads, -1)
                hook.remove()
                sums[kind][layer] += (clean - found).double().sum(1)
            print(f"\r{tuple(part.clean.shape)} block {layer}", end="", file=sys.stderr, flush=True)
    values = {"clean": [part.values(run[2]) for part, run in zip(parts, here)]}
    values["corrupt"] = [part.values(run[2]) for part, run in zip(parts, other)]
    return {key: x / total for key, x in sums.items()} | {key: torch.cat(x) for key, x in values.items()}


def through(norm: torch.nn.Module, stream: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A gradient after a norm, carried before it."""
    stream = stream.detach().requires_grad_()
    return torch.autograd.grad(norm(stream), stream, gradient)[0]


def tracked(real: Real, part: Pairs):
    """Activations of the positive prompts, with gradients of the metric: `(kind, layer) -> tensor`."""
    kept, handles = {}, []

    def keep(module, key, of_input=False):
        def hook(_, args, output):
            kept[key] = args[0] if of_input else output
            kept[key].retain_grad()

        handles.append(module.register_forward_hook(hook))

    for layer, block in enumerate(real.blocks):
        keep(block.input_layernorm, ("before attention", layer), of_input=True)
        keep(block.post_attention_layernorm, ("before mlp", layer), of_input=True)
        keep(block.post_attention_layernorm, ("mlp", layer))
        keep(block.self_attn.o_proj, ("z", layer), of_input=True)
        for name in "qkv":
            keep(getattr(block.self_attn, f"{name}_proj"), (name, layer))
    keep(real.model.model.norm, "before unembedding", of_input=True)
    embedded = real.model.get_input_embeddings()(part.clean).requires_grad_()
    logits = real.model(inputs_embeds=embedded, use_cache=False).logits[:, -1]
    part.values(logits).sum().backward()
    for handle in handles:
        handle.remove()
    return kept


def first_order(real: Real, parts: list[Pairs]) -> dict[str, torch.Tensor]:
    nodes, edges, _ = attribution(real, parts)
    return nodes | {"eap": edges.abs().amax(1).view(len(real.blocks), real.heads)}


def attribution(real: Real, parts: list[Pairs]):
    """Scores of heads; edges `[layers * heads, readers]`; for each part, what heads put out less what they put out
    on the negative prompts, `[layers * heads, prompts, pos, d_model]`."""
    layers, total = len(real.blocks), sum(len(part.clean) for part in parts)
    differences = []
    sums = {key: torch.zeros(layers, real.heads, dtype=torch.float64) for key in ["nap", "hisp"]}
    edges = None
    for part in parts:
        kept = tracked(real, part)
        with torch.no_grad():
            _, z_other, _ = watched(real, part.corrupt)
        per_head = lambda x: x.view(*x.shape[:2], real.heads, real.width)
        outputs = []
        for layer, block in enumerate(real.blocks):
            z = kept["z", layer]
            difference = per_head(z.detach() - z_other[layer])
            dot = lambda x: (x * per_head(z.grad)).sum((1, 3)).double()
            sums["nap"][layer] += dot(difference).sum(0)
            sums["hisp"][layer] += dot(per_head(z.detach())).abs().sum(0)
            out = block.self_attn.o_proj.weight.view(-1, real.heads, real.width)
            outputs.append(torch.einsum("bphd,mhd->hbpm", difference, out))
        differences.append(torch.cat(outputs))
        outputs = differences[-1].flatten(1)
        found = torch.cat([outputs @ reader.flatten(1).T for reader in readers(real, kept)], 1)
        edges = found.double() + (0 if edges is None else edges)
    return {key: x / total for key, x in sums.items()}, edges / total * visible(real), differences


def readers(real: Real, kept):
    """For each place that reads the stream: gradients at what it reads, `[readers, prompts, pos, d_model]`."""
    for layer, block in enumerate(real.blocks):
        stream = kept["before attention", layer]
        for name, count in [("q", real.heads), ("k", real.groups), ("v", real.groups)]:
            gradient = kept[name, layer].grad.view(*stream.shape[:2], count, real.width)
            weight = getattr(block.self_attn, f"{name}_proj").weight.view(count, real.width, -1)
            normed = torch.einsum("bphd,hdm->hbpm", gradient, weight)
            yield through(block.input_layernorm, stream.detach().expand_as(normed).clone(), normed)
        stream = kept["before mlp", layer]
        yield through(block.post_attention_layernorm, stream, kept["mlp", layer].grad)[None]
    # Nothing else reads the last stream.
    yield kept["before unembedding"].grad[None]


def visible(real: Real) -> torch.Tensor:
    """`[layers * heads, readers]`: 1 where the reader sees the head."""
    layers = len(real.blocks)
    rows = []
    for writer in range(layers):
        row = []
        for layer in range(layers):
            row += [writer < layer] * (real.heads + 2 * real.groups) + [writer <= layer]
        rows.append(row + [True])
    return torch.tensor(rows).double().repeat_interleave(real.heads, 0)


@torch.no_grad()
def prompts(real: Real) -> dict[str, torch.Tensor]:
    found = {}
    draw = torch.Generator().manual_seed(0)
    lines = (HERE / "prompts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(lines) == 20
    for line, text in enumerate(lines):
        ids = real.ids(text)
        logits = real.model(torch.tensor([ids])).logits[0, -1]
        top = set(logits.topk(200).indices.tolist())
        others = [id for id in torch.randperm(len(logits), generator=draw).tolist() if id not in top][:300]
        at = torch.tensor(sorted(top | set(others)))
        found |= {f"prompts.ids.{line:02}": torch.tensor(ids), f"prompts.top.{line:02}": at, f"prompts.logits.{line:02}": logits[at]}
    return found


def moved(real: Real, part: Pairs, reader: int, shift: torch.Tensor) -> torch.Tensor:
    """The metric where one reader, and no other, reads the stream plus a shift."""
    per_layer = real.heads + 2 * real.groups + 1
    layer, within = divmod(reader, per_layer)
    handles = []
    if layer == len(real.blocks):
        handles.append(real.model.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + shift,)))
    elif within == per_layer - 1:
        norm = real.blocks[layer].post_attention_layernorm
        handles.append(norm.register_forward_pre_hook(lambda _, args: (args[0] + shift,)))
    else:
        block, stream = real.blocks[layer], []
        kind, first = ("q", 0) if within < real.heads else ("k", real.heads)
        if within >= real.heads + real.groups:
            kind, first = "v", real.heads + real.groups
        own = slice((within - first) * real.width, (within - first + 1) * real.width)
        place = getattr(block.self_attn, f"{kind}_proj")

        def hook(module, _, output):
            changed = output.clone()
            other = torch.nn.functional.linear(block.input_layernorm(stream[0] + shift), module.weight)
            changed[..., own] = other[..., own]
            return changed

        handles.append(block.register_forward_pre_hook(lambda _, args: stream.append(args[0])))
        handles.append(place.register_forward_hook(hook))
    values = part.values(real.model(part.clean, use_cache=False).logits[:, -1])
    for handle in handles:
        handle.remove()
    return values


def by_hooks(real: Real, parts: list[Pairs], layer: int, head: int) -> dict[str, float]:
    """The exact effects of one head, prompt by prompt."""
    own = slice(head * real.width, (head + 1) * real.width)
    place = real.blocks[layer].self_attn.o_proj

    def run(ids, value=None):
        seen = []

        def hook(_, args):
            z = args[0].clone()
            seen.append(z[0, :, own].clone())
            if value is not None:
                z[0, :, own] = value
            return (z,)

        handle = place.register_forward_pre_hook(hook)
        logits = real.model(ids[None], use_cache=False).logits[:, -1]
        handle.remove()
        return logits, seen[0]

    negatives = [run(ids)[1] for part in parts for ids in part.corrupt]
    mean, effects, at = torch.cat(negatives).mean(0), {"patching": [], "mean": []}, 0
    for part in parts:
        for row, ids in enumerate(part.clean):
            value = lambda logits: part.values(logits.expand(len(part.clean), -1))[row].item()
            clean = value(run(ids)[0])
            for kind, other in [("patching", negatives[at]), ("mean", mean)]:
                effects[kind].append(clean - value(run(ids, other)[0]))
            at += 1
    return {kind: sum(found) / at for kind, found in effects.items()}


def check(real: Real, golden: dict[str, torch.Tensor]) -> None:
    real.model.double()

    def compare(what: str, stored: float, found: float, largest: float) -> None:
        print(f"{what}: stored {stored:.6f}, found {found:.6f}, {abs(stored - found) / largest:.1e} of the largest")
        assert abs(stored - found) < 1e-4 * largest, what

    for name in METRIC:
        parts, stored = load(real, name), {key: golden[f"{name}.{key}"].double() for key in ["patching", "mean", "nap", "eap"]}
        largest = {key: scores.abs().max().item() for key, scores in stored.items()}
        nodes, edges, differences = attribution(real, parts)
        gap = (edges.sum(1) - nodes["nap"].flatten()).abs().max().item()
        print(f"{name}: edges of a head less its nap, {gap / largest['nap']:.1e} of the largest")
        assert gap < 1e-6 * largest["nap"]
        strongest = stored["patching"].abs().flatten().topk(3).indices.tolist()
        with torch.no_grad():
            for index in strongest + [0, 100, 269]:
                layer, head = divmod(index, real.heads)
                for kind, effect in by_hooks(real, parts, layer, head).items():
                    compare(f"{name} {kind} L{layer}H{head}", stored[kind][layer, head].item(), effect, largest[kind])
            for index in stored["eap"].flatten().topk(6).indices.tolist():
                layer, head = divmod(index, real.heads)
                reader, step, slope = edges[index].abs().argmax().item(), 1e-4, 0.0
                for part, difference in zip(parts, differences):
                    shift = step * difference[index]
                    slope += (moved(real, part, reader, shift) - moved(real, part, reader, -shift)).sum().item()
                slope = abs(slope / (2 * step) / sum(len(part.clean) for part in parts))
                compare(f"{name} eap L{layer}H{head} to reader {reader}", stored["eap"][layer, head].item(), slope, largest["eap"])


def main() -> None:
    torch.set_num_threads(2)
    args = sys.argv[1:]
    wants_check = "--check" in args
    paths = [arg for arg in args if arg != "--check"]
    real = Real(pathlib.Path(paths[0]) if paths else MODEL)
    if wants_check:
        return check(real, load_file(HERE / "golden.safetensors"))
    golden = prompts(real)
    for name in METRIC:
        parts = load(real, name)
        for key, value in (exact(real, parts) | first_order(real, parts)).items():
            golden[f"{name}.{key}"] = value.detach().float()
    golden = {key: value.contiguous() for key, value in golden.items()}
    save_file(golden, HERE / "golden.safetensors", metadata={"torch": torch.__version__, "transformers": transformers.__version__})


if __name__ == "__main__":
    main()
