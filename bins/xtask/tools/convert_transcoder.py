#!/usr/bin/env python3
"""Turns a transcoder of transcoder_circuits (Dunefsky et al. 2024, a PyTorch pickle) into a folder that circuitscope reads.

    python convert_transcoder.py FILE.pt OUTPUT

FILE.pt is what `SparseAutoencoder.save_model` of transcoder_circuits writes: {cfg, state_dict}. OUTPUT (it must not exist) gets
cfg.json and sae_weights.safetensors of SAELens 6: architecture transcoder, or standard where the file holds an autoencoder of the
same code.

A transcoder of theirs subtracts b_dec from its input and adds b_dec_out to its output; SAELens' adds b_dec to the output alone. What is
written computes the same: b_enc - b_dec W_enc as b_enc, b_dec_out as b_dec. Their activations are those of
HookedTransformer.from_pretrained, which folds norms and centres weights; every prompt begins with the beginning-of-text token.
metadata says both.

Pickles can run code. This one is read with torch.load(weights_only=True), which is told of one more class, the one of their
settings, as a bag of fields. Still, convert only files whose origin you trust.

Needs torch (2.6 or later) and safetensors; not transcoder_circuits.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

SETTINGS = "sae_training.config.LanguageModelSAERunnerConfig"


class Failure(Exception):
    """What is wrong, in one line."""


class Fields:
    """Stands for their settings: keeps the fields and does nothing."""


def load(path):
    """The settings and the state dict."""
    import torch

    try:
        with torch.serialization.safe_globals([(Fields, SETTINGS)]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # A hostile or cut file can raise anything.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Failure(f"{path}: cannot be read without running it: {reason}") from None
    if not isinstance(stored, dict) or sorted(stored) != ["cfg", "state_dict"]:
        found = ", ".join(map(str, stored)) if isinstance(stored, dict) else type(stored).__name__
        raise Failure(f"{path}: found {found}, expected cfg and state_dict, as transcoder_circuits saves them")
    cfg, tensors = stored["cfg"], stored["state_dict"]
    if not isinstance(cfg, Fields):
        raise Failure(f"{path}: cfg is a {type(cfg).__name__}, expected a {SETTINGS}")
    return vars(cfg), tensors


def field(path, cfg, name, kind):
    value = cfg.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise Failure(f"{path}: cfg.{name} is {value!r}, expected {kind.__name__}")
    return value


def checked(path, tensors, shapes):
    """The tensors, of these shapes, finite and in single precision."""
    import torch

    problems = [f"{name} is absent" for name in shapes if name not in tensors]
    problems += [f"{name} is not used" for name in tensors if name not in shapes]
    if problems:
        raise Failure(f"{path}: state_dict: {'; '.join(problems)}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if not isinstance(tensor, torch.Tensor) or list(tensor.shape) != shape:
            found = list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise Failure(f"{path}: {name} has shape {found}, expected {shape}")
        if not torch.isfinite(tensor).all():
            raise Failure(f"{path}: {name} is not finite")
    return {name: tensors[name].detach().double() for name in shapes}


def converted(path):
    """cfg.json and the tensors beside it."""
    cfg, tensors = load(path)
    transcodes = field(path, cfg, "is_transcoder", bool)
    d_in, d_sae = field(path, cfg, "d_in", int), field(path, cfg, "d_sae", int)
    d_out = field(path, cfg, "d_out", int) if transcodes and cfg.get("d_out") is not None else d_in
    shapes = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_out], "b_dec": [d_in]}
    if transcodes:
        shapes["b_dec_out"] = [d_out]
    weights = checked(path, tensors, shapes)
    if transcodes:
        weights["b_enc"] -= weights["b_dec"] @ weights["W_enc"]
        weights["b_dec"] = weights.pop("b_dec_out")
    metadata = {
        "sae_lens_version": "6.0.0",
        "sae_lens_training_version": None,
        "model_name": field(path, cfg, "model_name", str),
        "hook_name": field(path, cfg, "hook_point", str),
        "prepend_bos": True,
        "model_from_pretrained_kwargs": {"fold_ln": True, "center_writing_weights": True},
    }
    if transcodes:
        metadata["hook_name_out"] = field(path, cfg, "out_hook_point", str)
    elif cfg.get("hook_point_head_index") is not None:
        metadata["hook_head_index"] = field(path, cfg, "hook_point_head_index", int)
    settings = {
        "architecture": "transcoder" if transcodes else "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        **({"d_out": d_out} if transcodes else {}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not transcodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }
    return settings, {name: tensor.float().contiguous() for name, tensor in weights.items()}


def convert(path, output):
    """Writes OUTPUT, whole or not at all, and returns its settings."""
    if output.exists():
        raise Failure(f"{output}: exists; choose a new folder")
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise Failure(f"{error}: install torch and safetensors") from None
    settings, weights = converted(path)
    output.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        made.chmod(0o755)
        save_file(weights, made / "sae_weights.safetensors")
        (made / "sae_weights.safetensors").chmod(0o644)
        (made / "cfg.json").write_text(json.dumps(settings, indent=1) + "\n")
        made.rename(output)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return settings


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, metavar="FILE.pt", help="what save_model of transcoder_circuits wrote")
    parser.add_argument("output", type=pathlib.Path, metavar="OUTPUT", help="folder to write; must not exist")
    chosen = parser.parse_args(arguments)
    try:
        settings = convert(chosen.file, chosen.output)
    except (Failure, OSError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    sites = [settings["metadata"][key] for key in ("hook_name", "hook_name_out") if key in settings["metadata"]]
    print(f"{settings['architecture']} of {settings['d_sae']} features, {' to '.join(sites)}")
    print(f"wrote {chosen.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
