use std::path::PathBuf;

use circuitscope::hooks::Reduce;
use clap::builder::ValueHint;
use clap::{Args, ValueEnum};

use super::task::{examples_help, parse_task, task_help};
use super::{DeviceArgs, EXAMPLES, ModelArgs, SeedArgs, TaskArg, count};

/// Write activations of a model into a safetensors file.
///
/// The file holds one f32 tensor for each site, named by the site as TransformerLens names it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  All heads' outputs z, and the logits, on 20 prompts of a task:
    circuitscope capture --task ioi --examples 10 --sites 'blocks.*.attn.hook_z,logits' \\
        --output z.safetensors
  The last position of one layer's residual stream, on your own prompts, one a line:
    circuitscope capture --model gpt2/ --prompts prompts.txt --sites blocks.5.hook_resid_post \\
        --reduce last --output resid.safetensors
  Token ids as they are ({\"tokens\":[[1,2],[3,4]],\"attention_mask\":[[1,1],[1,0]]}, mask optional):
    circuitscope capture --model gpt2/ --tokens tokens.json --sites '*' --processing raw \\
        --output all.safetensors")]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    pub(crate) prompts: CapturePrompts,
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<EXAMPLES>,
        requires = "task",
        help = examples_help("Pairs of prompts to draw for --task; 2N prompts, positives first", CAPTURED_PAIRS)
    )]
    pub(crate) examples: Option<usize>,
    /// Sites, comma-separated; `*` stands for any characters; `logits` for the output
    #[arg(long, value_name = "LIST")]
    pub(crate) sites: String,
    /// What to keep of the position axis; padding never counts
    #[arg(long, value_enum, default_value_t = CaptureReduce::None)]
    pub(crate) reduce: CaptureReduce,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Put every prompt into the tokenizer's chat template, as a message of the user before the model's answer
    #[arg(long, conflicts_with = "tokens")]
    pub(crate) chat: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Pairs that are drawn of a task where no number is asked for.
pub(crate) const CAPTURED_PAIRS: usize = 10;

/// Exactly one source of prompts.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct CapturePrompts {
    #[arg(long, value_name = "TASK|DIR", value_hint = ValueHint::DirPath, value_parser = parse_task, help = task_help())]
    pub(crate) task: Option<TaskArg>,
    /// Text file of one prompt a line; a line ends at a line feed, alone or after a carriage return, and
    /// every other character belongs to the prompt
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// JSON file of token ids; nothing is put before them
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
}

/// `--reduce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaptureReduce {
    /// Every position; shorter prompts are padded on the right
    None,
    /// The mean over positions
    Mean,
    /// The last position
    Last,
}

impl From<CaptureReduce> for Reduce {
    fn from(arg: CaptureReduce) -> Self {
        match arg {
            CaptureReduce::None => Self::None,
            CaptureReduce::Mean => Self::Mean,
            CaptureReduce::Last => Self::Last,
        }
    }
}
