use std::path::PathBuf;

use circuitscope_sweep::Shard;
use clap::{Args, Subcommand};

/// Run models x tasks x methods x seeds x settings on many machines, and merge what they find.
///
/// `sweep plan.toml` makes a plan: a cell for each combination, with the hash of all that its result depends on as its key.
/// `sweep run` works on cells, on as many machines at once as there are; they share nothing but the store that the
/// plan names: a folder, or s3://, gs:// or az://. No two workers do a cell twice, and what a killed one had is done by another.
/// A plan that has grown keeps the results of the cells that it had before.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "`circuitscope sweep --help` shows a plan, and examples.",
    after_long_help = "A plan:
    store = \"results\"               # a folder beside the plan, or s3://bucket/prefix, gs://…, az://…
    models = [\"reference\"]          # what --model takes
    tasks = [\"ioi\", \"greater-than\"] # names, and folders of tasks of your own
    methods = [\"quick\"]             # what `eval --method` takes
    seeds = 3                       # how many, counted from `seed` (0)
    device = \"cpu\"                  # what --device takes
    lease = 300                     # seconds of silence after which another worker takes a cell over
    [settings.default]              # any number of such tables: options of `eval` without the dashes
    examples = 250

Examples:
  Make the plan, and show its cells:
    circuitscope sweep plan.toml
  Work on all of it; the same command on other machines helps:
    circuitscope sweep run plan.toml
  The second of four parts:
    circuitscope sweep run plan.toml --shard 1/4
  How far it is:
    circuitscope sweep status plan.toml
  One table, and pages:
    circuitscope sweep merge plan.toml --output merged/
    circuitscope sweep report plan.toml --output pages/
  A question of one's own:
    circuitscope sweep merge plan.toml --sql 'SELECT method, avg(node_auc) FROM cells GROUP BY method'

Clusters, with files for SLURM and Kubernetes: docs/guides/cluster.md"
)]
pub(crate) struct SweepArgs {
    #[command(subcommand)]
    pub(crate) chore: Option<SweepChore>,
    /// The plan to make; paths in it start from its folder
    #[arg(value_name = "PLAN", required = true)]
    pub(crate) plan: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SweepChore {
    Run(SweepRunArgs),
    Status(SweepStatusArgs),
    Merge(SweepMergeArgs),
    Report(SweepReportArgs),
}

/// Work on the cells of a plan until none is left that nobody does.
///
/// In an array of SLURM jobs (`SLURM_ARRAY_TASK_ID` of `SLURM_ARRAY_TASK_COUNT`) and in an indexed job of Kubernetes
/// (`JOB_COMPLETION_INDEX` of `JOB_COMPLETIONS`, which the file of the job sets) a worker does its part alone, unless --cell or --shard
/// say otherwise. On Ctrl-C and SIGTERM it gives back what it has not finished.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  All of it, or what is left of it:
    circuitscope sweep run plan.toml
  The second of four parts, then what others have not begun:
    circuitscope sweep run plan.toml --shard 1/4 --help-others

Exit codes: 0 all of the part is done, or others that live are at the rest; 1 a cell could not be run; 130 interrupted.")]
pub(crate) struct SweepRunArgs {
    /// The plan; it is made if the store has none
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// One cell alone: its number in `sweep PLAN`, or the beginning of its key
    #[arg(long, value_name = "CELL", conflicts_with_all = ["shard", "shards", "help_others"])]
    pub(crate) cell: Option<String>,
    /// One part of N alone, I from 0 to N-1
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// How many parts there are, where the scheduler says which one this is, but not of how many
    #[arg(long, value_name = "N", conflicts_with = "shard")]
    pub(crate) shards: Option<usize>,
    /// After its own part, also do cells of others that nobody has begun
    #[arg(long)]
    pub(crate) help_others: bool,
    /// Try cells again that failed before
    #[arg(long)]
    pub(crate) retry_failed: bool,
}

/// Say how far a sweep is: cells done, running, failed and open, and the workers.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope sweep status plan.toml")]
pub(crate) struct SweepStatusArgs {
    /// The plan
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
}

/// Merge all cells into one table with means, standard deviations and 95 % intervals over seeds.
///
/// `cells`, `summary` and `provenance` go to --output as Parquet and CSV. The first two hold no times and no names of workers: the same
/// plan gives the same bytes, however many workers ran it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  The tables:
    circuitscope sweep merge plan.toml --output merged/
  A question:
    circuitscope sweep merge plan.toml --sql 'SELECT method, avg(node_auc) FROM cells GROUP BY method'")]
pub(crate) struct SweepMergeArgs {
    /// The plan
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Folder for the tables
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Merge what is done, though cells are missing
    #[arg(long)]
    pub(crate) partial: bool,
    /// Answer this question in SQL instead (DataFusion's) of the tables `cells`, `summary` and `provenance`
    #[arg(long, value_name = "QUERY", conflicts_with = "output")]
    pub(crate) sql: Option<String>,
}

/// Make pages of a sweep: one of all models, and one of each with its tasks, methods and heads.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  circuitscope sweep report plan.toml --output pages/")]
pub(crate) struct SweepReportArgs {
    /// The plan
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Folder for the pages
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Show what is done, though cells are missing
    #[arg(long)]
    pub(crate) partial: bool,
}
