//! What an evaluation was made with and what came out of it, as kept in its folder; and the page that shows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_eval::causal::Ablation;
use circuitscope_eval::methods::{FromFile, about};
use circuitscope_measures::{
    CrossTask, RunOutline, RunRecord, SummaryRow, read_json, summarise, write_json,
};
use circuitscope_model::ModelProvenance;
use circuitscope_report::{Passage, ReportInput, TaskReport};
use serde::{Deserialize, Serialize};

use crate::{FailingPrompt, JudgedBy, KnownAs, PromptBehaviour, PromptStart, Result};

/// Name of the file of [`Results`] in the folder of an evaluation.
pub const RESULTS_FILE: &str = "results.json";

/// The file, in the folder of an evaluation, of what the model makes of the prompts of a task.
#[must_use]
pub fn behaviour_file(folder: &Path, task: &str) -> PathBuf {
    folder.join("behaviour").join(format!("{task}.json"))
}

/// What the runs of an evaluation have in common: all that their results depend on apart from task, method and seed.
///
/// Kept as `settings.json` by a [`FolderStore`](circuitscope_measures::FolderStore), which refuses a folder of other
/// settings.
///
/// Whoever makes runs names every field: a setting that is left out would make different runs look alike. So a new one is a
/// breaking change, and there are no defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSettings {
    /// Version of the files in the folder; see [`Schema`].
    pub schema: Schema,
    /// Version of the program.
    pub circuitscope: String,
    /// The model.
    pub model: ModelProvenance,
    /// Whose circuits tasks without ones of their own were judged by: one of [`circuitscope_tasks::MODELS`], or a file.
    pub circuits: Option<String>,
    /// Why those, as the end of a sentence.
    pub circuits_why: Option<String>,
    /// What stands before prompts.
    pub prepend_bos: PromptStart,
    /// Pairs of prompts for each task that asks for no other number.
    pub examples: usize,
    /// Seed of the prompts.
    pub prompt_seed: u64,
    /// Features of a dictionary.
    pub codes: usize,
    /// λ of its training, where one was asked for.
    pub l1: Option<f64>,
    /// Examples that it was trained on.
    pub train_examples: usize,
    /// Steps of its training.
    pub steps: usize,
    /// Half samples of the prompts that runs are scored on for their intervals, at most.
    pub resamples: usize,
    /// Whether circuits of growing size were run.
    pub faithfulness: bool,
    /// What is read from the output, where that was asked for.
    pub metric: Option<circuitscope_core::Metric>,
    /// What takes the place of ablated outputs.
    pub ablation: Ablation,
    /// Pairs that gradients are taken on, at most.
    pub gradient_pairs: u32,
    /// Pairs that are patched, at most.
    pub patch_pairs: u32,
    /// Steps of integrated gradients.
    pub ig_steps: u32,
    /// The same, of nodes.
    pub node_ig_steps: u32,
    /// Steps of the training of masks.
    pub mask_steps: u32,
    /// The same, of Matryoshka masks.
    pub matryoshka_steps: u32,
    /// SHA-256 of each file of scores that is judged as a method.
    #[serde(default)]
    pub scores: Vec<String>,
    /// What computed.
    pub device: String,
}

/// Version of the files of an evaluation; others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Schema;

impl From<Schema> for u64 {
    fn from(_: Schema) -> Self {
        1
    }
}

impl TryFrom<u64> for Schema {
    type Error = String;

    fn try_from(version: u64) -> Result<Self, String> {
        if version == 1 {
            Ok(Self)
        } else {
            Err(format!(
                "found version {version} of these files, expected 1"
            ))
        }
    }
}

impl EvalSettings {
    /// Reads the settings of a folder.
    ///
    /// # Errors
    /// [`circuitscope_measures::Error`], which names file and field.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(read_json(path)?)
    }
}

/// What made the results of an evaluation. All but model and settings are absent where it did not come to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalProvenance {
    /// Program and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Its command line, program name left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Backend and hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// SHA-256 of each file read, by its path as given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Wall time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Highest resident memory, in bytes, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The model.
    pub model: ModelProvenance,
    /// What it was run with.
    pub settings: EvalSettings,
}

impl EvalProvenance {
    /// Of an evaluation that did not come to its end, or has not yet.
    #[must_use]
    pub fn unfinished(settings: EvalSettings) -> Self {
        Self {
            program: None,
            command: Vec::new(),
            device: None,
            inputs: BTreeMap::new(),
            seconds: None,
            peak_memory_bytes: None,
            model: settings.model.clone(),
            settings,
        }
    }
}

/// What an evaluation found, kept as [`RESULTS_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Results {
    /// How well the model shows the behaviour of each task.
    #[serde(default)]
    pub behaviour: BTreeMap<String, PromptBehaviour>,
    /// One for each task, method and seed; scores are in the files of the runs.
    pub runs: Vec<RunOutline>,
    /// One for each task and method.
    pub summary: Vec<SummaryRow>,
    /// What the circuits of each task keep of every other, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cross_task: Vec<CrossTask>,
    /// What made them.
    pub provenance: EvalProvenance,
}

