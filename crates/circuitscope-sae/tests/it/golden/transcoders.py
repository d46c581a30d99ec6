"""Writes transcoders/: dictionaries of 5 x 7 whose features write elsewhere, and those of formats that dictionaries.py has
not; transcoders/expected.safetensors: vectors, and what the tool whose format it is makes of them; transcoders/sources.json:
whose code that was.

    python transcoders.py                (sae-lens 6.54, eai-sparsify 1.3, circuit-tracer 0.5, dictionary-learning 0.1, torch, CPU)

Every row but one is computed by the tool's own code, from the folder that lies here; what a tool fetches from a hub is handed
to it from that folder.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import types

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernels need a GPU

import numpy as np
import sae_lens as lens
import torch
import yaml
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig

# Packages import this library of models, which has no part in what is needed here.
sys.modules["nnsight"] = types.ModuleType("nnsight")
sys.modules["nnsight"].LanguageModel = None


def circuit_tracer():
    """The reader of the package, without its __init__, which loads models."""
    origin = importlib.util.find_spec("circuit_tracer").submodule_search_locations[0]
    for name in ["circuit_tracer", "circuit_tracer.transcoder", "circuit_tracer.utils"]:
        module = types.ModuleType(name)
        module.__path__ = [os.path.join(origin, *name.split(".")[1:])]
        sys.modules[name] = module
    sys.modules["circuit_tracer.utils"].get_default_device = lambda: torch.device("cpu")
    from circuit_tracer.transcoder import activation_functions, single_layer_transcoder
    from circuit_tracer.utils import hf_utils

    return activation_functions, single_layer_transcoder, hf_utils


acts, single, hub = circuit_tracer()

D_IN, D_OUT, D_SAE, ROWS, K = 5, 4, 7, 16, 3
torch.manual_seed(0)
torch.set_grad_enabled(False)
root = pathlib.Path(__file__).with_name("transcoders")
shutil.rmtree(root, ignore_errors=True)
x = torch.randn(ROWS, D_IN)
expected, sources = {"x": x}, {}


def version(package):
    return f"{package} {importlib.metadata.version(package)}"


LENS, SPARSIFY, LEARNING = version("sae-lens"), version("eai-sparsify"), version("dictionary-learning")
TRACER = version("circuit-tracer")


def randomise(module):
    for name, p in list(module.named_parameters()) + list(module.named_buffers()):
        if name.endswith("threshold"):
            p.copy_(0.2 + 0.5 * torch.rand_like(p))
        elif p.ndim == 2:
            p.copy_(torch.randn_like(p) / p.shape[0] ** 0.5)
        elif p.ndim == 1 and p.is_floating_point():
            p.copy_(0.3 * torch.randn_like(p))
    return module


def record(name, features, reconstruction, source):
    features, reconstruction = features.detach().float(), reconstruction.detach().float()
    assert (features > 0).any() and (features == 0).any(), name
    strongest = features.max(dim=1)
    codes = torch.where(strongest.values > 0, strongest.indices, -1)
    expected[f"{name}.features"] = features.contiguous()
    expected[f"{name}.reconstruction"] = reconstruction.contiguous()
    expected[f"{name}.codes"] = codes.to(torch.int32)
    sources[name] = source


# SAELens.
def by_lens(name):
    sae = lens.SAE.load_from_disk(root / name)
    record(name, sae.encode(x), sae(x), LENS)


def on(layer, **more):
    return lens.saes.sae.SAEMetadata(
        model_name="gpt2-small", hook_name=f"blocks.{layer}.mlp.hook_in", hook_name_out=f"blocks.{layer}.hook_mlp_out", **more
    )


ALL = [
    ("transcoder", lens.Transcoder, lens.TranscoderConfig),
    ("skip_transcoder", lens.SkipTranscoder, lens.SkipTranscoderConfig),
    ("jumprelu_transcoder", lens.JumpReLUTranscoder, lens.JumpReLUTranscoderConfig),
    ("jumprelu_skip_transcoder", lens.JumpReLUSkipTranscoder, lens.JumpReLUSkipTranscoderConfig),
]
for architecture, module, config in ALL:
    for normalise in ["none", "layer_norm", "constant_norm_rescale"]:
        name = f"saelens-{architecture}" + {"none": "", "layer_norm": "-layer-norm"}.get(normalise, "-constant-norm")
        if normalise != "none" and architecture in ["transcoder", "jumprelu_transcoder"]:
            continue
        cfg = config(
            d_in=D_IN, d_sae=D_SAE, d_out=D_OUT, apply_b_dec_to_input=False, normalize_activations=normalise,
            metadata=on(
                3, prepend_bos=True, seqpos_slice=(1, None), model_from_pretrained_kwargs={"fold_ln": architecture == "transcoder"}
            ),
        )  # fmt: skip
        randomise(module(cfg)).save_model(root / name)
        by_lens(name)

# Before version 6: everything in one object.
folder = root / "saelens-5-jumprelu_transcoder"
shutil.copytree(root / "saelens-jumprelu_transcoder", folder)
(folder / "cfg.json").write_text(
    json.dumps({
        "architecture": "jumprelu_transcoder", "d_in": D_IN, "d_sae": D_SAE, "d_out": D_OUT, "dtype": "float32", "device": "cpu",
        "activation_fn": "relu", "normalize_activations": "none", "apply_b_dec_to_input": False, "model_name": "gemma-2-2b",
        "hook_name": "blocks.5.ln2.hook_normalized", "hook_name_out": "blocks.5.hook_mlp_out", "hook_head_index": None,
        "hook_head_index_out": None, "prepend_bos": True, "dataset_path": "x", "context_size": 1024,
    })
)  # fmt: skip
by_lens("saelens-5-jumprelu_transcoder")

# One folder a layer.
for layer in [2, 0, 10]:
    name = f"saelens-set/of-{layer}"
    cfg = lens.TranscoderConfig(d_in=D_IN, d_sae=D_SAE, d_out=D_OUT, apply_b_dec_to_input=False, metadata=on(layer))
    randomise(lens.Transcoder(cfg)).save_model(root / name)
    by_lens(name)

# sparsify.
def by_sparsify(name, **settings):
    sae = randomise(SparseCoder(D_IN, SparseCoderConfig(k=K, **settings)))
    sae.save_to_disk(root / name)
    sae = SparseCoder.load_from_disk(root / name)
    found = sae.encode(x)
    features = torch.zeros(ROWS, sae.num_latents).scatter(1, found.top_indices, found.top_acts)
    record(name, features, sae(x, y=x).sae_out, SPARSIFY)


for name, settings in [
    ("sparsify/layers.3.mlp", {"transcode": True}),
    ("sparsify/layers.4.mlp", {"transcode": True, "skip_connection": True}),
    ("sparsify/layers.2", {"skip_connection": True}),
]:
    by_sparsify(name, num_latents=D_SAE, **settings)


# circuit-tracer.
def traced(name, config, load=None):
    """What its loader of sets makes of a folder."""
    hub.snapshot_download = lambda *args, **kwargs: str(root / name)
    config = {**config, "repo_id": load or "a/set", "scan": config.get("scan", "a/set")}
    config["transcoders"] = [str(root / name / path) for path in config.get("transcoders", [])] or None
    config = {key: value for key, value in config.items() if value is not None}
    loaded = hub.load_transcoders(config, torch.device("cpu"), torch.float32, lazy_decoder=False)
    for layer, transcoder in enumerate(loaded):
        record(f"{name}#{layer}", transcoder.encode(x), transcoder(x), TRACER)


def layers(name, jump, skip, files):
    folder = root / name
    folder.mkdir(parents=True)
    for layer, file in enumerate(files):
        function = acts.JumpReLU(torch.zeros(D_SAE), 0.1) if jump else torch.nn.functional.relu
        transcoder = single.SingleLayerTranscoder(D_IN, D_SAE, function, layer, skip_connection=skip, dtype=torch.float32)
        randomise(transcoder).to_safetensors(str(folder / file))


CONFIG = {
    "model_name": "Qwen/Qwen3-0.6B", "model_kind": "transcoder_set", "feature_input_hook": "mlp.hook_in",
    "feature_output_hook": "hook_mlp_out",
}  # fmt: skip
for name, jump, skip in [
    ("circuit-tracer-relu", False, False),
    ("circuit-tracer-relu-skip", False, True),
    ("circuit-tracer-jumprelu", True, False),
    ("circuit-tracer-jumprelu-skip", True, True),
]:
    layers(name, jump, skip, ["layer_0.safetensors", "layer_1.safetensors"])
    config = CONFIG | ({"scan": ["a/set", "b"]} if skip else {"scan": None})
    (root / name / "config.yaml").write_text(yaml.dump(config))
    traced(name, CONFIG)
layers("circuit-tracer-listed", False, False, ["b.safetensors", "a.safetensors"])
config = CONFIG | {"scan": "a/set", "transcoders": ["b.safetensors", "a.safetensors"]}
(root / "circuit-tracer-listed/config.yaml").write_text(yaml.dump(config))
traced("circuit-tracer-listed", config)


# Gemma Scope: transcoders, read by circuit-tracer.
def jumprelu(d_out=D_IN):
    return {
        "w_enc": torch.randn(D_IN, D_SAE) / D_IN**0.5, "w_dec": torch.randn(D_SAE, d_out) / D_SAE**0.5,
        "b_enc": 0.3 * torch.randn(D_SAE), "b_dec": 0.3 * torch.randn(d_out), "threshold": 0.2 + 0.5 * torch.rand(D_SAE),
    }  # fmt: skip


name = "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_4"
(root / name).mkdir(parents=True)
params = {key.replace("w_", "W_"): value.numpy() for key, value in jumprelu().items()}
np.savez(root / name / "params.npz", **params)
read = single.load_gemma_scope_transcoder(str(root / name / "params.npz"), 3)
record(name, read.encode(x), read(x), TRACER)

# Gemma Scope 2: autoencoders read by SAELens, transcoders by both.
GEMMA_2 = "gemma-scope-2-1b-pt"
loaders = sys.modules["sae_lens.loading.pretrained_sae_loaders"]
loaders.get_safetensors_tensor_shapes = lambda repo, file: {
    key: list(value.shape) for key, value in loaders.load_safetensors_weights(root / repo / file).items()
}


def fetched(repo_id, filename, subfolder=None, **_):
    path = root / repo_id / (subfolder or "") / filename
    if not path.exists():
        raise loaders.EntryNotFoundError(filename)
    return str(path)


loaders.hf_hub_download = fetched


def from_hub(name, loader, repo, folder, fold=None):
    """What a loader of SAELens makes of a folder that would come from the hub."""
    cfg, state, _ = loader(repo, folder, cfg_overrides={"dtype": "float32"})
    known = loaders.handle_pre_6_0_config(cfg)
    sae = lens.SAE.from_dict(known)
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    if fold is not None:
        sae.fold_activation_norm_scaling_factor(fold)
    record(name, sae.encode(x), sae(x), LENS)
    return sae


for place, transcodes, skip in [
    ("resid_post_all/layer_3_width_16k_l0_small", False, False),
    ("attn_out/layer_4_width_16k_l0_small", False, False),
    ("transcoder_all/layer_5_width_16k_l0_small", True, False),
    ("transcoder_all/layer_6_width_16k_l0_small_affine", True, True),
]:
    name = f"{GEMMA_2}/{place}"
    (root / name).mkdir(parents=True)
    params = jumprelu()
    if skip:
        params["affine_skip_connection"] = torch.randn(D_IN, D_IN) / D_IN**0.5
    save_file({key: value.contiguous() for key, value in params.items()}, root / name / "params.safetensors")
    if not transcodes:
        module = f"model.layers.{place.split('_')[3 if 'resid' in place else 2]}"
        hook = f"{module}.output" if "resid" in place else f"{module}.self_attn.o_proj.input"
        cfg = {
            "architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": hook, "hf_hook_point_out": hook,
            "width": D_SAE, "l0": 4, "affine_connection": False, "type": "sae",
        }  # fmt: skip
        (root / name / "config.json").write_text(json.dumps(cfg))
    from_hub(name, loaders.gemma_3_sae_huggingface_loader, GEMMA_2, place)
    if transcodes:
        read = single.load_gemma_scope_2_transcoder(str(root / name / "params.safetensors"), 5)
        assert torch.allclose(read(x), expected[f"{name}.reconstruction"], atol=1e-6)

# Llama Scope. Decoders have unit norm: SAELens takes them for that. It knows no transcoders of it; the formula of those is
# that of OpenMoss, whose input and output are scaled apart and whose thresholds are of activations times atoms.
for name, sites, norms in [
    ("llama-scope/Llama3_1-8B-Base-L3R-8x", ["hook_resid_post", "hook_resid_post"], [1.5, 1.5]),
    ("llama-scope/Llama3_1-8B-Base-L3TC-8x", ["ln2.hook_normalized", "hook_mlp_out"], [2.5, 0.7]),
]:
    (root / name / "checkpoints").mkdir(parents=True)
    transcodes = norms[0] != norms[1]
    w_dec = torch.randn(D_SAE, D_IN)
    if not transcodes:
        w_dec /= w_dec.norm(dim=1, keepdim=True)
    weights = {
        "encoder.weight": torch.randn(D_SAE, D_IN) / D_IN**0.5, "encoder.bias": 0.3 * torch.randn(D_SAE),
        "decoder.weight": w_dec.T.contiguous(), "decoder.bias": 0.3 * torch.randn(D_IN),
    }  # fmt: skip
    save_file(weights, root / name / "checkpoints/final.safetensors")
    hyperparams = {
        "device": "cuda:0", "seed": 42, "dtype": "torch.bfloat16",
        "hook_point_in": f"blocks.3.{sites[0]}", "hook_point_out": f"blocks.3.{sites[1]}", "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False, "expansion_factor": 8, "d_model": D_IN, "d_sae": D_SAE,
        "bias_init_method": "all_zero", "act_fn": "jumprelu", "jump_relu_threshold": 0.25, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": dict(zip(["in", "out"], norms)), "decoder_exactly_fixed_norm": False,
        "sparsity_include_decoder_norm": True, "use_glu_encoder": False, "init_decoder_norm": 0.5, "init_encoder_norm": None,
        "init_encoder_with_decoder_transpose": True, "lp": 1, "l1_coefficient": 8e-05, "l1_coefficient_warmup_steps": 78125,
        "top_k": 50, "k_warmup_steps": 78125, "use_batch_norm_mse": True, "use_ghost_grads": False, "tp_size": 1, "ddp_size": 1,
    }  # fmt: skip
    (root / name / "hyperparams.json").write_text(json.dumps(hyperparams))
    if transcodes:
        scale_in, scale_out = (D_IN**0.5 / norm for norm in norms)
        h = (x * scale_in) @ weights["encoder.weight"].T + weights["encoder.bias"]
        features = torch.where(h * w_dec.norm(dim=1) > 0.25 * scale_in, h, 0)
        record(name, features, (features @ w_dec + weights["decoder.bias"]) / scale_out, "port of OpenMoss' formula")
    else:
        repo, folder = name.split("/")
        from_hub(name, loaders.llama_scope_sae_huggingface_loader, repo, folder, D_IN**0.5 / norms[0])

# dictionary_learning.
from dictionary_learning import dictionary as learned
from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

for name, module in [
    ("AutoEncoder", learned.AutoEncoder(D_IN, D_SAE)),
    ("GatedAutoEncoder", learned.GatedAutoEncoder(D_IN, D_SAE)),
    ("JumpReluAutoEncoder", learned.JumpReluAutoEncoder(D_IN, D_SAE)),
    ("AutoEncoderTopK", top_k.AutoEncoderTopK(D_IN, D_SAE, K)),
    ("BatchTopKSAE", batch_top_k.BatchTopKSAE(D_IN, D_SAE, K)),
    ("MatryoshkaBatchTopKSAE", matryoshka_batch_top_k.MatryoshkaBatchTopKSAE(D_IN, D_SAE, K, [3, 4])),
]:
    dict_class, name = name, f"dictionary_learning/{name}"
    (root / name).mkdir(parents=True)
    randomise(module)
    torch.save(module.state_dict(), root / name / "ae.pt")
    trainer = {
        "trainer_class": "Trainer", "dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE, "lr": 1e-3, "steps": 9,
        "seed": 0, "device": "cpu", "layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "wandb_name": "x",
        "submodule_name": "resid_post_layer_3",
    }  # fmt: skip
    if "TopK" in dict_class:
        trainer["k"] = K
    config = {"trainer": trainer, "buffer": {"d_submodule": D_IN, "io": "out", "ctx_len": 128}}
    (root / name / "config.json").write_text(json.dumps(config))
    record(name, module.encode(x), module(x), LEARNING)

# Groups need a number of features that k divides.
by_sparsify("sparsify-groupmax/layers.3.mlp", num_latents=6, activation="groupmax", transcode=True)
by_sparsify("sparsify-groupmax/layers.2", num_latents=6, activation="groupmax")

for name, source in sources.items():
    codes = expected[f"{name}.codes"]
    print(f"{name:66} {len(set(codes.tolist()))} codes, {int((codes < 0).sum())} inactive, {source}")
save_file(expected, root / "expected.safetensors")
(root / "sources.json").write_text(json.dumps(sources, indent=1) + "\n")
