"""Tests of convert_transformer_lens.py: python -m unittest discover bins/xtask/tools

The first class needs TransformerLens, to make models as InterpBench and NeelNanda publish them, and is skipped without.
"""

import collections
import contextlib
import io
import json
import os
import pathlib
import pickle
import sys
import tempfile
import unittest

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import convert_transformer_lens as convert

try:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
except ImportError:
    HookedTransformer = None

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 8, "d_head": 4, "n_ctx": 6, "d_vocab": 7}
INTERPBENCH = {
    **SHAPE, "d_vocab_out": 3, "act_fn": "gelu", "normalization_type": None, "attention_dir": "bidirectional",
    "use_attn_result": True, "use_split_qkv_input": True, "use_hook_mlp_in": True, "device": "cpu", "seed": 0,
}
NEEL = {
    **SHAPE, "d_mlp": 32, "act_fn": "gelu", "attn_only": True, "shortformer_pos": False, "normalization": "LN",
    "tokenizer_name": "NeelNanda/gpt-neox-tokenizer-digits", "lr": 0.001, "use_bfloat16_matmul": True,
}
EDGES = [
    ("hook_embed", "blocks.0.hook_v_input[1]"), ("hook_pos_embed", "blocks.0.hook_q_input[1]"),
    ("blocks.0.hook_v_input[1]", "blocks.0.attn.hook_v[1]"), ("blocks.0.attn.hook_v[1]", "blocks.0.attn.hook_result[1]"),
    ("blocks.0.attn.hook_result[1]", "blocks.1.hook_mlp_in"), ("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"),
    ("blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"), ("blocks.0.attn.hook_result[1]", "blocks.1.hook_k_input[0]"),
]
TOKENIZER = {
    "version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
    "added_tokens": [{"id": 2, "content": "<|endoftext|>"}, {"id": 3, "content": "<|BOS|>"}],
}


def state_dict(config=SHAPE, **more):
    """Random tensors of the shapes that a configuration asks for."""
    shapes = convert.expected_shapes({**config, **more})
    return {name: torch.randn(shape) for name, shape in shapes.items()}


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.source, self.output = self.root / "source", self.root / "output"
        self.source.mkdir()

    def pickled(self, name, value):
        (self.source / name).write_bytes(pickle.dumps(value))

    def converted(self, **options):
        lines = convert.convert(self.source, self.output, **options)
        return lines, json.loads((self.output / "config.json").read_text()), load_file(self.output / "model.safetensors")

    def assert_fails(self, message, **options):
        with self.assertRaises(convert.Failure) as caught:
            convert.convert(self.source, self.output, **options)
        self.assertIn(message, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        # Nothing is left behind.
        self.assertEqual(os.listdir(self.root), ["source"])


@unittest.skipIf(HookedTransformer is None, "transformer_lens is not installed")
class Published(Case):
    def check_logits(self, model, config, tensors):
        """The converted folder is the model, by TransformerLens itself."""
        # A field of ours, and one that would be looked up on the network.
        config = {name: value for name, value in config.items() if name not in ("bos_token_id", "tokenizer_name")}
        again = HookedTransformer(HookedTransformerConfig.from_dict({**config, "dtype": torch.float32}))
        absent, unexpected = again.load_state_dict(tensors, strict=False)
        self.assertEqual(unexpected, [])
        self.assertTrue(all(name.endswith((".mask", ".IGNORE")) for name in absent), absent)
        tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 5, 0, 0, 1]])
        with torch.no_grad():
            torch.testing.assert_close(again(tokens), model(tokens), atol=1e-6, rtol=0)

    def test_interpbench(self):
        model = HookedTransformer(HookedTransformerConfig.from_dict(dict(INTERPBENCH)))
        torch.save(model.state_dict(), self.source / "ll_model.pth")
        self.pickled("edges.pkl", EDGES)
        # Published configurations are dictionaries, some the object itself.
        for number, config in enumerate((model.cfg.to_dict(), model.cfg)):
            with self.subTest(type(config).__name__):
                self.pickled("ll_model_cfg.pkl", config)
                self.output = self.root / f"output{number}"
                _, config, tensors = self.converted(name="case")
                self.assertEqual((config["d_vocab_out"], config["dtype"], config["act_fn"]), (3, "float32", "gelu"))
                for name, tensor in model.state_dict().items():
                    if not name.endswith((".mask", ".IGNORE")):
                        torch.testing.assert_close(tensors[name], tensor, atol=0, rtol=0)
                self.check_logits(model, config, tensors)
                truth = json.loads((self.output / "ground_truth.json").read_text())
                self.assertEqual((truth["n_layers"], truth["n_heads"], truth["model"]), (2, 2, "case"))
                task = truth["tasks"]["case"]
                self.assertEqual(task["groups"], {"circuit": ["L0H1", "L1H0"]})
                edges = {"input->a0.h1", "a0.h1->m1", "m1->logits", "a0.h1->a1.h0"}
                self.assertEqual((set(task["edges"]), len(task["edges"])), (edges, 4))

    def test_attention_only(self):
        for shortformer in (False, True):
            with self.subTest(shortformer=shortformer):
                position = "shortformer" if shortformer else "standard"
                options = {**SHAPE, "attn_only": True, "positional_embedding_type": position, "device": "cpu"}
                model = HookedTransformer(HookedTransformerConfig.from_dict(options))
                torch.save(model.state_dict(), self.source / "model_final.pth")
                published = {**NEEL, "shortformer_pos": shortformer}
                (self.source / "config.json").write_text(json.dumps(published))
                (self.root / "tokenizer.json").write_text(json.dumps(TOKENIZER))
                self.output = self.root / position
                _, config, tensors = self.converted(tokenizer_path=self.root / "tokenizer.json")
                self.assertEqual(config["positional_embedding_type"], position)
                self.assertEqual((config["normalization_type"], config["bos_token_id"]), ("LN", 3))
                self.check_logits(model, config, tensors)
                self.assertEqual(json.loads((self.output / "tokenizer.json").read_text()), TOKENIZER)


