use std::ffi::OsStr;
use std::path::Path;

use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Progress, Seed};
use circuitscope_measures::formats::GraphFile;
use circuitscope_measures::{GraphScores, Scores};

use crate::method::fixed;
use crate::methods::about;
use crate::{About, Discover, Error, Evidence, Measured, Result};

/// Bytes that a name has at most: results have it in their own files' names.
const LONGEST_NAME: usize = 100;

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

    /// Reads files for a model of this graph, each under its [`row_name`](Self::row_name).
    ///
    /// # Errors
    /// As [`row_name`](Self::row_name) and [`read`](Self::read).
    pub fn read_all<P: AsRef<Path>>(paths: &[P], graph: Graph) -> Result<Vec<Self>> {
        let mut names: Vec<String> = Vec::new();
        let files = paths.iter().map(AsRef::as_ref).map(|path| {
            let name = Self::row_name(path, &names)?;
            names.push(name.clone());
            Self::read(name, path, graph)
        });
        files.collect()
    }

    /// What the row of a file is called: after its folder and name.
    ///
    /// # Errors
    /// [`Error::RowName`] where a method has that name, one of `others` is that name, or no row can have it.
    pub fn row_name(path: &Path, others: &[String]) -> Result<String> {
        let part = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let folder = part(path.parent().and_then(Path::file_name));
        let parts = folder.into_iter().chain(part(path.file_stem()));
        let name: String = parts.collect::<Vec<_>>().join("-");
        let problem = if about(&name).is_ok() {
            format!("its row would be named {name}, as a method is; rename the file")
        } else if name.chars().any(char::is_control) || name.len() > LONGEST_NAME {
            format!(
                "found a name with control characters or of more than {LONGEST_NAME} bytes, expected one that a row can have; \
                 rename the file"
            )
        } else if others.contains(&name) {
            format!("another file is named {name}, too; rename one")
        } else {
            return Ok(name);
        };
        Err(Error::RowName {
            path: path.to_owned(),
            problem,
        })
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
