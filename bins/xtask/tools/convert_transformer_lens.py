#!/usr/bin/env python3
"""Turns a published TransformerLens model (PyTorch pickles) into a folder that circuitscope reads.

    python convert_transformer_lens.py SOURCE OUTPUT [--tokenizer FILE_OR_FOLDER] [...]

SOURCE is a folder with weights and a configuration; what is in it is found by name:
- InterpBench: ll_model*.pth, ll_model_cfg*.pkl, edges.pkl;
- NeelNanda/Attn_Only_*: model_final.pth (or any *final.pth), config.json.

OUTPUT (it must not exist) gets config.json (fields of HookedTransformerConfig), model.safetensors, tokenizer.json
if one is given, and ground_truth.json if SOURCE has edges.pkl: circuit heads and edges in the form of
circuitscope's own ground truth, at the level of heads, which is what InterpBench guarantees.

Pickles can run code. Weights are read with torch.load(weights_only=True); configuration and edges by an unpickler
that knows plain containers and numbers, torch's dtypes and devices, and HookedTransformerConfig (as a bag of fields), and
refuses everything else. Still, convert only files whose origin you trust.

Needs torch and safetensors; not TransformerLens.
"""

import argparse
import json
import math
import pathlib
import pickle
import re
import shutil
import struct
import sys
import tempfile


class Failure(Exception):
    """What is wrong, in one line."""


class Fields:
    """Stands for a pickled HookedTransformerConfig: keeps its fields and does nothing."""


class NumpyDtype:
    """Stands for the type of a pickled numpy number; TransformerLens computes some fields with numpy."""

    def __init__(self, code, *_):
        self.code, self.order = code, "<"

    def __setstate__(self, state):
        self.order = state[1]


def numpy_number(dtype, data):
    """A pickled numpy number as Python's."""
    codes = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
    if not isinstance(dtype, NumpyDtype) or dtype.code not in codes:
        raise pickle.UnpicklingError("it holds a numpy object other than a number")
    (number,) = struct.unpack((">" if dtype.order == ">" else "<") + codes[dtype.code], data)
    return number


class PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers, torch dtypes and devices, and TransformerLens configurations; nothing else."""

    CONTAINERS = {"set", "frozenset", "dict", "list", "tuple", "complex", "bytearray"}
    CONFIGS = {
        ("transformer_lens.HookedTransformerConfig", "HookedTransformerConfig"),
        ("transformer_lens.config.HookedTransformerConfig", "HookedTransformerConfig"),
        ("transformer_lens", "HookedTransformerConfig"),
    }

    def find_class(self, module, name):
        if module in ("builtins", "__builtin__") and name in self.CONTAINERS:
            return super().find_class("builtins", name)
        if (module, name) == ("collections", "OrderedDict"):
            return super().find_class(module, name)
        if (module, name) in self.CONFIGS:
            return Fields
        if module == "torch":
            import torch

            value = getattr(torch, name, None)
            if name == "device" or isinstance(value, torch.dtype):
                return value
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return numpy_number
        if (module, name) == ("numpy", "dtype"):
            return NumpyDtype
        # How protocols 0 and 1 make an object of a class that is allowed.
        if (module, name) in (("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")):
            return super().find_class("copyreg", name)
        if module in ("builtins", "__builtin__") and name == "object":
            return object
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not in the list of harmless classes")


def unpickle(path):
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file).load()
    except Failure:
        raise
    except Exception as error:  # A hostile or cut file can raise anything.
        raise Failure(f"{path}: cannot be unpickled: {error}") from None


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure(f"{path}: {error}") from None


def find(folder, patterns, what, option):
    """The one file in a folder that fits the first pattern that any fits."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise Failure(f"{folder}: several files could be the {what} ({names}); choose one with {option}")
        if found:
            return found[0]
    raise Failure(f"{folder}: no {what} here ({' or '.join(patterns)}); name it with {option}")


