import json

import numpy as np
import pandas
import pytest

import circuitscope as cs

#: What depends on when and by whom something is done.
PASSING = ("stages", "provenance")


def lasting(found):
    return {name: value for name, value in found.items() if name not in PASSING}


def test_the_model_says_what_it_is(model):
    assert (model.n_layers, model.n_heads, model.d_model) == (4, 8, 128)
    assert "4 layers of 8 heads" in repr(model)
    assert model.provenance["family"] == "GPT-2"
    assert "blocks.2.attn.hook_z" in model.sites()


def test_models_that_are_not_there():
    for name, said in [
        ("referense", "referense: no such file or folder (did you mean `reference`?), expected"),
        ("none/of/this/kind", "as a name of the hub"),
        (__file__, "found a file that is not GGUF"),
    ]:
        with pytest.raises(cs.Error) as error:
            cs.load_model(name)
        assert said in str(error.value)
    with pytest.raises(cs.Error, match=r"unknown processing `fold` \(did you mean `folded`\?\)"):
        cs.load_model("reference", processing="fold")
    with pytest.raises(cs.Error, match="f32, f16 or bf16"):
        cs.load_model("reference", dtype="f64")


@pytest.mark.parametrize("task", ["induction", "greater-than"])
def test_numbers_are_those_of_the_program(model, program, task):
    theirs = program("discover", "--task", task, "--examples", 20)
    ours = cs.discover(model, task=task, examples=20)
    assert lasting(ours.to_dict()) == lasting(theirs)
    assert ours.quality["circuit"] == theirs["quality"]["circuit"]


@pytest.mark.parametrize("method", ["sae", "eap-ig", "activation-variance"])
def test_methods_and_settings_are_those_of_the_program(model, program, method):
    theirs = program(
        "discover", "--task", "ioi", "--examples", 12, "--method", method, "--seed", 3, "--codes", 50,
        "--ig-steps", 3, "--faithfulness", "none",
    )  # fmt: skip
    ours = cs.discover(
        model, task="ioi", examples=12, method=method, seed=3, n_codes=50, ig_steps=3, node_ig_steps=3,
        faithfulness="none",
    )  # fmt: skip
    assert lasting(ours.to_dict()) == lasting(theirs)


