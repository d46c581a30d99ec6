//! The page of one discovered circuit.

use std::collections::BTreeSet;
use std::path::Path;

use circuitscope_core::{HeadGrid, HeadId};
use circuitscope_measures::cards::Cards;
use circuitscope_report::{CircuitPage, Error, Report, Stability, render_circuit};
use serde_json::Value;

use crate::report::assert_well_formed;
use crate::sample::{cards, chosen, page};

const SMALL: HeadGrid = HeadGrid::new(30, 9);
const LARGE: HeadGrid = HeadGrid::new(48, 25);

fn rendered(grid: HeadGrid, number: usize) -> (Cards, Report) {
    let heads = chosen(grid, number);
    let cards = cards(grid, &heads);
    let report = render_circuit(&page(grid, &heads, &cards)).unwrap();
    (cards, report)
}

/// No cards, no curve, no known circuit, an empty circuit.
fn minimal() -> CircuitPage<'static> {
    static NONE: std::sync::LazyLock<Cards> = std::sync::LazyLock::new(|| cards(SMALL, &[]));
    let mut least = page(SMALL, &[], &NONE);
    least.cards = None;
    least.signed = None;
    least.lost = None;
    least.stability = None;
    least.curve = None;
    least.files.clear();
    least.command.clear();
    least.verdict = circuitscope_report::Verdict::default();
    least.task.truth = None;
    least.task.passages.clear();
    least
}

/// Kept, so that they can be looked at.
fn keep(report: &Report, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    report.write(&folder).unwrap();
}

fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    let rest = html.split(start.as_str()).skip(1);
    rest.map(|rest| rest.split('"').next().unwrap()).collect()
}

/// The page without its style sheet and script.
fn body(html: &str) -> &str {
    let start = html.find("<main").unwrap();
    &html[start..html.rfind("<script>").unwrap()]
}

fn assert_sound(report: &Report) {
    let html = &report.html;
    assert_well_formed(body(html), &["meta", "br"]);
    for outside in ["http://", "https://", " src=", "@import", "url("] {
        let found = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "{outside}");
    }
    let body = body(html);
    let ids = attributes(body, "id");
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    for to in attributes(body, "href") {
        if let Some(id) = to.strip_prefix('#') {
            assert!(ids.contains(&id), "#{id}");
        }
    }
    for no_number in ["NaN", "inf", "-0.000"] {
        let found = body.split(|c: char| !(c.is_alphanumeric() || "-.".contains(c)));
        assert!(
            !found.into_iter().any(|word| word == no_number),
            "{no_number}"
        );
    }
    // Headings in order, none left out.
    let levels = body.match_indices("<h").filter_map(|(at, _)| {
        let level = body[at + 2..].chars().next()?.to_digit(10)?;
        Some(level)
    });
    let mut last = 0;
    for level in levels {
        assert!(level <= last + 1, "h{level} after h{last}");
        last = level;
    }
    for picture in &report.pictures {
        assert_well_formed(&picture.svg, &[]);
        assert!(!picture.svg.contains("href="), "{}", picture.file_name);
    }
}

#[test]
fn pages_are_sound() {
    for (grid, number, name) in [(SMALL, 8, "circuit-30x9"), (LARGE, 24, "circuit-48x25")] {
        let (_, report) = rendered(grid, number);
        keep(&report, name);
        assert_sound(&report);
        let most = if grid == SMALL { 3_000_000 } else { 6_000_000 };
        assert!(report.html.len() < most, "{}", report.html.len());
    }
    let least = render_circuit(&minimal()).unwrap();
    keep(&least, "circuit-minimal");
    assert_sound(&least);
    assert!(least.html.contains("No circuit is shown."));
}

/// Every number in a value of JSON, by where it is.
fn numbers(value: &Value, at: &str, all: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => all.push((at.to_owned(), number.as_f64().unwrap())),
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                numbers(value, &format!("{at}[{index}]"), all);
            }
        }
        Value::Object(map) => {
            for (name, value) in map {
                numbers(value, &format!("{at}.{name}"), all);
            }
        }
        _ => {}
    }
}

