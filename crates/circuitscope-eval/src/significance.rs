use burn::tensor::backend::Backend;
use circuitscope_core::{Circuit, HeadId, Progress, Seed};
use circuitscope_measures::Scores;
use circuitscope_score::stats::{Discoveries, LabelNull, relabellings};
use serde::{Deserialize, Serialize};

use crate::method::under_labels;
use crate::{Error, Evidence, Measured, Result};

/// Heads whose scores could hardly come about if the labels meant nothing.
///
/// The bound on false ones is one of *significance*: of heads whose codes do not depend on the label
/// at all. It is none of membership: in a transformer many heads read what others wrote, so that far
/// more heads tell the classes apart than implement the behaviour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Significance {
    /// Permutation p-value of each head, in index order.
    pub p_values: Vec<f64>,
    /// The bound that was asked for on the expected share of false ones among those selected
    /// (Benjamini and Hochberg 1995).
    pub rate: f64,
    /// Random relabellings drawn.
    pub relabellings: usize,
    /// Heads selected.
    pub selected: Vec<HeadId>,
}

impl Significance {
    /// As a circuit without edges.
    pub fn circuit(&self, scores: &Scores) -> Circuit {
        Circuit::from_heads(scores.grid, self.selected.iter().copied())
    }
}

/// Tests every head against random relabellings of the examples (within matched pairs) and selects at
/// a false discovery rate.
///
/// # Errors
/// [`Error::NoNull`] for methods whose scores cannot be made under other labels; [`Error::Cancelled`];
/// [`Error::Score`] for a rate outside 0 to 1.
pub fn significance<B: Backend>(
    method: &str,
    measured: &dyn Measured,
    evidence: &Evidence<B>,
    rate: f64,
    count: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Significance> {
    let grid = evidence.grid();
    let labels = evidence.labels();
    let others = relabellings(labels, evidence.pairs(), count, seed)?;
    progress.begin("relabelling", count as u64 + 1);
    let scores = under_labels(measured, labels, others, progress);
    progress.end();
    let (observed, null) = scores.ok_or_else(|| Error::NoNull {
        method: method.to_owned(),
    })??;
    let null = LabelNull::new(observed, null)?;
    let p_values = null.p_values();
    let found = Discoveries::at_rate(&p_values, rate)?;
    Ok(Significance {
        rate,
        relabellings: count,
        selected: found.selected.iter().map(|&head| grid.head(head)).collect(),
        p_values,
    })
}