def test_pairs_in_every_form(model, program, tmp_path):
    theirs = program("discover", "--task", "induction", "--examples", 8, "--output", tmp_path / "theirs")
    lines = (tmp_path / "theirs" / "prompts.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    of_file = cs.discover(model, tmp_path / "theirs" / "prompts.jsonl", faithfulness="none")
    of_dicts = cs.discover(model, rows, faithfulness="none")
    np.testing.assert_array_equal(of_file.scores.nodes, of_dicts.scores.nodes)
    texts = [(row["positive"], row["negative"]) for row in rows]
    of_texts = cs.discover(model, texts, faithfulness="none")
    of_classes = cs.discover(
        model, positive=[p for p, _ in texts], negative=[n for _, n in texts], faithfulness="none"
    )
    np.testing.assert_array_equal(of_texts.scores.nodes, of_classes.scores.nodes)
    assert "L2H5" in of_texts.circuit and theirs["heads"][0]["head"] in of_texts.circuit


def test_a_report_is_saved_as_the_program_saves_it(model, program, tmp_path):
    program("discover", "--task", "induction", "--examples", 8, "--output", tmp_path / "theirs")
    report = cs.discover(model, task="induction", examples=8)
    page = report.save(tmp_path / "ours")
    assert page.endswith("report.html")
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    for name in ("importances.json", "neuronpedia.json", "prompts.jsonl", "scores.csv"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    written = report.to_eap_ig(tmp_path / "importances.json")
    theirs = (tmp_path / "theirs" / "importances.json").read_bytes()
    assert (tmp_path / "importances.json").read_bytes() == theirs
    assert written["nodes"]["a2.h5"]["in_graph"]
    report.save(tmp_path / "ours")
    compared = program("compare", tmp_path / "ours", tmp_path / "theirs")
    assert compared is not None
    with pytest.raises(cs.Error, match="expected a folder or nothing"):
        report.save(tmp_path / "importances.json")


def test_reports_can_be_shown(model):
    report = cs.discover(model, task="induction", examples=8)
    assert report.circuit == [head["head"] for head in report.heads if head["selected"]]
    assert report.scores.signed.shape == (4, 8)
    assert report.conclusion in report._repr_html_() or "&" in report._repr_html_()
    frame = report.to_pandas()
    assert list(frame["score"]) == [head["score"] for head in report.heads]
    assert report.behaviour["positive"]["text"] and report.cards and report.known
    assert any("circuit" in said for said in report.sentences())


def test_head_outputs_need_no_model(program, model, tmp_path):
    theirs = program(
        "discover", "--task", "greater-than", "--examples", 20, "--method", "sae", "--faithfulness", "none",
        "--save-activations", tmp_path / "heads.safetensors",
    )  # fmt: skip
    from safetensors.numpy import load_file

    kept = load_file(tmp_path / "heads.safetensors")
    outputs = kept["activations"].reshape(40, 4, 8, 128)
    for method in ["recommended-activations", "sae", "linear-probe"]:
        read = program("discover", "--activations", tmp_path / "heads.safetensors", "--method", method)
        ours = cs.discover(head_outputs=outputs, labels=kept["labels"], method=method)
        expected = {**lasting(read), "examples": ours.to_dict()["examples"]}
        assert lasting(ours.to_dict()) == expected
        scores = cs.score(outputs, kept["labels"], method=method)
        np.testing.assert_array_equal(scores.nodes, ours.scores.nodes)
    assert theirs["heads"][0]["score"] == cs.score(outputs, kept["labels"], method="sae").nodes.max()


def test_sites_are_those_of_the_program(model, program, tmp_path):
    from safetensors.numpy import load_file

    program(
        "capture", "--task", "ioi", "--examples", 3, "--sites", "blocks.*.attn.hook_z,logits", "--output",
        tmp_path / "z.safetensors",
    )  # fmt: skip
    theirs = load_file(tmp_path / "z.safetensors")
    ours = cs.capture(model, task="ioi", examples=3, sites="blocks.*.attn.hook_z,logits")
    assert sorted(ours) == sorted(theirs) and len(ours.tokens) == 6
    for site, values in ours.items():
        np.testing.assert_array_equal(values, theirs[site])
    again = cs.capture(model, ours.tokens, ["blocks.1.attn.hook_z"], reduce="last")
    last = ours["blocks.1.attn.hook_z"][np.arange(6), ours.lengths - 1]
    np.testing.assert_allclose(again["blocks.1.attn.hook_z"], last, atol=1e-5)
    with pytest.raises(cs.Error, match="hook_z"):
        cs.capture(model, ours.tokens, "blocks.1.attn.hook_zz")
    with pytest.raises(cs.Error, match="did you mean `mean`"):
        cs.capture(model, ours.tokens, reduce="meen")


def test_evaluations_are_those_of_the_program(model, program, tmp_path):
    asked = ["--task", "induction", "--method", "mean-difference,random", "--examples", 20, "--seeds", 2]
    theirs = program("eval", *asked, "--output", tmp_path / "theirs")
    ours = cs.evaluate(
        model, "induction", ["mean-difference", "random"], examples=20, seeds=2, output=tmp_path / "ours"
    )

    def but_time(rows):
        return [{**row, "seconds": None} for row in rows]

    assert but_time(ours.summary) == but_time(theirs["summary"])
    assert ours.scores["induction", "random", 1].shape == (4, 8)
    again = cs.evaluate(
        model, "induction", ["mean-difference", "random"], examples=20, seeds=2, output=tmp_path / "ours"
    )
    assert again.summary == ours.summary
    ours.save(tmp_path / "copy")
    program("report", tmp_path / "copy")
    assert "node AUC" in ours._repr_html_() and len(ours.to_pandas()) == 2
    with pytest.raises(cs.Error, match="seeds: found 0"):
        cs.evaluate(model, "induction", "random", seeds=0)


def test_circuits_are_run_on_other_tasks(model, program, tmp_path):
    asked = ["--task", "induction,ioi", "--method", "mean-difference", "--examples", 20, "--seeds", 1, "--cross-task"]
    theirs = program("eval", *asked, "--output", tmp_path / "theirs")
    ours = cs.evaluate(model, ["induction", "ioi"], "mean-difference", examples=20, seeds=1, cross_task=True)
    assert ours.cross_task == theirs["cross_task"] and len(ours.cross_task) == 2
    with pytest.raises(cs.Error, match="cross_task: found 1 task, expected at least 2"):
        cs.evaluate(model, "ioi", "random", cross_task=True)


def test_scores_of_other_tools_are_judged(model, program, tmp_path):
    (tmp_path / "theirs").mkdir()
    file = tmp_path / "theirs" / "importances.json"
    cs.discover(model, task="induction", examples=20, method="nap").to_eap_ig(file)
    asked = ["--task", "induction", "--method", "random", "--examples", 20, "--seeds", 1, "--scores", file]
    theirs = program("eval", *asked, "--output", tmp_path / "eval")
    ours = cs.evaluate(model, "induction", "random", examples=20, seeds=1, scores=file)
    auc = [[(row["method"], row["node_auc"]) for row in summary] for summary in (ours.summary, theirs["summary"])]
    assert auc[0] == auc[1] and auc[0][-1][0] == "theirs-importances"
    with pytest.raises(cs.Error, match="another file is named theirs-importances"):
        cs.evaluate(model, "induction", "random", scores=[file, file])
    with pytest.raises(cs.Error, match="scores: found 2 tasks"):
        cs.evaluate(model, ["ioi", "induction"], "random", scores=file)


def test_dictionaries_that_are_there_are_used(model, program, tmp_path):
    asked = ["--task", "induction", "--examples", 20]
    folder = tmp_path / "sae"
    kept = tmp_path / "kept.safetensors"
    program("discover", *asked, "--method", "random", "--save-activations", kept, "--output", tmp_path / "kept")
    program("train", "--activations", kept, "--output", folder)
    theirs = program("discover", *asked, "--method", "sae", "--sae", folder, "--output", tmp_path / "found")
    ours = cs.discover(model, task="induction", examples=20, method="sae", sae=folder)
    assert lasting(ours.to_dict()) == lasting(theirs)
    assert ours.to_dict()["settings"]["dictionary"]["folder"] == str(folder)
    with pytest.raises(cs.Error, match="found method nap, expected sae or sae-corrected"):
        cs.discover(model, task="induction", method="nap", sae=folder)
    with pytest.raises(cs.Error, match="other_site: found no sae"):
        cs.discover(model, task="induction", other_site=True)
    of_other = json.loads((folder / "cfg.json").read_text())
    of_other["metadata"]["hook_name"] = "blocks.0.attn.hook_z"
    (folder / "cfg.json").write_text(json.dumps(of_other))
    with pytest.raises(cs.Error, match=r"\(other_site=True takes it all the same\)"):
        cs.discover(model, task="induction", examples=20, method="sae", sae=folder)
    again = cs.discover(model, task="induction", examples=20, method="sae", sae=folder, other_site=True)
    assert "which it has never seen" in " ".join(again.notes)


def test_wrong_arguments_say_what_was_expected(model):
    def refused(*args, **more):
        with pytest.raises(cs.Error) as error:
            cs.discover(*args, **more)
        return str(error.value)

    assert "expected exactly one of pairs, task" in refused(model)
    assert "expected exactly one of pairs, task" in refused(model, [("a", "b")], task="ioi")
    assert "did you mean `ioi`?" in refused(model, task="iio")
    assert "did you mean `sae`?" in refused(model, task="ioi", method="sea")
    assert "did you mean `patch_pairs`?" in refused(model, task="ioi", patch_pair=3)
    assert "did you mean `metric`?" in refused(model, task="ioi", metrik="contrast")
    assert refused(model, task="ioi", select="best").startswith("select: ")
    assert "metric" in refused(model, task="ioi", metric="accurate")
    assert "examples: found 0" in refused(model, task="ioi", examples=0)
    assert "pairs:2: " in refused(model, [("a", "b"), ("a", "")])
    assert "pairs[0]: found int" in refused(model, [3])
    assert "positive without negative" in refused(model, positive=["a"])
    assert "expected a list of texts" in refused(model, positive="a", negative="b")
    said = refused(model, [("a word that is not there", "and another")])
    assert said.startswith('pairs:1: positive prompt: "a word that is not there": found the word "word"')
    assert "prepend_bos" in refused(model, task="ioi", prepend_bos="maybe")
    assert "explain" in refused(model, task="ioi", explain="H1")
    with pytest.raises(cs.Error, match="no-such.jsonl"):
        cs.discover(model, "no-such.jsonl")


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda m: cs.evaluate(m, []), "tasks: found none"),
        (lambda m: cs.evaluate(m, "ioi", []), "methods: found none"),
        (lambda m: cs.evaluate(m, "ioi", "random", seeds=10**10), "seeds: found 10000000000, expected .* from 1 to 10000"),
        (lambda m: cs.evaluate(m, "ioi", "random", resamples=-1), "resamples: found -1"),
        (lambda m: cs.evaluate(m, "ioi", "random", scores={"a": 1}), "scores: found dict, expected a list of files"),
        (lambda m: cs.evaluate(m, 3, "random"), "tasks: found int, expected a list"),
        (lambda m: cs.evaluate(m, "ioi", 3), "methods: found int, expected a list"),
        (lambda m: cs.capture(m, 5), "prompts: found int, expected a list of texts, or of numbers"),
        (lambda m: cs.capture(m, "abc"), "prompts: found str, expected a list"),
        (lambda m: cs.capture(m, [[1]], 3), "sites: found int, expected a list"),
        (lambda m: cs.capture(m, [[1]], max_batch_tokens=0), "max_batch_tokens: found 0, expected .* from 1"),
        (lambda m: cs.capture(m, ["a", "\ud800"]), r"prompts\[1\]: found half of a surrogate pair"),
        (lambda m: cs.discover(m, [("a", "\ud800")]), r"pairs\[0\], negative: found half of a surrogate pair"),
        (lambda m: cs.discover(m, task="ioi", metric="\ud800"), "metric: found half of a surrogate pair"),
        (lambda m: cs.discover(m, 5), "pairs: found int, expected a list of pairs"),
        (lambda m: cs.discover(m, task="ioi", explain=3), "explain: found int, expected a list of heads"),
        (lambda m: cs.discover(m, positive="a", negative=["b"]), "positive: found str, expected a list of texts"),
        (
            lambda m: cs.discover(m, [{"positive": "a", "negative": "b", "answers": float("nan")}]),
            r"pairs\[0\], answers: found nan, expected finite numbers, text",
        ),
        (lambda m: cs.discover(m, task="ioi", examples=5.5), "examples: found 5.5, expected a whole number"),
        (lambda m: cs.discover(m, task="ioi", examples=10**9), "examples: found 1000000000, expected .* to 1000000"),
        (lambda m: cs.discover(m, task="ioi", faithfulness=True), "faithfulness: found true, expected text"),
        (lambda m: cs.discover(m, task="ioi", exmples=3), "unknown setting `exmples` .did you mean `examples`"),
        (lambda m: cs.discover(m, task=3), "task: found int, expected a path or a name"),
        (lambda m: cs.load_model(None), "name: found NoneType, expected a path or a name"),
    ],
)  # fmt: skip
def test_arguments_of_another_type_are_named(model, call, said):
    with pytest.raises(cs.Error, match="^(" + said + ")"):
        call(model)


