use std::path::PathBuf;

use circuitscope::eval::{About, EvaluateSettings, methods};
use circuitscope::tasks::TASKS;
use circuitscope::{CircuitChoice, EVAL_PAIRS};
use clap::Args;
use clap::builder::ValueHint;

use super::task::{circuit_help, examples_help, parse_circuit, parse_task, tasks_help};
use super::{
    DeviceArgs, EXAMPLES, ModelArgs, PatchingArgs, SaeArgs, SeedArgs, TaskArg, count, count_or_none,
};

/// Find circuits that are known, and see how well each method and each control does.
///
/// Judges methods on tasks by the known circuits of the model, over several seeds, beside controls
/// that any method should beat. Finished runs stay in the output folder: an interrupted command
/// goes on where it stopped.
#[derive(Debug, Args)]
#[command(
    after_help = "`circuitscope eval --help` shows every option, and examples.",
    after_long_help = "Examples:
  All tasks and methods on the model inside this program:
    circuitscope eval
  Every method, and what circuits of growing size keep:
    circuitscope eval --method all --faithfulness --output all-methods/
  Two methods on one task, more seeds:
    circuitscope eval --task ioi --method sae,untrained --seeds 10 --output ioi/
  Scores that another tool wrote, beside the quick methods:
    circuitscope eval --task ioi --scores theirs/importances.json --output theirs-judged/
  Scores of other tools alone, by a circuit in a file:
    circuitscope eval --scores theirs/importances.json --circuit manual.json
  A task of your own, by the circuit in its folder or in a file:
    circuitscope eval --task capitals/ --circuit circuit.json --output capitals-eval/
  GPT-2 small, whose circuits for ioi and greater-than were published:
    circuitscope eval --model openai-community/gpt2 --task ioi,greater-than --output gpt2-eval/"
)]
pub(crate) struct EvalArgs {
    /// Names of the options that were given.
    #[arg(skip)]
    pub(crate) given: Vec<String>,
    #[arg(long, value_name = "LIST", value_parser = parse_tasks, help = tasks_help())]
    pub(crate) task: Option<Tasks>,
    /// Methods and controls that `circuitscope methods` lists, comma-separated, or groups of them
    ///
    /// The groups, which may stand beside names, are `quick` (those that take seconds) and `all` (the better part of an
    /// hour).
    #[arg(long, value_name = "LIST", default_value = "quick", value_parser = parse_methods)]
    pub(crate) method: Methods,
    /// Also judge scores of another tool: an importances.json of EAP-IG or of a MIB submission for the
    /// one --task (repeatable); its row is named after the file's folder and name. Without --task, but with
    /// --circuit FILE, they alone are judged, and no model runs
    #[arg(long, value_name = "FILE")]
    pub(crate) scores: Vec<PathBuf>,
    #[arg(
        long,
        value_name = "NAME|FILE", value_hint = ValueHint::FilePath,
        value_parser = parse_circuit,
        help = circuit_help("Take these circuits for known")
    )]
    pub(crate) circuit: Option<CircuitChoice>,
    /// Number of seeds, counted from --seed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count::<10_000>)]
    pub(crate) seeds: usize,
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<EXAMPLES>,
        help = examples_help("Pairs of prompts for each task: N positive and N negative examples", EVAL_PAIRS)
    )]
    pub(crate) examples: Option<usize>,
    /// Random halves of the prompts that each run is scored on for its intervals, at most; costly methods take none
    #[arg(long, value_name = "N", default_value_t = EvaluateSettings::default().resamples, value_parser = count_or_none::<100_000>)]
    pub(crate) resamples: usize,
    /// Also run circuits of growing size with everything else ablated, on --patch-pairs pairs: CPR,
    /// CMD, accuracy and KL for the first seed of each method
    #[arg(long)]
    pub(crate) faithfulness: bool,
    /// Also run the circuits of each task (those known, and those that Otsu's split takes from the scores of each method with
    /// the first seed) on every task, all other heads ablated, on --patch-pairs pairs: what own circuits keep beside
    /// what foreign ones keep, in the metric `contrast` unless --metric says otherwise
    #[arg(long)]
    pub(crate) cross_task: bool,
    /// Folder for finished runs, pictures and the report
    #[arg(long, value_name = "DIR", default_value = "circuitscope-eval")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    #[command(flatten)]
    pub(crate) patching: PatchingArgs,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// What `--task` asks for.
#[derive(Debug, Clone)]
pub(crate) struct Tasks(pub(crate) Vec<TaskArg>);

fn parse_tasks(list: &str) -> Result<Tasks, circuitscope::tasks::Error> {
    if list == "all" {
        return Ok(Tasks(
            TASKS.iter().map(|task| TaskArg::Named(task)).collect(),
        ));
    }
    let mut entries: Vec<&str> = Vec::new();
    for entry in list.split(',').map(str::trim) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let tasks = entries.into_iter().map(parse_task);
    tasks.collect::<Result<_, _>>().map(Tasks)
}

/// What `--method` asks for: names of methods.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Methods(pub(crate) Vec<&'static About>);

fn parse_methods(list: &str) -> Result<Methods, circuitscope::eval::Error> {
    methods::parse_list(list).map(Methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_lists_parse_in_order_without_repetition() {
        let names = |list: &str| {
            let tasks = parse_tasks(list).unwrap().0.into_iter();
            let names = tasks.map(|task| match task {
                TaskArg::Named(task) => task.name.to_string(),
                TaskArg::Folder(folder) => folder.display().to_string(),
            });
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            names("induction, ioi,./own/,induction"),
            ["induction", "ioi", "./own/"]
        );
        assert_eq!(
            names("all"),
            ["ioi", "greater-than", "docstring", "induction"]
        );
        assert!(parse_tasks("").is_err());
        assert!(
            parse_tasks("ioi,greater_than")
                .unwrap_err()
                .to_string()
                .contains("greater-than")
        );
    }
}
