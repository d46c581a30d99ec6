"""Tests of convert_transcoder.py: python -m unittest discover bins/xtask/tools

What SAELens makes of a converted folder is compared where it is installed.
"""

import json
import os
import pathlib
import sys
import tempfile
import types
import unittest

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import convert_transcoder as convert

try:
    import sae_lens
except ImportError:
    sae_lens = None

D_IN, D_OUT, D_SAE = 5, 4, 7


class Settings:
    """Pickled under the name of theirs."""


Settings.__module__, Settings.__qualname__ = convert.SETTINGS.rsplit(".", 1)
for name in ("sae_training", "sae_training.config"):
    sys.modules[name] = types.ModuleType(name)
setattr(sys.modules[Settings.__module__], Settings.__qualname__, Settings)


class Harm:
    def __reduce__(self):
        return os.system, ("true",)


class Conversion(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.file, self.output = self.root / "transcoder.pt", self.root / "output"
        torch.manual_seed(0)

    def saved(self, transcodes=True, tensors=None, **fields):
        """As their save_model does it."""
        cfg = Settings()
        cfg.__dict__ = {
            "is_transcoder": transcodes, "d_in": D_IN, "d_out": D_OUT if transcodes else None, "d_sae": D_SAE,
            "model_name": "gpt2-small", "hook_point": "blocks.8.ln2.hook_normalized", "out_hook_point": "blocks.8.hook_mlp_out",
            "hook_point_head_index": None, "dtype": torch.float32, "device": torch.device("cuda"), "lr": 4e-4,
            "use_ghost_grads": (False,), **fields,
        }  # fmt: skip
        d_out = D_OUT if transcodes else D_IN
        state = {
            "W_enc": torch.randn(D_IN, D_SAE), "b_enc": torch.randn(D_SAE), "W_dec": torch.randn(D_SAE, d_out),
            "b_dec": torch.randn(D_IN),
        }  # fmt: skip
        if transcodes:
            state["b_dec_out"] = torch.randn(D_OUT)
        state |= tensors or {}
        torch.save({"cfg": cfg, "state_dict": state}, self.file)
        return state

    def theirs(self, state, x):
        features = torch.relu((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"])
        return features, features @ state["W_dec"] + state.get("b_dec_out", state["b_dec"])

    def test_the_converted_folder_computes_the_same(self):
        for transcodes in (True, False):
            with self.subTest(transcodes=transcodes):
                self.output = self.root / f"output-{transcodes}"
                state = self.saved(transcodes)
                self.assertEqual(convert.main([str(self.file), str(self.output)]), 0)
                cfg = json.loads((self.output / "cfg.json").read_text())
                weights = load_file(self.output / "sae_weights.safetensors")
                x = torch.randn(20, D_IN)
                features, y = self.theirs(state, x)
                centred = x - weights["b_dec"] if cfg["apply_b_dec_to_input"] else x
                found = torch.relu(centred @ weights["W_enc"] + weights["b_enc"])
                torch.testing.assert_close(found, features, atol=3e-6, rtol=0)
                torch.testing.assert_close(found @ weights["W_dec"] + weights["b_dec"], y, atol=1e-5, rtol=0)
                self.assertEqual(cfg["metadata"].get("hook_name_out"), "blocks.8.hook_mlp_out" if transcodes else None)
                self.assertIs(cfg["metadata"]["model_from_pretrained_kwargs"]["fold_ln"], True)
                if sae_lens is not None:
                    sae = sae_lens.SAE.load_from_disk(self.output)
                    torch.testing.assert_close(sae.encode(x), features, atol=3e-6, rtol=0)
                    torch.testing.assert_close(sae(x), y, atol=1e-5, rtol=0)

    def assert_fails(self, message):
        with self.assertRaises(convert.Failure) as caught:
            convert.convert(self.file, self.output)
        self.assertIn(message, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(os.listdir(self.root), [self.file.name])

    def test_wrong_files_are_named(self):
        self.saved(tensors={"W_dec": torch.randn(D_SAE, D_IN)})
        self.assert_fails("W_dec has shape [7, 5], expected [7, 4]")
        self.saved(tensors={"b_enc": torch.full((D_SAE,), torch.nan)})
        self.assert_fails("b_enc is not finite")
        self.saved(tensors={"threshold": torch.zeros(D_SAE)})
        self.assert_fails("state_dict: threshold is not used")
        self.saved(d_in="5")
        self.assert_fails("cfg.d_in is '5', expected int")
        self.saved(out_hook_point=None)
        self.assert_fails("cfg.out_hook_point is None, expected str")
        torch.save({"W_enc": torch.zeros(1)}, self.file)
        self.assert_fails("found W_enc, expected cfg and state_dict")
        torch.save({"cfg": {}, "state_dict": {}}, self.file)
        self.assert_fails("cfg is a dict, expected a sae_training.config.LanguageModelSAERunnerConfig")
        torch.save({"cfg": Harm(), "state_dict": {}}, self.file)
        self.assert_fails("cannot be read without running it")
        self.file.write_bytes(b"no pickle")
        self.assert_fails("cannot be read without running it")

    def test_nothing_is_overwritten(self):
        self.saved()
        self.output.mkdir()
        with self.assertRaises(convert.Failure):
            convert.convert(self.file, self.output)


if __name__ == "__main__":
    unittest.main()