def test_pairs_of_a_data_frame_may_lack_answers(model):
    report = cs.discover(model, task="induction", examples=2, faithfulness="none")
    texts = [report.behaviour[side]["text"] for side in ("positive", "negative")]
    frame = pandas.DataFrame({"positive": [texts[0]] * 2, "negative": [texts[1]] * 2, "answers": [None, float("nan")]})
    found = cs.discover(model, frame, method="nap", metric="contrast", faithfulness="none")
    again = cs.discover(model, np.array([texts] * 2), method="nap", metric="contrast", faithfulness="none")
    assert (found.scores.nodes == again.scores.nodes).all()


def test_arguments_that_nothing_reads_are_refused(model):
    with pytest.raises(cs.Error, match="^examples: found it without"):
        cs.discover(model, [("a", "b")], examples=2)
    with pytest.raises(cs.Error, match="^n_layers: found it without"):
        cs.discover(model, task="ioi", n_layers=2)
    with pytest.raises(cs.Error, match="^examples: found it without"):
        cs.capture(model, [[1]], examples=2)


def test_heads_that_are_not_there_are_refused(model):
    expected = "explain L4H0: found a model of 4 layers and 8 heads, expected a head from L0H0 to L3H7"
    with pytest.raises(cs.Error, match=expected):
        cs.discover(model, task="induction", examples=6, explain="L4H0")
    with pytest.raises(cs.Error, match="tests: found random_circuits 3, expected at least"):
        cs.discover(model, task="induction", examples=6, tests=True, random_circuits=3)


def test_few_pairs_are_told_of(model):
    made = cs.evaluate(model, "induction", "mean-difference", examples=4, seeds=1, resamples=0)
    assert any(note.startswith("warning: induction: ") for note in made.notes), made.notes
