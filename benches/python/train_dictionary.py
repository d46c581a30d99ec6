"""Rows a second of SAELens' own trainer on the rows of `examples/throughput.rs`, same sizes, same cores.

    pip install sae-lens torch
    cargo run --release -p circuitscope-sae --example throughput -- rows.safetensors
    python benches/python/train_dictionary.py rows.safetensors

Steps are those of `SAETrainer.step`: forward, backward, clipping, Adam. `--plain` switches off the scaling by decoder norms,
SAELens' default, which ours does not have; `--dead` is the number of steps after which a feature is dead, of which the
auxiliary term then takes care. `--check FOLDER` reads a dictionary that the example saved instead.
"""

import argparse
import os
import statistics
import time

import torch
from safetensors.torch import load_file

import sae_lens
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

D, FEATURES, K, BATCH, WARM, TIMED = 576, 2304, 32, 4096, 5, 30

parser = argparse.ArgumentParser()
parser.add_argument("rows")
parser.add_argument("--batchtopk", action="store_true")
parser.add_argument("--plain", action="store_true")
parser.add_argument("--sparse", action="store_true", help="use_sparse_activations")
parser.add_argument("--dead", type=int, default=1000)
parser.add_argument("--check", metavar="FOLDER")
arguments = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(len(os.sched_getaffinity(0)))
rows = load_file(arguments.rows)["rows"]
batches = rows.split(BATCH)
if arguments.check:
    sae = sae_lens.SAE.load_from_disk(arguments.check)
    x = batches[0]
    with torch.no_grad():
        features = sae.encode(x)
        error = (sae.decode(features) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    print(
        f"{sae.cfg.architecture()} read by SAELens: L0 {(features > 0).sum().item() / BATCH:.4f}, "
        f"mean sum {features.sum().item() / BATCH:.5f}, FVU {error.item():.6f}"
    )
    raise SystemExit
Config = BatchTopKTrainingSAEConfig if arguments.batchtopk else TopKTrainingSAEConfig
Sae = BatchTopKTrainingSAE if arguments.batchtopk else TopKTrainingSAE
sae = Sae(
    Config(
        d_in=D,
        d_sae=FEATURES,
        k=K,
        rescale_acts_by_decoder_norm=not arguments.plain,
        use_sparse_activations=arguments.sparse,
    )
)
trainer = SAETrainer(
    cfg=SAETrainerConfig(
        total_training_samples=(WARM + TIMED) * BATCH,
        train_batch_size_samples=BATCH,
        lr_end=3e-5,
        dead_feature_window=arguments.dead,
        logger=LoggingConfig(log_to_wandb=False),
    ),
    sae=sae,
    data_provider=iter(batches),
)
seconds = []
for step in range(WARM + TIMED):
    batch = batches[step % len(batches)]
    start = time.perf_counter()
    output = trainer.step(batch)
    trainer.n_training_steps += 1
    seconds.append(time.perf_counter() - start)
seconds = seconds[WARM:]
error = (output.sae_out - output.sae_in).pow(2).sum()
fvu = error / (output.sae_in - output.sae_in.mean(0)).pow(2).sum()
print(
    f"SAELens {sae_lens.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads: "
    f"{TIMED * BATCH / sum(seconds):.0f} rows/s over {TIMED} steps; a step takes "
    f"{1e3 * statistics.median(seconds):.1f} ms (median), {1e3 * min(seconds):.1f} at best"
)
print(f"FVU {fvu.item():.4f}, dead {int(trainer.dead_neurons.sum())}, loss {output.loss.item():.4f}")
