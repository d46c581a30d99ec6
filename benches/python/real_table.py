"""Methods on a real model, with exact effects of single heads as the yardstick.

    python benches/python/real_table.py MODEL --program target/release/circuitscope --output OUT

MODEL is a folder or a GGUF file. For each task, every head is ablated by itself on some pairs, against its output on the matched
negative prompt and against its mean; heads whose effect is above 5 % of what the metric differs by between the two prompts are
taken for the circuit. Then `eval` scores other pairs with every method and judges it by the first of the two circuits; the second is
judged here, from the scores that `eval` keeps. Everything is printed as tables in Markdown. What is done already in OUT is not done
again. `ioi-exchanged` is indirect objects with the two names exchanged in the second half of the negative prompt, so that its right answer
is the positive's wrong one; in `ioi` the negative prompt has a third name there. Nothing but the standard library is needed.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

TASKS = {"ioi": 16, "ioi-exchanged": 16, "greater-than": 8, "induction": 8}
TASK = """schema = 1
name = "ioi-exchanged"
summary = "of two people named, the one who does not give is the one who receives"
metric = "logit-difference"

[prompts]
templates = "prompts.json"

[tokenizer]
one_length = ["names"]
"""
TEMPLATES = ["Then [B] and [A] went to the [PLACE]. [%s] gave a [OBJECT] to", "When [B] and [A] got a [OBJECT] at the [PLACE], [%s] gave it to"]
PROMPTS = {
    "schema": 1,
    "templates": [
        {"positive": text % "B", "negative": text % "A", "answers": " [A]", "wrong_answers": " [B]"} for text in TEMPLATES
    ],
    "slots": {"A": "names", "B": "names", "PLACE": "places", "OBJECT": "objects"},
    "words": {
        "names": ["Mary", "John", "Tom", "James", "Sarah", "Martin", "Laura", "Robert", "Alice", "Paul", "Emma", "David"],
        "places": ["store", "school", "garden", "station", "house"],
        "objects": ["drink", "book", "ring", "ball", "letter"],
    },
}
METHODS = [
    "recommended", "nap", "nap-ig", "nap-eg", "nap-gim", "nap-attn-lrp", "nap-rel-p", "hisp",
    "direct-logit-attribution", "recommended-activations", "sae", "sae-corrected",
    "activation-variance", "activation-variance-all", "mean-difference", "relative-difference", "linear-probe", "k-means",
    "activation-norm", "random",
]
# Circuits of growing size take the most time.
CURVES = ["recommended", "nap", "hisp", "recommended-activations", "sae", "activation-variance", "mean-difference", "random"]
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
        run(program, out / f"exact-{task}-{reference}.log", "discover", "--model", model, "--task", prompts(task, out), "--examples", pairs,
            "--patch-pairs", pairs, "--seed", "7", "--method", "activation-patching", "--reference", reference,
            "--select", "top:1", "--faithfulness=none", "--output", str(folder))
    found = json.loads((folder / "discovery.json").read_text())
    behaviour = found["behaviour"]
    total = behaviour["positives"]["mean"] - behaviour["negatives"]["mean"]
    return {head["head"]: head["signed"] for head in found["heads"]}, total, found


def prompts(task, out):
    """What --task takes."""
    if task != "ioi-exchanged":
        return task
    folder = out / task
    folder.mkdir(exist_ok=True)
    (folder / "task.toml").write_text(TASK)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    return str(folder)


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


def evaluate(program, model, task, heads, seed, methods, found, out, *more):
    """What `eval` found on ten pairs of a seed, and the scores of heads by method."""
    circuit = out / f"circuit-{task}.json"
    strong_heads = {"source": "exact effects above 5 %", "groups": {"strong": sorted(heads)}, "edges": []}
    circuit.write_text(json.dumps({
        "schema": 1, "model": "exact", "n_layers": found["n_layers"], "n_heads": found["n_heads"],
        "tasks": {task: strong_heads}, "decoys": [],
    }))
    folder = out / f"{'curves' if more else 'eval'}-{task}-{seed}"
    if not (folder / "results.json").exists():
        run(program, out / f"{folder.name}.log", "eval", "--model", model, "--task", prompts(task, out), "--circuit", str(circuit),
            "--examples", "10", "--patch-pairs", "6", "--seed", str(seed), "--seeds", "1", "--method", ",".join(methods),
            "--output", str(folder), *more)
    results = json.loads((folder / "results.json").read_text())
    scores = {}
    for method in methods:
        record = json.loads((folder / "runs" / f"{task}.{method}.{seed}.json").read_text())
        scores[method] = record["scores"]
    return {row["method"]: row for row in results["summary"]}, scores


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
    parser.add_argument("--seeds", default="100,200", help="draws of ten pairs")
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
            rows, scores = evaluate(args.program, args.model, task, truths["negative"], seed, METHODS, found, args.output)
            for method in METHODS:
                of_heads = named(scores[method], found)
                for reference, truth in truths.items():
                    judged[method][reference].append(auc_and_precision(of_heads, truth))
                ours = rows[method]["node_auc"]["mean"]
                assert abs(ours - judged[method]["negative"][-1][0]) < 1e-9, (task, method)
                kept[method].append(rows[method])
                times[method].append(rows[method]["seconds"]["mean"])
        with_curves, _ = evaluate(
            args.program, args.model, task, truths["negative"], seeds[0], CURVES, found, args.output,
            "--faithfulness", "--resamples", "0")
        for method in METHODS:
            for reference in truths:
                pairs = judged[method][reference]
                auc, precision = (statistics.mean(pair[part] for pair in pairs) for part in (0, 1))
                ranks[method].append(f"{auc:.3f} / {precision:.2f}")
            stable = [row["jaccard"]["mean"] for row in kept[method] if row.get("jaccard")]
            chance = [row["jaccard_by_chance"]["mean"] for row in kept[method] if row.get("jaccard_by_chance")]
            stable = f"{statistics.mean(stable):.2f} ({statistics.mean(chance):.2f})" if stable else "–"
            first = with_curves.get(method, {})
            areas = [first.get(key) for key in ["node_cpr", "node_cmd", "node_accuracy_area"]]
            curves[method].append([" / ".join("–" if area is None else f"{area:.2f}" for area in areas), stable])
    print("AUC / average precision of heads whose exact effect is above 5 % (how many there are), mean over draws of ten pairs:\n")
    print(table(["method", *header], [[method, *ranks[method]] for method in METHODS]))
    print("\nCPR / CMD / accuracy area of circuits of heads (first draw, six pairs), and the Jaccard index of circuits on half samples (in brackets that of random ones):\n")
    columns = [name for task in TASKS for name in (f"{task}: kept", f"{task}: stable")]
    rows = [[method, *(cell for cells in curves[method] for cell in cells), f"{statistics.mean(times[method]):.1f} s"] for method in METHODS]
    print(table(["method", *columns, "time"], rows))


main()
