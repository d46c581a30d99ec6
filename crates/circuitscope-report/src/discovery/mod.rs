//! The page of one discovered circuit.

mod attention;
mod cards;
mod codes;
mod edges;
mod first;
mod graph;
mod input;
mod keeps;
mod last;
mod layout;
mod roles;
mod scatter;
mod stability;
mod tables;
mod text;
mod tokens;
mod why;

use circuitscope_core::HeadId;
use maud::{Markup, PreEscaped, html};

pub use input::{CircuitPage, Figure, FileBeside, Lost, SizeCurve, Stability, Verdict};

pub(crate) use tokens::visible;

use crate::heads::Map;
use crate::page::document;
use crate::svg::{Drawing, theme_css};
use crate::{Error, Picture, Report, Result, passages};

/// Variables whose table stands beside another one.
const NARROW: usize = 2;

/// Width that cells of the map fill.
const MAP: usize = 1080;

/// Writes the page of one discovered circuit, with its pictures.
///
/// The page is whole in one file: all numbers are text in it, and it works without its small script.
///
/// # Errors
/// [`Error::Scores`] where the one method has not one score for each head.
pub fn render_circuit(page: &CircuitPage<'_>) -> Result<Report> {
    let drawn = Drawn::of(page)?;
    let pictures = drawn.pictures.iter().map(|drawing| Picture {
        file_name: drawing.file_name.clone(),
        svg: drawing.standalone(),
    });
    Ok(Report {
        pictures: pictures.collect(),
        html: whole(page, &drawn.sections),
    })
}

/// The `id` of a head's card.
fn card_id(head: HeadId) -> String {
    format!("card-{head}")
}

/// A section of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    body: Markup,
    /// Whether it stands beside another one where there is room.
    half: bool,
}

/// Sections in their order, and pictures as files.
struct Drawn {
    sections: Vec<Section>,
    pictures: Vec<Drawing>,
}

impl Drawn {
    fn of(page: &CircuitPage<'_>) -> Result<Self> {
        let expected = page.task.grid.len();
        let method = page.task.methods.first();
        let found = method.map_or(0, |method| method.scores.len());
        let Some(method) = method.filter(|_| found == expected) else {
            return Err(Error::Scores {
                task: page.task.task.clone(),
                method: method.map_or_else(String::new, |method| method.method.clone()),
                found,
                expected,
            });
        };
        let mut drawn = Self {
            sections: Vec::new(),
            pictures: Vec::new(),
        };
        let roles = roles::Roles::of(page);
        if let Some(graph) = graph::Graph::of(page, &roles) {
            drawn.add("graph", "The circuit as a graph", graph_section(&graph));
            drawn.pictures.push(graph.draw(false));
        }
        if !cards::shown(page).is_empty() {
            drawn.add("heads", "Heads of the circuit", heads(page, &roles));
        }
        drawn.scores(page, method);
        drawn.trust(page);
        let first = drawn.sections.len();
        if let Some(table) = page.cards.and_then(|cards| cards.variables.as_ref())
            && !table.variables.is_empty()
        {
            let body = tables::variables(page, table);
            drawn.add("variables", "Which head carries which variable", body);
        }
        if let Some(cards) = page.cards.filter(|cards| !cards.repeated.is_empty()) {
            let body = html! {
                p.note { "What heads do whatever the prompts: attention on random tokens said twice." }
                (tables::repeated(page, &cards.repeated))
            };
            drawn.add("repeated", "Attention on repeated random tokens", body);
        }
        let narrow = page
            .cards
            .and_then(|cards| cards.variables.as_ref())
            .is_none_or(|table| table.variables.len() <= NARROW);
        if let [variables, repeated] = &mut drawn.sections[first..]
            && narrow
        {
            (variables.half, repeated.half) = (true, true);
        }
        if !page.task.passages.is_empty() {
            let body = html! { div.passages { (passages::html(&page.task.passages)) } };
            drawn.add("details", "What was measured", body);
        }
        drawn.add("all", "All heads", tables::all(page));
        if let Some(cards) = page.cards.filter(|cards| !cards.prompts.is_empty()) {
            let body = last::prompts(&cards.prompts);
            drawn.add("prompts", "Prompts", body);
        }
        drawn.add("files", "Files and provenance", last::files(page));
        Ok(drawn)
    }

    fn add(&mut self, id: &'static str, title: &'static str, body: Markup) {
        let half = false;
        self.sections.push(Section {
            id,
            title,
            body,
            half,
        });
    }

