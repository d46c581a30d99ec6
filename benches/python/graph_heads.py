"""Which heads do attribution graphs of the reference model go through: on greater-than, through transcoders and through neurons.

    cargo build --release --locked -p circuitscope-cli --features portable --bins
    python benches/python/graph_heads.py target/release/circuitscope graphs/

Trains a transcoder for each layer's MLP on the task's prompts, leaves one prompt of every fourth year out, makes the graph of each of
those against its counterpart, and prints the means. Needs nothing but Python.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PLANTED = {"L1H0", "L1H6", "L2H4"}
LAYERS = range(4)


def main(program, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def run(*args):
        command = [program, *map(str, args), "-q"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    pairs = folder / "pairs"
    if not pairs.exists():
        run("discover", "--task", "greater-than", "--examples", 2000, "--method", "mean-difference", "--output", pairs)
    prompts = [json.loads(line) for line in (pairs / "prompts.jsonl").read_text().splitlines()]
    year = lambda pair: int(pair["positive"].split()[7])
    held = [next(pair for pair in prompts if year(pair) == wanted) for wanted in range(2, 99, 4)]
    left_out = {pair[side] for pair in held for side in ("positive", "negative")}
    texts = dict.fromkeys(pair[side] for pair in prompts for side in ("positive", "negative"))
    texts = [text for text in texts if text not in left_out]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "held-out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sorted(left_out)))
    for layer in LAYERS:
        rows, coder = folder / f"rows{layer}", folder / "set" / str(layer)
        if not coder.exists():
            sites = ["--site", f"blocks.{layer}.mlp.hook_in", "--site-out", f"blocks.{layer}.hook_mlp_out"]
            run("rows", "--text", folder / "text.jsonl", "--context", 48, *sites, "--output", rows)
            run("train-tokens", "--rows", rows, "--k", 16, "--features", 1024, "--epochs", 20, "--output", coder)
        splice = run("splice", "--sae", coder, "--text", folder / "held-out.jsonl", "--context", 48, "--format", "json")
        fidelity = json.loads(splice)["dictionaries"]
        print(f"layer {layer}: FVU {fidelity[0]['fvu']:.4f}, L0 {fidelity[0]['l0']:.1f}, on the prompts that were left out")

    heads = {way: defaultdict(lambda: [0.0, 0.0]) for way in ("transcoders", "neurons")}
    scores, found, deviation = defaultdict(list), defaultdict(list), 0.0
    for pair in held:
        graph = json.loads(run(
            "graph", "--transcoders", folder / "set", "--prompt", pair["positive"], "--against", pair["negative"],
            "--right", ",".join(pair["answers"]), "--wrong", ",".join(pair["wrong_answers"]), "--format", "json",
        ))
        deviation = max(deviation, graph["check"]["largest_deviation"])
        for way, of in (("transcoders", graph), ("neurons", graph["control"])):
            scores[way].append((of["scores"]["replacement"], of["scores"]["completeness"]))
            found[way].append(len(PLANTED & {row["head"] for row in of["heads"][:3]}))
            for row in of["heads"]:
                heads[way][row["head"]][0] += row["contrast"] / len(held)
                heads[way][row["head"]][1] += row["influence"] / len(held)
    print(f"\n{len(held)} prompts; edges sum to nodes within {deviation:.1e}")
    for way, table in heads.items():
        replacement, completeness = (sum(values) / len(held) for values in zip(*scores[way]))
        all_three = sum(count == 3 for count in found[way])
        print(f"\nthrough {way}: replacement {replacement:.3f}, completeness {completeness:.3f}; the first three heads of a prompt are")
        print(f"the planted ones on {all_three} of {len(held)}, {sum(found[way])} of {3 * len(held)} heads in all")
        for name, column in (("contrast", 0), ("influence", 1)):
            order = sorted(table.items(), key=lambda row: -abs(row[1][column]))[:7]
            print(f"  by {name}: " + ", ".join(f"{head}{'*' * (head in PLANTED)} {of[column]:.3f}" for head, of in order))


main(*sys.argv[1:])