/// A number as a page may show it.
fn written(value: f64) -> Vec<String> {
    let mut words = vec![
        format!("{value:.3}").replace("-0.000", "0.000"),
        format!("{value:.2}"),
        format!("{value:.1}"),
        format!("{value:.0}"),
        format!("{value:.2e}"),
    ];
    if value.abs() <= 1.0 {
        words.push(format!("{:.0} %", 100.0 * value));
    }
    // Those of one digit are anywhere on a page.
    let short = value.fract() != 0.0;
    words.retain(|word| !short || word.len() > 3);
    words
}

#[test]
fn every_number_of_the_cards_is_on_the_page() {
    let (cards, report) = rendered(SMALL, 8);
    let body = body(&report.html);
    let shown: BTreeSet<&str> = body
        .split(|c: char| !(c.is_ascii_digit() || "-.e%".contains(c)))
        .collect();
    let percents: BTreeSet<String> = body
        .match_indices(" %")
        .filter_map(|(at, _)| {
            let before = &body[..at];
            let start = before.rfind(|c: char| !(c.is_ascii_digit() || c == '.'))?;
            Some(format!("{} %", &before[start..][1..]))
        })
        .collect();
    let mut all = Vec::new();
    let mut kept = cards.clone();
    kept.repeated.clear();
    numbers(&serde_json::to_value(&kept).unwrap(), "cards", &mut all);
    assert!(all.len() > 2000, "{}", all.len());
    for (at, number) in all {
        if at == "cards.schema" || number == -1.0 {
            continue;
        }
        let found = written(number).into_iter().any(|word| {
            let word = word.trim_end_matches('.');
            shown.contains(word) || percents.contains(word)
        });
        assert!(found, "{at}: {number}");
    }
    // Of the table of repeated tokens, the heads of the circuit.
    for card in &cards.heads {
        let patterns = cards.repeated[SMALL.index(card.head).unwrap()];
        for value in [patterns.previous_token, patterns.induction] {
            assert!(body.contains(&format!("{value:.3}")));
        }
    }
    for token in ["&lt;script&gt;", "&lt;/code&gt;", "“Lee”"].iter().take(2) {
        assert!(body.contains(token), "{token}");
    }
    assert!(!body.contains("<script>"));
}

#[test]
fn a_page_has_its_parts() {
    let (cards, report) = rendered(SMALL, 8);
    let html = &report.html;
    for heading in [
        "The circuit as a graph",
        "Heads of the circuit",
        "Scores of all heads",
        "How far to trust it",
        "Which head carries which variable",
        "Attention on repeated random tokens",
        "What was measured",
        "All heads",
        "Prompts",
        "Files and provenance",
    ] {
        assert_eq!(html.matches(&format!(">{heading}</h2>")).count(), 1);
    }
    let drawn = format!("The 50 strongest of {} links are drawn.", cards.links.len());
    assert!(cards.links.len() > 50 && html.contains(&drawn));
    assert_eq!(html.matches("<details class=\"card\"").count(), 8);
    assert_eq!(html.matches("<a class=\"node\" href=\"#card-").count(), 8);
    assert_eq!(html.matches("class=\"edge\"").count(), 50);
    assert!(html.contains("<a href=\"heads.csv\">heads.csv</a>"));
    // Each cell of the map says score and effect.
    let map = &report.pictures[1].svg;
    assert_eq!(map.matches("<title>").count(), SMALL.len());
    assert_eq!(map.matches(", effect ").count(), SMALL.len());
    let names: Vec<&str> = report
        .pictures
        .iter()
        .map(|picture| picture.file_name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "graph-ioi.svg",
            "heads-ioi-attribution-patching.svg",
            "score-effect-ioi.svg",
            "kept-ioi.svg",
            "stability-ioi.svg"
        ]
    );
    // Values beyond the frame of the curve are marked.
    let kept = &report.pictures[3].svg;
    assert_eq!(kept.matches("outside of the frame").count(), 2);
    // No text too small to be read.
    for picture in &report.pictures {
        for size in attributes(&picture.svg, "font-size") {
            assert!(size.parse::<f64>().unwrap() >= 8.9, "{size}");
        }
    }
}

