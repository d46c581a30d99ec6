use std::path::PathBuf;

use clap::Args;

use super::{DeviceArgs, EXAMPLES, ModelArgs, count, count_or_none};

/// Most features of a graph: memory holds a number for each pair of these and all active features.
const FEATURES: usize = 100_000;

/// Draw the attribution graph of a prompt: which features, through which heads, make the answer of which tokens.
///
/// Attention patterns and norms are held as they were on the prompt, so that what enters a feature or a logit sums to it exactly. Beside
/// graphs through transcoders stand the scores of the graph through the model's own neurons.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  circuitscope graph --model model.gguf --transcoders set/ --prompt 'The capital of France is' --output graph/
  What tells one prompt from another of as many tokens, and which heads carry that:
    circuitscope graph --model model.gguf --transcoders set/ --prompt 'The capital of France is' \\
        --against 'The capital of Spain is' --right ' Paris' --wrong ' Madrid' --output graph/
  Without transcoders, through neurons:
    circuitscope graph --neurons --prompt 'The council lasted from the year 14 28 to the year 14'")]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) through: GraphThrough,
    /// Text whose next token is explained
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// Text of as many tokens: heads are then told apart by what they move because of what differs
    #[arg(long, value_name = "TEXT")]
    pub(crate) against: Option<String>,
    /// Right next tokens, one word each: their mean logit less that of --wrong is explained
    #[arg(long, value_name = "WORD", value_delimiter = ',', requires = "wrong")]
    pub(crate) right: Vec<String>,
    /// Wrong next tokens
    #[arg(long, value_name = "WORD", value_delimiter = ',', requires = "right")]
    pub(crate) wrong: Vec<String>,
    /// Most likely next tokens that are explained
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count::<EXAMPLES>, conflicts_with = "right")]
    pub(crate) top: usize,
    /// Features that become nodes, at most, the most influential first; what others write is error
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count::<FEATURES>)]
    pub(crate) max_features: usize,
    /// Share of all influence that nodes are kept for
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, value_parser = share)]
    pub(crate) nodes: f64,
    /// Share of the strength of the edges between them that edges are kept for
    #[arg(long, value_name = "SHARE", default_value_t = 0.98, value_parser = share)]
    pub(crate) edges: f64,
    /// Features that are taken away one by one, the most influential first, to see whether the model agrees; 0 for none
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count_or_none::<FEATURES>)]
    pub(crate) ablate: usize,
    /// Features and heads that tables list
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = count::<EXAMPLES>)]
    pub(crate) rows: usize,
    /// Folder for graph.json, neuronpedia.json and a page
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What MLPs are taken apart into.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct GraphThrough {
    /// Folder of a transcoder, or of one for each layer, of any format that `splice` reads; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) transcoders: Vec<PathBuf>,
    /// Neurons as features, of all layers without a transcoder
    #[arg(long)]
    pub(crate) neurons: bool,
}

/// A share from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1".to_owned())
}