impl Results {
    /// Of some runs.
    #[must_use]
    pub fn new(
        behaviour: BTreeMap<String, PromptBehaviour>,
        records: &[RunRecord],
        provenance: EvalProvenance,
    ) -> Self {
        Self {
            behaviour,
            runs: records.iter().map(RunOutline::from).collect(),
            summary: summarise(records),
            cross_task: Vec::new(),
            provenance,
        }
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`circuitscope_measures::Error`], which names file and field.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(read_json(path)?)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`circuitscope_measures::Error`], which names the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_json(path, self)?)
    }

    /// The page of an evaluation; `records` are its runs, with their scores, `judged` what each task was judged by, by
    /// its name.
    ///
    /// # Errors
    /// For runs that the known circuits do not fit.
    pub fn page(
        &self,
        records: &[RunRecord],
        judged: &BTreeMap<String, JudgedBy>,
    ) -> Result<ReportInput> {
        let mut tasks = TaskReport::of_runs(
            records,
            |task| judged.get(task)?.circuits.truths.first(),
            // What is none of our methods came from a file.
            |method| {
                about(method).map_or(FromFile::SUMMARY.to_owned(), |about| {
                    about.summary.clone().into()
                })
            },
        )?;
        for task in &mut tasks {
            let behaviour = self.behaviour.get(&task.task);
            task.passages = behaviour
                .map(PromptBehaviour::passage)
                .into_iter()
                .chain(self.cross_passage(&task.task))
                .collect();
        }
        Ok(ReportInput {
            title: "Known circuits, methods and controls".to_owned(),
            lead:
                "How well each method ranks the heads of circuits that are known, beside controls \
                   that any method should beat."
                    .to_owned(),
            facts: self.facts(judged),
            tasks,
            provenance: serde_json::json!(self.provenance),
        })
    }

    /// What the circuits of all tasks keep of one.
    fn cross_passage(&self, task: &str) -> Option<Passage> {
        let tasks = &self.cross_task.first()?.tasks;
        let at = tasks.iter().position(|name| name == task)?;
        let said = [
            "each entry is the share of what all heads do for this task that is kept with the heads chosen on the task in the \
             column, all others ablated; in brackets 95 % from half samples of the pairs",
            "specificity: what own circuits keep, on average over tasks, less what those of other tasks keep",
        ];
        let mut passage = Passage::new(
            "What the circuits of all tasks keep of this one",
            said.map(str::to_owned).to_vec(),
        );
        let columns = tasks.iter().map(|task| format!("circuit of {task}"));
        let columns = ["chosen by".to_owned()].into_iter().chain(columns);
        let columns = columns.chain(["specificity".to_owned()]).collect();
        let rows = self.cross_task.iter().map(|one| {
            [
                vec![one.by.clone()],
                one.cells(at),
                vec![one.specificity_text()],
            ]
            .concat()
        });
        passage.table = Some((columns, rows.collect()));
        Some(passage)
    }

    /// Names and values at the top of the page.
    fn facts(&self, judged: &BTreeMap<String, JudgedBy>) -> Vec<(String, String)> {
        let EvalProvenance {
            model, settings, ..
        } = &self.provenance;
        let before = if settings.prepend_bos.done {
            "a beginning-of-sequence token"
        } else {
            "nothing"
        };
        let seeds = self.summary.iter().map(|row| row.seeds).max();
        let known = of_tasks(judged, |by| whose(&by.circuits.known), "");
        let pairs = of_tasks(judged, |by| format!("{} pairs", by.pairs), " for each task");
        let own = judged.iter().filter(|(_, by)| !by.files.is_empty());
        let own = own.map(|(task, by)| (format!("task {task}"), by.summary.clone()));
        let facts = [
            ("model", Some(model_name(model))),
            (
                "known circuits",
                Some(known).filter(|known| !known.is_empty()),
            ),
            ("weights", Some(model.processing.to_string())),
            ("prompts", Some(format!("{pairs}, {before} before each"))),
            (
                "dictionary",
                Some(format!(
                    "{} features, trained on {} examples for {} steps",
                    settings.codes, settings.train_examples, settings.steps
                )),
            ),
            ("seeds", Some(seeds.unwrap_or(0).to_string())),
            ("device", Some(settings.device.clone())),
            (
                "time",
                self.provenance
                    .seconds
                    .map(|seconds| format!("{seconds:.1} s")),
            ),
        ];
        let facts = facts.into_iter();
        facts
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .chain(own)
            .collect()
    }
}

/// Whose circuits are known, and why, as pages say it.
#[must_use]
pub fn whose(known: &KnownAs) -> String {
    let KnownAs {
        model, why, file, ..
    } = known;
    match file {
        None => format!("those of {model}: {why}"),
        Some(file) => format!("those of {model} in {}: {why}", file.display()),
    }
}

/// What is said of all tasks, once where it is the same of each.
fn of_tasks(
    judged: &BTreeMap<String, JudgedBy>,
    say: impl Fn(&JudgedBy) -> String,
    of_all: &str,
) -> String {
    let said: Vec<(&String, String)> = judged.iter().map(|(task, by)| (task, say(by))).collect();
    match said.first() {
        Some((_, first)) if said.iter().all(|(_, said)| said == first) => {
            format!("{first}{of_all}")
        }
        _ => {
            let said = said.iter().map(|(task, said)| format!("{task}: {said}"));
            said.collect::<Vec<_>>().join("; ")
        }
    }
}

/// A model as a page names it: its name and, in brackets, its family.
#[must_use]
pub fn model_name(model: &ModelProvenance) -> String {
    format!("{} ({})", model.name, model.family)
}

impl PromptBehaviour {
    /// What a page says of it before any figure.
    #[must_use]
    pub fn passage(&self) -> Passage {
        let mut passage = Passage::new("What the model makes of the prompts", self.sentences());
        if !self.failing.is_empty() {
            let prompts = match self.failing.len() {
                1 => "1 prompt".to_owned(),
                many => format!("{many} prompts"),
            };
            let lines = self.failing.iter().map(FailingPrompt::line);
            passage.list = Some((format!("{prompts} with a wrong answer"), lines.collect()));
        }
        passage
    }
}
