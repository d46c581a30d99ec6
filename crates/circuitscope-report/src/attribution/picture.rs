//! The graph as a picture: tokens from left to right, layers upwards, logits on top.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{GraphLine, GraphMark, GraphPage, MarkKind};
use crate::discovery::visible;
use crate::number;
use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    ABOVE, BELOW, Colour, Drawing, GRID, INK, MUTED, ON_HEAT, Pen, Point, boxed, disc, hanging,
    hinted, line, path, polygon, px, text,
};

/// Features and errors that are drawn, at most, and edges between what is drawn.
const MARKS: usize = 120;
const LINES: usize = 300;

/// Pixels between neighbours in a cell, and neighbours in a row of it.
const STEP: f64 = 20.0;
const ABREAST: usize = 6;
/// Names of layers stand left of this.
const LEFT: f64 = 64.0;
const NARROWEST: f64 = 24.0;
const LEAST: f64 = 1000.0;
const LOGIT: f64 = 20.0;
const DASHES: Option<&str> = Some("5 3");

/// The picture, and what is said below it.
pub(super) fn draw(page: &GraphPage) -> (Drawing, String) {
    let layout = Layout::of(page);
    let drawn: Vec<&GraphLine> = page
        .edges
        .iter()
        .filter(|edge| layout.places.contains_key(&edge.source))
        .filter(|edge| layout.places.contains_key(&edge.target))
        .take(LINES)
        .collect();
    let sizes = drawn.iter().map(|edge| edge.effect.abs());
    let widest = sizes.fold(0.0, f64::max);
    let most = page.nodes.iter().filter(|mark| is_inner(mark));
    let most = most.map(|mark| mark.influence).fold(0.0, f64::max);
    let caption = format!(
        "{} of {} features and errors, and {} of {} edges: the most influential of those that were kept. Size of discs: influence; width \
         of edges: size of the effect, at most {}; blue adds to its target, dashed orange takes from it. Heads do not show: edges run \
         through them.",
        layout.inner,
        page.nodes.iter().filter(|mark| is_inner(mark)).count(),
        drawn.len(),
        page.edges.len(),
        number(widest)
    );
    let shapes = html! {
        @for (name, y) in &layout.rows {
            (line(&[(LEFT - 6.0, *y), (layout.width, *y)], Pen::new(GRID, 0.75)))
            (text(name, (LEFT - 12.0, *y), 11.0, MUTED, End))
        }
        @for (position, token) in page.tokens.iter().enumerate() {
            (hanging(&shortened(token, LETTERS), (layout.columns[position], layout.bottom), 11.0, INK))
        }
        // The strongest last, on top.
        g opacity="0.8" { @for edge in drawn.iter().rev() { (edge_of(page, &layout, edge, widest)) } }
        @for (at, place) in &layout.places { (mark_of(&page.nodes[*at], *place, most)) }
        (legend(layout.height - 14.0))
    };
    let drawing = Drawing {
        file_name: "graph.svg".to_owned(),
        description: format!(
            "Attribution graph: {} nodes above {} tokens, {} edges; the strongest are in the tables below",
            layout.places.len(),
            page.tokens.len(),
            drawn.len()
        ),
        role: "img",
        size: (layout.width.ceil(), layout.height.ceil()),
        shapes,
    };
    (drawing, caption)
}

const fn is_inner(mark: &GraphMark) -> bool {
    matches!(mark.kind, MarkKind::Feature { .. } | MarkKind::Error { .. })
}

/// Letters of a token below its column, and of a logit in its box.
const LETTERS: usize = 14;
const LOGIT_LETTERS: usize = 32;

/// A token of at most so many letters.
fn shortened(token: &str, letters: usize) -> String {
    let shown = visible(token);
    if shown.chars().count() <= letters {
        return shown;
    }
    let first: String = shown.chars().take(letters - 1).collect();
    first + "…"
}

/// Where everything is.
struct Layout {
    /// By place among the nodes.
    places: BTreeMap<usize, Point>,
    /// Middle of each position.
    columns: Vec<f64>,
    /// Names and heights.
    rows: Vec<(String, f64)>,
    /// Features and errors that are drawn.
    inner: usize,
    /// Upper end of the names of tokens.
    bottom: f64,
    width: f64,
    height: f64,
}

