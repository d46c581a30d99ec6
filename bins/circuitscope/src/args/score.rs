use std::path::PathBuf;

use clap::Args;

/// Score heads and pairs of heads by the codes that occur on positive examples only.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope score --codes codes.safetensors --format json

JSON: `nodes` (one for each head, layer by layer), `amplitude_scores` (what `amplitude-ensemble`
and `recommended-activations` average over dictionaries; null if the file has no amplitudes),
`edges` (heads x heads: code pairs seen on positives only), `paper_edge_head_counts` (what the
authors' code calls an edge score: how often each head occurs among the top pairs).")]
pub(crate) struct ScoreArgs {
    /// Codes file
    #[arg(long, value_name = "FILE")]
    pub(crate) codes: PathBuf,
    /// Take "no feature active" for code 0, as the authors' code does
    #[arg(long)]
    pub(crate) paper_compatible: bool,
    /// Heads and pairs to list in text form
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) top: usize,
}
