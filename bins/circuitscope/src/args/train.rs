use std::path::PathBuf;

use circuitscope::sae::{Dictionary, SaeConfig, TrainConfig};
use clap::{Args, ValueEnum};

use super::{CODES, DeviceArgs, EXAMPLES, STEPS, SeedArgs, count, count_or_none};

/// Train a dictionary (a small sparse autoencoder) on head outputs.
///
/// Writes `cfg.json` and `sae_weights.safetensors` into a folder, readable by SAELens, and
/// `history.json` with loss, sparsity and dead features of every step.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope train --activations heads.safetensors --output sae/

The activations file is what `circuitscope discover --save-activations heads.safetensors` writes:
safetensors with `activations` [examples, heads, d] (f32, f16 or bf16), `labels` [examples]
(1 positive, 0 negative; bool, u8, i32 or i64) and metadata n_layers, n_heads. A row is what a head
adds to the residual stream, averaged over the positions of a prompt; docs/guides/files.md makes one
in Python. Files of `capture` hold sites, and no labels.")]
pub(crate) struct TrainArgs {
    /// Activations file
    #[arg(long, value_name = "FILE")]
    pub(crate) activations: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Number of features, that is of possible codes
    #[arg(long, value_name = "N", default_value_t = SaeConfig::new(1).d_sae, value_parser = count::<CODES>)]
    pub(crate) codes: usize,
    /// Weight of the sparsity penalty
    #[arg(long, value_name = "LAMBDA", default_value_t = SaeConfig::new(1).l1_coefficient)]
    pub(crate) l1: f64,
    /// Examples to train on, drawn at random from both classes [default: 10, or all if fewer]
    #[arg(long, value_name = "N", value_parser = count::<EXAMPLES>)]
    pub(crate) train_examples: Option<usize>,
    /// Steps of full-batch Adam
    #[arg(long, value_name = "N", default_value_t = TrainConfig::default().steps, value_parser = count_or_none::<STEPS>)]
    pub(crate) steps: usize,
    /// Step size of Adam
    #[arg(long, value_name = "RATE", default_value_t = TrainConfig::default().learning_rate)]
    pub(crate) learning_rate: f64,
    /// Which vectors of the decoder have unit length
    #[arg(long, value_enum, default_value_t = DictionaryArg::PaperCompatible, value_name = "WHICH")]
    pub(crate) dictionary: DictionaryArg,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// `--dictionary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DictionaryArg {
    /// As the authors' code: one vector for each output coordinate
    PaperCompatible,
    /// As usual: what each feature writes
    UnitNormAtoms,
}

impl From<DictionaryArg> for Dictionary {
    fn from(arg: DictionaryArg) -> Self {
        match arg {
            DictionaryArg::PaperCompatible => Self::PaperCompatible,
            DictionaryArg::UnitNormAtoms => Self::UnitNormAtoms,
        }
    }
}
