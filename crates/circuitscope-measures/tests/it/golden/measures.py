"""Writes measures.json: rankings and what scikit-learn says of them.

    python measures.py            (scikit-learn 1.9, numpy 1.26)

The pessimistic area and the authors' F1 are not in scikit-learn; they are computed from its ROC curve
by their formulas.
"""

import json
import pathlib

import numpy as np
from sklearn.metrics import auc, average_precision_score, f1_score, roc_curve

rng = np.random.default_rng(11)
cases = []
for entries, true, levels, signal in [
    (6, 2, 3, 1.0),
    (32, 4, 1000, 1.5),
    (144, 26, 8, 1.0),  # many ties, as counts of codes have
    (144, 9, 40, 0.5),
    (1200, 88, 5, 0.2),
    (20, 19, 6, 0.0),
]:
    truth = np.zeros(entries, int)
    truth[rng.permutation(entries)[:true]] = 1
    scores = np.floor(levels * rng.random(entries) + signal * levels / 3 * truth)
    fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    f1 = [f1_score(truth, scores >= t) for t in thresholds[1:]]
    best = int(np.argmax(f1))  # the first, so the smallest choice
    with np.errstate(invalid="ignore"):
        paper = np.nan_to_num(2 * tpr * (1 - fpr) / (tpr + (1 - fpr)))
    default_fpr, default_tpr, _ = roc_curve(truth, scores)
    cases.append(
        {
            "truth": truth.tolist(),
            "scores": scores.tolist(),
            "fpr": fpr.tolist(),
            "tpr": tpr.tolist(),
            "thresholds": thresholds[1:].tolist(),  # the first is infinite
            "auc": auc(default_fpr, default_tpr),
            "auc_pessimistic": float(np.sum((1 - fpr[1:]) * np.diff(tpr))),
            "average_precision": average_precision_score(truth, scores),
            "best_f1": f1[best],
            "best_f1_threshold": thresholds[1 + best],
            "best_f1_size": int((scores >= thresholds[1 + best]).sum()),
            "best_paper_f1": paper.max(),
        }
    )
values = rng.normal(size=7)
result = {
    "rankings": cases,
    "spread": {"values": values.tolist(), "mean": values.mean(), "std": values.std()},
}
path = pathlib.Path(__file__).with_name("measures.json")
path.write_text(json.dumps(result, separators=(",", ":")) + "\n")
