use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};
use circuitscope_measures::Scores;
use circuitscope_score::{CodeTable, amplitude_scores, mutual_information, pair_scores};

use super::coded::{Coded, unique_counts};
use super::sae::Sae;
use crate::encodings::{Encoded, SaeSettings};
use crate::{About, Discover, Evidence, Measured, Needs, Passes, Result};

/// What is known of all: every resample is scored once for each dictionary.
const fn about(name: &'static str, summary: &'static str) -> About {
    About::new(name, summary)
        .resamples(20)
        .needs(Needs::codes(), Passes::None)
}

/// `sae-ensemble`.
pub(super) static UNIQUE: About = about(
    "sae-ensemble",
    "codes seen on positives only, average of five trained dictionaries",
);
/// `mutual-information`.
pub(super) static MUTUAL: About = about(
    "mutual-information",
    "mutual information between code and label, one trained dictionary",
);
/// `mutual-information-ensemble`.
pub(super) static MUTUAL_ENSEMBLE: About = about(
    "mutual-information-ensemble",
    "mutual information between code and label, average of five trained dictionaries",
);
/// `untrained-ensemble`.
pub(super) static UNTRAINED: About = about(
    "untrained-ensemble",
    "codes seen on positives only, average of ten dictionaries that were never trained",
);
/// `amplitude-ensemble`.
pub(super) static AMPLITUDE: About = about(
    "amplitude-ensemble",
    "amplitude of codes seen on positives only, average of five trained dictionaries",
);
/// `recommended-activations`.
pub(super) static ACTIVATIONS: About = about("recommended-activations", "amplitude of codes seen on positives only, average of ten dictionaries that were never trained").quick();
/// `mean-and-last`.
pub(super) static MEAN_AND_LAST: About = about("mean-and-last", "codes seen on positives only, of means over positions and of the last position, average of untrained dictionaries").needs(Needs::activations().and_last(), Passes::None);

/// How one dictionary's codes score a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeScore {
    /// Codes that occur on positives and never on negatives: the paper's count.
    Unique,
    /// Mutual information between code and label ([`mutual_information`]).
    MutualInformation,
    /// Codes on positives only, each as often and as strongly as it occurs ([`amplitude_scores`]).
    Amplitude,
}

/// Several dictionaries instead of one: beyond the paper.
///
/// Each dictionary scores all heads by its own codes; its scores are standardised over heads (mean 0,
/// standard deviation 1) and averaged. A single dictionary depends on its initialisation and on the few
/// examples that it was trained on, an average much less. Dictionaries that were never trained cost
/// nothing and see other features than trained ones.
///
/// | method | dictionaries | score |
/// |---|---|---|
/// | `sae-ensemble` | 5 trained | unique codes |
/// | `mutual-information` | 1 trained | mutual information |
/// | `mutual-information-ensemble` | 5 trained | mutual information |
/// | `untrained-ensemble` | 10 untrained | unique codes |
/// | `amplitude-ensemble` | 5 trained | amplitude of unique codes |
/// | `mean-and-last` | 10 untrained on means over positions, 10 on the last position | unique codes |
/// | `recommended-activations` | [`RECOMMENDED`] untrained | amplitude of unique codes |
///
/// All are those of method `sae-corrected` and of `untrained`, with seeds of their own:
/// `seed.nth("ensemble/trained", i)` and `seed.nth("ensemble/untrained", i)`. Pairs score the average
/// of the standardised counts of unique code pairs.
///
/// What each choice gains is in `docs/methods/recommended.md`.
///
/// # Complexity
/// That of the dictionaries.
#[derive(Debug, Clone)]
pub struct Ensemble {
    about: Cow<'static, About>,
    trained: usize,
    untrained: usize,
    score: CodeScore,
    /// Whether as many dictionaries again read the last position.
    last: bool,
    settings: SaeSettings,
}

/// Untrained dictionaries of method `recommended-activations`.
pub const RECOMMENDED: usize = 10;

