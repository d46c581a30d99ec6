use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};
use circuitscope_measures::Scores;

use crate::causal::CausalEvidence;
use crate::{About, Discover, Error, Evidence, Measured, Result};

/// A method whose scores are finite, or an error that says where they ceased to be.
pub(super) struct Finite<M: ?Sized>(pub(super) Box<M>);

/// [`Measured`] of [`Finite`].
struct FiniteMeasured<'a, B: Backend> {
    measured: Box<dyn Measured + 'a>,
    of: Of<'a, B>,
}

impl<B: Backend, M: Discover<B> + ?Sized> Discover<B> for Finite<M> {
    fn about(&self) -> &About {
        self.0.about()
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let about = self.0.about();
        let of = Of {
            method: &about.name,
            seed: seed.value(),
            causal: evidence.causal_if_any().filter(|_| about.needs.model),
        };
        let measured = self.0.measure(evidence, seed, progress);
        let measured = measured.map_err(|error| of.located(error))?;
        Ok(Box::new(FiniteMeasured { measured, of }))
    }
}

impl<B: Backend> Measured for FiniteMeasured<'_, B> {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let scores = self.measured.scores(rows);
        self.of
            .finite(scores.map_err(|error| self.of.located(error))?)
    }

    fn each(
        &self,
        resamples: &[&[usize]],
        take: &mut dyn FnMut(Scores) -> Result<()>,
    ) -> Result<()> {
        let mut finite = |scores| take(self.of.finite(scores)?);
        let outcome = self.measured.each(resamples, &mut finite);
        outcome.map_err(|error| self.of.located(error))
    }

    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        self.measured.relabelled(labellings)
    }
}

/// What scores are of.
struct Of<'a, B: Backend> {
    method: &'a str,
    seed: u64,
    causal: Option<&'a CausalEvidence<B>>,
}

impl<B: Backend> Of<'_, B> {
    fn finite(&self, scores: Scores) -> Result<Scores> {
        match not_finite(&scores) {
            None => Ok(scores),
            Some(what) => Err(self.error(format!("{what} is NaN or infinite"))),
        }
    }

    fn located(&self, error: Error) -> Error {
        match error {
            Error::NotFinite { .. } => {
                self.error("something on the way to its scores is NaN or infinite".to_owned())
            }
            Error::Sae(error @ circuitscope_sae::Error::Diverged { .. }) => {
                self.error(error.to_string())
            }
            other => other,
        }
    }

    fn error(&self, what: String) -> Error {
        let cause = self.causal.and_then(|causal| {
            let outcome = causal.located::<()>(Err(Error::NotFinite { precision: None }));
            outcome.err()
        });
        Error::Scores {
            method: self.method.to_owned(),
            task: None,
            seed: self.seed,
            what,
            cause: cause.map(Box::new),
        }
    }
}

/// The first score that is not finite.
fn not_finite(scores: &Scores) -> Option<String> {
    let heads = scores.grid.len();
    let bad = |scores: &[f64]| scores.iter().position(|score| !score.is_finite());
    if let Some(at) = bad(&scores.nodes) {
        return Some(format!("the score of {}", scores.grid.head(at)));
    }
    if let Some(at) = scores.edges.as_deref().and_then(bad) {
        let [from, to] = [at / heads, at % heads].map(|at| scores.grid.head(at));
        return Some(format!("the score of {from} and {to}"));
    }
    let graph = scores.graph.as_ref()?;
    if let Some(at) = graph.nodes.as_deref().and_then(bad) {
        return Some(format!("the score of {}", graph.graph.writer(at)));
    }
    let at = graph.edges.as_deref().and_then(bad)?;
    let writer = graph.graph.writer(at / graph.graph.readers());
    Some(format!("the score of an edge of {writer}"))
}