impl Layout {
    fn of(page: &GraphPage) -> Self {
        let mut inner: Vec<usize> = (0..page.nodes.len())
            .filter(|at| is_inner(&page.nodes[*at]))
            .collect();
        inner.sort_by(|a, b| {
            let influence = |at: &usize| page.nodes[*at].influence;
            influence(b).total_cmp(&influence(a))
        });
        inner.truncate(MARKS);
        inner.sort_unstable();
        let mut cells: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for at in &inner {
            if let MarkKind::Feature { layer, position } | MarkKind::Error { layer, position } =
                page.nodes[*at].kind
            {
                cells.entry((layer, position)).or_default().push(*at);
            }
        }
        let abreast = |position: usize| {
            let of = cells.iter().filter(|((_, at), _)| *at == position);
            of.map(|(_, cell)| cell.len().min(ABREAST))
                .max()
                .unwrap_or(0)
        };
        let mut widths: Vec<f64> = (0..page.tokens.len())
            .map(|position| (abreast(position) as f64 * STEP + 10.0).max(NARROWEST))
            .collect();
        let spare = LEAST - LEFT - widths.iter().sum::<f64>();
        if spare > 0.0 {
            let each = spare / widths.len().max(1) as f64;
            for width in &mut widths {
                *width += each;
            }
        }
        let mut x = LEFT;
        let columns: Vec<f64> = widths
            .iter()
            .map(|width| {
                x += width;
                x - width / 2.0
            })
            .collect();
        let width = x + 8.0;
        let mut places = BTreeMap::new();
        let mut rows = Vec::new();
        let top = logits(page, &columns, width, &mut places);
        rows.push(("logits".to_owned(), (top - 6.0) / 2.0 + 3.0));
        let mut y = top + 12.0;
        for layer in (0..page.layers).rev() {
            let of = cells.iter().filter(|((at, _), _)| *at == layer);
            let deep = of.map(|(_, cell)| cell.len().div_ceil(ABREAST)).max();
            let height = deep.unwrap_or(0).max(1) as f64 * STEP + 30.0;
            let middle = y + height / 2.0;
            rows.push((format!("layer {layer}"), middle));
            let here = cells.iter().filter(|((at, _), _)| *at == layer);
            for ((_, position), cell) in here {
                let lines = cell.len().div_ceil(ABREAST);
                for (at, node) in cell.iter().enumerate() {
                    let (row, column) = (at / ABREAST, at % ABREAST);
                    let in_row = (cell.len() - row * ABREAST).min(ABREAST);
                    let dx = (column as f64 - (in_row - 1) as f64 / 2.0) * STEP;
                    let dy = (row as f64 - (lines - 1) as f64 / 2.0) * STEP;
                    places.insert(*node, (columns[*position] + dx, middle + dy));
                }
            }
            y += height;
        }
        let bottom = y + 28.0;
        rows.push(("tokens".to_owned(), bottom));
        let with_positions = page
            .nodes
            .iter()
            .any(|mark| matches!(mark.kind, MarkKind::Position { .. }));
        let beside = if with_positions { 5.5 } else { 0.0 };
        for (at, mark) in page.nodes.iter().enumerate() {
            match mark.kind {
                MarkKind::Token { position } => {
                    places.insert(at, (columns[position] - beside, bottom));
                }
                MarkKind::Position { position } => {
                    places.insert(at, (columns[position] + beside, bottom));
                }
                _ => {}
            }
        }
        let letters = page.tokens.iter().map(|token| shortened(token, LETTERS));
        let longest = letters.map(|token| token.chars().count()).max();
        let bottom = bottom + 10.0;
        Self {
            places,
            columns,
            rows,
            inner: inner.len(),
            bottom,
            width,
            height: bottom + 7.5 * longest.unwrap_or(0) as f64 + 40.0,
        }
    }
}

/// Places the logits in rows of boxes; where they end.
fn logits(
    page: &GraphPage,
    columns: &[f64],
    width: f64,
    places: &mut BTreeMap<usize, Point>,
) -> f64 {
    let mut lines: Vec<(Vec<(usize, f64)>, f64)> = Vec::new();
    for (at, mark) in page.nodes.iter().enumerate() {
        if !matches!(mark.kind, MarkKind::Logit { .. }) {
            continue;
        }
        let of = logit_width(mark) + 6.0;
        match lines.last_mut() {
            Some((line, sum)) if *sum + of <= width - LEFT => {
                line.push((at, of));
                *sum += of;
            }
            _ => lines.push((vec![(at, of)], of)),
        }
    }
    let mut y = LOGIT / 2.0 + 6.0;
    for (line, sum) in &lines {
        let middle = line
            .first()
            .map_or(0.0, |(at, _)| match page.nodes[*at].kind {
                MarkKind::Logit { position } => columns.get(position).copied().unwrap_or(width),
                _ => width,
            });
        let mut x = (middle - sum / 2.0).clamp(LEFT, (width - sum).max(LEFT));
        for (at, of) in line {
            places.insert(*at, (x + of / 2.0, y));
            x += of;
        }
        y += LOGIT + 6.0;
    }
    y
}

