"""Writes dictionaries/: one small dictionary a folder, each saved by the tool whose format it is, and
dictionaries/expected.safetensors: vectors, and what the tool makes of them. broken_archives/ has damaged archives of
Gemma Scope.

    python dictionaries.py                (sae-lens 6.54, eai-sparsify 1.3, torch, CPU)

SAELens' own reader makes what is expected of its folders, also of those of its versions before 6, whose cfg.json is
written here by hand, and of Gemma Scope's (arXiv 2408.05147), whose archive is numpy's. dictionaries/sources.json says whose
code computed what.
"""

import importlib.metadata
import json
import os
import pathlib
import shutil
import sys

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernels need a GPU

import numpy as np
import sae_lens as lens
import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig

D_IN, D_SAE, ROWS, K = 12, 20, 24, 4
torch.manual_seed(0)
root = pathlib.Path(__file__).with_name("dictionaries")
shutil.rmtree(root, ignore_errors=True)
x = torch.randn(ROWS, D_IN)
# On these nothing is active in most of them, and one is 0.
x[-4:-1] *= 0.02
x[-1] = 0
expected, sources = {"x": x}, {}
LENS = f"sae-lens {importlib.metadata.version('sae-lens')}"


def randomise(module):
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name == "threshold":
                p.copy_(0.8 + 1.2 * torch.rand_like(p))
            elif p.ndim == 2:
                p.copy_(torch.randn_like(p) / p.shape[0] ** 0.5)
            else:
                p.copy_(0.3 * torch.randn_like(p) - 0.1)
    return module


def record(name, features, reconstruction, source=LENS):
    sources[name] = source
    features, reconstruction = features.detach().float(), reconstruction.detach().float()
    strongest = features.max(dim=1)
    codes = torch.where(strongest.values > 0, strongest.indices, -1)
    expected[f"{name}.features"] = features.contiguous()
    expected[f"{name}.reconstruction"] = reconstruction.contiguous()
    expected[f"{name}.codes"] = codes.to(torch.int32)


def by_lens(name, shaped=lambda x: x):
    """What SAELens makes of a folder."""
    sae = lens.SAE.load_from_disk(root / name)
    features = sae.encode(shaped(x))
    record(name, features, sae.decode(features).reshape(ROWS, D_IN))


def on(hook_name, **more):
    return lens.saes.sae.SAEMetadata(model_name="gpt2-small", hook_name=hook_name, **more)


