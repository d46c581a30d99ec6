"""The method of arXiv 2405.12522 in PyTorch and TransformerLens, stage by stage, for comparison with
`benches/examples/side_by_side.rs`: the same weights, tokens and starting dictionary.

    python side_by_side.py make FOLDER          random GPT-2-small weights, tokens, a dictionary
    python side_by_side.py run FOLDER --way tuned|authors
    python side_by_side.py compare FOLDER       outputs of all ways, and the ratios of their times

Two ways:
  authors  one prompt at a time with the full cache of `hook_result`, a plain autograd training, and
           scores in Python loops over sets
  tuned    batches of 64 prompts with only `hook_z` hooked, averaged over positions and then multiplied
           by W_O, nothing computed after the last layer's attention; the same training; scores by
           counting with tensors
Needs torch, transformers, safetensors and transformer-lens==2.16.1. No network.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PAIRS, TOKENS, EXAMPLES, CODES, STEPS, L1 = 250, 16, 10, 200, 500, 0.02


def make(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(folder / "model")
    tokens = torch.randint(0, 50257, (2 * PAIRS, TOKENS))
    # Positives and negatives of a pair share all but two tokens.
    tokens[PAIRS:] = tokens[:PAIRS]
    tokens[PAIRS:, [5, 11]] = torch.randint(0, 50257, (PAIRS, 2))
    d = model.config.n_embd
    w_enc = torch.randn(d, CODES)
    w_dec = torch.randn(CODES, d)
    save_file(
        {
            "tokens": tokens.to(torch.int32),
            # The constraint of the paper's code: unit columns of both, in the layout [in, out].
            "W_enc": (w_enc / w_enc.norm(dim=0)).contiguous(),
            "W_dec": (w_dec / w_dec.norm(dim=0)).contiguous(),
            "b_enc": torch.zeros(CODES),
            "b_dec": torch.zeros(d),
        },
        folder / "input.safetensors",
    )


def load(folder):
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import GPT2LMHeadModel

    hf = GPT2LMHeadModel.from_pretrained(folder / "model")
    c = hf.config
    cfg = HookedTransformerConfig(
        n_layers=c.n_layer, n_heads=c.n_head, d_model=c.n_embd, d_head=c.n_embd // c.n_head,
        d_mlp=4 * c.n_embd, n_ctx=c.n_positions, d_vocab=c.vocab_size, act_fn="gelu_new",
        normalization_type="LN", eps=c.layer_norm_epsilon,
    )
    model = HookedTransformer(cfg)
    model.load_and_process_state_dict(
        convert_gpt2_weights(hf, cfg), fold_ln=False, center_writing_weights=False,
        center_unembed=False, fold_value_biases=False,
    )
    return model.eval()


@torch.no_grad()
def capture_authors(model, tokens):
    model.set_use_attn_result(True)
    rows = []
    for prompt in tokens:
        _, cache = model.run_with_cache(prompt[None])
        layers = [cache["result", layer][0].mean(0) for layer in range(model.cfg.n_layers)]
        rows.append(torch.cat(layers))
    model.set_use_attn_result(False)
    return torch.stack(rows)


@torch.no_grad()
def capture_tuned(model, tokens):
    rows = []
    for batch in tokens.split(64):
        means = {}

        def keep(z, hook):
            means[hook.layer()] = z.mean(1)

        class Enough(Exception):
            pass

        def last(z, hook):
            keep(z, hook)
            raise Enough

        final = model.cfg.n_layers - 1
        hooks = [(f"blocks.{layer}.attn.hook_z", keep) for layer in range(final)]
        hooks.append((f"blocks.{final}.attn.hook_z", last))
        try:
            model.run_with_hooks(batch, return_type=None, fwd_hooks=hooks)
        except Enough:
            pass
        model.reset_hooks()
        layers = [
            torch.einsum("bhd,hdm->bhm", means[layer], model.W_O[layer])
            for layer in range(model.cfg.n_layers)
        ]
        rows.append(torch.cat(layers, 1))
    return torch.cat(rows)


def chosen():
    return list(range(EXAMPLES // 2)) + list(range(PAIRS, PAIRS + EXAMPLES // 2))


def train(x, start):
    w = {k: start[k].clone().requires_grad_() for k in ["W_enc", "W_dec", "b_enc", "b_dec"]}
    adam = torch.optim.Adam(w.values(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        f = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        error = f @ w["W_dec"] + w["b_dec"] - x
        loss = error.pow(2).mean() + L1 * f.sum() / len(x)
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            # The part along vectors of fixed length is taken out, and they are scaled back.
            for name in ["W_enc", "W_dec"]:
                g, v = w[name].grad, w[name]
                g -= (g * v).sum(0, keepdim=True) * v
        adam.step()
        with torch.no_grad():
            for name in ["W_enc", "W_dec"]:
                w[name] /= w[name].norm(dim=0, keepdim=True)
        losses.append(loss.detach())
    return {k: v.detach() for k, v in w.items()}, torch.stack(losses)


@torch.no_grad()
def encode(x, w):
    f = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    return f.argmax(-1)


def scores_authors(codes):
    codes = codes.tolist()
    positive, negative = codes[:PAIRS], codes[PAIRS:]
    heads = len(codes[0])
    nodes = [
        len({row[h] for row in positive} - {row[h] for row in negative}) for h in range(heads)
    ]
    edges = [[0] * heads for _ in range(heads)]
    for a in range(heads):
        for b in range(a + 1, heads):
            seen = {(row[a], row[b]) for row in negative}
            edges[a][b] = len({(row[a], row[b]) for row in positive} - seen)
    return torch.tensor(nodes), torch.tensor(edges)


def scores_tuned(codes):
    heads = codes.shape[1]

    def unique(x):
        both = []
        for rows in (x[:PAIRS], x[PAIRS:]):
            s, _ = rows.sort(0)
            both.append(s)
        positive, negative = both
        first = torch.ones_like(positive, dtype=torch.bool)
        first[1:] = positive[1:] != positive[:-1]
        at = torch.searchsorted(negative.T.contiguous(), positive.T.contiguous()).T
        at = at.clamp(max=len(negative) - 1)
        found = negative.gather(0, at) == positive
        return (first & ~found).sum(0)

    nodes = unique(codes)
    edges = torch.zeros(heads, heads, dtype=torch.long)
    for a in range(heads - 1):
        edges[a, a + 1 :] = unique(codes[:, a : a + 1] * CODES + codes[:, a + 1 :])
    return nodes, edges


def run(folder, way, threads):
    torch.set_num_threads(threads)
    given = load_file(folder / "input.safetensors")
    tokens = given["tokens"].long()
    model = load(folder)
    times = {}

    def timed(name, work):
        start = time.perf_counter()
        result = work()
        times[name] = time.perf_counter() - start
        return result

    capture = capture_authors if way == "authors" else capture_tuned
    capture(model, tokens[:2])
    means = timed("capture", lambda: capture(model, tokens))
    heads = means.shape[1]
    x = means[chosen()].reshape(EXAMPLES * heads, -1)
    trained, losses = timed("train", lambda: train(x, given))
    flat = means.reshape(-1, means.shape[-1])
    codes = timed("encode", lambda: encode(flat, trained)).reshape(-1, heads)
    score = scores_authors if way == "authors" else scores_tuned
    nodes, edges = timed("score", lambda: score(codes))
    save_file(
        {
            "means": means.contiguous(), "losses": losses, "nodes": nodes.int(),
            "edges": edges.int(), "codes": codes.int().contiguous(),
            **{k: v.contiguous() for k, v in trained.items()},
        },
        folder / f"{way}.safetensors",
    )
    with open(folder / f"{way}.jsonl", "a") as out:
        out.write(json.dumps(times) + "\n")


def compare(folder):
    ours = load_file(folder / "circuitscope.safetensors")
    start = load_file(folder / "input.safetensors")
    report = {}
    for way in ["tuned", "authors"]:
        theirs = load_file(folder / f"{way}.safetensors")
        scale = theirs["means"].abs().max()
        # Our dictionary, their encoder, our head outputs.
        heads = ours["means"].shape[1]
        flat = ours["means"].reshape(-1, ours["means"].shape[-1])
        codes = encode(flat, ours).reshape(-1, heads)
        f = torch.relu((flat - ours["b_dec"]) @ ours["W_enc"] + ours["b_enc"])
        top = f.topk(2, dim=-1).values
        near = ((top[:, 0] - top[:, 1]) <= 1e-4 * top[:, 0]).reshape(-1, heads)
        differ = codes != ours["codes"].clamp(min=0)
        nodes, edges = scores_tuned(ours["codes"].clamp(min=0).long())
        earlier = torch.arange(heads)[:, None] // 12 < torch.arange(heads)[None] // 12
        report[way] = {
            "largest difference of head outputs, of the largest output": float(
                (ours["means"] - theirs["means"]).abs().max() / scale
            ),
            "largest relative difference of the loss over the first 50 steps": float(
                ((ours["losses"] - theirs["losses"]) / theirs["losses"])[:50].abs().max()
            ),
            "relative difference of the last loss": float(
                (ours["losses"][-1] - theirs["losses"][-1]).abs() / theirs["losses"][-1]
            ),
            "codes that differ, same dictionary, no near-tie": int((differ & ~near).sum()),
            "codes that differ at near-ties": int((differ & near).sum()),
            "codes": differ.numel(),
            "scores of heads equal, same codes": bool((nodes == ours["nodes"]).all()),
            "scores of pairs equal, same codes": bool(
                (edges[earlier] == ours["edges"][earlier]).all()
            ),
        }
    print(json.dumps(report, indent=1))

    def times(name):
        with open(folder / f"{name}.jsonl") as lines:
            return [json.loads(line) for line in lines]

    all_times = {name: times(name) for name in ["circuitscope", "tuned", "authors"]}
    stages = ["capture", "train", "encode", "score"]
    print("| stage | circuitscope | tuned | authors' way | tuned / ours | authors' / ours |")
    print("|---|---|---|---|---|---|")
    median = lambda values: statistics.median(values)
    for stage in [*stages, "all"]:
        of = {
            name: median([run[stage] if stage != "all" else sum(run[s] for s in stages) for run in runs])
            for name, runs in all_times.items()
        }
        ours = of["circuitscope"]
        print(
            f"| {stage} | {ours:.3f} s | {of['tuned']:.3f} s | {of['authors']:.3f} s | "
            f"{of['tuned'] / ours:.2f} | {of['authors'] / ours:.1f} |"
        )
    print(f"median of {len(all_times['circuitscope'])} repetitions; start weights shared: {'W_enc' in start}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "run", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--way", choices=["tuned", "authors"], default="tuned")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if args.what == "make":
        make(args.folder)
    elif args.what == "run":
        run(args.folder, args.way, args.threads)
    else:
        compare(args.folder)
