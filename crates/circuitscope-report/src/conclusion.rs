//! What may be concluded from the figures of a task, in a few sentences.

use circuitscope_measures::SummaryRow;

use crate::{MethodReport, TaskReport};

/// Empty where nothing was judged.
pub(super) fn paragraph(task: &TaskReport) -> String {
    let rows: Vec<&SummaryRow> = task.methods.iter().filter_map(|m| m.row.as_ref()).collect();
    let (controls, methods): (Vec<&SummaryRow>, Vec<&SummaryRow>) =
        rows.iter().partition(|row| row.control);
    let best = |rows: &[&SummaryRow]| -> Option<SummaryRow> {
        let best = rows
            .iter()
            .max_by(|a, b| a.node_auc.mean.total_cmp(&b.node_auc.mean));
        best.map(|row| (*row).clone())
    };
    let Some(first) = best(&methods) else {
        return String::new();
    };
    let mut sentences = vec![format!(
        "The highest node AUC of a method is {} of {}.",
        figure(&first),
        first.method
    )];
    match best(&controls) {
        None => sentences.push("No control was run, so that nothing says what is trivial.".into()),
        Some(control) => {
            let above: Vec<&str> = methods
                .iter()
                .filter(|row| row.not_above.is_empty())
                .map(|row| row.method.as_str())
                .collect();
            sentences.push(format!(
                "The best control, {}, reaches {}.",
                control.method,
                figure(&control)
            ));
            sentences.push(match (above.len(), methods.len()) {
                (0, 1) => {
                    "The method is not clearly above every control: on these prompts its ranking \
                           cannot be told from a trivial one."
                        .to_owned()
                }
                (0, _) => {
                    "No method is clearly above every control: on these prompts none of their \
                           rankings can be told from a trivial one."
                        .to_owned()
                }
                (some, all) if some == all => {
                    "Every method is clearly above every control.".to_owned()
                }
                _ => format!("Clearly above every control: {}.", above.join(", ")),
            });
        }
    }
    let unsteady: Vec<&str> = methods
        .iter()
        .filter(|row| row.jaccard.is_some_and(|jaccard| jaccard.mean < 0.8))
        .map(|row| row.method.as_str())
        .collect();
    if !unsteady.is_empty() {
        sentences.push(format!(
            "The circuits that {} would choose change from one half of the prompts to another \
             (Jaccard index below 0.8): single heads in them should not be relied on.",
            unsteady.join(", ")
        ));
    }
    if let Some((method, kept)) = keeps_most(task) {
        sentences.push(format!(
            "With a tenth of the heads, those that {method} ranks first, the model keeps {:.0} % of the \
             behaviour.",
            100.0 * kept
        ));
    }
    sentences.join(" ")
}

fn figure(row: &SummaryRow) -> String {
    let mean = format!("{:.3}", row.node_auc.mean);
    match row.node_interval {
        Some(interval) => format!("{mean} ({:.2} to {:.2})", interval.low, interval.high),
        None => mean,
    }
}

/// The method whose circuit of a tenth of the heads keeps most, and how much.
fn keeps_most(task: &TaskReport) -> Option<(String, f64)> {
    let kept = |method: &MethodReport| {
        let points = &method.faithfulness.as_ref()?.nodes.signed;
        let tenth = points.iter().find(|point| point.share >= 0.1)?;
        // Shares far from 0 to 1 say that ablating all heads changes little.
        let readable = (0.0..=1.5).contains(&tenth.faithfulness);
        let tenth = readable.then_some(tenth)?;
        Some((method.method.clone(), tenth.faithfulness))
    };
    let methods = task.methods.iter().filter(|method| !method.control);
    methods.filter_map(kept).max_by(|a, b| a.1.total_cmp(&b.1))
}
