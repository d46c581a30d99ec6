//! The page of a dictionary's training.

use maud::html;
use serde_json::Value;

use crate::axis::{Axis, Frame};
use crate::page::{document, provenance};
use crate::svg::{ABOVE, Drawing, Pen, Point, frame, hinted, line, slug, theme_css};
use crate::{Picture, Report, number};

const FRAME: Frame = Frame {
    left: 70.0,
    right: 544.0,
    top: 16.0,
    bottom: 220.0,
};
const SIZE: Point = (560.0, 264.0);

/// Most points of a curve: of longer ones the means of runs of steps are drawn.
const POINTS: usize = 400;

/// What the page of a dictionary's training shows.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingPage {
    /// Heading of the page.
    pub title: String,
    /// What came out, in a sentence.
    pub lead: String,
    /// The steps.
    pub steps: Vec<f64>,
    /// Named values, one for each step.
    pub curves: Vec<(String, Vec<f64>)>,
    /// On which share of rows each feature was active.
    pub densities: Vec<f64>,
    /// What made it, shown as it is.
    pub provenance: Value,
}

/// Writes the page of a dictionary's training: learning curves and the histogram of densities.
#[must_use]
pub fn render_training(page: &TrainingPage) -> Report {
    let curves: Vec<Drawing> = page
        .curves
        .iter()
        .map(|(name, values)| curve(name, &page.steps, values))
        .collect();
    let histogram = histogram(&page.densities);
    let never = page
        .densities
        .iter()
        .filter(|density| **density <= 0.0)
        .count();
    let body = html! {
        body {
            main {
                header { h1 { (page.title) } p.lead { (page.lead) } }
                section aria-labelledby="curves" {
                    h2 #curves { "The course of training" }
                    @for (drawing, (name, values)) in curves.iter().zip(&page.curves) {
                        figure {
                            figcaption {
                                (name) ": " (number(values.first().copied().unwrap_or(f64::NAN))) " at step " (number(page.steps.first().copied().unwrap_or(f64::NAN))) ", "
                                (number(values.last().copied().unwrap_or(f64::NAN))) " at the last"
                            }
                            (drawing.inline())
                        }
                    }
                }
                section aria-labelledby="densities" {
                    h2 #densities { "How often features are active" }
                    figure {
                        figcaption {
                            (page.densities.len()) " features by the share of rows on which they were active in the last epoch, "
                            (never) " of them on none"
                        }
                        (histogram.inline())
                    }
                }
                (provenance(&page.provenance))
            }
        }
    };
    let pictures = curves.iter().chain([&histogram]).map(|drawing| Picture {
        file_name: drawing.file_name.clone(),
        svg: drawing.standalone(),
    });
    Report {
        pictures: pictures.collect(),
        html: document(&page.title, &[&theme_css()], &body),
    }
}

fn curve(name: &str, steps: &[f64], values: &[f64]) -> Drawing {
    let run = steps.len().div_ceil(POINTS).max(1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let points: Vec<Point> = steps
        .chunks(run)
        .zip(values.chunks(run))
        .map(|(steps, values)| (mean(steps), mean(values)))
        .filter(|(_, value)| value.is_finite())
        .collect();
    let across = Axis::of(points.iter().map(|point| point.0));
    let up = Axis::of(points.iter().map(|point| point.1).chain([0.0]));
    let placed: Vec<Point> = points
        .iter()
        .map(|(x, y)| (FRAME.x(across, *x), FRAME.y(up, *y)))
        .collect();
    Drawing {
        file_name: format!("training-{}.svg", slug(name)),
        description: format!("{name} by step"),
        role: "img",
        size: SIZE,
        shapes: html! {
            (FRAME.below(&FRAME.ticks(across, 6), "step"))
            (FRAME.beside(up, name))
            (line(&placed, Pen::new(ABOVE, 1.5)))
        },
    }
}

/// Bins of a power of ten.
const BINS: f64 = 4.0;

fn histogram(densities: &[f64]) -> Drawing {
    let logs: Vec<f64> = densities
        .iter()
        .filter(|density| **density > 0.0)
        .map(|density| density.log10())
        .collect();
    let lowest = logs.iter().copied().fold(-1.0, f64::min).floor();
    let bins = (-lowest * BINS).ceil() as usize;
    let mut counts = vec![0usize; bins.max(1)];
    for log in &logs {
        let bin = ((log - lowest) * BINS).floor() as usize;
        counts[bin.min(bins.saturating_sub(1))] += 1;
    }
    let across = Axis::of([lowest, 0.0].into_iter());
    let up = Axis::of(counts.iter().map(|count| *count as f64).chain([0.0]));
    let bar = |(bin, count): (usize, &usize)| {
        let from = lowest + bin as f64 / BINS;
        let (left, right) = (FRAME.x(across, from), FRAME.x(across, from + 1.0 / BINS));
        let (top, foot) = (FRAME.y(up, *count as f64), FRAME.y(up, 0.0));
        let hint = format!(
            "{count} features from {:.1e} to {:.1e}",
            10f64.powf(from),
            10f64.powf(from + 1.0 / BINS)
        );
        hinted(
            &hint,
            &frame(
                (left, top),
                (right - left, foot - top),
                Pen::new(ABOVE, 1.25),
            ),
        )
    };
    let powers: Vec<(f64, String)> = (lowest as i32..=0)
        .map(|power| (FRAME.x(across, f64::from(power)), format!("1e{power}")))
        .collect();
    Drawing {
        file_name: "densities.svg".to_owned(),
        description:
            "Histogram of the shares of rows on which features are active, in powers of ten"
                .to_owned(),
        role: "img",
        size: SIZE,
        shapes: html! {
            (FRAME.below(&powers, "share of rows"))
            (FRAME.beside(up, "features"))
            @for one in counts.iter().enumerate() { (bar(one)) }
        },
    }
}
