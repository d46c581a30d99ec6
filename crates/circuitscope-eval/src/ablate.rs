use burn::tensor::backend::Backend;
use circuitscope_core::{HeadGrid, Progress};

use crate::Result;
use crate::causal::{CausalEvidence, Metric, PatchedRuns, mean};

/// A model some of whose heads are ablated for everyone that reads them, on some pairs of prompts.
///
/// A circuit of whole heads needs no edges: every reader sees the same output of a head, so that one
/// ordinary forward pass with the `z` of ablated heads replaced gives what [`PatchedRuns`] gives with all
/// edges of those heads off. MLPs, the input and the heads that are kept run as they do in the model.
///
/// # Complexity
/// [`new`](Self::new) two forward passes (one more over all negative prompts for means), every circuit
/// at most one.
#[derive(Debug)]
pub struct HeadCircuits<'a, B: Backend> {
    runs: PatchedRuns<'a, B>,
    metric: Metric,
    /// Pair by pair.
    full: Vec<f64>,
}

/// Circuits that are run together, so that progress is told.
const TOGETHER: usize = 8;

impl<'a, B: Backend> HeadCircuits<'a, B> {
    /// Prepares the first `pairs` pairs. Runs ask `progress` whether to stop.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn new(
        evidence: &'a CausalEvidence<B>,
        pairs: usize,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let runs = PatchedRuns::new(evidence, pairs)?.with_progress(progress);
        let metric = evidence.metric();
        Ok(Self {
            full: runs.clean(metric)?,
            runs,
            metric,
        })
    }

    /// Shape of the model.
    pub const fn grid(&self) -> HeadGrid {
        self.runs.graph().grid()
    }

    /// Pairs that are run.
    pub const fn pairs(&self) -> usize {
        self.full.len()
    }

    /// The mean of the evidence's metric on the unchanged model.
    pub fn full(&self) -> f64 {
        mean(&self.full)
    }

    /// The same pair by pair.
    pub fn full_of_pairs(&self) -> &[f64] {
        &self.full
    }

    /// The mean of the evidence's metric with all heads ablated but those of `kept`, `[heads]`.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn keeping(&self, kept: &[bool]) -> Result<f64> {
        Ok(mean(&self.run(kept, &[self.metric])?[0]))
    }

    /// The same for several circuits; `progress` advances by each.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn keeping_each(&self, kept: &[Vec<bool>], progress: &dyn Progress) -> Result<Vec<f64>> {
        let values = self.of_pairs(kept, progress)?;
        Ok(values.iter().map(|values| mean(values)).collect())
    }

    /// The same pair by pair: `[circuit][pair]`.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn of_pairs(&self, kept: &[Vec<bool>], progress: &dyn Progress) -> Result<Vec<Vec<f64>>> {
        let mut all = Vec::with_capacity(kept.len());
        for some in kept.chunks(TOGETHER) {
            let sets: Vec<&[bool]> = some.iter().map(Vec::as_slice).collect();
            all.extend(self.runs.with_heads(&sets, &[self.metric])?.swap_remove(0));
            progress.advance(some.len() as u64);
        }
        Ok(all)
    }

    /// Metrics with all heads ablated but those of `kept`: `[metric][pair]`.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    ///
    /// # Panics
    /// Unless `kept` has an entry for each head.
    pub fn run(&self, kept: &[bool], metrics: &[Metric]) -> Result<Vec<Vec<f64>>> {
        let values = self.runs.with_heads(&[kept], metrics)?;
        Ok(values.into_iter().flatten().collect())
    }
}
