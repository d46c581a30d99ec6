use std::path::PathBuf;

use clap::Args;

use super::rows::SkipFirst;
use super::{DeviceArgs, ModelArgs, SeedArgs, TextArgs};

/// See what a model loses when a dictionary takes the place of an activation.
///
/// Beside it what it loses with 0 and with the activation's mean in that place, and with a dictionary before training.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope splice --model model.gguf --sae sae/ --text held-out.txt --tokens 8000")]
pub(crate) struct SpliceArgs {
    /// Folder of a dictionary or a transcoder, of any format that `encode` reads
    #[arg(long, value_name = "DIR")]
    pub(crate) sae: PathBuf,
    /// What it reads, where its folder does not say
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Option<String>,
    /// What it stands for, of a transcoder whose folder does not say
    #[arg(long, value_name = "SITE")]
    pub(crate) site_out: Option<String>,
    /// Leave the first position of every context as it is: `auto` where the dictionary was trained without
    #[arg(long, value_enum, default_value_t = SkipFirst::Auto, value_name = "auto|true|false")]
    pub(crate) skip_first: SkipFirst,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
