import json
import sys

import numpy as np
import pytest

import circuitscope as cs


def test_heads_that_tell_classes_apart_lead(toy):
    outputs, labels = toy
    for method in ["mean-difference", "recommended-activations", "sae", "sae-corrected"]:
        scores = cs.score(outputs, labels, method=method)
        assert scores.nodes.shape == (2, 3) and scores.nodes.dtype == np.float64
        assert scores.method == method
        if not method.startswith("sae"):  # codes of noise are many on either side
            assert scores.top(1) == ["L1H0"], method


def test_the_default_needs_no_model(toy):
    outputs, labels = toy
    assert cs.score(outputs, labels).method == "recommended-activations"
    assert cs.score(outputs, labels).notes == []
    replaced = cs.score(outputs, labels, method="recommended")
    assert replaced.method == "recommended-activations"
    assert "recommended-activations takes its place" in replaced.notes[0]


def test_what_no_model_reads_is_said(toy):
    outputs, labels = toy
    report = cs.discover(head_outputs=outputs, labels=labels, metric="contrast", examples=3)
    said = [note for note in report.notes if "is not read" in note]
    assert said == [
        f"{name} is not read: no model runs with head_outputs" for name in ["examples", "metric"]
    ]
    assert not [n for n in cs.discover(head_outputs=outputs, labels=labels).notes if "not read" in n]


def test_shapes_of_heads(toy):
    outputs, labels = toy
    flat = outputs.reshape(40, 6, 8)
    expected = cs.score(outputs, labels, method="sae")
    one_layer = cs.score(flat, labels, method="sae")
    assert one_layer.nodes.shape == (1, 6) and not one_layer.edges.any()
    layers = cs.score(flat, labels, method="sae", n_layers=2)
    np.testing.assert_array_equal(layers.nodes, expected.nodes)
    np.testing.assert_array_equal(layers.edges, expected.edges)
    assert expected.edges.shape == (6, 6) and not np.tril(expected.edges).any()


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
    ],
    ids=["fortran", "strided", "f64", "big-endian", "list"],
)
def test_every_layout_gives_the_same_bits(toy, convert):
    outputs, labels = toy
    expected = cs.score(outputs, labels, method="sae").nodes
    np.testing.assert_array_equal(cs.score(convert(outputs), labels, method="sae").nodes, expected)


def test_half_precision_is_widened(toy):
    outputs, labels = toy
    half = outputs.astype(np.float16)
    expected = cs.score(half.astype(np.float32), labels).nodes
    np.testing.assert_array_equal(cs.score(half, labels).nodes, expected)


@pytest.mark.parametrize(
    "kind", [bool, int, np.uint8, np.int64, np.float32], ids=lambda kind: np.dtype(kind).name
)
def test_labels_of_all_kinds(toy, kind):
    outputs, labels = toy
    expected = cs.score(outputs, labels).nodes
    given = labels.astype(kind)
    np.testing.assert_array_equal(cs.score(outputs, given).nodes, expected)
    np.testing.assert_array_equal(cs.score(outputs, given.tolist()).nodes, expected)


