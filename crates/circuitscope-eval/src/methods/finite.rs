use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};

use crate::{Choice, Discover, Error, Evidence, Measured, Result, Scores};

/// A method whose scores are finite, or an error that says where they ceased to be.
pub(super) struct Finite<M: ?Sized>(pub(super) Box<M>);

/// [`Measured`] of [`Finite`].
struct FiniteMeasured<'a, B: Backend> {
    measured: Box<dyn Measured + 'a>,
    evidence: &'a Evidence<B>,
}

impl<B: Backend, M: Discover<B> + ?Sized> Discover<B> for Finite<M> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn summary(&self) -> &'static str {
        self.0.summary()
    }

    fn is_control(&self) -> bool {
        self.0.is_control()
    }

    fn uses_seed(&self) -> bool {
        self.0.uses_seed()
    }

    fn choice(&self) -> Option<Choice> {
        self.0.choice()
    }

    fn resamples(&self) -> usize {
        self.0.resamples()
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let measured = self.0.measure(evidence, seed, progress);
        let measured = located(evidence, measured)?;
        Ok(Box::new(FiniteMeasured { measured, evidence }))
    }
}

impl<B: Backend> Measured for FiniteMeasured<'_, B> {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let scores = self.measured.scores(rows).and_then(|scores| {
            if is_finite(&scores) {
                Ok(scores)
            } else {
                Err(Error::NotFinite { precision: None })
            }
        });
        located(self.evidence, scores)
    }

    fn relabelled(&self, labels: Vec<Polarity>) -> Option<Result<Vec<f64>>> {
        self.measured.relabelled(labels)
    }
}

fn located<B: Backend, T>(evidence: &Evidence<B>, outcome: Result<T>) -> Result<T> {
    match evidence.causal_if_any() {
        Some(causal) => causal.located(outcome),
        None => outcome,
    }
}

fn is_finite(scores: &Scores) -> bool {
    let graph = scores.graph.as_ref();
    let of_graph = graph
        .into_iter()
        .flat_map(|graph| [&graph.nodes, &graph.edges]);
    let all = of_graph.chain([&scores.edges]).flatten().flatten();
    let mut all = all.chain(&scores.nodes);
    all.all(|score| score.is_finite())
}
