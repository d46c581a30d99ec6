"""Writes one small random model per family, and per option that a family's folder can hold.

Made with torch 2.9.1 (Gemma 3: 2.15.0), transformers 4.51.3 and TransformerLens 2.16.1 on one CPU thread:

    OMP_NUM_THREADS=1 python crates/circuitscope-model/tests/it/golden/families/make.py [NAME...]

Each folder is in Hugging Face layout. Gains are N(1, 0.2) (stored less 1 where the family does so), biases
N(0, 0.1), and matrices large enough that attention is far from uniform. Options are chosen so that ignoring
one shows at 10 positions; `meta.json` says by how much the logits then move (`moves_logits`).

`reference.safetensors`, f32, eager attention:
- `input_ids` [2, 10], `hf.logits`, `hf.hidden_states.{layer}` (the last after the final norm);
- `tl_raw.*`: sites of TransformerLens without processing; `tl_processed.*`: fewer of them, with all of it,
  for one model of each way to fold. TransformerLens leaves out centring where it does not apply (RMS norm,
  soft cap of the logits);
- where TransformerLens has no such option, `hf.blocks.*`: the same sites as Hugging Face computes them;
- `leftpad.*`, `rightpad.*`: rows of 10, 7 and 3 real tokens, `attention_mask`, `hf.logits` with positions
  counted from the first real token. Values at padding mean nothing.

`config.v5.json` is the configuration as transformers 5 writes it: `dtype`, `rope_parameters`, `layer_types`.
"""

import importlib.metadata
import inspect
import json
import logging
import os
import pathlib
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import transformers
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained import weight_conversions as convert

HERE = pathlib.Path(__file__).parent
PROCESSED = "hook_q hook_k hook_v hook_pattern hook_z hook_attn_out hook_pre hook_post hook_mlp_out hook_resid_post".split()
RAW = PROCESSED + (
    "hook_embed hook_pos_embed hook_resid_pre hook_resid_mid hook_scale hook_normalized hook_rot_q hook_rot_k "
    "hook_attn_scores hook_pre_linear"
).split()
ALL = {"fold_ln": True, "center_writing_weights": True, "center_unembed": True, "fold_value_biases": True}
NOTHING = dict.fromkeys(ALL, False)

VOCAB, CONTEXT, LAYERS, HEADS, D_MLP = 40, 32, 2, 4, 20
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
COMMON = {
    **TOKENS, "hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": D_MLP, "max_position_embeddings": CONTEXT,
}
# The families after Llama. 1e-3 is a large ε: another one shows.
GATED = {**COMMON, "num_key_value_heads": 2, "rms_norm_eps": 1e-3, "tie_word_embeddings": False}
NEOX = {**COMMON, "hidden_size": 24, "rotary_pct": 0.75, "layer_norm_eps": 1e-3}
LENS = {"n_layers": LAYERS, "n_heads": HEADS, "n_ctx": CONTEXT, "d_vocab": VOCAB, "d_mlp": D_MLP, "device": "cpu"}
GATED_LENS = {
    **LENS, "d_model": 16, "n_key_value_heads": 2, "normalization_type": "RMS", "final_rms": True, "eps": 1e-3,
    "act_fn": "silu", "gated_mlp": True, "positional_embedding_type": "rotary", "rotary_adjacent_pairs": False,
}


def gated(d_head, **more):
    return {**GATED_LENS, "d_head": d_head, "rotary_dim": d_head, "rotary_base": 10000, **more}


