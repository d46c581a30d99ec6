use std::path::PathBuf;

use clap::Args;

use super::DeviceArgs;

/// Turn head outputs into codes: for each head and example, the strongest feature.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope encode --sae sae/ --activations heads.safetensors --output codes.safetensors

The codes file is safetensors with `codes` i32 [examples, heads] (-1: no feature is active),
`amplitudes` f32 [examples, heads] (how active that feature is), `labels` [examples] and metadata
n_layers, n_heads.")]
pub(crate) struct EncodeArgs {
    /// Folder of a dictionary: from `train` and `train-tokens`, or of SAELens, sparsify, Gemma Scope, Llama Scope or
    /// `dictionary_learning`, of any architecture that they save
    #[arg(long, value_name = "DIR")]
    pub(crate) sae: PathBuf,
    /// Take a dictionary that says it was trained on something else than outputs of heads
    /// (`attn.hook_result`), as long as it has their width
    #[arg(long)]
    pub(crate) other_site: bool,
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
