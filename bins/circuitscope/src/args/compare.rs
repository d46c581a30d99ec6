use std::path::PathBuf;

use clap::Args;
use clap::builder::ValueHint;

use super::DeviceArgs;

/// Set two results of `discover` beside each other: which heads both circuits have, and whether the one is the
/// other's.
///
/// Two models, checkpoints, precisions, sets of prompts or methods. The models are run once more, so that each circuit is
/// judged in the other run, too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  Does the circuit survive half precision?
    circuitscope discover --model gpt2/ --task ioi --output f32/
    circuitscope discover --model gpt2/ --task ioi --dtype f16 --output f16/
    circuitscope compare f32/ f16/ --output compared/
  Heads alone, where the models are not at hand:
    circuitscope compare f32/ f16/ --no-models")]
pub(crate) struct CompareArgs {
    /// Output folder of `discover`, or its discovery.json
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// Another one
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    /// The model of A, where it is no longer where it was
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath, conflicts_with = "no_models")]
    pub(crate) model_a: Option<String>,
    /// The model of B, likewise
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath, conflicts_with = "no_models")]
    pub(crate) model_b: Option<String>,
    /// Run no model: what each circuit keeps in the other run is not measured
    #[arg(long)]
    pub(crate) no_models: bool,
    /// Heads to list in text form
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,
    /// Folder for comparison.json and a page [default: print only]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