#[test]
fn the_same_page_every_time() {
    assert_eq!(rendered(SMALL, 8).1, rendered(SMALL, 8).1);
}

#[test]
fn what_is_no_number_is_a_dash() {
    let heads = chosen(SMALL, 8);
    let mut cards = cards(SMALL, &heads);
    cards.effects[0] = f64::NAN;
    cards.heads[0].effect.low = f64::NEG_INFINITY;
    cards.heads[1].attention[0].rows[0].to[0] = f64::NAN;
    cards.heads[1].attention[0].rows[0].weight = f64::NAN;
    cards.heads[2].why[0].terms[0].value = f64::INFINITY;
    cards.links[0].weight = f64::NAN;
    cards.repeated[3].induction = f64::NAN;
    cards.divergence = f64::NAN;
    let mut page = page(SMALL, &heads, &cards);
    page.task.methods[0].scores[0] = f64::NAN;
    page.task.methods[0].scores[1] = f64::INFINITY;
    page.signed.as_mut().unwrap()[1] = f64::INFINITY;
    page.stability = Some(Stability {
        shares: vec![f64::NAN; SMALL.len()],
        halves: 4,
        chance: f64::NAN,
    });
    let curve = page.curve.as_mut().unwrap();
    curve.values[1] = f64::NAN;
    curve.full = f64::INFINITY;
    assert_sound(&render_circuit(&page).unwrap());
}

/// Where nothing is known of heads, the method's own scores of pairs are drawn and cards are short.
#[test]
fn without_cards_the_scores_of_the_method_are_drawn() {
    let heads = chosen(SMALL, 8);
    let mut page = minimal();
    page.task.chosen.clone_from(&heads);
    let mut pairs = vec![0.0; SMALL.len() * SMALL.len()];
    let at = |layer, head| SMALL.index(HeadId::new(layer, head)).unwrap();
    pairs[at(2, 3) * SMALL.len() + at(5, 1)] = 3.0;
    pairs[at(5, 1) * SMALL.len() + at(9, 8)] = -1.5;
    page.task.methods[0].pairs = Some(pairs);
    let report = render_circuit(&page).unwrap();
    keep(&report, "circuit-pairs");
    assert_sound(&report);
    let html = &report.html;
    assert!(html.contains("<title>L2H3 → L5H1: 3</title>"));
    assert!(html.contains("<title>L5H1 → L9H8: -1.50</title>"));
    assert!(!html.contains("linear estimate"));
    assert_eq!(html.matches("Nothing more was measured").count(), 8);
    assert_eq!(report.pictures.len(), 2);
}

/// Lists may be short, heads may be none of the model.
#[test]
fn odd_input_has_a_page_too() {
    let heads = chosen(SMALL, 8);
    let mut cards = cards(SMALL, &heads);
    cards.effects.truncate(3);
    cards.repeated.truncate(2);
    cards.prompts.truncate(1);
    cards.heads.truncate(3);
    cards.variables.as_mut().unwrap().cells[0].clear();
    let mut page = page(SMALL, &heads, &cards);
    page.task.chosen.push(HeadId::new(99, 99));
    page.task.chosen.push(heads[0]);
    page.signed = Some(vec![1.0]);
    page.curve.as_mut().unwrap().values.truncate(1);
    assert_sound(&render_circuit(&page).unwrap());
    page.task.methods.clear();
    let error = render_circuit(&page).unwrap_err();
    assert!(matches!(error, Error::Scores { found: 0, .. }), "{error}");
}