fn logit_width(mark: &GraphMark) -> f64 {
    7.0 * shortened(&mark.label, LOGIT_LETTERS).chars().count() as f64 + 14.0
}

fn edge_of(page: &GraphPage, layout: &Layout, edge: &GraphLine, widest: f64) -> Markup {
    let (from, to) = (layout.places[&edge.source], layout.places[&edge.target]);
    let middle = f64::midpoint(from.1, to.1);
    let at = |x: f64, y: f64| format!("{},{}", px(x), px(y));
    let d = format!(
        "M{} C{} {} {}",
        at(from.0, from.1),
        at(from.0, middle),
        at(to.0, middle),
        at(to.0, to.1)
    );
    let width = 0.5 + 4.5 * edge.effect.abs() / widest.max(f64::MIN_POSITIVE);
    let (colour, dashes) = if edge.effect < 0.0 {
        (BELOW, DASHES)
    } else {
        (ABOVE, None)
    };
    let hint = format!(
        "{} → {}: {}",
        page.nodes[edge.source].hint,
        page.nodes[edge.target].hint,
        number(edge.effect)
    );
    let shapes = html! {
        (path(&d, Pen::new(colour, width).dashed(dashes)))
        path d=(d) fill="none" stroke-width=(px(width.max(6.0))) pointer-events="stroke" {}
    };
    hinted(&hint, &shapes)
}

fn mark_of(mark: &GraphMark, (x, y): Point, most: f64) -> Markup {
    let size = 3.0
        + 5.5
            * (mark.influence / most.max(f64::MIN_POSITIVE))
                .clamp(0.0, 1.0)
                .sqrt();
    let shapes = match mark.kind {
        MarkKind::Feature { .. } => feature((x, y), size),
        MarkKind::Error { .. } => error((x, y), size),
        MarkKind::Token { .. } => token((x, y)),
        MarkKind::Position { .. } => position((x, y)),
        MarkKind::Logit { .. } => {
            let width = logit_width(mark);
            html! {
                (boxed((x - width / 2.0, y - LOGIT / 2.0), (width, LOGIT), 4.0, Pen::new(INK, 1.0)))
                (text(&shortened(&mark.label, LOGIT_LETTERS), (x, y), 11.0, INK, Middle))
            }
        }
    };
    hinted(&mark.hint, &shapes)
}

fn feature(at: Point, size: f64) -> Markup {
    html! { (disc(at, size + 1.0, ON_HEAT)) (disc(at, size, INK)) }
}

/// A diamond, hollow.
fn error((x, y): Point, size: f64) -> Markup {
    let diamond = |size: f64, colour: Colour| {
        let corners = [(x, y - size), (x + size, y), (x, y + size), (x - size, y)];
        polygon(&corners, colour)
    };
    html! { (diamond(size + 1.5, INK)) (diamond((size - 0.5).max(1.5), ON_HEAT)) }
}

fn token((x, y): Point) -> Markup {
    boxed((x - 4.0, y - 4.0), (8.0, 8.0), 1.0, Pen::new(INK, 1.25))
}

fn position((x, y): Point) -> Markup {
    polygon(
        &[(x - 4.5, y + 4.0), (x + 4.5, y + 4.0), (x, y - 4.5)],
        MUTED,
    )
}

fn legend(y: f64) -> Markup {
    let along = |x: f64, pen: Pen| line(&[(x, y), (x + 22.0, y)], pen);
    let words = |words: &str, x: f64| text(words, (x, y), 11.0, INK, Start);
    html! {
        (feature((14.0, y), 6.0)) (words("feature", 25.0))
        (error((88.0, y), 5.0)) (words("error", 99.0))
        (token((150.0, y))) (words("token", 160.0))
        (position((214.0, y))) (words("position vector", 224.0))
        (along(326.0, Pen::new(ABOVE, 2.5))) (words("adds", 354.0))
        (along(396.0, Pen::new(BELOW, 2.5).dashed(DASHES))) (words("takes away", 424.0))
    }
}
