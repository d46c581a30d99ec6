//! The flags, as typed: one file a command. Each command turns its own into validated settings.

mod capture;
mod compare;
mod discover;
mod doctor;
mod encode;
mod eval;
mod explain;
mod graph;
mod model;
mod report;
mod rows;
mod score;
mod splice;
#[cfg(feature = "sweep")]
mod sweep;
mod task;
mod train;
mod train_tokens;

use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

pub(crate) use capture::{CAPTURED_PAIRS, CaptureArgs, CapturePrompts};
pub(crate) use compare::CompareArgs;
pub(crate) use discover::{Behaviour, DiscoverArgs, Judge};
pub(crate) use doctor::DoctorArgs;
pub(crate) use encode::EncodeArgs;
pub(crate) use eval::EvalArgs;
pub(crate) use explain::ExplainArgs;
pub(crate) use graph::GraphArgs;
pub(crate) use model::{MODEL_VARIABLE, ModelArgs, PatchingArgs, REFERENCE, SaeArgs};
pub(crate) use report::ReportArgs;
pub(crate) use rows::{RowsArgs, TextArgs};
pub(crate) use score::ScoreArgs;
pub(crate) use splice::SpliceArgs;
#[cfg(feature = "sweep")]
pub(crate) use sweep::{
    SweepArgs, SweepChore, SweepMergeArgs, SweepReportArgs, SweepRunArgs, SweepStatusArgs,
};
pub(crate) use task::{TaskArg, parse_task};
pub(crate) use train::TrainArgs;
pub(crate) use train_tokens::{TokenArchitecture, TrainTokensArgs};

use crate::device::DeviceName;
use crate::output::Format;

/// A number of things of which this program can have so many: more would not end, or not fit into memory.
fn count<const MOST: usize>(text: &str) -> Result<usize, String> {
    within(text, 1, MOST)
}

/// The same where there may be none.
fn count_or_none<const MOST: usize>(text: &str) -> Result<usize, String> {
    within(text, 0, MOST)
}

fn within(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("expected a whole number, from {least} to {most}"))
}

/// Most prompts of a class, and of examples.
const EXAMPLES: usize = 1_000_000;
/// Most codes of a dictionary.
const CODES: usize = 65_536;
/// Most steps of training.
const STEPS: usize = 1_000_000;

/// Find the attention heads that implement a behaviour, and see how far to trust the answer.
#[derive(Debug, Parser)]
#[command(
    name = "circuitscope",
    version,
    max_term_width = 100,
    after_help = "Start here:
  circuitscope eval                          four tasks, known circuits, methods and controls
  circuitscope discover --model gpt2/ --pairs prompts.jsonl --output found/
  circuitscope compare found/ other/         is it the same circuit?
  circuitscope explain --model gpt2/ --sae sae/ --head L5H1
  circuitscope sweep plan.toml               models x tasks x methods x seeds, on many machines
  circuitscope methods                       what there is to score heads with, and what it needs
  circuitscope doctor                        does this machine compute correctly?

Exit codes: 0 done, 1 could not be done, 2 wrong usage, 101 a bug of this program, 130 interrupted.
`circuitscope COMMAND --help` explains a command, with examples."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) settings: GlobalArgs,
}

impl Cli {
    /// What was typed, and for `eval` which of its options were.
    pub(crate) fn parsed() -> Result<Self, clap::Error> {
        let command = Self::command();
        let matches = command.clone().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Eval(args), Some((name, of_eval))) =
            (&mut cli.command, matches.subcommand())
        {
            let options = command.find_subcommand(name).into_iter();
            let options = options.flat_map(clap::Command::get_arguments);
            let given = options.filter(|option| {
                let source = of_eval.value_source(option.get_id().as_str());
                source == Some(ValueSource::CommandLine)
            });
            args.given = given
                .filter_map(|option| option.get_long().map(str::to_owned))
                .collect();
        }
        Ok(cli)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Eval(EvalArgs),
    Discover(DiscoverArgs),
    Compare(CompareArgs),
    Capture(CaptureArgs),
    Rows(RowsArgs),
    TrainTokens(TrainTokensArgs),
    Splice(SpliceArgs),
    Explain(ExplainArgs),
    Graph(GraphArgs),
    Train(TrainArgs),
    Encode(EncodeArgs),
    Score(ScoreArgs),
    Report(ReportArgs),
    #[cfg(feature = "sweep")]
    Sweep(SweepArgs),
    Methods(MethodsArgs),
    Doctor(DoctorArgs),
}

/// List the methods that score heads: what each needs, what it costs, what its score is.
///
/// `discover --method NAME` and `eval --method LIST` run them; docs/methods has their formulas and sources.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  The methods that read activations alone:
    circuitscope methods --format json | jq -r '.[] | select(.needs == []) | .name'")]
pub(crate) struct MethodsArgs {}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct GlobalArgs {
    /// Form of what is printed on stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// Say more on stderr; twice for details. `RUST_LOG` overrides it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say less on stderr: no progress, no notes
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub(crate) quiet: u8,
}

impl GlobalArgs {
    pub(crate) const fn log_level(&self) -> LogLevel {
        LogLevel(match (self.quiet, self.verbose) {
            (0, 0) => LevelFilter::WARN,
            (0, 1) => LevelFilter::INFO,
            (0, _) => LevelFilter::DEBUG,
            (1.., _) => LevelFilter::ERROR,
        })
    }
}

/// How much the libraries may say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLevel(LevelFilter);

impl LogLevel {
    /// A filter directive: our own crates at this level, everything else only when it fails.
    pub(crate) fn as_str(self) -> String {
        format!("error,circuitscope={0},circuitscope_cli={0}", self.0)
    }
}

/// Where the work is done.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// What computes: `cpu`, `flex`, `ndarray`, `wgpu[:N]` or `cuda[:N]`; see `circuitscope doctor`
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(crate) device: DeviceName,
}

/// Where random choices start.
#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// Where all random choices start from: the same seed gives the same result
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
