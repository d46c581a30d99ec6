//! The page around the pictures.

use crate::svg::{escape, theme_css};
use crate::{ReportInput, Section, TaskReport, conclusion, passages, table};

pub(super) fn page(input: &ReportInput, sections: &[Section<'_>]) -> String {
    let title = escape(&input.title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{}{}\n</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n",
        include_str!("page.css"),
        theme_css(),
    );
    if !input.lead.is_empty() {
        putln!(html, "<p class=\"lead\">{}</p>", escape(&input.lead));
    }
    if !input.facts.is_empty() {
        html.push_str("<dl class=\"facts\">");
        for (name, value) in &input.facts {
            put!(
                html,
                "<div><dt>{}</dt><dd>{}</dd></div>",
                escape(name),
                escape(value)
            );
        }
        html.push_str("</dl>\n");
    }
    html.push_str("</header>\n");

    let overview = table::overview(&input.tasks);
    if !overview.is_empty() {
        putln!(
            html,
            "<section aria-labelledby=\"summary\">\n<h2 id=\"summary\">Summary</h2>\n{overview}\n\
             <p class=\"note\"><b>Bold</b>: the highest mean of the task. \
             <span class=\"flag\">▼</span>: a method that is not clearly above every control of the same task: its mean is not higher, or the 95 % interval of the difference on the same resamples reaches 0. \
             0.5 is chance.</p>\n</section>"
        );
    }
    for section in sections {
        section_html(&mut html, section);
    }
    let provenance = serde_json::to_string_pretty(&input.provenance).unwrap_or_default();
    put!(
        html,
        "<section aria-labelledby=\"provenance\">\n<h2 id=\"provenance\">Provenance</h2>\n\
         <details><summary>What made these results</summary>\n<pre>{}</pre></details>\n</section>\n\
         </main>\n</body>\n</html>\n",
        escape(&provenance)
    );
    html
}

fn section_html(html: &mut String, section: &Section<'_>) {
    let task = section.task;
    let (id, name) = (table::anchor(task), escape(&task.task));
    put!(
        html,
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{name}</h2>\n<p>"
    );
    let grid = task.grid;
    put!(
        html,
        "{} layers × {} heads = {} heads",
        grid.n_layers,
        grid.n_heads,
        grid.len()
    );
    if let Some(truth) = &task.truth {
        let mut truth = truth.clone();
        truth.sort_unstable();
        let names: Vec<String> = truth
            .iter()
            .map(|head| format!("<code>{head}</code>"))
            .collect();
        let source = if task.truth_name.is_empty() {
            String::new()
        } else {
            format!(" ({})", escape(&task.truth_name))
        };
        put!(
            html,
            ", {} of them {}{source}: {}",
            names.len(),
            escape(&task.marked),
            names.join(" ")
        );
    }
    html.push_str(".</p>\n");
    if let Some(found) = reconciled(task) {
        putln!(html, "<p>{}.</p>", escape(&found));
    }
    html.push_str(&passages::html(&task.passages));
    let conclusion = conclusion::paragraph(task);
    if !conclusion.is_empty() {
        putln!(html, "<p>{}</p>", escape(&conclusion));
    }
    html.push_str(&table::measures(task));
    if let Some(curves) = &section.curves {
        putln!(
            html,
            "<figure class=\"roc\">{}<figcaption>ROC curves of heads, the mean over seeds at each false \
             positive rate. The thin diagonal is chance.</figcaption></figure>",
            curves.inline()
        );
    }
    if let Some(kept) = &section.kept {
        putln!(
            html,
            "<figure class=\"roc\">{}<figcaption>Circuits taken from the top of each ranking, everything \
             else ablated. Left: heads in the order of signed scores, MLPs kept; 1 is the full model, 0 the \
             model with everything ablated. Right: edges in the order of absolute scores.</figcaption></figure>",
            kept.inline()
        );
    }
    html.push_str("<h3>Scores of heads</h3>\n<div class=\"maps\">\n");
    for heads in &section.heads {
        putln!(html, "<figure>{}</figure>", heads.inline());
    }
    html.push_str("</div>\n");
    if !section.circuits.is_empty() {
        html.push_str("<h3>Strongest edges</h3>\n<div class=\"maps\">\n");
        for circuit in &section.circuits {
            putln!(html, "<figure>{}</figure>", circuit.inline());
        }
        html.push_str("</div>\n");
    }
    html.push_str("<h3>Heads by rank</h3>\n");
    html.push_str(&table::ranks(task));
    html.push_str("\n</section>\n");
}

/// What chosen heads have in common with the known circuit, where both are there.
fn reconciled(task: &TaskReport) -> Option<String> {
    let truth = task.truth.as_ref().filter(|_| !task.chosen.is_empty())?;
    let found = task.chosen.iter().filter(|head| truth.contains(head));
    let found = found.count();
    Some(format!(
        "{} heads chosen (dots): {found} of the {} that are {} (outlined), {} others",
        task.chosen.len(),
        truth.len(),
        task.marked,
        task.chosen.len() - found
    ))
}