RESULT = "blocks.3.attn.hook_result"
for name, sae, config, settings in [
    ("standard", lens.StandardSAE, lens.StandardSAEConfig, {"metadata": on(RESULT, hook_head_index=2)}),
    ("standard-uncentred", lens.StandardSAE, lens.StandardSAEConfig, {"apply_b_dec_to_input": False}),
    ("standard-layer-norm", lens.StandardSAE, lens.StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    ("topk", lens.TopKSAE, lens.TopKSAEConfig, {"k": K, "metadata": on("blocks.5.hook_resid_post")}),
    ("topk-rescaled", lens.TopKSAE, lens.TopKSAEConfig, {"k": K, "rescale_acts_by_decoder_norm": True}),
    ("jumprelu", lens.JumpReLUSAE, lens.JumpReLUSAEConfig, {}),
    ("jumprelu-layer-norm", lens.JumpReLUSAE, lens.JumpReLUSAEConfig, {"normalize_activations": "layer_norm"}),
    ("gated", lens.GatedSAE, lens.GatedSAEConfig, {}),
    ("gated-uncentred", lens.GatedSAE, lens.GatedSAEConfig, {"apply_b_dec_to_input": False}),
]:
    randomise(sae(config(d_in=D_IN, d_sae=D_SAE, **settings))).save_model(root / name)
    by_lens(name)

# All heads of a layer side by side.
config = lens.TopKSAEConfig(
    d_in=D_IN, d_sae=D_SAE, k=K, reshape_activations="hook_z", metadata=on("blocks.1.attn.hook_z")
)
randomise(lens.TopKSAE(config)).save_model(root / "topk-hook-z")
by_lens("topk-hook-z", lambda x: x.reshape(ROWS, 3, D_IN // 3))

# A vector of zeros has no length: SAELens makes NaN of it, we leave it as it is.
config = lens.StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, normalize_activations="constant_norm_rescale")
sae = randomise(lens.StandardSAE(config))
sae.save_model(root / "standard-constant-norm")
length = x.norm(dim=1, keepdim=True) / D_IN**0.5
length[-1] = 1
features = torch.relu((x / length - sae.b_dec) @ sae.W_enc + sae.b_enc)
record("standard-constant-norm", features, (features @ sae.W_dec + sae.b_dec) * length, f"port, checked with {LENS}")
assert torch.allclose(sae.encode(x[:-1]), features[:-1], atol=1e-6)

# After training, as jumprelu, with the norms of its atoms folded in; and a checkpoint of the same.
config = lens.BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K)
sae = randomise(lens.BatchTopKTrainingSAE(config))
sae.topk_threshold = torch.tensor(0.7123456789, dtype=torch.double)
sae.save_inference_model(root / "batchtopk-trained")
by_lens("batchtopk-trained")
sae.save_model(root / "batchtopk-checkpoint")
for what in ["features", "reconstruction", "codes"]:
    expected[f"batchtopk-checkpoint.{what}"] = expected[f"batchtopk-trained.{what}"].clone()
sources["batchtopk-checkpoint"] = LENS

# A checkpoint whose factor is not folded in yet, and what SAELens makes of it once it is.
config = lens.JumpReLUTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, normalize_activations="expected_average_only_in")
sae = randomise(lens.JumpReLUTrainingSAE(config))
sae.save_model(root / "jumprelu-scaled-checkpoint")
scaler = lens.training.activation_scaler.ActivationScaler(scaling_factor=1.75)
scaler.save(str(root / "jumprelu-scaled-checkpoint/activation_scaler.json"))
sae.fold_activation_norm_scaling_factor(1.75)
features = sae.encode(x)
record("jumprelu-scaled-checkpoint", features, sae.decode(features))

# Half precision: computed in f32 from the stored weights.
randomise(lens.StandardSAE(lens.StandardSAEConfig(d_in=D_IN, d_sae=D_SAE))).to(torch.bfloat16).save_model(
    root / "standard-bf16"
)
sae = lens.SAE.load_from_disk(root / "standard-bf16", dtype="float32")
features = sae.encode(x)
record("standard-bf16", features, sae.decode(features))


# Versions before 6: everything in one object.
def old(name, of, cfg):
    folder = root / name
    folder.mkdir()
    tensors = load_file(root / of / "sae_weights.safetensors")
    if of == "standard":
        tensors["scaling_factor"] = torch.ones(D_SAE)
    save_file(tensors, folder / "sae_weights.safetensors")
    common = {
        "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu", "model_name": "gpt2-small",
        "hook_layer": 3, "hook_head_index": None, "prepend_bos": True, "context_size": 128,
        "dataset_path": "x", "finetuning_scaling_factor": False, "neuronpedia_id": None,
        "sae_lens_training_version": "4.1.0",
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(common | cfg))
    by_lens(name)


old("saelens-5-standard", "standard", {"hook_name": RESULT, "activation_fn_str": "relu", "normalize_activations": False})
old(
    "saelens-5-topk",
    "topk",
    {
        "architecture": "standard", "hook_name": "blocks.3.hook_resid_pre", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K}, "apply_b_dec_to_input": False, "normalize_activations": "layer_norm",
    },  # fmt: skip
)
old("saelens-5-jumprelu", "jumprelu", {"architecture": "jumprelu", "hook_point": RESULT, "normalize_activations": "none"})
old("saelens-5-gated", "gated", {"architecture": "gated", "hook_name": RESULT, "apply_b_dec_to_input": True})

