"""Capture and exact patching of a real model, in transformers and by circuitscope, in one run.

    python real_model.py MODEL --program target/release/circuitscope [--pairs 50] [--patch-pairs 12] [--repeat 3]

MODEL is a folder in Hugging Face layout of a Llama-shaped model (its heads are read before `o_proj`). Both
sides get the same prompts of indirect object identification; turns alternate, and medians and their ratios
are printed as a table in Markdown, with the largest difference of the effects that both measured.

- capture: every head's input of `o_proj`, averaged over positions, on all prompts; in transformers by
  hooks, in batches, without logits
- plain: the same forward passes with all logits and no hooks
- patching: each head's input of `o_proj` in turn replaced by that of the negative prompt, logit
  difference at the last position

Needs torch and transformers. No network.
"""

import argparse
import itertools
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = ["Mary", "John", "Tom", "James", "Dan", "Mark", "Anna", "Paul", "Sarah", "Peter", "Lucy", "David"]
PLACES = ["store", "park", "school", "office", "station", "garden"]
THINGS = ["drink", "book", "ring", "ball", "letter", "key"]
TEMPLATES = [
    "When {a} and {b} went to the {place}, {s} gave a {thing} to",
    "Then, {a} and {b} had a long walk to the {place}, and afterwards {s} handed the {thing} to",
]


def prompts(tokenizer, count):
    rng = random.Random(0)
    names = [name for name in NAMES if len(tokenizer.encode(" " + name)) == 1]
    rows = []
    for at in range(count):
        a, b, c = rng.sample(names, 3)
        fill = {"a": a, "b": b, "place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
        text = TEMPLATES[at % len(TEMPLATES)]
        rows.append({
            "positive": text.format(s=b, **fill),
            "negative": text.format(s=c, **fill),
            "answers": [" " + a],
            "wrong_answers": [" " + b],
        })
    return rows


class Torch:
    def __init__(self, folder, rows):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        encode = lambda text: self.tokenizer.encode(text)
        self.pairs = [
            (encode(r["positive"]), encode(r["negative"]), encode(r["answers"][0])[-1], encode(r["wrong_answers"][0])[-1])
            for r in rows
        ]
        self.layers = self.model.model.layers
        config = self.model.config
        self.heads = config.num_attention_heads
        self.d_head = config.hidden_size // self.heads

    def batches(self, prompts, size):
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
        for _, group in itertools.groupby(order, key=lambda at: len(prompts[at])):
            group = list(group)
            for at in range(0, len(group), size):
                members = group[at : at + size]
                yield members, torch.tensor([prompts[m] for m in members])

    @torch.no_grad()
    def capture(self):
        prompts = [p for pair in self.pairs for p in pair[:2]]
        means = torch.zeros(len(prompts), len(self.layers), self.heads * self.d_head)
        for members, tokens in self.batches(prompts, 32):
            hooks = []
            for layer, block in enumerate(self.layers):
                def keep(_, inputs, layer=layer):
                    means[members, layer] = inputs[0].mean(1)
                hooks.append(block.self_attn.o_proj.register_forward_pre_hook(keep))
            self.model.model(tokens, use_cache=False)
            for hook in hooks:
                hook.remove()
        return means

    @torch.no_grad()
    def plain(self):
        prompts = [p for pair in self.pairs for p in pair[:2]]
        for _, tokens in self.batches(prompts, 32):
            self.model(tokens, use_cache=False)

    @torch.no_grad()
    def patch(self, count):
        effects = torch.zeros(len(self.layers), self.heads)
        pairs = self.pairs[:count]
        for members, clean in self.batches([pair[0] for pair in pairs], 32):
            corrupt = torch.tensor([pairs[m][1] for m in members])
            right = torch.tensor([pairs[m][2] for m in members])
            wrong = torch.tensor([pairs[m][3] for m in members])
            rows = torch.arange(len(members))

            def metric(tokens):
                logits = self.model(tokens, use_cache=False, logits_to_keep=1).logits[:, -1]
                return logits[rows, right] - logits[rows, wrong]

            other = {}
            hooks = []
            for layer, block in enumerate(self.layers):
                def keep(_, inputs, layer=layer):
                    other[layer] = inputs[0].clone()
                hooks.append(block.self_attn.o_proj.register_forward_pre_hook(keep))
            self.model.model(corrupt, use_cache=False)
            for hook in hooks:
                hook.remove()
            full = metric(clean)
            for layer, block in enumerate(self.layers):
                for head in range(self.heads):
                    at = slice(head * self.d_head, (head + 1) * self.d_head)
                    def replace(_, inputs, layer=layer, at=at):
                        z = inputs[0].clone()
                        z[..., at] = other[layer][..., at]
                        return (z,)
                    hook = block.self_attn.o_proj.register_forward_pre_hook(replace)
                    effects[layer, head] += (full - metric(clean)).sum() / len(pairs)
                    hook.remove()
        return effects


def ours(program, model, pairs, method, count, extra=()):
    command = [
        program, "--format", "json", "discover", "--model", str(model), "--pairs", str(pairs), "--prepend-bos", "false",
        "--method", method, "--select", "top:1", "--patch-pairs", str(count), *extra,
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found, {stage["name"]: stage["seconds"] for stage in found["stages"]}


def timed(work):
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--patch-pairs", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    rows = prompts(AutoTokenizer.from_pretrained(args.model), args.pairs)
    them = Torch(args.model, rows)
    times = {name: [] for name in ["capture", "plain", "patching"]}
    our_times = {name: [] for name in ["capture", "patching"]}
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.jsonl"
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
        them.plain()
        for _ in range(args.repeat):
            _, seconds = timed(them.capture)
            times["capture"].append(seconds)
            _, stages = ours(args.program, args.model, pairs, "activation-norm", args.patch_pairs)
            our_times["capture"].append(stages["capture"])
            _, seconds = timed(them.plain)
            times["plain"].append(seconds)
            effects, seconds = timed(lambda: them.patch(args.patch_pairs))
            times["patching"].append(seconds)
            found, stages = ours(args.program, args.model, pairs, "activation-patching", args.patch_pairs)
            our_times["patching"].append(stages["score"])
    scores = torch.zeros_like(effects)
    for entry in found["heads"]:
        layer, head = entry["head"][1:].split("H")
        scores[int(layer), int(head)] = entry["score"]
    print("| stage | circuitscope | transformers | ratio |\n|---|---|---|---|")
    middle = statistics.median
    mine = {"plain": our_times["capture"], **our_times}
    for name, theirs in times.items():
        a, b = middle(mine[name]), middle(theirs)
        print(f"| {name} | {a:.2f} s | {b:.2f} s | {b / a:.2f} |")
    worst = (scores - effects.abs()).abs().max() / effects.abs().max()
    print(f"\nlargest difference of an effect, of the largest effect: {worst:.1e}")


if __name__ == "__main__":
    main()
