//! `dictionary_learning` (Marks, Karvonen et al.): `config.json` and `ae.pt`, a state dict as PyTorch pickles it.

use std::path::Path;

use burn::tensor::backend::Backend;

use super::keys::Keys;
use super::{Format, Found, SaeMetadata, SavedSae, TrainedOn};
use crate::architecture::Settings;
use crate::tensors::Tensors;
use crate::{Architecture, Result};

pub(super) const FILE: &str = "config.json";
pub(super) const WEIGHTS_FILE: &str = "ae.pt";

/// Keys of `trainer` that are read.
const READ: [&str; 7] = [
    "activation_dim",
    "dict_class",
    "dict_size",
    "k",
    "layer",
    "lm_name",
    "submodule_name",
];
/// Keys of `trainer` that say how it was trained.
const TRAINING: [&str; 30] = [
    "anneal_start",
    "auxk_alpha",
    "bandwidth",
    "decay_start",
    "device",
    "group_fractions",
    "group_sizes",
    "group_weights",
    "l1_penalty",
    "lr",
    "n_sparsity_updates",
    "p_end",
    "p_start",
    "resample_steps",
    "seed",
    "sparsity_coeff",
    "sparsity_function",
    "sparsity_penalty",
    "sparsity_queue_length",
    "sparsity_warmup_steps",
    "steps",
    "target_l0",
    "threshold_beta",
    "threshold_start_step",
    "top_k_aux",
    "trainer_class",
    "wandb_name",
    "warmup_steps",
    "config",
    "total_steps",
];

/// How a class calls its tensors, and how we do.
type Names = &'static [(&'static str, &'static str)];

const LINEAR: Names = &[("encoder.weight", "W_enc"), ("decoder.weight", "W_dec")];
const BIASED: Names = &[("encoder.bias", "b_enc")];

struct Class {
    name: &'static str,
    architecture: Architecture,
    linear: bool,
    more: Names,
    centred: bool,
    /// What its encoder does not use.
    unused: &'static [&'static str],
}

const CLASSES: [Class; 6] = [
    Class {
        name: "AutoEncoder",
        architecture: Architecture::Standard,
        linear: true,
        more: &[("bias", "b_dec")],
        centred: true,
        unused: &[],
    },
    Class {
        name: "GatedAutoEncoder",
        architecture: Architecture::Gated,
        linear: true,
        more: &[
            ("decoder_bias", "b_dec"),
            ("gate_bias", "b_gate"),
            ("mag_bias", "b_mag"),
            ("r_mag", "r_mag"),
        ],
        centred: true,
        unused: &[],
    },
    Class {
        name: "JumpReluAutoEncoder",
        architecture: Architecture::JumpRelu,
        linear: false,
        more: &[("threshold", "threshold")],
        centred: false,
        unused: &[],
    },
    Class {
        name: "AutoEncoderTopK",
        architecture: Architecture::TopK,
        linear: true,
        more: &[("b_dec", "b_dec")],
        centred: true,
        // It encodes by k, whatever threshold it has kept.
        unused: &["k", "threshold"],
    },
    Class {
        name: "BatchTopKSAE",
        architecture: Architecture::BatchTopK,
        linear: true,
        more: &[("b_dec", "b_dec"), ("threshold", "topk_threshold")],
        centred: true,
        unused: &["k"],
    },
    Class {
        name: "MatryoshkaBatchTopKSAE",
        architecture: Architecture::BatchTopK,
        linear: false,
        more: &[("threshold", "topk_threshold")],
        centred: true,
        unused: &["k", "group_sizes"],
    },
];

pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let file = Keys::read(folder.join(FILE))?;
    // `buffer` says where activations came from, not what they are.
    file.only(&[&["buffer", "trainer"]])?;
    let cfg = file.object("trainer")?;
    cfg.only(&[&READ, &TRAINING])?;
    let names = CLASSES.map(|class| class.name);
    let name = cfg.one_of("dict_class", &names, None)?;
    let class = CLASSES.into_iter().find(|class| class.name == name);
    let Some(class) = class else {
        unreachable!("one of the classes")
    };
    let (d_in, d_sae) = (cfg.size("activation_dim")?, cfg.size("dict_size")?);
    let k = if class.architecture == Architecture::TopK {
        cfg.k("k", cfg.get("k"), d_sae)?
    } else {
        0
    };

    let path = folder.join(WEIGHTS_FILE);
    let mut tensors = Tensors::of_pickle(&path)?;
    let biased = class.linear && class.architecture != Architecture::Gated;
    let own: Vec<&'static str> = if class.linear {
        let linear = LINEAR.iter().chain(if biased { BIASED } else { &[] });
        linear
            .chain(class.more)
            .map(|(theirs, _)| *theirs)
            .collect()
    } else {
        let more = class.more.iter().map(|(theirs, _)| *theirs);
        ["W_enc", "W_dec", "b_enc", "b_dec"]
            .into_iter()
            .chain(more)
            .collect()
    };
    let known: Vec<&str> = own.iter().chain(class.unused).copied().collect();
    tensors.only(&known)?;
    tensors.require(&own)?;
    if class.linear {
        tensors.transpose(
            "encoder.weight",
            &[d_sae, d_in],
            "[dict_size, activation_dim]",
        )?;
        tensors.transpose(
            "decoder.weight",
            &[d_in, d_sae],
            "[activation_dim, dict_size]",
        )?;
        for (theirs, ours) in LINEAR.iter().chain(BIASED) {
            tensors.rename(theirs, ours);
        }
    }
    for (theirs, ours) in class.more {
        tensors.rename(theirs, ours);
    }
    Found {
        format: Format::DictionaryLearning,
        architecture: class.architecture,
        settings: Settings {
            k,
            centred: class.centred,
            ..Settings::autoencoder(d_in, d_sae)
        },
        trained_on: TrainedOn {
            model: cfg.text("lm_name")?,
            hook_name: cfg.text("submodule_name")?.as_deref().and_then(hook),
            folded: Some(false),
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files: vec![file.path().to_owned(), path.clone()],
    }
    .read(&tensors, device)
}

/// Of `resid_post_layer_8`, as the authors' scripts name submodules. Another name does not say.
fn hook(submodule: &str) -> Option<String> {
    let layer: usize = submodule.strip_prefix("resid_post_layer_")?.parse().ok()?;
    Some(format!("blocks.{layer}.hook_resid_post"))
}
