use std::path::PathBuf;

use circuitscope::HeadId;
use clap::Args;

use super::rows::SkipFirst;
use super::{DeviceArgs, EXAMPLES, ModelArgs, SeedArgs, count, count_or_none};

/// Say what features of a dictionary on heads' z are a head's, where they are active, and from which token.
///
/// Without --text on random tokens said twice, on which induction is all that tells the next token. With a head, dictionaries that learnt
/// nothing stand beside: what they say as well, the dictionary does not show.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  circuitscope explain --model model.gguf --sae sae/ --head L18H6 --output explained/
  circuitscope explain --model model.gguf --sae sae/ --feature 17,250 --text book.txt")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) what: ExplainWhat,
    /// Folder of a dictionary of one layer's `attn.hook_z`, heads side by side, of any format that `encode` reads
    #[arg(long, value_name = "DIR")]
    pub(crate) sae: PathBuf,
    /// What it reads, where its folder does not say
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Option<String>,
    /// Text to look in: `.jsonl` of `{"text": …}` a line, or any other file as one text
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) text: Vec<PathBuf>,
    /// Tokens to take of it
    #[arg(long, value_name = "N", default_value_t = 8_000, value_parser = count::<EXAMPLES>, requires = "text")]
    pub(crate) tokens: usize,
    /// Tokens of a context [default: 128, or as many as the model takes]
    #[arg(long, value_name = "N", value_parser = count::<EXAMPLES>, requires = "text")]
    pub(crate) context: Option<usize>,
    /// Features of a head that are looked at
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count::<EXAMPLES>)]
    pub(crate) features: usize,
    /// Places at which a feature is strongest
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count::<EXAMPLES>)]
    pub(crate) places: usize,
    /// Places at which a feature is taken away, to see what the model says without it; 0 for none
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count_or_none::<EXAMPLES>)]
    pub(crate) ablations: usize,
    /// Pass over the first position of every context: `auto` where the dictionary was trained without
    #[arg(long, value_enum, default_value_t = SkipFirst::Auto, value_name = "auto|true|false")]
    pub(crate) skip_first: SkipFirst,
    /// Folder for explained.json and a page
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// A head or features.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ExplainWhat {
    /// Head whose features are explained
    #[arg(long, value_name = "HEAD")]
    pub(crate) head: Option<HeadId>,
    /// Features, by number
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(crate) feature: Vec<usize>,
}
