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
mod shell;
mod splice;
#[cfg(feature = "sweep")]
mod sweep;
mod task;
mod train;
mod train_tokens;

use std::ffi::OsString;
use std::path::PathBuf;

use circuitscope::files::FileError;
use clap::builder::ValueHint;
use clap::error::ErrorKind;
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
pub(crate) use model::{MODEL_VARIABLE, ModelArgs, PatchingArgs, SaeArgs};
pub(crate) use report::ReportArgs;
pub(crate) use rows::{RowsArgs, TextArgs};
pub(crate) use score::ScoreArgs;
pub(crate) use shell::{CompletionsArgs, ManArgs};
pub(crate) use splice::SpliceArgs;
#[cfg(feature = "sweep")]
pub(crate) use sweep::{
    SweepArgs, SweepChore, SweepMergeArgs, SweepReportArgs, SweepRunArgs, SweepStatusArgs,
};
pub(crate) use task::{TaskArg, parse_task};
pub(crate) use train::TrainArgs;
pub(crate) use train_tokens::{TokenArchitecture, TrainTokensArgs};

use crate::device::DeviceName;
use crate::output::{self, Format};
use crate::{config, provenance, version};

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
    long_version = version::long(),
    max_term_width = 100,
    after_help = "Start here:
  circuitscope eval                          four tasks, known circuits, methods and controls
  circuitscope discover --model gpt2/ --pairs prompts.jsonl --output found/
  circuitscope compare found/ other/         is it the same circuit?
  circuitscope explain --model gpt2/ --sae sae/ --head L5H1
  circuitscope sweep plan.toml               models x tasks x methods x seeds, on many machines
  circuitscope methods                       what there is to score heads with, and what it needs
  circuitscope doctor                        does this machine compute correctly?

Flags can stand in a circuitscope.toml: in the current folder, or where --config says.
Exit codes: 0 done, 1 could not be done, 2 wrong usage, 101 a bug of this program, 130 interrupted.
`circuitscope COMMAND --help` explains a command, with examples."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) settings: GlobalArgs,
}

/// A command line that is not carried out.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It asks for help, or is not as it should be.
    Usage(clap::Error),
    /// The file that gives flags is not as it should be.
    Config(FileError),
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl Cli {
    /// What was typed and what a file gives beside it, and for `eval` which of its options were typed.
    pub(crate) fn parsed() -> Result<Self, Refused> {
        let command = Self::command();
        let mut line: Vec<OsString> = std::env::args_os().collect();
        let typed = match command.clone().try_get_matches_from(&line) {
            // A file may give what is missing.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                let lenient = command.clone().ignore_errors(true);
                lenient.try_get_matches_from(&line)?
            }
            typed => typed?,
        };
        if let Some(given) = config::given(&command, &typed).map_err(Refused::Config)? {
            let of_command = typed.subcommand().map(|(_, of_command)| of_command);
            let quiet = given.flags.iter().any(|flag| flag == "--quiet")
                || of_command.is_some_and(|matches| matches.get_count("quiet") > 0);
            if !quiet {
                let flags = given.flags.iter().map(|flag| flag.to_string_lossy());
                let flags: Vec<_> = flags.collect();
                output::note(&format!(
                    "{} gives {}",
                    given.file.display(),
                    flags.join(" ")
                ));
            }
            config::append(&mut line, &given.flags);
        }
        provenance::as_typed(&line);
        let matches = command.clone().try_get_matches_from(&line)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Eval(args), Some((name, of_eval))) = (&mut cli.command, typed.subcommand())
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

/// Commands that read no file of flags: a shell that starts in any folder runs them.
pub(crate) const COMMANDS_WITHOUT_CONFIG: [&str; 2] = ["completions", "man"];

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
    Completions(CompletionsArgs),
    Man(ManArgs),
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
    /// File with flags that count where the command line does not give them, or `none` [default: circuitscope.toml in the
    /// current folder, if there is one]
    ///
    /// A key is a flag without its dashes, in a table that is named after a command or, for all that have it, above the
    /// tables. Paths in it start from its folder. Where this is not given, `CIRCUITSCOPE_CONFIG` in the environment counts.
    #[arg(long, global = true, value_name = "FILE|none", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
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
