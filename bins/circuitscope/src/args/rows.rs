use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DeviceArgs, ModelArgs, count};

/// Most tokens of a context, and of rows.
const TOKENS: usize = 1_000_000_000;

/// Run a model on text and keep a site at every token, to train a dictionary on.
///
/// The folder gets shards of half-precision vectors and rows.json, which says what they are of.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  The heads' z of layer 18, side by side, at 200,000 tokens of your text:
    circuitscope rows --model model.gguf --text book.txt --site blocks.18.attn.hook_z --output rows/
  Input and output of an MLP, for a transcoder:
    circuitscope rows --model model.gguf --text texts.jsonl --site blocks.18.mlp.hook_in \\
        --site-out blocks.18.hook_mlp_out --output pairs/
  Then:
    circuitscope train-tokens --rows rows/ --output sae/")]
pub(crate) struct RowsArgs {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// What a dictionary reads: a site with a vector at every position; heads stand side by side
    #[arg(long, value_name = "SITE")]
    pub(crate) site: String,
    /// What a transcoder makes of it: another site
    #[arg(long, value_name = "SITE")]
    pub(crate) site_out: Option<String>,
    /// Leave out the first position of every context: `auto` where its residual stream is more than four times as long as others', an attention sink
    #[arg(long, value_enum, default_value_t = SkipFirst::Auto, value_name = "auto|true|false")]
    pub(crate) skip_first: SkipFirst,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Text in contexts.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// Text: a `.jsonl` file of `{"text": …}` a line, or any other file as one text; several are read one after the other
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) text: Vec<PathBuf>,
    /// Tokens to take, evenly from all of the text
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = count::<TOKENS>)]
    pub(crate) tokens: usize,
    /// Tokens of a context [default: 128, or as many as the model takes]
    #[arg(long, value_name = "N", value_parser = count::<TOKENS>)]
    pub(crate) context: Option<usize>,
}

/// `--skip-first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SkipFirst {
    /// Where it is an attention sink
    Auto,
    /// Always
    True,
    /// Never
    False,
}

impl SkipFirst {
    /// `None` for what is measured.
    pub(crate) const fn answer(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::True => Some(true),
            Self::False => Some(false),
        }
    }
}