class OfDlpack:
    """What has `__dlpack__` and nothing else, as tensors of other libraries."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **asked):
        return self.array.__dlpack__(**asked)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OfArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("wrap", [OfDlpack, OfArray])
def test_arrays_of_other_libraries(toy, wrap):
    outputs, labels = toy
    expected = cs.score(outputs, labels).nodes
    np.testing.assert_array_equal(cs.score(wrap(outputs), labels).nodes, expected)


def test_contiguous_float32_is_not_copied_on_the_way(toy):
    from circuitscope import _arrays

    outputs, _ = toy
    assert np.shares_memory(_arrays.floats(outputs, "x"), outputs)
    assert np.shares_memory(_arrays.floats(OfDlpack(outputs), "x"), outputs)


def refused(*args, **more):
    with pytest.raises(cs.Error) as error:
        cs.score(*args, **more)
    assert isinstance(error.value, ValueError)
    return str(error.value)


def test_wrong_arguments_say_what_was_expected(toy):
    outputs, labels = toy
    wrong = outputs.copy()
    wrong[3, 1, 2, 7] = np.nan
    assert refused(wrong, labels) == "head_outputs[3, 1, 2, 7]: found NaN, expected finite numbers"
    assert refused(outputs[0, 0], labels) == (
        "head_outputs: found shape [3, 8], expected [example, head, d] or [example, layer, head, d]"
    )
    assert "found 39, expected one for each of the 40 examples" in refused(outputs, labels[:39])
    swapped = outputs.reshape(40, 6, 8).swapaxes(0, 1)
    assert "swap the first two axes" in refused(swapped, labels)
    assert refused(outputs, np.where(labels, 2, 0)) == "labels[0]: found 2, expected 0 or 1"
    assert "labels: found shape [40, 1]" in refused(outputs, labels[:, None])
    assert "expected booleans, or 0 and 1" in refused(outputs, ["yes"] * 40)
    assert "expected numbers" in refused(outputs.astype(str), labels)
    assert "no axis of length 0" in refused(outputs[:, :, :0], labels)
    assert "n_layers: found 4" in refused(outputs.reshape(40, 6, 8), labels, n_layers=4)
    assert "positive" in refused(outputs, np.zeros(40, bool))
    assert "did you mean `sae`?" in refused(outputs, labels, method="sea")
    assert "did you mean `n_codes`?" in refused(outputs, labels, n_code=100)
    assert "did you mean `method`?" in refused(outputs, labels, metod="sae")
    assert refused(outputs, labels, n_codes=0) == (
        "n_codes: found 0, expected a whole number, from 1 to 65536"
    )
    assert "expected a finite number" in refused(outputs, labels, l1_coefficient=-1.0)
    assert "train_examples" not in refused(outputs, labels, method="sae", train_examples=100)
    assert "eap" in refused(outputs, labels, method="eap")
    assert "eap" in refused(outputs, labels, method="eap", pairs=[(0, 1)])
    assert refused(outputs, labels, method="paired-flip-rate", pairs=[(1, 0)])


@pytest.mark.parametrize(
    "named, said",
    [
        ({"seed": -1}, "seed: found -1, expected a whole number that is not negative"),
        ({"seed": 2**64}, "seed: found 1.8446744073709552e\\+19, expected a whole number"),
        ({"seed": "x"}, 'seed: found "x", expected a whole number'),
        ({"n_layers": -2}, "n_layers: found -2, expected a whole number"),
        ({"method": None}, "method: found null, expected text"),
        ({"method": b"sae"}, "method: found bytes, expected text"),
        ({"method": "sae", "l1_coefficient": float("nan")}, "l1_coefficient: found nan, expected finite numbers"),
        ({"method": "sae", "n_codes": {1, 2}}, "n_codes: found set, expected text"),
        ({"pairs": [1, 2]}, "pairs: found shape \\[2\\] of int64, expected rows"),
        ({"pairs": [(0, -1)]}, "pairs\\[0\\]\\[1\\]: found -1, expected a whole number"),
        ({"progress": 3}, "progress: found int, expected None"),
    ],
)  # fmt: skip
def test_arguments_of_another_type_are_named(toy, named, said):
    with pytest.raises(cs.Error, match="^" + said):
        cs.score(*toy, **named)


def test_results_are_asked_for_what_there_is(toy, tmp_path):
    scores = cs.score(*toy)
    with pytest.raises(cs.Error, match="heads: found -1"):
        scores.top(-1)
    (tmp_path / "file").touch()
    with pytest.raises(cs.Error, match="cannot write .*file"):
        scores.to_eap_ig(tmp_path / "file" / "x.json")
    codes = np.zeros((40, 6), dtype=int)
    with pytest.raises(cs.Error, match="amplitude of example 0, head 0: found NaN"):
        cs.score_codes(codes, toy[1], amplitudes=np.full((40, 6), np.nan))


def test_masks_and_what_float32_has_not_are_refused(toy):
    outputs, labels = toy
    with pytest.raises(cs.Error, match="head_outputs: found a mask"):
        cs.score(np.ma.masked_array(outputs, outputs > 2), labels)
    with pytest.raises(cs.Error, match="labels: found a mask"):
        cs.score(outputs, np.ma.masked_array(labels, labels))
    assert cs.score(np.ma.masked_array(outputs, False), labels).top(1) == ["L1H0"]
    large = outputs.astype(np.float64)
    large[1, 0, 2, 3] = 1e300
    with pytest.raises(cs.Error, match=r"head_outputs\[1, 0, 2, 3\]: found 1e\+300, expected a number that float32 has"):
        cs.score(large, labels)


def test_what_heads_do_needs_a_model(toy):
    outputs, labels = toy
    with pytest.raises(cs.Error, match="explain runs the model: found head_outputs alone"):
        cs.discover(head_outputs=outputs, labels=labels, explain="L1H0")


def test_heads_that_a_method_does_not_tell_apart_are_told_of(toy):
    outputs, labels = toy
    assert cs.score(outputs, labels).notes == []
    assert "all heads have the same score" in cs.score(np.zeros_like(outputs), labels).notes[0]


def test_settings_are_read(toy):
    outputs, labels = toy
    usual = cs.score(outputs, labels, method="sae")
    other = cs.score(outputs, labels, method="sae", n_codes=10, steps=50)
    assert (usual.nodes != other.nodes).any()
    assert other.dictionary["n_codes"] == 10
    again = cs.score(outputs, labels, method="sae", n_codes=10, steps=50)
    np.testing.assert_array_equal(again.nodes, other.nodes)
    assert (cs.score(outputs, labels, method="sae", seed=1).nodes != usual.nodes).any()
    assert cs.settings()["n_codes"] == 200 and "z_steps" in cs.settings()


def test_codes_are_counted_as_numpy_counts_them():
    draw = np.random.default_rng(1)
    codes = draw.integers(-1, 6, size=(30, 2, 3))
    labels = draw.random(30) < 0.5
    scores = cs.score_codes(codes, labels)
    flat = codes.reshape(30, 6)
    for head in range(6):
        positive, negative = set(flat[labels, head]), set(flat[~labels, head])
        assert scores.unique.ravel()[head] == len(positive - negative)
        assert scores.union.ravel()[head] == len(positive | negative)
    pairs = [set(zip(flat[of, 0], flat[of, 4])) for of in (labels, ~labels)]
    assert scores.edges[0, 4] == len(pairs[0] - pairs[1])
    compatible = cs.score_codes(codes, labels, paper_compatible=True)
    expected = cs.score_codes(np.maximum(codes, 0), labels)
    np.testing.assert_array_equal(compatible.unique, expected.unique)
    with pytest.raises(cs.Error, match="expected whole numbers"):
        cs.score_codes(codes + 0.5, labels)
    with pytest.raises(cs.Error, match="amplitudes: found shape"):
        cs.score_codes(codes, labels, amplitudes=np.ones((30, 6)))
    amplitudes = cs.score_codes(codes, labels, amplitudes=np.ones(codes.shape)).amplitude_scores
    assert amplitudes.shape == (2, 3)


def test_what_scores_can_be_shown_as(toy, tmp_path):
    outputs, labels = toy
    scores = cs.score(outputs, labels, method="mean-difference")
    assert np.asarray(scores).shape == (2, 3)
    assert "L1H0" in repr(scores) and "<td>L1H0</td>" in scores._repr_html_()
    path = tmp_path / "importances.json"
    made = scores.to_eap_ig(path)
    assert json.loads(path.read_text()) == made
    assert made["cfg"] == {"n_layers": 2, "n_heads": 3, "parallel_attn_mlp": False, "d_model": 8}
    assert made["nodes"]["a1.h0"]["score"] == scores.nodes[1, 0]
    assert "m0" in made["nodes"] and "m0" not in scores.to_eap_ig(mlps=False)["nodes"]
    assert list(tmp_path.iterdir()) == [path]


def test_without_pandas_it_is_said(toy, monkeypatch):
    outputs, labels = toy
    scores = cs.score(outputs, labels, method="mean-difference")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        scores.to_pandas()


def test_with_pandas_it_is_a_frame(toy):
    outputs, labels = toy
    scores = cs.score(outputs, labels, method="mean-difference")
    frame = scores.to_pandas()
    assert list(frame.columns) == ["head", "layer", "index", "score"]
    assert list(frame["head"]) == [head for head, _ in scores.ranking()]


def test_methods_are_listed():
    known = {method["name"]: method for method in cs.methods()}
    assert known["recommended"]["default"] and known["sae"]["needs"] == []
