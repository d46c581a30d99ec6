"""What transformers makes of configurations that lack a key, or have null for it.

Made with torch 2.9.1 and transformers 5.24.0 on one CPU thread:

    OMP_NUM_THREADS=1 python crates/circuitscope-model/tests/it/golden/families/absent.py [NAME...]

With names only these models are made anew. Every key of every golden model's `config.json` that may change a forward pass is left out, and set to null, in turn.
`absent.safetensors` has the logits on `TOKENS` where they differ from those of the whole configuration, as
`{folder}/{key}/{absent|null}`. `absent.json` lists those with the same logits (`same`), and those that transformers
refuses, does not find all weights for, or cannot run (`refused`).
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
FOLDERS = (
    "gemma gemma2 gemma3_text gpt_neox gpt_neox_sequential gptj llama llama_biases llama_rope_llama3 mistral opt phi3 qwen2 qwen3"
).split() + ["../gpt2_tiny"]
TOKENS = [[1, 2, 3, 4, 5, 6, 7, 8]]
# They cannot change a forward pass in evaluation mode.
IRRELEVANT = set(
    "architectures model_type transformers_version torch_dtype dtype bos_token_id eos_token_id pad_token_id use_cache "
    "initializer_range attention_dropout hidden_dropout classifier_dropout resid_pdrop embd_pdrop attn_pdrop dropout "
    "layerdrop init_std activation_dropout original_max_position_embeddings summary_type summary_use_proj "
    "summary_activation summary_proj_to_labels summary_first_dropout reorder_and_upcast_attn pretraining_tp rotary "
    "tie_encoder_decoder cache_implementation n_ctx _attn_implementation_autoset".split()
)


def logits(folder):
    """None where weights are missing or left over."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    if info["missing_keys"] or info["mismatched_keys"] or info["unexpected_keys"]:
        return None
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    names = sys.argv[1:] or FOLDERS
    tensors, same, refused = {}, [], []
    if names != FOLDERS:
        made = {pathlib.Path(name).name for name in names}
        before = json.loads((HERE / "absent.json").read_text())
        kept = lambda label: label.split("/")[0] not in made
        tensors = {label: x for label, x in load_file(HERE / "absent.safetensors").items() if kept(label)}
        same, refused = (list(filter(kept, before[kind])) for kind in ("same", "refused"))
    for name in names:
        source = HERE / name
        config = json.loads((source / "config.json").read_text())
        whole = logits(source)
        for key in sorted(set(config) - IRRELEVANT):
            for kind in ("absent", "null"):
                changed = {**config, key: None}
                if kind == "absent":
                    del changed[key]
                label = f"{source.name}/{key}/{kind}"
                with tempfile.TemporaryDirectory() as folder:
                    shutil.copy(source / "model.safetensors", folder)
                    (pathlib.Path(folder) / "config.json").write_text(json.dumps(changed))
                    try:
                        found = logits(folder)
                    except Exception:  # whatever it is, there are no logits
                        found = None
                if found is None:
                    refused.append(label)
                elif torch.equal(found, whole):
                    same.append(label)
                else:
                    tensors[label] = found.contiguous()
    save_file(tensors, HERE / "absent.safetensors")
    text = json.dumps({"tokens": TOKENS, "same": same, "refused": refused}, indent=1)
    (HERE / "absent.json").write_text(text + "\n")
    print(len(tensors), len(same), len(refused))


main()
