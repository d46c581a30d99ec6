//! The report: one page that opens offline, and its pictures as files of their own.
//!
//! Data in, text out: nothing here runs a method, prints, or decides where files go. Page and pictures are
//! [`maud`](https://maud.lambda.xyz) templates, so that no text gets into them unescaped; colours are classes, so that a
//! page or a viewer in dark mode shows them on dark ground.
//!
//! ```
//! use circuitscope_core::{HeadGrid, HeadId};
//! use circuitscope_report::{MethodReport, ReportInput, TaskReport, render};
//!
//! # fn main() -> Result<(), circuitscope_report::Error> {
//! let scores = MethodReport::of_scores("sae", "codes unique to positives", vec![0.0, 3.0, 1.0, 7.0]);
//! let report = render(&ReportInput {
//!     title: "A tiny model".to_owned(),
//!     lead: String::new(),
//!     facts: vec![("model".to_owned(), "2 layers × 2 heads".to_owned())],
//!     tasks: vec![TaskReport {
//!         task: "ioi".to_owned(),
//!         grid: HeadGrid::new(2, 2),
//!         truth: Some(vec![HeadId::new(1, 1)]),
//!         truth_name: "planted".to_owned(),
//!         marked: "in the circuit".to_owned(),
//!         chosen: Vec::new(),
//!         passages: Vec::new(),
//!         methods: vec![scores],
//!     }],
//!     provenance: serde_json::json!({ "seed": 0 }),
//! })?;
//! assert!(report.html.starts_with("<!doctype html>"));
//! assert_eq!(report.pictures[0].file_name, "heads-ioi-sae.svg");
//! assert!(report.pictures[0].svg.contains("L1H1: 7"));
//! # Ok(())
//! # }
//! ```

mod attribution;
mod axis;
mod circuit;
mod comparison;
mod conclusion;
mod curves;
mod discovery;
mod explained;
mod heads;
mod kept;
mod page;
mod passages;
mod runs;
mod svg;
mod sweep;
mod table;
mod training;

use std::path::{Path, PathBuf};

pub use attribution::{GraphLine, GraphMark, GraphPage, GraphTable, MarkKind, render_graph};
use circuitscope_core::{HeadGrid, HeadId};
use circuitscope_files as files;
use circuitscope_measures::{Faithfulness, GraphScores, SummaryRow};
pub use comparison::{ComparisonPage, render_comparison};
pub use discovery::{
    CircuitPage, Figure, FileBeside, Lost, SizeCurve, Stability, Verdict, render_circuit,
};
pub use explained::{ExplainedFeature, ExplainedPage, ExplainedPlace, render_explained};
pub use passages::Passage;
use serde_json::Value;
pub use sweep::{SweepModel, SweepPage, SweepTable, render_sweep};
pub use training::{TrainingPage, render_training};

/// Name of the page in its folder.
pub const PAGE_FILE: &str = "report.html";

/// Folder of the pictures, beside the page.
pub const PICTURES_FOLDER: &str = "pictures";

/// What can go wrong when a report is made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A method has not one score for each head.
    #[error(
        "task `{task}`, method `{method}`: found {found} scores, expected {expected}, one for each head"
    )]
    Scores {
        /// Name of the task.
        task: String,
        /// Name of the method.
        method: String,
        /// Number of scores.
        found: usize,
        /// Number of heads.
        expected: usize,
    },

    /// A file could not be written.
    #[error(transparent)]
    File(#[from] files::FileError),
}

/// Result of the report.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// All that a report shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportInput {
    /// Heading of the page.
    pub title: String,
    /// A sentence or two below it; may be empty.
    pub lead: String,
    /// Names and values shown at the top: model, device, seeds, time.
    pub facts: Vec<(String, String)>,
    /// One section each.
    pub tasks: Vec<TaskReport>,
    /// What made the results, shown as it is.
    pub provenance: Value,
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskReport {
    /// Its name.
    pub task: String,
    /// Shape of the model.
    pub grid: HeadGrid,
    /// Heads to outline: those of the known circuit, or those that were chosen where none is known.
    pub truth: Option<Vec<HeadId>>,
    /// Which account of the circuit this is, e.g. `Wang et al.`; may be empty.
    pub truth_name: String,
    /// What the outline means, e.g. `in the known circuit` or `chosen`.
    pub marked: String,
    /// Heads to mark with a dot, where others are outlined: those that were chosen.
    pub chosen: Vec<HeadId>,
    /// What is said before the figures.
    pub passages: Vec<Passage>,
    /// Its methods, in the order of the table.
    pub methods: Vec<MethodReport>,
}

