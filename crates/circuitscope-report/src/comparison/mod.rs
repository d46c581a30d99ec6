//! The page of two discoveries beside each other.

mod scatter;

use circuitscope_core::{HeadGrid, HeadId};
use circuitscope_measures::compare::{Comparison, Place, Side, Table};
use maud::{Markup, PreEscaped, html};
use serde_json::Value;

use crate::page::{document, provenance};
use crate::svg::{Point, theme_css};
use crate::{Error, MethodReport, Picture, Report, Result, TaskReport, heads};

/// Rows of a table of heads; the rest is in the JSON.
const ROWS: usize = 200;

/// More letters than this are wrapped in a cell.
const WIDE: usize = 28;

/// What the page has beside the style sheet of all pages.
const CSS: &str = "td.words{white-space:normal;text-align:left;min-width:15rem;overflow-wrap:anywhere}\
                   .pair{display:flex;flex-wrap:wrap;gap:1.5rem}\
                   @media print{th,td{padding:.15rem .3rem;white-space:normal}table{font-size:.75rem;max-width:100%}\
                   td.words{min-width:0}}";

/// What a page of a comparison shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonPage {
    /// Heading of the page.
    pub title: String,
    /// A sentence or two below it; may be empty.
    pub lead: String,
    /// Names and values shown at the top, after what A and B are: where they were read from, time.
    pub facts: Vec<(String, String)>,
    /// The comparison.
    pub comparison: Comparison,
    /// What made the results, shown as it is.
    pub provenance: Value,
}

/// A picture of this page.
#[derive(Debug)]
struct Plot {
    file_name: String,
    title: String,
    /// What a screen reader says.
    description: String,
    size: Point,
    shapes: Markup,
}

impl Plot {
    fn element(&self, css: Option<String>) -> Markup {
        let (width, height) = self.size;
        html! {
            svg width=(width) height=(height) role="img" aria-label=(self.description)
                viewBox={ "0 0 " (width) " " (height) } xmlns="http://www.w3.org/2000/svg" {
                title { (self.title) }
                desc { (self.description) }
                "\n"
                @if let Some(css) = css { style { (PreEscaped(css)) } "\n" }
                (self.shapes)
            }
            "\n"
        }
    }
}

/// Writes the page of a comparison: conclusions first, then what they rest on. One file that refers to nothing outside itself.
///
/// # Errors
/// [`Error::Scores`] where a side has not one score, or effect, for each of its heads.
pub fn render_comparison(page: &ComparisonPage) -> Result<Report> {
    let comparison = &page.comparison;
    check("A", &comparison.a)?;
    check("B", &comparison.b)?;
    let scatter = scatter::draw(comparison);
    let maps = [("A", &comparison.a), ("B", &comparison.b)].map(|(name, side)| map(name, side));
    let plots = scatter.iter().map(|plot| Picture {
        file_name: plot.file_name.clone(),
        svg: plot.element(Some(theme_css())).into_string(),
    });
    let drawings = maps.iter().map(|map| Picture {
        file_name: map.file_name.clone(),
        svg: map.standalone(),
    });
    let pictures = plots.chain(drawings).collect();
    let maps = html! {
        div.maps { @for map in &maps { figure { (map.inline()) } "\n" } }
        "\n"
    };
    Ok(Report {
        html: whole(page, scatter.as_ref(), &maps),
        pictures,
    })
}

/// Whether a side has a number for each of its heads.
fn check(name: &str, side: &Side) -> Result<()> {
    let expected = side.n_layers.saturating_mul(side.n_heads);
    let effects = side.effects.as_ref().map_or(expected, Vec::len);
    let lengths = [side.scores.len(), effects];
    match lengths.into_iter().find(|found| *found != expected) {
        None => Ok(()),
        Some(found) => Err(Error::Scores {
            task: name.to_owned(),
            method: side.method.clone(),
            found,
            expected,
        }),
    }
}

/// The scores of one side, its circuit outlined.
fn map(name: &str, side: &Side) -> crate::svg::Drawing {
    let circuit: Vec<HeadId> = side.circuit.iter().map(|member| member.head).collect();
    let method = MethodReport::of_scores(&side.method, "", side.scores.clone());
    let task = TaskReport {
        task: name.to_owned(),
        grid: HeadGrid::new(side.n_layers, side.n_heads),
        truth: Some(circuit),
        truth_name: String::new(),
        marked: format!("in the circuit of {name}"),
        chosen: Vec::new(),
        passages: Vec::new(),
        methods: Vec::new(),
    };
    heads::draw(&task, &method)
}

fn whole(page: &ComparisonPage, scatter: Option<&Plot>, maps: &Markup) -> String {
    let comparison = &page.comparison;
    let body = html! {
        body {
            main {
                "\n"
                header {
                    h1 { (page.title) }
                    @if !page.lead.is_empty() { "\n" p.lead { (page.lead) } }
                    "\n"
                    (facts(page))
                }
                "\n"
                section aria-label="What may be concluded" {
                    ul.said { @for sentence in comparison.sentences() { (said(&sentence)) "\n" } }
                }
                "\n"
                (kept(comparison))
                (beside(comparison, scatter, maps))
                (of_heads(comparison))
                (roles(comparison))
                (made(comparison))
                (provenance(&page.provenance))
                "\n"
            }
        }
    };
    document(&page.title, &[CSS, &theme_css()], &body)
}