for name, config in [
    ("sparsify", SparseCoderConfig(num_latents=D_SAE, k=K, multi_topk=True)),
    ("layers.7.mlp", SparseCoderConfig(expansion_factor=2, k=K, normalize_decoder=False)),
]:
    sae = randomise(SparseCoder(D_IN, config))
    sae.save_to_disk(root / name)
    sae = SparseCoder.load_from_disk(root / name)
    found = sae.encode(x)
    features = torch.zeros(ROWS, sae.num_latents).scatter(1, found.top_indices, found.top_acts)
    source = f"eai-sparsify {importlib.metadata.version('eai-sparsify')}"
    record(name, features, sae.decode(found.top_acts, found.top_indices), source)

# Gemma Scope.
folder = root / "gemma-scope-2b-pt-res/layer_6/width_16k/average_l0_4"
folder.mkdir(parents=True)
params = {
    "W_enc": np.asarray(torch.randn(D_IN, D_SAE) / D_IN**0.5),
    "W_dec": np.asarray(torch.randn(D_SAE, D_IN) / D_SAE**0.5),
    "b_enc": np.asarray(0.3 * torch.randn(D_SAE)),
    "b_dec": np.asarray(0.3 * torch.randn(D_IN)),
    "threshold": np.asarray(0.6 + torch.rand(D_SAE)),
}
np.savez(folder / "params.npz", **params)
# SAELens fetches it from a hub; it is handed to it from here, with the sizes that it would tell from names.
loaders = sys.modules["sae_lens.loading.pretrained_sae_loaders"]
loaders.hf_hub_download = lambda repo_id, filename, subfolder, **_: str(root / repo_id / subfolder / filename)
repo, place = "gemma-scope-2b-pt-res", "layer_6/width_16k/average_l0_4"
cfg, state, _ = loaders.gemma_2_sae_huggingface_loader(repo, place, cfg_overrides={"d_in": D_IN, "d_sae": D_SAE})
sae = lens.SAE.from_dict(loaders.handle_pre_6_0_config(cfg))
sae.load_state_dict(state)
features = sae.encode(x)
record(f"{repo}/{place}", features, sae.decode(features))

broken = pathlib.Path(__file__).with_name("broken_archives")
shutil.rmtree(broken, ignore_errors=True)


def damage(name, **changes):
    (broken / name).mkdir(parents=True)
    changed = {key: value for key, value in (small | changes).items() if value is not None}
    np.savez(broken / name / "params.npz", **changed)


small = {
    "w_enc": np.eye(2, 3, dtype=np.float32), "w_dec": np.eye(3, 2, dtype=np.float32),
    "b_enc": np.zeros(3, np.float32), "b_dec": np.zeros(2, np.float32), "threshold": np.ones(3, np.float32),
}  # fmt: skip
damage("whole", scaling_factor=np.ones(3, np.float32))
damage("negative", threshold=np.array([1, -2, 0], np.float32))
damage("nan", w_dec=np.full((3, 2), np.nan, np.float32))
damage("missing", threshold=None)
damage("left-over", affine_skip_connection=np.eye(2, dtype=np.float32))
damage("shape", w_dec=np.eye(2, 3, dtype=np.float32))
damage("flat", w_enc=np.zeros(6, np.float32))
damage("scaled", scaling_factor=np.full(3, 2, np.float32))
damage("integers", b_enc=np.zeros(3, np.int64))
damage("doubles", b_enc=np.zeros(3, np.float64))
(broken / "text").mkdir()
(broken / "text/params.npz").write_text("not an archive")

for name, values in expected.items():
    if name.endswith("codes"):
        print(f"{name[:-6]:60} {len(set(values.tolist()))} codes, {(values < 0).sum()} inactive")
save_file(expected, root / "expected.safetensors")
(root / "sources.json").write_text(json.dumps(sources, indent=1) + "\n")
