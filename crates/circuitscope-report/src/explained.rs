//! The page of a head's features.

use circuitscope_core::HeadId;
use maud::{Markup, html};
use serde_json::Value;

use crate::discovery::visible;
use crate::page::{document, provenance};
use crate::svg::theme_css;
use crate::table::of_words;
use crate::{Report, number};

const CSS: &str = ".place{margin:.35rem 0;line-height:1.9;overflow-wrap:anywhere}\
                   .place code{padding:.1rem .05rem;border-radius:3px;background:none}\
                   .place .here{outline:2px solid var(--mark);outline-offset:1px}\
                   .place .from{background:color-mix(in srgb,var(--accent) calc(var(--share)*55%),transparent)}\
                   .card{margin:1rem 0;padding:.2rem 0;border-top:1px solid var(--line)}\
                   .card h3{margin:.6rem 0 .2rem}\
                   @media print{.card{break-inside:avoid}th,td{padding:.15rem .3rem;white-space:normal}table{font-size:.75rem}}";

/// Tokens that are shown before a place, at most, and after it.
const AROUND: [usize; 2] = [40, 4];

/// What the page of a head's features shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedPage {
    /// Heading of the page.
    pub title: String,
    /// What it is about, in a sentence.
    pub lead: String,
    /// The head that was asked about, if one was.
    pub head: Option<HeadId>,
    /// The features.
    pub features: Vec<ExplainedFeature>,
    /// What dictionaries that learnt nothing say: columns, and rows of as many cells. No rows, no table.
    pub controls: (Vec<String>, Vec<Vec<String>>),
    /// What its columns mean.
    pub note: String,
    /// What the model says without features, and what that stands beside: columns, and rows of as many cells. No rows, no table.
    pub ablations: (Vec<String>, Vec<Vec<String>>),
    /// What its columns mean.
    pub ablation_note: String,
    /// What made it, shown as it is.
    pub provenance: Value,
}

/// A feature.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedFeature {
    /// Its number.
    pub feature: usize,
    /// Share of positions on which it is active.
    pub density: f64,
    /// Share of each head in what it writes.
    pub weight_shares: Vec<f64>,
    /// Tokens that it raises, and by how much.
    pub raises: Vec<(String, f64)>,
    /// Tokens that it lowers.
    pub lowers: Vec<(String, f64)>,
    /// Where it is strongest.
    pub places: Vec<ExplainedPlace>,
    /// The ends of the paths into it where it is strongest: steps, what comes along them, and its share.
    pub made_of: Vec<(String, f64, f64)>,
    /// Divergence of what is said next without it, and without another one, in nats.
    pub without: Option<(f64, f64)>,
}

/// A place at which a feature is strong.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedPlace {
    /// The context.
    pub tokens: Vec<String>,
    /// The position in it.
    pub position: usize,
    /// What a head takes from each position up to this one.
    pub by_source: Vec<f64>,
    /// How active the feature is.
    pub activation: f64,
    /// The head.
    pub head: HeadId,
    /// What each head adds.
    pub by_head: Vec<f64>,
    /// What is added beside heads.
    pub bias: f64,
}

/// Writes the page of a head's features.
#[must_use]
pub fn render_explained(page: &ExplainedPage) -> Report {
    let body = html! {
        body {
            main {
                header { h1 { (page.title) } p.lead { (page.lead) } }
                @if !page.controls.1.is_empty() { (controls(page)) }
                @if !page.ablations.1.is_empty() {
                    section aria-labelledby="ablations" {
                        h2 #ablations { "What the model says without them" }
                        (of_words(&page.ablations.0, &page.ablations.1))
                        p.note { "Taken away " (page.ablation_note) "." }
                    }
                }
                section aria-labelledby="features" {
                    h2 #features { "Features" }
                    @if page.features.is_empty() { p.none { "No feature was active often enough." } }
                    p.note {
                        "Outlined: where the feature is strongest. Shaded: what the head takes from there, in shares of the largest. A feature's \
                         pre-activation is the sum of what heads add and its bias."
                    }
                    @for feature in &page.features { (card(page, feature)) "\n" }
                }
                (provenance(&page.provenance))
            }
        }
    };
    Report {
        pictures: Vec::new(),
        html: document(&page.title, &[CSS, &theme_css()], &body),
    }
}

fn controls(page: &ExplainedPage) -> Markup {
    let (columns, rows) = &page.controls;
    html! {
        section aria-labelledby="controls" {
            h2 #controls { "What dictionaries that learnt nothing say" }
            (of_words(columns, rows))
            p.note { (page.note) "." }
        }
    }
}

fn card(page: &ExplainedPage, feature: &ExplainedFeature) -> Markup {
    let share = |value: f64| format!("{:.0} %", 100.0 * value);
    let mut shares: Vec<(usize, f64)> = feature.weight_shares.iter().copied().enumerate().collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let shown: Vec<String> = shares
        .iter()
        .take(3)
        .map(|(head, of)| format!("H{head} {}", share(*of)))
        .collect();
    html! {
        article.card id={ "feature-" (feature.feature) } {
            h3 { "Feature " (feature.feature) }
            p {
                "Active on " (format!("{:.2} %", 100.0 * feature.density)) " of positions. By what it writes: " (shown.join(", "))
                @if let Some(head) = page.head.filter(|head| !shares.iter().take(3).any(|one| one.0 == head.head)) {
                    ", " (head) " " (share(feature.weight_shares.get(head.head).copied().unwrap_or(0.0)))
                }
                "."
            }
            p {
                "Raises " (words(&feature.raises)) @if !feature.lowers.is_empty() { "; lowers " (words(&feature.lowers)) } "."
            }
            @if let Some((own, other)) = feature.without {
                p { "Without it what is said next diverges by " (number(own)) " nats, without another feature as active by " (number(other)) "." }
            }
            @for place in &feature.places { (one(place)) }
            @if !feature.made_of.is_empty() {
                details {
                    summary { "What the first of these is made of, in the end" }
                    ul {
                        @for (steps, value, share_of) in &feature.made_of {
                            li { (number(*value)) " (" (share(*share_of)) "): " (visible(steps)) }
                        }
                    }
                }
            }
        }
    }
}

fn words(tokens: &[(String, f64)]) -> Markup {
    html! {
        @if tokens.is_empty() { "nothing that was measured" }
        @for (token, value) in tokens { code.token title=(number(*value)) { (visible(token)) } " " }
    }
}

fn one(place: &ExplainedPlace) -> Markup {
    let first = place.position.saturating_sub(AROUND[0]);
    let last = (place.position + AROUND[1] + 1).min(place.tokens.len());
    let largest = place.by_source.iter().copied().fold(0.0, f64::max);
    let by_head: Vec<String> = place
        .by_head
        .iter()
        .enumerate()
        .map(|(head, value)| format!("H{head} {value:.2}"))
        .collect();
    html! {
        p.place {
            b { (number(place.activation)) } " "
            @if first > 0 { "… " }
            @for at in first..last {
                @let value = place.by_source.get(at).copied().unwrap_or(0.0);
                @let part = if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
                code.from[part > 0.02].here[at == place.position] style={ "--share:" (format!("{part:.2}")) }
                    title={ (place.head) " takes " (number(value)) " from here" } { (visible(&place.tokens[at])) }
                wbr;
            }
            @if last < place.tokens.len() { " …" }
            br;
            small { "of heads: " (by_head.join(", ")) "; bias " (format!("{:.2}", place.bias)) }
        }
    }
}