impl Ensemble {
    /// Five trained dictionaries, unique codes.
    pub const fn unique(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&UNIQUE),
            trained: 5,
            untrained: 0,
            score: CodeScore::Unique,
            last: false,
            settings,
        }
    }

    /// One trained dictionary, mutual information.
    pub const fn mutual(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&MUTUAL),
            trained: 1,
            untrained: 0,
            score: CodeScore::MutualInformation,
            last: false,
            settings,
        }
    }

    /// Five trained dictionaries, mutual information.
    pub fn mutual_ensemble(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&MUTUAL_ENSEMBLE),
            trained: 5,
            ..Self::mutual(settings)
        }
    }

    /// Ten untrained dictionaries, unique codes.
    pub fn untrained(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&UNTRAINED),
            trained: 0,
            untrained: 10,
            ..Self::unique(settings)
        }
    }

    /// Five trained dictionaries, codes weighted by amplitude.
    pub fn amplitude(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&AMPLITUDE),
            score: CodeScore::Amplitude,
            ..Self::unique(settings)
        }
    }

    /// What was best on average over the reference model's tasks, at 250 + 250 and at 10 + 10 prompts,
    /// on prompts other than those it is reported on.
    pub fn recommended(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&ACTIVATIONS),
            trained: 0,
            untrained: RECOMMENDED,
            score: CodeScore::Amplitude,
            ..Self::unique(settings)
        }
    }

    /// The dictionaries of `untrained-ensemble`, and as many that read the last position.
    pub fn mean_and_last(settings: SaeSettings) -> Self {
        Self {
            about: Cow::Borrowed(&MEAN_AND_LAST),
            last: true,
            ..Self::untrained(settings)
        }
    }

    /// With as many dictionaries again that read the last position.
    #[must_use]
    pub fn and_last(mut self) -> Self {
        self.last = true;
        self
    }

    /// Any numbers of trained and untrained dictionaries and either score, under a name of one's own.
    ///
    /// # Panics
    /// Without any dictionary.
    pub fn of(
        name: impl Into<String>,
        (trained, untrained): (usize, usize),
        score: CodeScore,
        settings: SaeSettings,
    ) -> Self {
        assert!(trained + untrained > 0, "an ensemble of no dictionaries");
        Self {
            about: Cow::Owned(about("", "average of several dictionaries").named(name)),
            trained,
            untrained,
            score,
            last: false,
            settings,
        }
    }

    fn members<B: Backend>(
        &self,
        evidence: &Evidence<B>,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Vec<Arc<Encoded<B>>>> {
        let settings = &self.settings;
        let mut views = vec![evidence.clone()];
        if self.last {
            views.push(evidence.at_last(&self.about.name)?);
        }
        let mut members = Vec::new();
        for evidence in &views {
            for (sae, count, stream) in [
                (
                    Sae::corrected(settings.clone()),
                    self.trained,
                    "ensemble/trained",
                ),
                (
                    Sae::untrained(settings.clone()),
                    self.untrained,
                    "ensemble/untrained",
                ),
            ] {
                let seeds = (0..count as u64).map(|at| seed.nth(stream, at));
                let seeds: Vec<Seed> = seeds.collect();
                members.extend(sae.encode(evidence, &seeds, progress)?);
            }
        }
        Ok(members)
    }

    /// The average of all members' standardised scores.
    fn averaged(&self, tables: &[CodeTable]) -> Result<Scores> {
        let grid = tables[0].grid();
        let heads = grid.len();
        let mut edges = vec![0.0; heads * heads];
        for table in tables {
            let pairs = pair_scores(table)?;
            let unique: Vec<f64> = pairs.unique().iter().copied().map(f64::from).collect();
            add_standardised(&mut edges, &unique);
        }
        let count = tables.len() as f64;
        Ok(Scores::of_nodes(grid, self.averaged_nodes(tables)?)
            .with_edges(|source, destination| edges[source * heads + destination] / count))
    }

    fn averaged_nodes(&self, tables: &[CodeTable]) -> Result<Vec<f64>> {
        let mut nodes = vec![0.0; tables[0].grid().len()];
        for table in tables {
            add_standardised(&mut nodes, &self.nodes(table)?);
        }
        for score in &mut nodes {
            *score /= tables.len() as f64;
        }
        Ok(nodes)
    }

    fn nodes(&self, table: &CodeTable) -> Result<Vec<f64>> {
        Ok(match self.score {
            CodeScore::Unique => unique_counts(table)?,
            CodeScore::MutualInformation => mutual_information(table)?,
            CodeScore::Amplitude => amplitude_scores(table)?,
        })
    }
}

/// Adds scores to a sum, with mean 0 and standard deviation 1; scores that are all alike add nothing.
fn add_standardised(sum: &mut [f64], scores: &[f64]) {
    let n = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / n;
    let variance = scores.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    if variance > 0.0 {
        for (sum, score) in sum.iter_mut().zip(scores) {
            *sum += (score - mean) / variance.sqrt();
        }
    }
}

impl<B: Backend> Discover<B> for Ensemble {
    fn about(&self) -> &About {
        &self.about
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let members = self.members(evidence, seed, progress)?;
        let tables = members.iter().map(|member| member.table.clone()).collect();
        let heads = evidence.grid().len();
        Ok(Box::new(Coded {
            tables,
            score: |tables: &[CodeTable]| self.averaged(tables),
            nodes: move |tables: &[CodeTable]| {
                let mut sum = vec![0.0; heads];
                for table in tables {
                    let scores = self.nodes(table)?;
                    for (sum, score) in sum.iter_mut().zip(scores) {
                        *sum += score;
                    }
                }
                Ok(sum)
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_scores_weigh_alike() {
        let mut sum = vec![0.0; 3];
        add_standardised(&mut sum, &[0.0, 100.0, 200.0]);
        add_standardised(&mut sum, &[3.0, 2.0, 1.0]);
        assert!(sum.iter().all(|x| x.abs() < 1e-12), "{sum:?}");
        add_standardised(&mut sum, &[7.0; 3]);
        assert!(sum.iter().all(|x| x.abs() < 1e-12), "{sum:?}");
    }
}
