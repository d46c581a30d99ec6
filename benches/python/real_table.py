"""Methods on a real model, with exact effects of single heads as the yardstick.

    python benches/python/real_table.py MODEL --program target/release/circuitscope --output OUT

MODEL is a folder or a GGUF file. For each task, every head is ablated by itself on some pairs, against its output on the matched
negative prompt and against its mean; heads whose effect is above 5 % of what the metric differs by between the two prompts are
taken for the circuit. Then `eval` scores other pairs with every method and judges it by the first of the two circuits; the second is
judged here, from the scores that `eval` keeps. Everything is printed as tables in Markdown. What is done already in OUT is not done
again. Nothing but the standard library is needed.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

TASKS = {"ioi": 16, "greater-than": 8, "induction": 8}
METHODS = [
    "recommended", "nap", "nap-ig", "nap-eg", "nap-gim", "nap-attn-lrp", "nap-rel-p", "eap", "eap-ig", "ceap", "hisp",
    "cd-t", "direct-logit-attribution", "matryoshka-masks", "matryoshka-no-learning",
    "recommended-activations", "sae", "sae-corrected", "untrained-ensemble",
    "activation-variance", "activation-variance-all", "mean-difference", "standardised-difference",
    "relative-difference", "linear-probe", "k-means", "activation-norm", "random",
]
SHARE = 0.05


def run(program, log, *args):
    with open(log, "w") as out:
        code = subprocess.run([program, *args], stdout=out, stderr=subprocess.STDOUT).returncode
    if code != 0:
        sys.exit(f"{' '.join(args)}: exit status {code}, see {log}")


def exact(program, model, task, reference, out):
    """Signed effect of each head, and what the metric differs by between the two prompts."""
    folder = out / f"exact-{task}-{reference}"
    if not (folder / "discovery.json").exists():
        pairs = str(TASKS[task])
        run(program, out / f"exact-{task}-{reference}.log", "discover", "--model", model, "--task", task, "--examples", pairs,
            "--patch-pairs", pairs, "--seed", "7", "--method", "activation-patching", "--reference", reference,
            "--select", "top:1", "--faithfulness=none", "--output", str(folder))
    found = json.loads((folder / "discovery.json").read_text())
    behaviour = found["behaviour"]
    total = behaviour["positives"]["mean"] - behaviour["negatives"]["mean"]
    return {head["head"]: head["signed"] for head in found["heads"]}, total, found


def strong(effects, total):
    return {head for head, effect in effects.items() if abs(effect) > SHARE * abs(total)}


def auc_and_precision(scores, truth):
    above = [score for head, score in scores.items() if head in truth]
    below = [score for head, score in scores.items() if head not in truth]
    wins = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
    # Average precision over groups of equal scores.
    precision, found, seen, at = 0.0, 0, 0, sorted(scores.items(), key=lambda item: -item[1])
    while seen < len(at):
        same = [head for head, score in at[seen:] if score == at[seen][1]]
        seen += len(same)
        hits = sum(head in truth for head in same)
        found += hits
        precision += hits * found / seen
    return wins / (len(above) * len(below)), precision / len(truth)


def evaluate(program, model, task, heads, seed, found, out):
    circuit = out / f"circuit-{task}.json"
    named = {"source": "exact effects above 5 %", "groups": {"strong": sorted(heads)}, "edges": []}
    circuit.write_text(json.dumps({
        "schema": 1, "model": "exact", "n_layers": found["n_layers"], "n_heads": found["n_heads"],
        "tasks": {task: named}, "decoys": [],
    }))
    folder = out / f"eval-{task}-{seed}"
    if not (folder / "results.json").exists():
        run(program, out / f"eval-{task}-{seed}.log", "eval", "--model", model, "--task", task, "--circuit", str(circuit),
            "--examples", "10", "--patch-pairs", "10", "--seed", str(seed), "--seeds", "1", "--method", ",".join(METHODS),
            "--faithfulness", "--output", str(folder))
    results = json.loads((folder / "results.json").read_text())
    scores = {}
    for method in METHODS:
        record = json.loads((folder / "runs" / f"{task}.{method}.{seed}.json").read_text())
        record = record.get("record", record)
        scores[method] = record["scores"]
    return results, scores


def named(scores, heads):
    """Scores by the names of heads, layer by layer."""
    grid = scores["grid"]
    names = [f"L{layer}H{head}" for layer in range(grid["n_layers"]) for head in range(grid["n_heads"])]
    return dict(zip(names, scores["nodes"], strict=True))


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--program", default="target/release/circuitscope")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", default="100,200", help="two disjoint draws of ten pairs")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in args.seeds.split(",")]

    ranks = {method: [] for method in METHODS}
    curves = {method: [] for method in METHODS}
    times = {method: [] for method in METHODS}
    header = []
    for task in TASKS:
        truths = {}
        for reference in ["negative", "mean"]:
            effects, total, found = exact(args.program, args.model, task, reference, args.output)
            truths[reference] = strong(effects, total)
            header.append(f"{task}, {reference} ({len(truths[reference])})")
        judged = {method: {reference: [] for reference in truths} for method in METHODS}
        kept = {method: [] for method in METHODS}
        for seed in seeds:
            results, scores = evaluate(args.program, args.model, task, truths["negative"], seed, found, args.output)
            rows = {row["method"]: row for row in results["summary"]}
            for method in METHODS:
                of_heads = named(scores[method], found)
                for reference, truth in truths.items():
                    judged[method][reference].append(auc_and_precision(of_heads, truth))
                ours = rows[method]["node_auc"]["mean"]
                assert abs(ours - judged[method]["negative"][-1][0]) < 1e-9, (task, method)
                kept[method].append(rows[method])
                times[method].append(rows[method]["seconds"]["mean"])
        for method in METHODS:
            for reference in truths:
                pairs = judged[method][reference]
                auc, precision = (statistics.mean(pair[part] for pair in pairs) for part in (0, 1))
                ranks[method].append(f"{auc:.3f} / {precision:.2f}")
            mean = lambda key: statistics.mean(row[key] for row in kept[method])
            area = statistics.mean(row.get("node_accuracy_area", float("nan")) for row in kept[method])
            stable = [row["jaccard"]["mean"] for row in kept[method] if row.get("jaccard")]
            chance = [row["jaccard_by_chance"]["mean"] for row in kept[method] if row.get("jaccard_by_chance")]
            stable = f"{statistics.mean(stable):.2f} ({statistics.mean(chance):.2f})" if stable else "–"
            curves[method].append([f"{mean('node_cpr'):.2f} / {mean('node_cmd'):.2f} / {area:.2f}", stable])
    print("AUC / average precision of heads whose exact effect is above 5 % (how many there are), mean of two draws of ten pairs:\n")
    print(table(["method", *header], [[method, *ranks[method]] for method in METHODS]))
    print("\nCPR / CMD / accuracy area, and the Jaccard index of circuits on half samples (in brackets that of random ones):\n")
    columns = [name for task in TASKS for name in (f"{task}: kept", f"{task}: stable")]
    rows = [[method, *(cell for cells in curves[method] for cell in cells), f"{statistics.mean(times[method]):.1f} s"] for method in METHODS]
    print(table(["method", *columns, "time"], rows))


main()