def plain(value, name):
    """A configuration's value as JSON has it."""
    if isinstance(value, (str, bool, int, float)) or value is None:
        if isinstance(value, float) and not math.isfinite(value):
            raise Failure(f"configuration: {name} is {value}")
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item, name) for item in value]
    if type(value).__module__ == "torch":
        return str(value).removeprefix("torch.")
    raise Failure(f"configuration: {name} is a {type(value).__name__}, expected a plain value")


def configuration(path):
    """The fields of HookedTransformerConfig."""
    raw = read_json(path) if path.suffix == ".json" else unpickle(path)
    if isinstance(raw, Fields):
        raw = vars(raw)
    if not isinstance(raw, dict) or not all(isinstance(name, str) for name in raw):
        raise Failure(f"{path}: holds a {type(raw).__name__}, expected the fields of a HookedTransformerConfig")
    if raw.get("architecture", "neel") != "neel":
        raise Failure(f"{path}: architecture {raw['architecture']!r} has another state dict; only neel's is read")
    config = {name: plain(value, name) for name, value in raw.items()}
    if not ("shortformer_pos" in config or "normalization" in config):
        # The fields themselves, with the place where the model was made replaced.
        return {**config, "device": "cpu"}
    # NeelNanda's models: other names, and many about their training. TransformerLens reads these.
    kept = "d_model n_layers d_head n_heads n_ctx d_vocab act_fn attn_only".split()
    absent = [name for name in kept if name not in config]
    if absent:
        raise Failure(f"{path}: no {', '.join(absent)}")
    norm = config["normalization"] if "normalization" in config else config.get("normalization_type")
    fields = {name: config[name] for name in kept} | {
        "normalization_type": norm,
        "positional_embedding_type": "shortformer" if config.get("shortformer_pos") else "standard",
        "final_rms": config.get("final_rms", False),
        "tokenizer_name": config.get("tokenizer_name"),
        "original_architecture": "neel",
    }
    if not config["attn_only"]:
        fields["d_mlp"] = config["d_mlp"]
    return fields


def size(config, name, default=None):
    value = config.get(name, default)
    value = default if value is None or value == -1 else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Failure(f"configuration: {name} is {value!r}, expected a positive whole number")
    return value


