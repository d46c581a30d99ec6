use std::path::PathBuf;

use clap::Args;

use super::{DeviceArgs, DictionaryArgs};

/// Turn head outputs into codes: for each head and example, the strongest feature.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope encode --sae sae/ --activations heads.safetensors --output codes.safetensors

The codes file is safetensors with `codes` i32 [examples, heads] (-1: no feature is active),
`labels` [examples] and metadata n_layers, n_heads.")]
pub(crate) struct EncodeArgs {
    /// Folder of a dictionary: from `train`, SAELens (standard, topk, batchtopk, jumprelu, gated), sparsify, or
    /// Gemma Scope (params.npz)
    #[arg(long = "sae", id = "sae_dir", value_name = "DIR")]
    pub(crate) sae: PathBuf,
    #[command(flatten)]
    pub(crate) dictionary: DictionaryArgs,
    /// Activations file
    #[arg(long, value_name = "FILE")]
    pub(crate) activations: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Write 0 where no feature is active, as the authors' code does
    #[arg(long)]
    pub(crate) paper_compatible: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