fn facts(page: &ComparisonPage) -> Markup {
    let comparison = &page.comparison;
    let sides = [("A", comparison.a.words()), ("B", comparison.b.words())];
    html! {
        dl.facts {
            @for (name, words) in sides { div { dt { (name) } dd { (words) } } }
            @for (name, value) in &page.facts { div { dt { (name) } dd { (value) } } }
        }
    }
}

fn said(sentence: &str) -> Markup {
    html! {
        @if let Some(warning) = sentence.strip_prefix("warning: ") {
            li.warning { b { "Warning:" } " " (warning) }
        } @else {
            li { (sentence) }
        }
    }
}

/// A table whose rows have names, or a word where it has no rows.
fn table((columns, rows): &Table, none: &str) -> Markup {
    html! {
        @if rows.is_empty() {
            p.none { (none) }
        } @else {
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            @for column in columns {
                                @if column.is_empty() { td {} } @else { th scope="col" { (column) } }
                            }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                @for (at, cell) in row.iter().enumerate() {
                                    @if at == 0 {
                                        th scope="row" { (cell) }
                                    } @else {
                                        td.words[cell.chars().count() > WIDE] { (cell) }
                                    }
                                }
                            }
                            "\n"
                        }
                    }
                }
            }
        }
        "\n"
    }
}

fn kept(comparison: &Comparison) -> Markup {
    html! {
        section aria-labelledby="kept" {
            h2 #kept { "What each circuit keeps in each run" } "\n"
            (table(&comparison.kept_table(), "nothing"))
            p.note {
                "Shares of what all heads together do for the metric: 0 % is the model with all heads ablated, 100 % the whole \
                 model. In brackets: with the heads of the circuit ablated and all others kept, and random circuits of as many \
                 heads. A dash: not measured, or ablating all heads changes nothing."
            }
        }
        "\n"
    }
}

fn beside(comparison: &Comparison, scatter: Option<&Plot>, maps: &Markup) -> Markup {
    html! {
        section aria-labelledby="beside" {
            h2 #beside { "All heads, A beside B" } "\n"
            @if let Some(plot) = scatter {
                figure.roc {
                    (plot.element(None))
                    figcaption {
                        "Heads on the dotted line are alike in both. Shapes tell which circuit a head is in; small rings are in \
                         neither."
                    }
                }
                "\n"
            }
            (maps)
            p.note { "Scores of all heads, each map on a scale of its own." } "\n"
            @if let Some(agreement) = &comparison.agreement {
                h3 { "Heads ranked first" } "\n"
                (table(&comparison.top_table(), "no heads"))
                p.note {
                    "By chance: two random orders. Where equal scores lie on the border, the mean over all ways to break ties."
                    @if let Some(rho) = agreement.spearman {
                        " Spearman’s ρ of all scores: " (format!("{rho:.2}")) "."
                    }
                    @if let Some(rho) = agreement.spearman_effects {
                        " Of all effects: " (format!("{rho:.2}")) "."
                    }
                }
            }
        }
        "\n"
    }
}

fn of_heads(comparison: &Comparison) -> Markup {
    let groups: Vec<(&str, String, Table, usize)> = if comparison.is_matched() {
        let group = |id: &'static str, title: &str, place| {
            let heads = comparison.heads_in(place).count();
            let table = comparison.heads_table(place, ROWS);
            (id, format!("{title} ({heads})"), table, heads)
        };
        vec![
            group("both", "Heads in both circuits", Place::Both),
            group("only-a", "Heads only in A’s circuit", Place::OnlyA),
            group("only-b", "Heads only in B’s circuit", Place::OnlyB),
        ]
    } else {
        let group = |id: &'static str, name: &str, side: &Side| {
            let heads = side.circuit.len();
            let title = format!("Heads of {name}’s circuit ({heads})");
            (id, title, side.circuit_table(ROWS), heads)
        };
        vec![
            group("circuit-a", "A", &comparison.a),
            group("circuit-b", "B", &comparison.b),
        ]
    };
    html! {
        @for (id, title, rows, heads) in &groups {
            section aria-labelledby=(id) {
                h2 id=(id) { (title) } "\n"
                (table(rows, "none"))
                @if *heads > ROWS { p.note { (heads - ROWS) " more are in the JSON." } }
            }
            "\n"
        }
    }
}

fn roles(comparison: &Comparison) -> Markup {
    html! {
        @if !comparison.roles.is_empty() {
            section aria-labelledby="roles" {
                h2 #roles { "Roles" } "\n"
                (table(&comparison.roles_table(), "none"))
                p.note {
                    "What heads attend to where they matter, more than chance, and with more effect than heads that attend so idly. \
                     Named parts of prompts are those of each run’s own prompts."
                }
            }
            "\n"
        }
    }
}

fn made(comparison: &Comparison) -> Markup {
    let same = comparison.made_table(false);
    html! {
        section aria-labelledby="made" {
            h2 #made { "How the two were made" } "\n"
            h3 { "What differs" } "\n"
            (table(&comparison.made_table(true), "nothing that the files tell of"))
            @if !same.1.is_empty() {
                details {
                    summary { "What is the same" }
                    (table(&same, "nothing"))
                }
            }
        }
        "\n"
    }
}
