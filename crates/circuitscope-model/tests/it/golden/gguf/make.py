"""Writes small GGUF files: the golden families as llama.cpp's converter writes them, every block format,
and tokenizers with the ids that other programs give.

Made with gguf 0.19.0, transformers 5.24.0, tokenizers 0.23.3, sentencepiece 0.2.3 on one CPU thread:

    OMP_NUM_THREADS=1 python crates/circuitscope-model/tests/it/golden/gguf/make.py

- `NAME.gguf`: the model of `../families/NAME` (or `../gpt2_tiny`), rewritten as `convert_hf_to_gguf.py` does: rows of
  queries and keys interleaved (llama), gains plus 1 (Gemma), `Conv1D` transposed (GPT-2), factors of the
  rotation as a tensor (Llama 3). Where transformers reads the architecture, the file was loaded by it and
  gives the logits of the model that it was made from (asserted here).
- `formats.gguf`: a tensor in every block format, random bytes with moderate scales. `formats.json`: SHA-256 of
  the f32 numbers that `gguf.dequantize` gives for each. One of them, `rope_freqs.weight`, is F32.
- `bpe.gguf`, `bpe.json`: a byte-level vocabulary of 400 tokens trained on this very file, with ids that the
  library `tokenizers` gives for each way of cutting words.
- `sentencepiece.gguf`, `sentencepiece.json`: a SentencePiece BPE of 400 pieces with bytes, trained on this
  file, with the ids that the library `sentencepiece` gives.
"""

import hashlib
import json
import os
import pathlib
import random
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).parent
COMMON = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA2 = {
    **COMMON, "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2 = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
}
FAMILIES = {
    "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "gpt2_tiny": "gpt2", "llama": "llama", "llama_biases": "llama",
    "llama_rope_linear": "llama", "llama_rope_llama3": "llama", "phi3": "phi3", "qwen2": "qwen2", "qwen3": "qwen3",
}
# Architectures that transformers does not read from GGUF, or not as llama.cpp defines them.
UNCHECKED = {"gemma", "gemma2", "gemma3", "llama_biases", "llama_rope_linear", "llama_rope_llama3"}


def folder_of(name):
    return HERE.parent / name if name == "gpt2_tiny" else HERE.parent / "families" / name


def gguf_name(name, blocks):
    stem, kind = name.rsplit(".", 1)
    parts = stem.split(".")
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    at = next(i for i, part in enumerate(parts) if part.isdigit())
    return f"blk.{parts[at]}.{blocks['.'.join(parts[at + 1:])]}.{kind}"


