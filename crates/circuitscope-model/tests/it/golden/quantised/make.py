"""Writes one small Llama in every quantised storage that is read, and its weights by the formats' definitions.

Made with numpy 2.4.6, torch 2.15.0, safetensors 0.8.0:

    python crates/circuitscope-model/tests/it/golden/quantised/make.py

`NAME.config.json` is the configuration, `NAME.safetensors` the quantised weights, and `NAME.expected.safetensors` their
values in f32, computed here in numpy from the definitions:

- bitsandbytes int8 (`LLM.int8()`): `w × SCB × (1/127)`, `SCB` the largest magnitude of a row;
- NF4, FP4: `quant_map[nibble] × absmax[block]`, the high nibble first, blocks of 64; nested, `absmax` is itself
  `nested_quant_map[byte] × nested_absmax[block of 256] + nested_offset`;
- GPTQ: `(q - (zero + 1)) × scale`, the group of an input as `g_idx` says; `q` packed along inputs, `zero` along
  outputs, the lowest bits first;
- AWQ: `(q - zero) × scale`, both packed along outputs in the order 0, 2, 4, 6, 1, 3, 5, 7;
- FP8: the number × the scale of its block, of its row, or of the tensor.
"""

import json
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

HERE = pathlib.Path(__file__).parent
D, MLP, HEADS, KV, VOCAB, LAYERS = 16, 24, 4, 2, 24, 1
CONFIG = {
    "model_type": "llama", "vocab_size": VOCAB, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV, "intermediate_size": MLP, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "bos_token_id": 0,
}
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], np.float32) / 12
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
draw = np.random.default_rng(5)


