use std::path::Path;

use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Progress, Seed};
use circuitscope_measures::formats::GraphFile;
use circuitscope_measures::{GraphScores, Scores};

use crate::method::fixed;
use crate::{About, Discover, Evidence, Measured, Result};

/// Scores that another tool wrote, to be judged beside the methods here: an `importances.json` of
/// EAP-IG, or a submission to MIB's circuit track ([`GraphFile`]).
///
/// They are ranked as the scores of causal methods are ([`Scores::of_graph`](circuitscope_measures::Scores::of_graph)).
#[derive(Debug, Clone)]
pub struct FromFile {
    about: About,
    scores: GraphScores,
    notes: Vec<String>,
}

impl FromFile {
    /// What its score is, in a sentence.
    pub const SUMMARY: &'static str = "scores that a file holds";

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// What was assumed in reading, one sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The scores, as those of causal methods are made.
    #[must_use]
    pub fn scores(&self) -> Scores {
        Scores::of_graph(self.scores.clone())
    }

    /// Reads a file for a model of this graph, under a name of its own.
    ///
    /// # Errors
    /// [`crate::Error::Format`].
    pub fn read(name: impl Into<String>, path: &Path, graph: Graph) -> Result<Self> {
        Self::of(name, path, GraphFile::read(path)?, graph)
    }

    /// The same of a file that was read from `path` before.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(name: impl Into<String>, path: &Path, file: GraphFile, graph: Graph) -> Result<Self> {
        let mut scores = file.scores(path, &graph)?;
        let mut notes = file.notes;
        let all = [&mut scores.nodes, &mut scores.edges].into_iter().flatten();
        let replaced: usize = all.map(|scores| bounded(scores)).sum();
        if replaced > 0 {
            notes.push(format!(
                "{replaced} infinite scores stand for twice the largest finite one"
            ));
        }
        let about = About::new("", Self::SUMMARY)
            .without_seed()
            .resamples(0)
            .without_null();
        Ok(Self {
            about: about.named(name),
            scores: GraphScores {
                graph,
                nodes: scores.nodes,
                edges: scores.edges,
            },
            notes,
        })
    }
}

/// Puts what is infinite above all that is finite, and says how many that were: the ranking stays.
fn bounded(scores: &mut [f64]) -> usize {
    let finite = scores.iter().copied().filter(|score| score.is_finite());
    let largest = finite.map(f64::abs).fold(0.0, f64::max);
    let above = if largest > 0.0 {
        (2.0 * largest).min(f64::MAX)
    } else {
        1.0
    };
    let infinite = scores.iter_mut().filter(|score| score.is_infinite());
    infinite
        .map(|score| *score = above.copysign(*score))
        .count()
}

impl<B: Backend> Discover<B> for FromFile {
    fn about(&self) -> &About {
        &self.about
    }

    fn measure<'a>(
        &'a self,
        _: &'a Evidence<B>,
        _: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        Ok(fixed(Scores::of_graph(self.scores.clone())))
    }
}