def interleaved(weight, heads):
    """`permute` of llama.cpp's converter."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def family(name, arch):
    folder = folder_of(name)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    path = HERE / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, arch)
    if arch == "gpt2":
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_block_count(config["n_layer"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        heads, d = config["num_attention_heads"], config["hidden_size"]
        kv_heads = config.get("num_key_value_heads") or heads
        d_head = config.get("head_dim") or d // heads
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(d)
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
        writer.add_vocab_size(config["vocab_size"])
        writer.add_key_length(d_head)
        writer.add_value_length(d_head)
        partial = config.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(d_head * partial))
        if config.get("sliding_window"):
            writer.add_sliding_window(config["sliding_window"])
        if config.get("attn_logit_softcapping"):
            writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
        scaling = config.get("rope_scaling") or {}
        if scaling.get("rope_type") == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(scaling["factor"])
        if scaling.get("rope_type") == "llama3":
            writer.add_tensor("rope_freqs.weight", llama3(config, scaling, d_head))
    writer.add_bos_token_id(0)
    blocks = {"gpt2": GPT2, "gemma2": GEMMA2, "gemma3": GEMMA2}.get(arch, COMMON)
    for theirs, weight in sorted(tensors.items()):
        if arch == "gpt2" and theirs.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        ours = gguf_name(theirs, blocks)
        if arch == "llama" and ".attn_q." in ours:
            weight = interleaved(weight, heads)
        if arch == "llama" and ".attn_k." in ours:
            weight = interleaved(weight, kv_heads)
        if arch.startswith("gemma") and ours.endswith("norm.weight"):
            weight = weight + 1
        if arch == "gpt2" and theirs.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            weight = weight.T
        writer.add_tensor(ours, np.ascontiguousarray(weight, np.float32))
    finish(writer)
    if name not in UNCHECKED:
        ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
        with torch.no_grad():
            load = transformers.AutoModelForCausalLM.from_pretrained
            config = transformers.AutoConfig.from_pretrained(folder)
            ours = load(HERE, gguf_file=path.name, config=config, dtype=torch.float32)(ids).logits
            theirs = load(folder, dtype=torch.float32)(ids).logits
        assert (ours - theirs).abs().max() < 1e-5, (name, (ours - theirs).abs().max())


def llama3(config, scaling, d_head):
    """`generate_extra_tensors` of llama.cpp's converter."""
    base = config["rope_theta"]
    factors = []
    for i in range(0, d_head, 2):
        wave = 2 * np.pi * base ** (i / d_head)
        old, low, high = (scaling[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"))
        if wave < old / high:
            factors.append(1.0)
        elif wave > old / low:
            factors.append(scaling["factor"])
        else:
            smooth = (old / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Where the f16 scales of a block lie.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "IQ2_XXS": [0],
    "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0], "IQ1_M": [], "IQ4_NL": [0], "IQ4_XS": [0],
}


def formats():
    draw = np.random.default_rng(12)
    writer = gguf.GGUFWriter(HERE / "formats.gguf", "llama")
    sums = {}
    for name, at in SCALES.items():
        kind = Type[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        rows, blocks = 4, max(1, 256 // block)
        data = draw.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
        for start in at:
            scale = draw.uniform(-0.1, 0.1, rows * blocks).astype(np.float16)
            data[:, start : start + 2] = scale.view(np.uint8).reshape(-1, 2)
        if name == "MXFP4":
            data[:, 0] = draw.integers(115, 130, rows * blocks)
        if name == "IQ1_M":
            # The scale's four digits are the top ones of four numbers of 16 bits.
            scale = draw.uniform(-0.1, 0.1, rows * blocks).astype(np.float16).view(np.uint16)
            for digit in range(4):
                high = 48 + 2 * digit + 1
                data[:, high] = (data[:, high] & 0x0F) | (((scale >> (4 * digit)) & 0xF) << 4).astype(np.uint8)
        data = data.reshape(rows, -1)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        values = gguf.dequantize(data, kind).astype(np.float32)
        assert np.isfinite(values).all() and values.shape == (rows, 256), name
        sums[name] = hashlib.sha256(values.tobytes()).hexdigest()
    plain = draw.normal(size=(4, 256)).astype(np.float32)
    for name, stored in {
        "F32": plain, "F16": plain.astype(np.float16), "BF16": gguf.quantize(plain, Type.BF16),
    }.items():
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=Type[name])
        values = stored.astype(np.float32) if name != "BF16" else gguf.dequantize(stored, Type.BF16)
        sums[name] = hashlib.sha256(values.tobytes()).hexdigest()
    finish(writer)
    (HERE / "formats.json").write_text(json.dumps(sums, indent=1) + "\n")


def texts(seed, count):
    """Texts of words, spaces, digits, and of any character."""
    draw = random.Random(seed)
    pools = [
        lambda: draw.choice(["the", "Mary", "token", "isn't", "WORD", "naïve", "数学", "été", "def f(x):"]),
        lambda: draw.choice([" ", "  ", "    ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\n\n"]),
        lambda: draw.choice(["1752", "3", "½", "٣", " 42", "007"]),
        lambda: draw.choice(["...", "--", "('", "!?", "_", "'ll", "'S", "$", "🙂", "👩‍👩‍👧"]),
        lambda: chr(draw.choice([draw.randrange(0x20, 0xD800), draw.randrange(0xE000, 0x110000)])),
    ]
    return ["".join(draw.choice(pools)() for _ in range(draw.randint(1, 12))) for _ in range(count)]


def vocabulary(path, model, tokens, kinds, settings):
    """A llama of no depth to speak of with this vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    d = 2
    for add, value in [
        (writer.add_context_length, 64), (writer.add_embedding_length, d), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, d), (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5),
    ]:
        add(value)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    settings(writer)
    draw = np.random.default_rng(1)
    shapes = {
        "token_embd.weight": (len(tokens), d), "output_norm.weight": (d,), "blk.0.attn_norm.weight": (d,),
        "blk.0.ffn_norm.weight": (d,), **{f"blk.0.{n}.weight": (d, d) for n in "attn_q attn_k attn_v attn_output".split()},
        **{f"blk.0.{n}.weight": (d, d) for n in "ffn_gate ffn_up ffn_down".split()},
    }
    for name, shape in shapes.items():
        writer.add_tensor(name, draw.normal(size=shape).astype(np.float16))
    finish(writer)


def bpe():
    from tokenizers import Regex, pre_tokenizers

    corpus = pathlib.Path(__file__).read_text()
    split = transformers.integrations.gguf.gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    cut = lambda regex: pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    ways = {
        "gpt-2": level, "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level]),
        **{name: cut(split[name]) for name in ("llama-bpe", "qwen2", "tekken", "gpt-4o")},
    }
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = level
    special = ["<|end|>", "<|user|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    tokenizer.train_from_iterator([corpus], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [" ".join(merge) for merge in model["merges"]]
    cases = texts(7, 80) + ["", " ", "a<|end|>b <|user|>", "<|end|>"]
    ids = {}
    for name, way in ways.items():
        tokenizer.pre_tokenizer = way
        ids[name] = [tokenizer.encode(text).ids for text in cases]
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]

    def settings(writer):
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(merges)
        writer.add_bos_token_id(0)
        writer.add_add_bos_token(False)
        writer.add_chat_template("{{ messages }}")

    vocabulary(HERE / "bpe.gguf", "gpt2", tokens, kinds, settings)
    save("bpe.json", {"texts": cases, "ids": ids})


def pieces():
    from sentencepiece import sentencepiece_model_pb2 as proto

    cases = texts(8, 160) + ["", " ", "  two", "a▁b", "aaaaaaaaaaaaaa", "=====" * 5, "hahahahaha"]
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder, "corpus.txt")
        corpus.write_text(pathlib.Path(__file__).read_text() + "hahaha haha aaaa aaaaa ======= ==== \n" * 40)
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=f"{folder}/m", vocab_size=420, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
            user_defined_symbols=["\u2581\u2581", "\u2581\u2581\u2581\u2581"], minloglevel=2, num_threads=1,
        )
        spec = proto.ModelProto()
        spec.ParseFromString(pathlib.Path(folder, "m.model").read_bytes())
        # What no text gives is never merged into another piece either, but taken apart again.
        unused = [piece for piece in spec.pieces if piece.piece in ("\u2581the", "in", "ha")]
        for piece in unused:
            piece.type = proto.ModelProto.SentencePiece.UNUSED
        ids = {}
        for prefix in (True, False):
            spec.normalizer_spec.add_dummy_prefix = prefix
            processor = sentencepiece.SentencePieceProcessor(model_proto=spec.SerializeToString())
            ids[str(prefix).lower()] = [processor.encode(text) for text in cases]
    theirs = proto.ModelProto.SentencePiece
    kind = {
        theirs.NORMAL: gguf.TokenType.NORMAL, theirs.UNKNOWN: gguf.TokenType.UNKNOWN, theirs.CONTROL: gguf.TokenType.CONTROL,
        theirs.USER_DEFINED: gguf.TokenType.USER_DEFINED, theirs.UNUSED: gguf.TokenType.UNUSED,
        theirs.BYTE: gguf.TokenType.BYTE,
    }
    kinds = [kind[piece.type] for piece in spec.pieces]
    # The converter writes the spaces of tokens that users defined as such.
    tokens = [
        piece.piece.replace("\u2581", " ") if piece.type == theirs.USER_DEFINED else piece.piece for piece in spec.pieces
    ]

    def settings(writer):
        writer.add_token_scores([piece.score for piece in spec.pieces])
        writer.add_bos_token_id(1)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(True)

    vocabulary(HERE / "sentencepiece.gguf", "llama", tokens, kinds, settings)
    save("sentencepiece.json", {"texts": cases, "ids": ids, "unused": [piece.piece for piece in unused]})


def save(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    for name, arch in FAMILIES.items():
        if folder_of(name).is_dir():
            family(name, arch)
    formats()
    bpe()
    pieces()
