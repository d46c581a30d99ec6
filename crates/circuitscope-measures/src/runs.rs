use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{DictionaryReport, Faithfulness, Judgement, Scores};

/// One method, on one task, with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// Whether the method is a control.
    pub control: bool,
    /// The seed.
    pub seed: u64,
    /// Measures against the first known circuit.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Measures against the other accounts of the circuit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_truths: Vec<Judgement>,
    /// Wall time of the method, capture excluded, in seconds. Where two methods use one dictionary,
    /// the one that ran first trained it and carries the time.
    pub seconds: f64,
    /// The same measures on half samples of the prompts; absent for methods that would have to run the model again,
    /// and where there are too few prompts to halve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resampled: Option<Resampled>,
    /// What circuits taken from the ranking keep of the behaviour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Faithfulness>,
    /// What was judged.
    pub scores: Scores,
}

/// Measures on half samples of the prompts
/// ([`half_samples`](circuitscope_score::stats::half_samples)), sample by sample. All methods see the same
/// ones of a task and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resampled {
    /// See [`Judgement::node_auc`].
    pub node_auc: Vec<f64>,
    /// See [`Judgement::edge_auc`]; empty where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edge_auc: Vec<f64>,
    /// What deviations are multiplied by ([`Resample::scale`](circuitscope_score::stats::Resample::scale)).
    pub scale: f64,
    /// How alike the circuits are that [`Selection::Otsu`](crate::Selection::Otsu) chooses on two half samples: mean pairwise
    /// Jaccard index. arXiv 2510.00845 asks for 0.8.
    pub jaccard: f64,
    /// What it would be of heads drawn at random, as many in each circuit.
    pub jaccard_by_chance: f64,
    /// Wall time of scoring all of them, in seconds.
    pub seconds: f64,
}

impl RunRecord {
    /// What identifies it.
    #[must_use]
    pub fn key(&self) -> RunKey {
        RunKey {
            task: self.task.clone(),
            method: self.method.clone(),
            seed: self.seed,
        }
    }
}

/// A [`RunRecord`] without its scores, of which there may be one for each pair of heads: what a table of results holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunOutline {
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// Whether the method is a control.
    pub control: bool,
    /// The seed.
    pub seed: u64,
    /// See [`RunRecord::judgement`].
    #[serde(flatten)]
    pub judgement: Judgement,
    /// See [`RunRecord::other_truths`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_truths: Vec<Judgement>,
    /// See [`RunRecord::seconds`].
    pub seconds: f64,
    /// See [`RunRecord::resampled`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resampled: Option<Resampled>,
    /// See [`RunRecord::faithfulness`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Faithfulness>,
    /// See [`Scores::dictionary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<DictionaryReport>,
}

impl From<&RunRecord> for RunOutline {
    fn from(run: &RunRecord) -> Self {
        Self {
            task: run.task.clone(),
            method: run.method.clone(),
            control: run.control,
            seed: run.seed,
            judgement: run.judgement.clone(),
            other_truths: run.other_truths.clone(),
            seconds: run.seconds,
            resampled: run.resampled.clone(),
            faithfulness: run.faithfulness.clone(),
            dictionary: run.scores.dictionary.clone(),
        }
    }
}

/// What identifies a run within one set of settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// The seed.
    pub seed: u64,
}

impl fmt::Display for RunKey {
    /// `task.method.seed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.task, self.method, self.seed)
    }
}