def neox(parallel):
    # 0.75 of 6 dimensions is 4.5, of which transformers keeps the whole part.
    return {
        **LENS, "d_model": 24, "d_head": 6, "normalization_type": "LN", "eps": 1e-3, "act_fn": "gelu",
        "positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_adjacent_pairs": False,
        "parallel_attn_mlp": parallel,
    }


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LLAMA3_LENS = {
    "use_NTK_by_parts_rope": True, "NTK_by_parts_factor": 8.0, "NTK_by_parts_low_freq_factor": 1.0,
    "NTK_by_parts_high_freq_factor": 4.0, "NTK_original_ctx_len": 32,
}
GEMMA2_LENS = gated(
    8, act_fn="gelu_pytorch_tanh", use_normalization_before_and_after=True, attn_scale=6.0**0.5,
    attn_scores_soft_cap=3.0, output_logits_soft_cap=4.0, use_local_attn=True, window_size=4,
    attn_types=["local", "global"],
)

# Two layers with a window, then one without.
GEMMA3 = {
    **GATED, "num_hidden_layers": 3, "head_dim": 8, "query_pre_attn_scalar": 6, "sliding_window": 4,
    "sliding_window_pattern": 3, "rope_theta": 100.0, "rope_local_base_freq": 10.0,
    "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "final_logit_softcapping": 4.0,
    "tie_word_embeddings": True,
}

