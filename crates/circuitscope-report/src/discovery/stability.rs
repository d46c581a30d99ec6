//! How often halves of the examples choose each head.

use circuitscope_core::HeadId;
use maud::html;

use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    ABOVE, Drawing, GRID, INK, MARK, MUTED, Pen, cell, disc, hinted, line, slug, text,
};

use super::CircuitPage;
use super::text::percent;

const LEFT: f64 = 64.0;
const RIGHT: f64 = 500.0;
const WIDTH: f64 = 560.0;
const TOP: f64 = 26.0;
const ROW: f64 = 22.0;
/// Heads shown that are not chosen, where halves choose them as often as this.
const OTHERS: usize = 5;
const OFTEN: f64 = 0.5;

/// `None` where nothing was resampled.
pub(super) fn draw(page: &CircuitPage<'_>) -> Option<Drawing> {
    let stability = page.stability.as_ref()?;
    let rows = rows(page);
    if rows.is_empty() {
        return None;
    }
    let chosen = page.chosen();
    let x = |share: f64| LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0);
    let bottom = TOP + ROW * rows.len() as f64;
    let chance = stability.chance.is_finite().then(|| x(stability.chance));
    let shapes = html! {
        @for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
            (line(&[(x(share), TOP), (x(share), bottom)], Pen::new(GRID, 1.0)))
            (text(&percent(share), (x(share), bottom + 13.0), 11.0, MUTED, Middle))
        }
        @for (at, (head, share)) in rows.iter().enumerate() {
            @let y = TOP + ROW * (at as f64 + 0.5);
            @let is_chosen = chosen.contains(head);
            @let hint = format!("{head}: {}{}", percent(*share), page.task.marks_of(*head));
            (text(&head.to_string(), (LEFT - 8.0, y), 11.0, if is_chosen { INK } else { MUTED }, End))
            (hinted(&hint, &html! {
                (cell((LEFT, y - 4.0), (x(*share) - LEFT, 8.0), if is_chosen { ABOVE } else { MUTED }, 0.45))
                (disc((x(*share), y), 4.5, if is_chosen { ABOVE } else { MUTED }))
            }))
            (text(&percent(*share), (RIGHT + 12.0, y), 11.0, INK, Start))
        }
        @if let Some(chance) = chance {
            (line(&[(chance, TOP - 4.0), (chance, bottom)], Pen::new(MARK, 1.75).dashed(Some("5 3"))))
            @let words = format!("chance {}", percent(stability.chance));
            @if chance < f64::midpoint(LEFT, RIGHT) {
                (text(&words, (chance + 4.0, TOP - 12.0), 11.0, INK, Start))
            } @else {
                (text(&words, (chance - 4.0, TOP - 12.0), 11.0, INK, End))
            }
        }
        @let below = format!("share of {} half-samples that choose the head", stability.halves);
        (text(&below, (f64::midpoint(LEFT, RIGHT), bottom + 33.0), 12.0, INK, Middle))
    };
    Some(Drawing {
        file_name: format!("stability-{}.svg", slug(&page.task.task)),
        description: format!(
            "How often {} half-samples of the examples choose each head of the circuit; chance is {}",
            stability.halves,
            percent(stability.chance)
        ),
        role: "img",
        size: (WIDTH, bottom + 46.0),
        shapes,
    })
}

/// Chosen heads, the most stable first, then others that halves often choose.
fn rows(page: &CircuitPage<'_>) -> Vec<(HeadId, f64)> {
    let shared = |head: HeadId| Some((head, page.share(head).filter(|share| share.is_finite())?));
    let chosen = page.chosen();
    let mut rows: Vec<_> = chosen.iter().copied().filter_map(shared).collect();
    let others = page.task.grid.heads().filter(|head| !chosen.contains(head));
    let mut others: Vec<_> = others
        .filter_map(shared)
        .filter(|(_, share)| *share >= OFTEN)
        .collect();
    for list in [&mut rows, &mut others] {
        list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }
    others.truncate(OTHERS);
    rows.extend(others);
    rows
}
