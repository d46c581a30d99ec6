use burn::tensor::backend::Backend;
use circuitscope_core::Polarity;
use circuitscope_measures::Scores;

use crate::means::Samples;
use crate::{Evidence, Measured, Result};

/// A score of each head that is made of means over the classes.
pub(super) trait OfMeans<B: Backend> {
    /// Of all examples, `[heads]`.
    fn nodes(&self, evidence: &Evidence<B>) -> Result<Vec<f64>>;

    /// Of each of some samples, `[samples][heads]`, all of them in one pass over the activations.
    fn nodes_of(&self, evidence: &Evidence<B>, samples: &Samples) -> Result<Vec<Vec<f64>>>;

    /// Numbers a head that the means of one sample are.
    fn width(&self, d: usize) -> usize;
}

/// Scores made of the activations themselves: a sample or other labels are other weights of the same sums.
pub(super) struct OfActivations<'a, B: Backend, M> {
    pub(super) evidence: &'a Evidence<B>,
    pub(super) method: M,
}

impl<B: Backend, M: OfMeans<B>> OfActivations<'_, B, M> {
    /// How many samples are scored together.
    fn together(&self) -> usize {
        let heads = self.evidence.grid().len();
        Samples::together(heads, self.method.width(self.evidence.d()))
    }

    fn score(&self, nodes: Vec<f64>) -> Scores {
        Scores::of_nodes(self.evidence.grid(), nodes).with_products()
    }
}

impl<B: Backend, M: OfMeans<B>> Measured for OfActivations<'_, B, M> {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let nodes = match rows {
            None => self.method.nodes(self.evidence)?,
            Some(rows) => {
                let samples = Samples::of_rows(self.evidence.labels(), &[rows])?;
                self.method
                    .nodes_of(self.evidence, &samples)?
                    .swap_remove(0)
            }
        };
        Ok(self.score(nodes))
    }

    fn each(
        &self,
        resamples: &[&[usize]],
        take: &mut dyn FnMut(Scores) -> Result<()>,
    ) -> Result<()> {
        for some in resamples.chunks(self.together()) {
            let samples = Samples::of_rows(self.evidence.labels(), some)?;
            for nodes in self.method.nodes_of(self.evidence, &samples)? {
                take(self.score(nodes))?;
            }
        }
        Ok(())
    }

    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        let groups = labellings.chunks(self.together());
        let groups = groups.map(|some| {
            let samples = Samples::of_labels(some)?;
            self.method.nodes_of(self.evidence, &samples)
        });
        Some(
            groups
                .collect::<Result<Vec<_>>>()
                .map(|groups| groups.concat()),
        )
    }
}

/// The rows of `[samples, heads]`, as numbers of the host.
pub(super) fn each_row<B: Backend>(of_heads: burn::tensor::Tensor<B, 2>) -> Result<Vec<Vec<f64>>> {
    let heads = of_heads.dims()[1];
    let all = crate::causal::host(of_heads)?;
    let rows = all.chunks(heads.max(1));
    Ok(rows
        .map(|row| row.iter().map(|score| f64::from(*score)).collect())
        .collect())
}