    /// Map and scatter.
    fn scores(&mut self, page: &CircuitPage<'_>, method: &crate::MethodReport) {
        let signed = page.signed.as_ref();
        let signed = signed.filter(|signed| signed.len() == method.scores.len());
        let map = Map {
            task: &page.task,
            method,
            scores: signed.unwrap_or(&method.scores),
            effects: page.cards.map_or(&[], |cards| &cards.effects),
            room: MAP,
        };
        let map = map.draw();
        let body = html! {
            p { (method.summary) "." }
            figure.map {
                div.wide tabindex="0" style={ "--natural:" (map.size.0) "px" } { (map.inline()) }
                figcaption {
                    @if signed.is_some() { "Scores with their signs. " }
                    "The pointer on a cell shows its numbers; the table of all heads has them as text."
                }
            }
        };
        self.add("scores", "Scores of all heads", body);
        self.pictures.push(map);
    }

    /// What says how far to trust the choice.
    fn trust(&mut self, page: &CircuitPage<'_>) {
        let scatter = scatter::draw(page);
        let stability = stability::draw(page);
        let keeps = keeps::draw(page);
        if scatter.is_none() && stability.is_none() && keeps.is_none() {
            return;
        }
        let body = html! {
            div.figures-two {
                @if let Some(scatter) = &scatter {
                    figure {
                        h3 { "Score against effect" }
                        (scatter.inline())
                        figcaption {
                            "A dot for each head; those of the circuit are named. Effects are exact for these and for the others \
                             with the largest effects by a gradient, else by that gradient. A head with a high score and no exact \
                             effect may be ranked for what the behaviour does not need."
                        }
                    }
                }
                @if let Some(keeps) = &keeps {
                    figure {
                        h3 { "What circuits of each size keep" }
                        (keeps.inline())
                        figcaption { "The best heads kept, all others ablated." }
                        @if let Some(curve) = &page.curve { (keeps::table(curve)) }
                    }
                }
                @if let Some(stability) = &stability {
                    figure {
                        h3 { "Stability of the choice" }
                        (stability.inline())
                        figcaption {
                            "How often the same rule chooses a head from half of the examples. Dashed: what as many heads \
                             at random would reach."
                        }
                    }
                }
            }
        };
        self.add("trust", "How far to trust it", body);
        self.pictures
            .extend([scatter, keeps, stability].into_iter().flatten());
    }
}

fn graph_section(graph: &graph::Graph<'_>) -> Markup {
    let edges = &graph.edges;
    html! {
        p.note {
            @if edges.all > edges.drawn.len() {
                "The " (edges.drawn.len()) " strongest of " (edges.all) " links are drawn. "
            }
            @if edges.linear {
                "Width is weight, colour and tip the sign of a linear estimate; dashed: two gradients disagree in sign. "
            } @else {
                "Width is the score of an edge, colour and tip its sign. "
            }
            "A head leads to its card."
        }
        figure.graph {
            div.zoom hidden {
                button type="button" data-zoom="in" aria-label="Zoom in" { "+" }
                button type="button" data-zoom="out" aria-label="Zoom out" { "−" }
                button type="button" data-zoom="reset" { "Reset" }
            }
            (graph.draw(true).inline())
        }
    }
}

fn heads(page: &CircuitPage<'_>, roles: &roles::Roles<'_>) -> Markup {
    html! {
        @if let Some(cards) = page.cards {
            p.note {
                "Read on " (text::count(cards.pairs, "pair")) ". Effects are shares of what the predictions after the two \
                 prompts of a pair are apart, " (tables::nats(cards.divergence)) " on the mean (Jeffreys divergence)."
            }
        }
        p.buttons hidden {
            button type="button" data-cards="open" { "Open all" } " "
            button type="button" data-cards="close" { "Close all" }
        }
        div.cards { (cards::html(page, roles)) }
    }
}

fn whole(page: &CircuitPage<'_>, sections: &[Section]) -> String {
    let script = format!("\n{}", include_str!("page.js"));
    let body = html! {
        body.circuit {
            "\n"
            main {
                "\n" (first::header(page)) "\n"
                nav.sections aria-label="Sections" {
                    ul { @for section in sections { li { a href={ "#" (section.id) } { (section.title) } } } }
                }
                "\n"
                @for section in sections {
                    section.half[section.half] aria-labelledby=(section.id) { h2 id=(section.id) { (section.title) } (section.body) }
                    "\n"
                }
            }
            "\n"
            script { (PreEscaped(script)) }
            "\n"
        }
    };
    document(
        &page.title,
        &[&theme_css(), include_str!("circuit.css")],
        &body,
    )
}