# Name: class prefix, configuration, TransformerLens's configuration and converter (or none), and options whose
# effect is measured by changing them. "fold" adds the processed sites, "result" what each head adds, "pad" the
# padded batches, "v5" the later configuration.
MODELS = {
    "gpt_neox": (
        "GPTNeoX", NEOX, neox(True), convert.convert_neox_weights,
        [{"use_parallel_residual": False}, {"rotary_pct": 1.0}], "fold result pad v5",
    ),
    "gpt_neox_sequential": (
        "GPTNeoX", {**NEOX, "use_parallel_residual": False}, neox(False), convert.convert_neox_weights,
        [{"hidden_act": "gelu_new"}], "",
    ),
    "llama": ("Llama", GATED, gated(4), convert.convert_llama_weights, [{"rms_norm_eps": 1e-6}], "fold result pad v5"),
    "llama_rope_linear": (
        "Llama", {**GATED, "rope_theta": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        None, None, [{"rope_scaling": None}, {"rope_theta": 10000.0}], "v5",
    ),
    # Of its four frequencies one is kept, one is blended, two are divided by the factor.
    "llama_rope_llama3": (
        "Llama",
        {**GATED, "head_dim": 8, "rope_theta": 100.0, "rope_scaling": LLAMA3, "max_position_embeddings": 64},
        gated(8, rotary_base=100, n_ctx=64, **LLAMA3_LENS), convert.convert_llama_weights,
        [{"rope_scaling": None}, {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}], "v5",
    ),
    "llama_biases": ("Llama", {**GATED, "attention_bias": True, "mlp_bias": True}, None, None, [], ""),
    "mistral": (
        "Mistral", {**GATED, "head_dim": 6, "sliding_window": 4, "rope_theta": 50.0},
        gated(6, rotary_base=50, use_local_attn=True, window_size=4, attn_types=["local"] * LAYERS),
        convert.convert_mistral_weights, [{"sliding_window": None}, {"sliding_window": 5}], "pad",
    ),
    "qwen2": (
        "Qwen2", {**GATED, "tie_word_embeddings": True}, gated(4), convert.convert_qwen2_weights, [], "fold v5",
    ),
    "qwen3": (
        "Qwen3", {**GATED, "head_dim": 6, "rope_theta": 50.0}, gated(6, rotary_base=50, use_qk_norm=True),
        convert.convert_qwen3_weights, [{"rms_norm_eps": 1e-6}], "fold",
    ),
    "gemma": (
        "Gemma", {**GATED, "head_dim": 8, "num_key_value_heads": 1, "tie_word_embeddings": True},
        gated(8, n_key_value_heads=1, act_fn="gelu_pytorch_tanh"), convert.convert_gemma_weights,
        [{"hidden_act": "gelu"}], "fold",
    ),
    "gemma2": (
        "Gemma2",
        {
            **GATED, "head_dim": 8, "query_pre_attn_scalar": 6, "sliding_window": 4, "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0, "tie_word_embeddings": True,
        },
        GEMMA2_LENS, convert.convert_gemma_weights,
        [
            {"sliding_window": CONTEXT}, {"attn_logit_softcapping": None}, {"final_logit_softcapping": None},
            {"query_pre_attn_scalar": 8},
        ],
        "fold result pad v5",
    ),
    "opt": (
        "OPT",
        {
            **TOKENS, "hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "ffn_dim": D_MLP,
            "max_position_embeddings": CONTEXT, "word_embed_proj_dim": 16, "activation_function": "relu",
            "do_layer_norm_before": True,
        },
        {
            **LENS, "d_model": 16, "d_head": 4, "normalization_type": "LN", "eps": 1e-5, "act_fn": "relu",
            "positional_embedding_type": "standard",
        },
        convert.convert_opt_weights, [{"activation_function": "gelu"}], "fold pad",
    ),
    # Four rotated dimensions: with two, adjacent pairs and halves would be the same.
    "gptj": (
        "GPTJ",
        {
            **TOKENS, "n_embd": 24, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT, "n_inner": D_MLP,
            "rotary_dim": 4, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False,
        },
        {
            **LENS, "d_model": 24, "d_head": 6, "normalization_type": "LN", "eps": 1e-3, "act_fn": "gelu_new",
            "positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_adjacent_pairs": True,
            "parallel_attn_mlp": True,
        },
        convert.convert_gptj_weights, [{"rotary_dim": 6}, {"layer_norm_epsilon": 1e-5}], "fold pad",
    ),
    "phi3": (
        "Phi3", {**GATED, "sliding_window": 4},
        gated(4, use_local_attn=True, window_size=4, attn_types=["local"] * LAYERS),
        convert.convert_phi3_weights, [{"sliding_window": None}, {"rms_norm_eps": 1e-6}], "fold",
    ),
    "gemma3_text": (
        "Gemma3Text", GEMMA3, None, None,
        [
            {"sliding_window": CONTEXT}, {"sliding_window_pattern": 2}, {"final_logit_softcapping": None},
            {"query_pre_attn_scalar": 8}, {"rope_theta": 10.0}, {"rope_local_base_freq": 100.0},
            {"rope_scaling": None}, {"hidden_activation": "gelu"},
        ],
        "pad v5",
    ),
    # The text part of a model that also sees images.
    "gemma3": (
        "Gemma3",
        {
            # Versions of transformers differ in whether the whole model has a soft cap.
            "text_config": {**GEMMA3, "final_logit_softcapping": None},
            "vision_config": {
                "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 8, "patch_size": 4,
            },
            "mm_tokens_per_image": 4, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        },
        None, None, [], "",
    ),
}


def randomise(module, seed, offset_gains):
    """Fills every parameter of a module, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise + (0 if offset_gains else 1))
            else:
                # Large enough for attention to choose, small enough that halves stay near floats.
                parameter.copy_(1.2 / parameter.shape[1] ** 0.5 * noise)


def tokens(seed, rows, length):
    return torch.randint(1, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def prefixed(prefix, tensors):
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def build(family, config, seed):
    """A Hugging Face model with eager attention, and its configuration."""
    config = getattr(transformers, f"{family}Config")(**config)
    config._attn_implementation = "eager"
    named = {"Gemma3": "Gemma3ForConditionalGeneration", "Gemma3Text": "Gemma3ForCausalLM"}
    name = named.get(family, f"{family}ForCausalLM")
    model = getattr(transformers, name)(config).eval()
    randomise(model, seed, offset_gains=family.startswith("Gemma"))
    config.architectures = [name]
    return model, config


def hugging_face(model, ids):
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, output_attentions=True, use_cache=False)
    states = {f"hidden_states.{layer}": state for layer, state in enumerate(out.hidden_states)}
    return {"logits": out.logits, **states}, out.attentions


def hugging_face_sites(model, ids, attentions):
    """The sites of a Llama, or of a model without biases that has norms after, that Hugging Face's modules show."""
    sites, handles = {}, []
    if not hasattr(model, "model"):
        return sites

    def record(module, name, heads=None, of_input=False):
        def hook(_, inputs, output):
            value = inputs[0] if of_input else output[0] if isinstance(output, tuple) else output
            sites[name] = value.unflatten(-1, (heads, -1)) if heads else value

        handles.append(module.register_forward_hook(hook))

    for index, layer in enumerate(model.model.layers):
        block, attn, mlp = f"blocks.{index}", layer.self_attn, layer.mlp
        for port, heads in (("q", HEADS), ("k", 2), ("v", 2)):
            record(getattr(attn, f"{port}_proj"), f"{block}.attn.hook_{port}", heads)
        record(attn.o_proj, f"{block}.attn.hook_z", HEADS, of_input=True)
        after = hasattr(layer, "post_feedforward_layernorm")
        record(layer.post_attention_layernorm if after else attn.o_proj, f"{block}.hook_attn_out")
        record(mlp.gate_proj, f"{block}.mlp.hook_pre")
        record(mlp.up_proj, f"{block}.mlp.hook_pre_linear")
        record(mlp.down_proj, f"{block}.mlp.hook_post", of_input=True)
        record(layer.post_feedforward_layernorm if after else mlp, f"{block}.hook_mlp_out")
        sites[f"{block}.attn.hook_pattern"] = attentions[index]
    with torch.no_grad():
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return sites


def transformer_lens_sites(lens, state_dict, processing, ids, names):
    options = {**lens, "use_attn_result": True, "use_hook_mlp_in": False}
    if processing["fold_ln"]:
        options["normalization_type"] += "Pre"
    model = HookedTransformer(HookedTransformerConfig.from_dict(options))
    state_dict = {name: tensor.detach().clone() for name, tensor in state_dict.items()}
    model.load_and_process_state_dict(state_dict, **processing)
    model.eval()
    with torch.no_grad():
        logits, cache = model.run_with_cache(ids)
    # Norms of queries and keys have no site of their own.
    kept = {
        name: value for name, value in cache.items()
        if name.split(".")[-1] in names and ".q_norm." not in name and ".k_norm." not in name
    }
    return {"logits": logits, **kept}


def padded(model, seed):
    """Rows of 10, 7 and 3 real tokens, padded on either side."""
    reference, lengths = {}, [10, 7, 3]
    for side in ("left", "right"):
        ids, mask = tokens(seed, 3, 10), torch.zeros(3, 10, dtype=torch.long)
        for row, length in enumerate(lengths):
            mask[row, slice(10 - length, 10) if side == "left" else slice(length)] = 1
        ids = ids * mask
        inputs = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        if "position_ids" not in inspect.signature(model.forward).parameters:
            del inputs["position_ids"]  # Counted from the mask.
        with torch.no_grad():
            logits = model(ids, **inputs, use_cache=False).logits
        batch = {"input_ids": ids, "attention_mask": mask, "hf.logits": logits}
        reference |= prefixed(f"{side}pad", batch)
    return reference


def version_5(config):
    """A configuration as transformers 5 writes it."""
    config = {name: value for name, value in config.items() if name != "transformers_version"}
    config["dtype"] = config.pop("torch_dtype")
    rope = {"rope_type": "default", **(config.pop("rope_scaling", None) or {})}
    if config["model_type"] == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": config.pop("rope_local_base_freq")}
        rope["rope_theta"] = config.pop("rope_theta")
        every = config["_sliding_window_pattern"] = config.pop("sliding_window_pattern")
        layers = range(1, config["num_hidden_layers"] + 1)
        config["layer_types"] = ["sliding_attention" if layer % every else "full_attention" for layer in layers]
        config["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
        return config
    if config["model_type"] == "gpt_neox":
        rope["rope_theta"] = config["rope_theta"] = config.pop("rotary_emb_base")
        rope["partial_rotary_factor"] = config["partial_rotary_factor"] = config.pop("rotary_pct")
    else:
        rope["rope_theta"] = config.pop("rope_theta")
    config["rope_parameters"] = rope
    kinds = {"gemma2": ["sliding_attention", "full_attention"], "qwen2": ["full_attention"]}
    if kinds := kinds.get(config["model_type"]):
        config["layer_types"] = [kinds[layer % len(kinds)] for layer in range(LAYERS)]
    return config


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def make(name, seed, family, config, lens, converter, changes, extras):
    model, hf_config = build(family, config, seed)
    ids = tokens(seed + 1, 2, 10)
    values, attentions = hugging_face(model, ids)
    reference = {"input_ids": ids, **prefixed("hf", values)}
    last = torch.stack(attentions)[:, :, :, -1]
    meta = {
        "seed": seed,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        # Uniform attention over 10 positions has 2.30 nats.
        "entropy_of_last_query": [round(float(h), 2) for h in torch.special.entr(last).sum(-1).mean((1, 2))],
        "largest_logit": round(float(values["logits"].abs().max()), 2),
        "moves_logits": {},
    }
    for options in changes:
        other, _ = build(family, {**config, **options}, seed)
        other.load_state_dict(model.state_dict())
        moved = (hugging_face(other, ids)[0]["logits"] - values["logits"]).abs().max()
        meta["moves_logits"][json.dumps(options)] = float(f"{moved:.2g}")
    if converter is None:
        reference |= prefixed("hf", hugging_face_sites(model, ids, attentions))
        difference = None
    else:
        state_dict = converter(model, HookedTransformerConfig.from_dict(dict(lens)))
        names = [*RAW, "hook_result"] if "result" in extras else RAW
        raw = transformer_lens_sites(lens, state_dict, NOTHING, ids, names)
        # A soft cap does not pass on a constant, so from_pretrained leaves the unembedding as it is.
        capped = lens.get("output_logits_soft_cap", 0) > 0
        folded = transformer_lens_sites(lens, state_dict, {**ALL, "center_unembed": not capped}, ids, PROCESSED)
        reference |= prefixed("tl_raw", raw)
        if "fold" in extras:
            reference |= prefixed("tl_processed", folded)
        difference = float((raw["logits"] - values["logits"]).abs().max())
        said = [torch.log_softmax(logits, -1) for logits in (folded["logits"], values["logits"])]
        meta["transformer_lens"] = importlib.metadata.version("transformer_lens")
        meta["tl_raw_logits_against_hf"] = float(f"{difference:.2g}")
        meta["tl_processed_log_probabilities_against_hf"] = float(f"{(said[0] - said[1]).abs().max():.2g}")
    if "pad" in extras:
        reference |= padded(model, seed + 2)

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    weights = model.state_dict()
    if hf_config.tie_word_embeddings:
        weights = {name: value for name, value in weights.items() if not name.endswith("lm_head.weight")}
    for file, tensors in (("model", weights), ("reference", reference)):
        save_file(
            {name: value.detach().clone().contiguous() for name, value in tensors.items()},
            folder / f"{file}.safetensors",
        )
    # What save_pretrained writes.
    written = {**json.loads(hf_config.to_json_string()), "torch_dtype": "float32"}
    write_json(folder / "config.json", written)
    if "v5" in extras:
        write_json(folder / "config.v5.json", version_5(written))
    write_json(folder / "meta.json", meta)
    against = "no TransformerLens" if difference is None else f"TransformerLens against HF {difference:.1e}"
    print(f"{name:20} {against:34} entropy {meta['entropy_of_last_query']} moves {meta['moves_logits']}")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or MODELS
    for index, name in enumerate(MODELS):
        if name in chosen:
            make(name, 100 * (index + 1), *MODELS[name])