def shapes():
    layer = {
        "self_attn.q_proj": (D, D), "self_attn.k_proj": (D // 2, D), "self_attn.v_proj": (D // 2, D), "self_attn.o_proj": (D, D),
        "mlp.gate_proj": (MLP, D), "mlp.up_proj": (MLP, D), "mlp.down_proj": (D, MLP),
    }
    return {f"model.layers.0.{name}": shape for name, shape in layer.items()}


def plain():
    normal = lambda *shape: draw.normal(size=shape).astype(np.float32)
    return {
        "model.embed_tokens.weight": normal(VOCAB, D), "lm_head.weight": normal(VOCAB, D),
        "model.norm.weight": 1 + 0.2 * normal(D), "model.layers.0.input_layernorm.weight": 1 + 0.2 * normal(D),
        "model.layers.0.post_attention_layernorm.weight": 1 + 0.2 * normal(D),
    }


def int8(name, shape):
    w = draw.integers(-127, 128, shape, dtype=np.int8)
    scb = draw.uniform(0.5, 1.5, shape[0]).astype(np.float32)
    stored = {f"{name}.weight": w, f"{name}.SCB": scb, f"{name}.weight_format": np.array(0, np.uint8)}
    return stored, w.astype(np.float32) * scb[:, None] * np.float32(1 / 127)


def four_bit(table, kind, nested):
    def make(name, shape):
        count = shape[0] * shape[1]
        codes = draw.integers(0, 16, count, dtype=np.uint8)
        blocks = count // 64
        absmax = draw.uniform(0.5, 1.5, blocks).astype(np.float32)
        state = {"quant_type": kind, "blocksize": 64, "dtype": "float32", "shape": list(shape)}
        stored = {
            f"{name}.weight": (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1), f"{name}.weight.quant_map": table,
        }
        if nested:
            inner = np.sort(draw.uniform(-1, 1, 256)).astype(np.float32)
            scales = draw.uniform(0.2, 0.4, 1).astype(np.float32)
            small = draw.integers(0, 256, blocks, dtype=np.uint8)
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.75}
            stored |= {
                f"{name}.weight.absmax": small, f"{name}.weight.nested_absmax": scales,
                f"{name}.weight.nested_quant_map": inner,
            }
            absmax = inner[small] * scales[0] + np.float32(0.75)
        else:
            stored[f"{name}.weight.absmax"] = absmax
        text = json.dumps(state).encode()
        stored[f"{name}.weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, np.uint8)
        return stored, (table[codes] * np.repeat(absmax, 64)).reshape(shape)

    return make


def packed(codes, bits, order=None):
    """Rows of numbers, 32 / bits of them in one of 32 bits."""
    per = 32 // bits
    rows, cols = codes.shape
    groups = codes.reshape(rows, cols // per, per).astype(np.uint32)
    place = np.array(order or range(per), np.uint32)
    # The number at place i of a word is the one that the order names.
    return (groups[..., place] << (bits * np.arange(per, dtype=np.uint32))).sum(-1, dtype=np.uint32).view(np.int32)


def gptq(bits, act_order):
    def make(name, shape):
        outputs, inputs = shape
        groups = inputs // 8
        q = draw.integers(0, 2**bits, (inputs, outputs))
        zeros = draw.integers(0, 2**bits - 1, (groups, outputs))
        scales = draw.uniform(0.01, 0.1, (groups, outputs)).astype(np.float16)
        index = np.arange(inputs, dtype=np.int32) // 8
        if act_order:
            index = draw.permutation(index)
        stored = {
            f"{name}.qweight": np.ascontiguousarray(packed(q.T, bits).T), f"{name}.qzeros": packed(zeros, bits),
            f"{name}.scales": scales, f"{name}.g_idx": index, f"{name}.bias": np.zeros(outputs, np.float16),
        }
        values = (q - (zeros[index] + 1)).astype(np.float32) * scales[index].astype(np.float32)
        return stored, np.ascontiguousarray(values.T)

    return make


def awq(name, shape):
    outputs, inputs = shape
    groups = inputs // 8
    q = draw.integers(0, 16, (inputs, outputs))
    zeros = draw.integers(0, 16, (groups, outputs))
    scales = draw.uniform(0.01, 0.1, (groups, outputs)).astype(np.float16)
    stored = {
        f"{name}.qweight": packed(q, 4, ORDER), f"{name}.qzeros": packed(zeros, 4, ORDER), f"{name}.scales": scales,
    }
    group = np.arange(inputs) // 8
    values = (q - zeros[group]).astype(np.float32) * scales[group].astype(np.float32)
    return stored, np.ascontiguousarray(values.T)


def fp8(kind, scaled):
    def make(name, shape):
        w = torch.tensor(draw.normal(size=shape).astype(np.float32)).to(kind)
        values = w.float().numpy()
        if scaled == "block":
            grid = [-(-size // 8) for size in shape]
            scale = draw.uniform(0.5, 1.5, grid).astype(np.float32)
            values = values * np.kron(scale, np.ones((8, 8), np.float32))[: shape[0], : shape[1]]
            extra = {f"{name}.weight_scale_inv": torch.tensor(scale)}
        elif scaled == "row":
            scale = draw.uniform(0.5, 1.5, (shape[0], 1)).astype(np.float32)
            values = values * scale
            extra = {f"{name}.weight_scale": torch.tensor(scale)}
        else:
            scale = np.float32(draw.uniform(0.5, 1.5))
            values = values * scale
            extra = {f"{name}.weight_scale": torch.tensor(scale), f"{name}.input_scale": torch.tensor(1.0)}
        return {f"{name}.weight": w, **extra}, values

    return make


BNB = {"quant_method": "bitsandbytes"}
FORMATS = {
    "int8": (int8, {**BNB, "load_in_8bit": True, "llm_int8_threshold": 6.0}),
    "nf4": (four_bit(NF4, "nf4", False), {**BNB, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "nf4_nested": (four_bit(NF4, "nf4", True), {**BNB, "load_in_4bit": True, "bnb_4bit_use_double_quant": True}),
    "fp4": (four_bit(FP4, "fp4", False), {**BNB, "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}),
    "gptq4": (gptq(4, True), {"quant_method": "gptq", "bits": 4, "group_size": 8, "desc_act": True, "sym": False}),
    "gptq8": (gptq(8, False), {"quant_method": "gptq", "bits": 8, "group_size": 8, "checkpoint_format": "gptq"}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": True, "version": "gemm"}),
    "fp8_blocks": (
        fp8(torch.float8_e4m3fn, "block"),
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [8, 8]},
    ),
    "fp8_rows": (fp8(torch.float8_e4m3fn, "row"), {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
    "fp8_tensor": (fp8(torch.float8_e5m2, "tensor"), {"quant_method": "fp8", "activation_scheme": "static"}),
}

if __name__ == "__main__":
    for name, (make, settings) in FORMATS.items():
        stored, expected = plain(), {}
        expected |= stored
        for weight, shape in shapes().items():
            parts, values = make(weight, shape)
            stored |= parts
            assert values.dtype == np.float32 and values.shape == shape, (name, values.dtype)
            expected[f"{weight}.weight"] = values
        config = {**CONFIG, "quantization_config": settings}
        (HERE / f"{name}.config.json").write_text(json.dumps(config, indent=1) + "\n")
        tensor = lambda x: x if isinstance(x, torch.Tensor) else torch.tensor(np.array(x))
        save_torch({key: tensor(value).contiguous() for key, value in stored.items()}, HERE / f"{name}.safetensors")
        save_file({key: np.ascontiguousarray(value) for key, value in expected.items()}, HERE / f"{name}.expected.safetensors")
