//! `methods`: what there is to score heads with.

use anyhow::Result;
use circuitscope::eval::About;
use circuitscope::eval::methods::{ALL, DEFAULT};
use serde::Serialize;

use crate::output::{Printer, table};

/// A method, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    summary: &'static str,
    default: bool,
    control: bool,
    quick: bool,
    needs: Vec<&'static str>,
    passes: String,
}

impl Row {
    fn of(about: &'static About) -> Self {
        Self {
            name: &about.name,
            summary: &about.summary,
            default: about.name == DEFAULT.name,
            control: about.control,
            quick: about.quick,
            needs: about.needs.words(),
            passes: about.passes.to_string(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let marks = [
            (self.default, "default"),
            (self.control, "control"),
            (self.quick, "quick"),
        ];
        let marks = marks.into_iter().filter(|(is, _)| *is);
        let marks: Vec<&str> = marks.map(|(_, mark)| mark).collect();
        let or_dash = |words: &[&str]| match words {
            [] => "–".to_owned(),
            words => words.join(", "),
        };
        vec![
            self.name.to_owned(),
            or_dash(&marks),
            or_dash(&self.needs),
            self.passes.clone(),
            self.summary.to_owned(),
        ]
    }
}

pub(crate) fn run(printer: Printer) -> Result<()> {
    let rows: Vec<Row> = ALL.iter().map(|about| Row::of(about)).collect();
    printer.print(&rows, || {
        let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
        format!(
            "{}\nneeds: beside activations of labelled prompts; runs: of the model, beside capturing, a backward pass as two",
            table(&["method", "", "needs", "runs", "what its score is"], &cells)
        )
    })
}