def expected_shapes(config):
    """Shape of every tensor that a HookedTransformer with plain attention has."""
    d, d_head, n_layers = (size(config, name) for name in ("d_model", "d_head", "n_layers"))
    heads = size(config, "n_heads", max(d // d_head, 1))
    d_vocab = size(config, "d_vocab")
    d_out = size(config, "d_vocab_out", d_vocab)
    norms = config.get("normalization_type", "LN") == "LN"
    shapes = {"embed.W_E": [d_vocab, d], "unembed.W_U": [d, d_out], "unembed.b_U": [d_out]}
    if config.get("positional_embedding_type", "standard") in ("standard", "shortformer"):
        shapes["pos_embed.W_pos"] = [size(config, "n_ctx"), d]
    if norms:
        shapes |= {"ln_final.w": [d], "ln_final.b": [d]}
    for layer in range(n_layers):
        block = {f"attn.W_{port}": [heads, d, d_head] for port in "QKV"}
        block |= {f"attn.b_{port}": [heads, d_head] for port in "QKV"}
        block |= {"attn.W_O": [heads, d_head, d], "attn.b_O": [d]}
        mlp = not config.get("attn_only", False)
        if mlp:
            d_mlp = size(config, "d_mlp", 4 * d)
            block |= {"mlp.W_in": [d, d_mlp], "mlp.b_in": [d_mlp], "mlp.W_out": [d_mlp, d], "mlp.b_out": [d]}
        if norms:
            block |= {f"ln{number}.{part}": [d] for number in ("12" if mlp else "1") for part in "wb"}
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def weights(path, config):
    """The tensors that the configuration asks for, contiguous on the CPU, and the biases that were absent."""
    import torch

    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Failure(f"{path}: not a plain state dict: {reason}") from None
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise Failure(f"{path}: holds a {type(stored).__name__}, expected a state dict of tensors")
    if "embed.W_E" not in stored:
        names = ", ".join(list(stored)[:3])
        raise Failure(f"{path}: not a TransformerLens state dict: no embed.W_E, but {names} and so on")
    shapes = expected_shapes(config)
    tensors, filled, problems = {}, [], []
    for name, shape in shapes.items():
        if name not in stored:
            if name.split(".")[-1].startswith("b_"):
                tensors[name] = torch.zeros(shape)
                filled.append(name)
            else:
                problems.append(f"{name} is absent")
        elif list(stored[name].shape) != shape:
            problems.append(f"{name} has shape {list(stored[name].shape)}, expected {shape}")
        else:
            tensors[name] = stored[name]
    # Masks, and the constant of masked scores, follow from the configuration.
    buffers = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE)")
    problems += [f"{name} is not used" for name in stored if name not in shapes and not buffers.fullmatch(name)]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise Failure(f"{path}: does not fit the configuration: {'; '.join(problems[:4])}{more}")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise Failure(f"{path}: {name} is {tensor.dtype}, expected floats")
        # Doubles are read in single precision.
        tensor = tensor.float() if tensor.dtype == torch.float64 else tensor
        tensors[name] = tensor.detach().clone().contiguous()
    return tensors, filled


NODE = re.compile(r"(?:blocks\.(\d+)\.)?(?:attn\.)?(\w+)(?:\[(\d+)\])?")


def node(name, config, path):
    """A hook's node in circuitscope's notation; ports of a head are the head."""
    match = NODE.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise Failure(f"{path}: {name!r} is not the name of a node")
    layer, hook, head = match.groups()
    n_layers = size(config, "n_layers")
    n_heads = size(config, "n_heads", max(size(config, "d_model") // size(config, "d_head"), 1))
    if layer is not None and int(layer) >= n_layers or head is not None and int(head) >= n_heads:
        raise Failure(f"{path}: {name} is not in the model of {n_layers} layers and {n_heads} heads")
    if hook in ("hook_embed", "hook_pos_embed") and layer is None or hook == "hook_resid_pre" and layer == "0":
        return "input"
    if layer is not None:
        ports = ("hook_q", "hook_k", "hook_v", "hook_result", "hook_z", "hook_q_input", "hook_k_input", "hook_v_input")
        if hook in ports and head is not None:
            return f"a{int(layer)}.h{int(head)}"
        if hook in ("hook_mlp_in", "hook_mlp_out"):
            return f"m{int(layer)}"
        if hook == "hook_resid_post" and int(layer) == n_layers - 1:
            return "logits"
    raise Failure(f"{path}: {name} is neither a head, an MLP, the input nor the output")


def ground_truth(path, config, name):
    """Heads and edges of a circuit, in the form of circuitscope's datasets/reference/ground_truth.json."""
    edges = unpickle(path)
    if not isinstance(edges, (list, set, frozenset, tuple)):
        raise Failure(f"{path}: holds a {type(edges).__name__}, expected a list of edges")
    pairs, heads = set(), set()
    for edge in edges:
        if not isinstance(edge, (tuple, list)) or len(edge) != 2:
            raise Failure(f"{path}: {edge!r} is not a pair of nodes")
        source, target = (node(end, config, path) for end in edge)
        heads |= {end for end in (source, target) if end.startswith("a")}
        # Within one head or MLP: from a port to the output.
        if source != target:
            pairs.add((source, target))
    numbers = sorted(tuple(map(int, re.findall(r"\d+", head))) for head in heads)

    def order(pair):
        return [(end == "logits", [int(digits) for digits in re.findall(r"\d+", end)], end) for end in pair]

    return {
        "schema": 1,
        "model": name,
        "n_layers": size(config, "n_layers"),
        "n_heads": size(config, "n_heads", max(size(config, "d_model") // size(config, "d_head"), 1)),
        "tasks": {
            name: {
                "source": "InterpBench, edges.pkl (arXiv 2407.14494)",
                "groups": {"circuit": [f"L{layer}H{head}" for layer, head in numbers]},
                "edges": [f"{source}->{target}" for source, target in sorted(pairs, key=order)],
            }
        },
        "decoys": [],
    }


def tokenizer(path, d_vocab):
    """A tokenizer.json and the id of the token that begins a sequence, if it says which one that is."""
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise Failure(
            f"{file}: no such file; write one with transformers: "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    content = read_json(file)
    if not isinstance(content, dict) or "model" not in content:
        raise Failure(f"{file}: not a tokenizer.json of the tokenizers library")
    added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    vocabulary = content["model"].get("vocab", {})
    ids = {**(vocabulary if isinstance(vocabulary, dict) else {}), **added}
    largest = max(ids.values(), default=0)
    if largest >= d_vocab:
        raise Failure(f"{file}: has the token id {largest}, but the model has a vocabulary of {d_vocab}")
    bos = None
    options = file.with_name("tokenizer_config.json")
    if options.is_file():
        bos = read_json(options).get("bos_token")
        bos = bos.get("content") if isinstance(bos, dict) else bos
    if bos is None:
        bos = next((text for text in added if re.fullmatch(r"<\|?(bos|s|begin_of_text)\|?>", text.lower())), None)
    if bos is not None and bos not in ids:
        raise Failure(f"{options}: bos_token {bos!r} is not in the vocabulary")
    return file, ids.get(bos)


def convert(source, output, weights_file=None, config_file=None, edges_file=None, tokenizer_path=None, name=None):
    """Writes OUTPUT, whole or not at all, and returns lines that say what was done."""
    if output.exists():
        raise Failure(f"{output}: exists; choose a new folder")
    if not source.is_dir():
        raise Failure(f"{source}: not a folder")
    config_path = config_file or find(source, ["ll_model_cfg*.pkl", "config.json"], "configuration", "--config")
    weights_path = weights_file or find(source, ["ll_model*.pth", "*final.pth", "*.pth", "*.pt"], "weights", "--weights")
    edges_path = edges_file or (source / "edges.pkl" if (source / "edges.pkl").is_file() else None)
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise Failure(f"{error}: install torch and safetensors") from None

    config = configuration(config_path)
    tensors, filled = weights(weights_path, config)
    said = [f"{len(tensors)} tensors from {weights_path}"]
    if filled:
        said.append(f"absent and set to zero: {', '.join(filled)}")
    truth = ground_truth(edges_path, config, name or source.resolve().name) if edges_path else None
    if truth:
        (task,) = truth["tasks"].values()
        said.append(f"ground truth of {len(task['groups']['circuit'])} heads and {len(task['edges'])} edges")
    tokens = None
    if tokenizer_path:
        tokens, bos = tokenizer(tokenizer_path, size(config, "d_vocab"))
        if bos is None:
            said.append(
                "the tokenizer does not say which token begins a sequence; circuitscope will take the first it has of "
                "<|endoftext|>, <bos>, <s>, <|begin_of_text|>"
            )
        else:
            config["bos_token_id"] = bos
            said.append(f"sequences begin with token {bos}")

    output.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        made.chmod(0o755)
        save_file(tensors, made / "model.safetensors")
        (made / "model.safetensors").chmod(0o644)
        (made / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        if truth:
            (made / "ground_truth.json").write_text(json.dumps(truth, indent=1) + "\n")
        if tokens:
            shutil.copyfile(tokens, made / "tokenizer.json")
        made.rename(output)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return said


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, metavar="SOURCE", help="folder with the published files")
    parser.add_argument("output", type=pathlib.Path, metavar="OUTPUT", help="folder to write; must not exist")
    parser.add_argument("--weights", type=pathlib.Path, help="state dict, where SOURCE has several")
    parser.add_argument("--config", type=pathlib.Path, help="configuration, .pkl or .json")
    parser.add_argument("--edges", type=pathlib.Path, help="pickled list of edges of the true circuit")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="tokenizer.json, or a folder with one")
    parser.add_argument("--name", help="name of model and task in ground_truth.json (that of SOURCE)")
    chosen = parser.parse_args(arguments)
    try:
        said = convert(
            chosen.source, chosen.output, chosen.weights, chosen.config, chosen.edges, chosen.tokenizer, chosen.name
        )
    except (Failure, OSError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    for line in said:
        print(line)
    print(f"wrote {chosen.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
