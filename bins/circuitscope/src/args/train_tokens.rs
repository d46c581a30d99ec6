use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{CODES, DeviceArgs, SeedArgs, count};

/// Most epochs.
const EPOCHS: usize = 10_000;
/// Most rows of a batch.
const ROWS: usize = 1 << 20;

/// Train a sparse autoencoder or a transcoder on rows of tokens.
///
/// The folder gets a dictionary that SAELens reads, the course of training, and a page with both. Work that is stopped goes on where it
/// stood, with the same result.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  circuitscope train-tokens --rows rows/ --output sae/
  A transcoder, on rows of two sites:
    circuitscope train-tokens --rows pairs/ --architecture batchtopk --skip --output transcoder/
  Then:
    circuitscope splice --model model.gguf --sae sae/ --text held-out.txt")]
pub(crate) struct TrainTokensArgs {
    /// Folder of rows, from `rows`
    #[arg(long, value_name = "DIR")]
    pub(crate) rows: PathBuf,
    /// What makes features active [default: topk, of a transcoder batchtopk]
    #[arg(long, value_enum)]
    pub(crate) architecture: Option<TokenArchitecture>,
    /// Features that are active on a row: of each (topk), or on average (batchtopk) [default: 32]
    #[arg(long, value_name = "K", value_parser = count::<CODES>)]
    pub(crate) k: Option<usize>,
    /// Weight of the mean number of active features in the loss, of jumprelu [default: 0.001]
    #[arg(long, value_name = "LAMBDA")]
    pub(crate) l0: Option<f64>,
    /// Weight of the mean size of a row's features in the loss, of standard and gated [default: 1]
    #[arg(long, value_name = "LAMBDA")]
    pub(crate) l1: Option<f64>,
    /// Number of features [default: four times the width]
    #[arg(long, value_name = "N", value_parser = count::<CODES>)]
    pub(crate) features: Option<usize>,
    /// How often every row is seen
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count::<EPOCHS>)]
    pub(crate) epochs: usize,
    /// Rows of a step
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count::<ROWS>)]
    pub(crate) batch_rows: usize,
    /// Adam's step size, risen to over the first twentieth of the steps and fallen from over the last fifth
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    pub(crate) learning_rate: f64,
    /// Steps without activity after which a feature is dead and learns what others leave
    #[arg(long, value_name = "STEPS", default_value_t = 100, value_parser = count::<{ usize::MAX }>)]
    pub(crate) dead_after: usize,
    /// A linear map from input to output beside the features of a transcoder
    #[arg(long)]
    pub(crate) skip: bool,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// `--architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenArchitecture {
    /// The k strongest features of each row
    Topk,
    /// The strongest features of a batch, k a row on average; saved as jumprelu with one threshold
    Batchtopk,
    /// What is above a learnt threshold of each feature
    Jumprelu,
    /// Whatever is above 0, with a penalty on how large it is
    Standard,
    /// A gate that says whether, and a magnitude that says how much; not for transcoders
    Gated,
}
