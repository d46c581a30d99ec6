"""Time of `circuitscope.score` beside numpy doing the same unique counts.

    cargo xtask wheel --build
    pip install target/wheels/*.whl
    python benches/python/score.py [--examples 500] [--heads 144] [--width 768] [--repeats 5]

Head outputs `[example, head, width]` float32, drawn at random. Numpy encodes them with a dictionary of as many features, takes each
head's strongest one, and counts what occurs on positives and on no negative: in sets, as the authors' code does, and with
`bincount`. Every time is the least and the median of the repeats.
"""

import argparse
import platform
import statistics
import time

import numpy as np

import circuitscope as cs

FEATURES = 200


def timed(repeats, work):
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds), statistics.median(seconds)


def encoded(outputs, encoder, bias):
    """The strongest feature of each vector, -1 where none is active."""
    examples, heads, width = outputs.shape
    features = outputs.reshape(-1, width) @ encoder
    features += bias
    codes = features.argmax(axis=1).astype(np.int32)
    codes[features.max(axis=1) <= 0] = -1
    return codes.reshape(examples, heads)


def in_sets(codes, labels):
    counts = []
    for head in range(codes.shape[1]):
        positive, negative = set(codes[labels, head].tolist()), set(codes[~labels, head].tolist())
        counts.append(len(positive - negative))
    return np.array(counts)


def in_tables(codes, labels):
    heads = codes.shape[1]
    at = codes + 1 + np.arange(heads) * (FEATURES + 1)
    seen = [np.bincount(at[of].ravel(), minlength=heads * (FEATURES + 1)) > 0 for of in (labels, ~labels)]
    return (seen[0] & ~seen[1]).reshape(heads, -1).sum(axis=1)


def pairs_in_sets(codes, labels):
    heads = codes.shape[1]
    wide = codes.astype(np.int64) + 1
    counts = np.zeros((heads, heads), dtype=np.uint32)
    for writer in range(heads):
        for reader in range(heads):
            both = wide[:, writer] * (FEATURES + 1) + wide[:, reader]
            counts[writer, reader] = np.setdiff1d(both[labels], both[~labels]).size
    return counts


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--examples", type=int, default=500)
    asked.add_argument("--heads", type=int, default=144)
    asked.add_argument("--width", type=int, default=768)
    asked.add_argument("--layers", type=int, default=12)
    asked.add_argument("--repeats", type=int, default=5)
    asked = asked.parse_args()

    draw = np.random.default_rng(0)
    outputs = draw.standard_normal((asked.examples, asked.heads, asked.width), dtype=np.float32)
    labels = np.arange(asked.examples) % 2 == 0
    encoder = draw.standard_normal((asked.width, FEATURES), dtype=np.float32) / np.sqrt(asked.width)
    encoder = encoder.astype(np.float32)
    bias = np.zeros(FEATURES, dtype=np.float32)
    codes = encoded(outputs, encoder, bias)

    def scored(method):
        return lambda: cs.score(outputs, labels, method=method, n_layers=asked.layers, progress=False)

    rows = []

    def row(what, repeats, work):
        result, least, median = timed(repeats, work)
        rows.append((what, least, median))
        return result

    few = max(1, asked.repeats // 2)
    row("numpy: encode, strongest feature, counts in sets", asked.repeats,
        lambda: in_sets(encoded(outputs, encoder, bias), labels))
    row("numpy: the same, counts by bincount", asked.repeats,
        lambda: in_tables(encoded(outputs, encoder, bias), labels))
    row('score(method="untrained"): one dictionary, counts of heads and of pairs', asked.repeats, scored("untrained"))
    row('score(method="sae"): the same, trained before (10 examples, 500 steps)', few, scored("sae"))
    row("score(): ten untrained dictionaries, weighted by amplitude", asked.repeats, scored("recommended-activations"))
    sets = row("numpy: counts of heads alone, in sets", asked.repeats, lambda: in_sets(codes, labels))
    tables = row("numpy: counts of heads alone, by bincount", asked.repeats, lambda: in_tables(codes, labels))
    counted = row("score_codes: counts of heads and of pairs", asked.repeats,
                  lambda: cs.score_codes(codes, labels, n_layers=asked.layers))
    pairs = row("numpy: counts of pairs, setdiff1d", 1, lambda: pairs_in_sets(codes, labels))
    np.testing.assert_array_equal(counted.unique.ravel(), sets)
    np.testing.assert_array_equal(counted.unique.ravel(), tables)
    np.testing.assert_array_equal(np.triu(counted.edges, 1), np.triu(pairs, 1))

    shape = f"{asked.examples} × {asked.heads} × {asked.width} float32, {outputs.nbytes / 1e6:.0f} MB"
    print(f"{shape}, {FEATURES} features; Python {platform.python_version()}, numpy {np.__version__}\n")
    print("| what | least | median |\n|---|---|---|")
    for what, least, median in rows:
        print(f"| {what} | {least:.3f} s | {median:.3f} s |")


if __name__ == "__main__":
    main()
