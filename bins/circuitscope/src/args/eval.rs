use std::path::PathBuf;

use circuitscope::eval::{About, methods};
use circuitscope::tasks::Task;
use clap::Args;

use super::{
    DeviceArgs, EXAMPLES, ModelArgs, PatchingArgs, SaeArgs, SeedArgs, count, count_or_none,
    parse_circuit,
};

/// Find circuits that are known, and see how well each method and each control does.
///
/// Judges methods on tasks by the known circuits of the model, over several seeds, beside controls
/// that any method should beat. Finished runs stay in the output folder: an interrupted command
/// goes on where it stopped.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  All tasks and methods on the model inside this program:
    circuitscope eval
  Every method, and what circuits of growing size keep:
    circuitscope eval --method all --faithfulness --output all-methods/
  Two methods on one task, more seeds:
    circuitscope eval --task ioi --method sae,untrained --seeds 10 --output ioi/
  Scores that another tool wrote, beside the quick methods:
    circuitscope eval --task ioi --scores theirs/importances.json --output theirs-judged/
  GPT-2 small, whose circuits for ioi and greater-than were published:
    circuitscope eval --model openai-community/gpt2 --task ioi,greater-than --output gpt2-eval/")]
pub(crate) struct EvalArgs {
    /// Tasks, comma-separated: ioi, greater-than, docstring, induction, or all [default: all that
    /// have a known circuit in the model]
    #[arg(long, value_name = "LIST", value_parser = parse_tasks)]
    pub(crate) task: Option<Tasks>,
    /// Methods and controls, comma-separated, or all, or quick (those that take seconds; `all` takes
    /// the better part of an hour)
    #[arg(long, value_name = "LIST", default_value = "quick", value_parser = parse_methods)]
    pub(crate) method: Methods,
    /// Also judge scores of another tool: an importances.json of EAP-IG or of a MIB submission for the
    /// one --task (repeatable); its row is named after the file's folder and name
    #[arg(long, value_name = "FILE", requires = "task")]
    pub(crate) scores: Vec<PathBuf>,
    /// Take the circuits of this model for known, whatever the model is: gpt2-small, attn-only-4l or
    /// reference [default: those of the model itself, told by its name on the hub and the hash of its
    /// weights]
    #[arg(long, value_name = "NAME", value_parser = parse_circuit)]
    pub(crate) circuit: Option<&'static str>,
    /// Number of seeds, counted from --seed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count::<10_000>)]
    pub(crate) seeds: usize,
    /// Pairs of prompts for each task: N positive and N negative examples
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = count::<EXAMPLES>)]
    pub(crate) examples: usize,
    /// Random halves of the prompts that each run is scored on for its intervals, at most; costly methods take none
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count_or_none::<100_000>)]
    pub(crate) resamples: usize,
    /// Also run circuits of growing size with everything else ablated, on --patch-pairs pairs: CPR,
    /// CMD and KL for the first seed of each method
    #[arg(long)]
    pub(crate) faithfulness: bool,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tasks(pub(crate) Vec<Task>);

fn parse_tasks(list: &str) -> Result<Tasks, circuitscope::tasks::Error> {
    if list == "all" {
        return Ok(Tasks(Task::ALL.to_vec()));
    }
    let mut tasks = Vec::new();
    for entry in list.split(',') {
        let task: Task = entry.trim().parse()?;
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    Ok(Tasks(tasks))
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
        let tasks = parse_tasks("induction, ioi,induction").unwrap();
        assert_eq!(tasks.0, [Task::Induction, Task::Ioi]);
        assert_eq!(parse_tasks("all").unwrap().0, Task::ALL);
        assert!(parse_tasks("").is_err());
        assert!(
            parse_tasks("ioi,greater_than")
                .unwrap_err()
                .to_string()
                .contains("greater-than")
        );
    }
}
