//! `methods`: what there is to score heads with.

use anyhow::Result;
use circuitscope::eval::methods::{ALL, DEFAULT};
use circuitscope::eval::{About, Gradient};
use serde::Serialize;

use crate::output::{Printer, wrapped};

/// Characters of a line of the list.
const WIDTH: usize = 100;

/// What a method does, by which the list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Group {
    Differentiate,
    Patch,
    Activations,
    Control,
}

impl Group {
    const ALL: [Self; 4] = [
        Self::Differentiate,
        Self::Patch,
        Self::Activations,
        Self::Control,
    ];

    const fn of(about: &About) -> Self {
        match (about.control, about.needs.gradient, about.needs.model) {
            (true, ..) => Self::Control,
            (_, Gradient::None, false) => Self::Activations,
            (_, Gradient::None, true) => Self::Patch,
            _ => Self::Differentiate,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Differentiate => {
                "Run the model and differentiate it (need a model and prompts in pairs)"
            }
            Self::Patch => "Run the model and patch it (need a model and prompts in pairs)",
            Self::Activations => "Read codes and activations alone",
            Self::Control => "Controls, which any method should beat",
        }
    }

    /// What its title says of needs.
    const fn said(self) -> &'static [&'static str] {
        match self {
            Self::Differentiate => &["model", "gradients", "pairs"],
            Self::Patch => &["model", "pairs"],
            Self::Activations | Self::Control => &[],
        }
    }
}

/// A method, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    summary: &'static str,
    group: Group,
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
            group: Group::of(about),
            default: about.name == DEFAULT.name,
            control: about.control,
            quick: about.quick,
            needs: about.needs.words(),
            passes: about.passes.to_string(),
        }
    }

    /// What the score is, and what it needs besides what the group does.
    fn says(&self) -> String {
        let said = self.group.said();
        let needs = self.needs.iter().copied();
        let needs: Vec<&str> = needs.filter(|need| !said.contains(need)).collect();
        match needs.as_slice() {
            [] => self.summary.to_owned(),
            needs => format!("{} (needs {})", self.summary, needs.join(", ")),
        }
    }

    fn mark(&self) -> &'static str {
        match (self.default, self.quick) {
            (true, _) => "*",
            (false, true) => "+",
            (false, false) => "",
        }
    }
}

pub(crate) fn run(printer: Printer) -> Result<()> {
    let rows: Vec<Row> = ALL.iter().map(|about| Row::of(about)).collect();
    printer.print(&rows, || text(&rows))
}

fn text(rows: &[Row]) -> String {
    let widest = |cell: &dyn Fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0);
    let name = widest(&|row| row.name.len() + row.mark().len());
    let runs = widest(&|row| row.passes.chars().count()).max("runs".len());
    let margin = name + runs + 6;
    let mut text = String::new();
    for group in Group::ALL {
        text.extend([format!("{}\n", group.title())]);
        for row in rows.iter().filter(|row| row.group == group) {
            let marked = format!("{}{}", row.name, row.mark());
            let mut lines = wrapped(&row.says(), WIDTH.saturating_sub(margin)).into_iter();
            let first = lines.next().unwrap_or_default();
            text.extend([format!("  {marked:name$}  {:runs$}  {first}\n", row.passes)]);
            for line in lines {
                text.extend([format!("{:margin$}{line}\n", "")]);
            }
        }
        text.push('\n');
    }
    text.extend([format!(
        "* the default of `discover`; + and *: among the quick ones, which `eval` runs unless told otherwise\n{}\n",
        wrapped(
            "second column: runs of the model beside capturing, a backward pass as two; the number of steps is the \
             settings', and a layer has two stages",
            WIDTH
        )
        .join("\n")
    )]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_in_the_list_once_and_lines_fit() {
        let rows: Vec<Row> = ALL.iter().map(|about| Row::of(about)).collect();
        let text = text(&rows);
        for row in &rows {
            let begin = format!("  {}{} ", row.name, row.mark());
            let lines = text.lines().filter(|line| line.starts_with(&begin));
            assert_eq!(lines.count(), 1, "{}", row.name);
        }
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        let group = |name: &str| rows.iter().find(|row| row.name == name).unwrap().group;
        assert_eq!(group("recommended"), Group::Differentiate);
        assert_eq!(group("activation-patching"), Group::Patch);
        assert_eq!(group("sae"), Group::Activations);
        assert_eq!(group("random"), Group::Control);
    }
}