/// One method on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodReport {
    /// Its name.
    pub method: String,
    /// What its score is, in a sentence.
    pub summary: String,
    /// Whether it is a control.
    pub control: bool,
    /// One score for each head, in index order; the mean where there are several seeds.
    pub scores: Vec<f64>,
    /// Corners of its ROC curve, `(fpr, tpr)`; the mean where there are several seeds. Empty for none.
    pub curve: Vec<(f64, f64)>,
    /// Its row of the table, where a known circuit judges it.
    pub row: Option<SummaryRow>,
    /// What circuits taken from its ranking keep, where that was measured.
    pub faithfulness: Option<Faithfulness>,
    /// Its scores on the whole graph, for methods that have them; those of the first seed.
    pub graph: Option<GraphScores>,
    /// `[heads, heads]`, writer by reader: its scores of pairs of heads, to be drawn where there are no edges of a
    /// graph.
    pub pairs: Option<Vec<f64>>,
}

impl TaskReport {
    /// Whether a head is outlined.
    fn is_marked(&self, head: HeadId) -> bool {
        let truth = self.truth.as_ref();
        truth.is_some_and(|truth| truth.contains(&head))
    }

    /// What is said after the name of a head.
    fn marks_of(&self, head: HeadId) -> String {
        let mut marks = String::new();
        if self.is_marked(head) {
            marks = format!(", {}", self.marked);
        }
        if self.chosen.contains(&head) {
            marks.push_str(", chosen");
        }
        marks
    }
}

impl MethodReport {
    /// A method that no known circuit judges.
    #[must_use]
    pub fn of_scores(method: &str, summary: &str, scores: Vec<f64>) -> Self {
        Self {
            method: method.to_owned(),
            summary: summary.to_owned(),
            control: false,
            scores,
            curve: Vec::new(),
            row: None,
            faithfulness: None,
            graph: None,
            pairs: None,
        }
    }
}

/// A rendered report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The page, with all pictures inside; it refers to nothing outside itself.
    pub html: String,
    /// Each picture as a file of its own.
    pub pictures: Vec<Picture>,
}

/// A picture as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Such as `roc-ioi.svg`.
    pub file_name: String,
    /// A complete SVG document that adapts to light and dark viewers.
    pub svg: String,
}

impl Report {
    /// Writes [`PAGE_FILE`] and the pictures, in [`PICTURES_FOLDER`], into a folder; returns the path of the page.
    ///
    /// # Errors
    /// [`Error::File`]. Each file appears whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        for picture in &self.pictures {
            let path = folder.join(PICTURES_FOLDER).join(&picture.file_name);
            files::write_atomic(&path, |out| out.write_all(picture.svg.as_bytes()))?;
        }
        let path = folder.join(PAGE_FILE);
        files::write_atomic(&path, |out| out.write_all(self.html.as_bytes()))?;
        Ok(path)
    }
}

/// Draws the pictures and writes the page around them.
///
/// # Errors
/// [`Error::Scores`].
pub fn render(input: &ReportInput) -> Result<Report> {
    let sections = input.tasks.iter().map(Section::of);
    let sections: Vec<Section<'_>> = sections.collect::<Result<_>>()?;
    let pictures = sections.iter().flat_map(Section::drawings);
    Ok(Report {
        html: page::page(input, &sections),
        pictures: pictures
            .map(|drawing| Picture {
                file_name: drawing.file_name.clone(),
                svg: drawing.standalone(),
            })
            .collect(),
    })
}

/// A task and its drawings, in the order of its methods.
#[derive(Debug)]
struct Section<'a> {
    task: &'a TaskReport,
    curves: Option<svg::Drawing>,
    kept: Option<svg::Drawing>,
    heads: Vec<svg::Drawing>,
    circuits: Vec<svg::Drawing>,
}

impl<'a> Section<'a> {
    fn of(task: &'a TaskReport) -> Result<Self> {
        let expected = task.grid.len();
        if let Some(method) = task.methods.iter().find(|m| m.scores.len() != expected) {
            return Err(Error::Scores {
                task: task.task.clone(),
                method: method.method.clone(),
                found: method.scores.len(),
                expected,
            });
        }
        let methods = || task.methods.iter();
        Ok(Self {
            task,
            curves: curves::draw(task),
            kept: kept::draw(task),
            heads: methods().map(|method| heads::draw(task, method)).collect(),
            circuits: methods()
                .filter_map(|method| circuit::draw(task, method))
                .collect(),
        })
    }

    fn drawings(&self) -> impl Iterator<Item = &svg::Drawing> {
        let curves = self.curves.iter().chain(&self.kept);
        curves.chain(&self.heads).chain(&self.circuits)
    }
}

/// A number with as many digits as a reader wants: whole numbers plain, others to three significant
/// digits; a dash for what is no number.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    if value == value.trunc() && value.abs() < 1e9 {
        return format!("{value:.0}");
    }
    match value.abs() {
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