class Reading(Case):
    def test_a_tokenizer_config_says_what_begins_a_sequence(self):
        torch.save(state_dict(NEEL), self.source / "model_final.pth")
        (self.source / "config.json").write_text(json.dumps(NEEL))
        folder = self.source / "tokenizer"
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<|endoftext|>"}}))
        _, config, _ = self.converted(tokenizer_path=folder)
        self.assertEqual(config["bos_token_id"], 2)

    def test_absent_biases_are_zero_and_doubles_are_halved(self):
        weights = state_dict(attn_only=True)
        del weights["unembed.b_U"]
        weights["embed.W_E"] = weights["embed.W_E"].double()
        torch.save(weights, self.source / "ll_model.pth")
        self.pickled("ll_model_cfg.pkl", {**SHAPE, "attn_only": True, "dtype": torch.float64})
        lines, config, tensors = self.converted()
        self.assertIn("absent and set to zero: unembed.b_U", lines)
        self.assertEqual(tensors["unembed.b_U"].tolist(), [0.0] * 7)
        self.assertEqual(tensors["embed.W_E"].dtype, torch.float32)
        self.assertEqual(config["dtype"], "float64")


class Faults(Case):
    def whole(self):
        torch.save(state_dict(), self.source / "ll_model.pth")
        self.pickled("ll_model_cfg.pkl", SHAPE)

    def test_code_in_pickles_is_not_run(self):
        mark = self.root / "source" / "mark"

        class Harmful:
            def __reduce__(self):
                return (pathlib.Path.touch, (mark,))

        self.whole()
        self.pickled("ll_model_cfg.pkl", Harmful())
        self.assert_fails("which is not in the list of harmless classes")
        self.whole()
        self.pickled("edges.pkl", Harmful())
        self.assert_fails("which is not in the list of harmless classes")
        self.whole()
        (self.source / "edges.pkl").unlink()
        torch.save({"embed.W_E": Harmful()}, self.source / "ll_model.pth")
        self.assert_fails("ll_model.pth: not a plain state dict")
        self.assertFalse(mark.exists())
        # What the refused files would have done.
        pickle.loads(pickle.dumps(Harmful()))
        self.assertTrue(mark.exists())

    def test_allowed_modules_do_not_open_others(self):
        for module, name in [("builtins", "eval"), ("torch", "load"), ("os", "system"), ("collections", "namedtuple")]:
            with self.assertRaisesRegex(pickle.UnpicklingError, f"{module}.{name}"):
                convert.PlainUnpickler(io.BytesIO(b"")).find_class(module, name)

    def test_missing_and_ambiguous_files(self):
        self.assert_fails("no configuration here (ll_model_cfg*.pkl or config.json); name it with --config")
        self.pickled("ll_model_cfg.pkl", SHAPE)
        self.assert_fails("no weights here")
        for name in ("ll_model_1.pth", "ll_model_2.pth"):
            torch.save(state_dict(), self.source / name)
        self.assert_fails("several files could be the weights (ll_model_1.pth, ll_model_2.pth)")

    def test_weights_that_do_not_fit(self):
        self.whole()
        weights = state_dict()
        weights["embed.W_E"] = torch.zeros(7, 9)
        del weights["blocks.1.mlp.W_in"]
        weights["blocks.0.attn.rotary_sin"] = torch.zeros(1)
        torch.save(weights, self.source / "ll_model.pth")
        self.assert_fails("embed.W_E has shape [7, 9], expected [7, 8]; blocks.1.mlp.W_in is absent; blocks.0.attn.rotary")
        torch.save({"transformer.wte.weight": torch.zeros(1)}, self.source / "ll_model.pth")
        self.assert_fails("not a TransformerLens state dict: no embed.W_E, but transformer.wte.weight")
        (self.source / "ll_model.pth").write_bytes(b"cut")
        self.assert_fails("ll_model.pth: not a plain state dict")

    def test_bad_configurations(self):
        self.whole()
        for value, message in [
            ([1], "holds a list, expected the fields of a HookedTransformerConfig"),
            ({**SHAPE, "n_layers": 0}, "n_layers is 0, expected a positive whole number"),
            ({**SHAPE, "eps": float("nan")}, "eps is nan"),
            ({**SHAPE, "act_fn": {1}}, "act_fn is a set, expected a plain value"),
            ({**SHAPE, "architecture": "mingpt"}, "architecture 'mingpt' has another state dict"),
            ({"normalization": "LN"}, "no d_model, n_layers"),
        ]:
            self.pickled("ll_model_cfg.pkl", value)
            self.assert_fails(message)
        (self.source / "ll_model_cfg.pkl").write_bytes(b"\x80\x04cut")
        self.assert_fails("ll_model_cfg.pkl: cannot be unpickled")

    def test_bad_edges(self):
        self.whole()
        for edges, message in [
            ({"a": 1}, "holds a dict, expected a list of edges"),
            ([("hook_embed",)], "is not a pair of nodes"),
            ([("hook_embed", "blocks.0.attn.hook_result[2]")], "is not in the model of 2 layers and 2 heads"),
            ([("hook_embed", "blocks.0.hook_resid_post")], "is neither a head, an MLP, the input nor the output"),
            ([("hook_embed", collections.OrderedDict())], "is not the name of a node"),
        ]:
            self.pickled("edges.pkl", edges)
            self.assert_fails(message)

    def test_bad_tokenizers(self):
        self.whole()
        path = self.source / "tokenizer.json"
        self.assert_fails("AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)", tokenizer_path=path)
        path.write_text("[]")
        self.assert_fails("not a tokenizer.json", tokenizer_path=path)
        path.write_text(json.dumps({**TOKENIZER, "added_tokens": [{"id": 7, "content": "x"}]}))
        self.assert_fails("token id 7, but the model has a vocabulary of 7", tokenizer_path=path)

    def test_the_command_says_one_line_and_keeps_what_exists(self):
        self.whole()
        self.output.mkdir()
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            self.assertEqual(convert.main([str(self.source), str(self.output)]), 1)
        self.assertEqual(error.getvalue(), f"error: {self.output}: exists; choose a new folder\n")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(convert.main([str(self.source), str(self.root / "new")]), 0)
        self.assertIn(f"wrote {self.root / 'new'}", said.getvalue())


if __name__ == "__main__":
    unittest.main()
