use serde::{Deserialize, Serialize};

/// One point of a ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// False positive rate: the share of false entries that are chosen; 1 − specificity.
    pub fpr: f64,
    /// True positive rate: the share of true entries that are chosen; recall, sensitivity.
    pub tpr: f64,
    /// Entries of at least this score are chosen; +∞ for none.
    pub threshold: f64,
}

impl RocPoint {
    /// `2·tpr·(1−fpr) / (tpr + 1−fpr)`: the harmonic mean of sensitivity and specificity, which the
    /// code of arXiv 2405.12522 prints as F1. It does not look at precision, so it stays high where
    /// false entries are many. 0 where both terms are 0.
    #[must_use]
    pub fn paper_f1(self) -> f64 {
        let specificity = 1.0 - self.fpr;
        let sum = self.tpr + specificity;
        if sum == 0.0 {
            0.0
        } else {
            2.0 * self.tpr * specificity / sum
        }
    }
}

/// Area under a ROC curve through some circuits, as `(fpr, tpr)`, by the trapezoid rule. The empty
/// circuit (0, 0) and the whole model (1, 1) are added.
///
/// For methods that find one circuit for each setting, not a ranking: circuits of different settings
/// need not contain one another, so the points are taken in order of their rates. With a ranking at
/// hand use [`Ranking::auc`](super::Ranking::auc).
#[must_use]
pub fn circuits_auc(circuits: &[(f64, f64)]) -> f64 {
    let points = with_ends(circuits);
    let strips = points.windows(2);
    strips
        .map(|w| (w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0)
        .sum()
}

/// The same by ACDC's rule (arXiv 2304.14997, Table 2): circuits that another one beats in both rates
/// are dropped, and the area is that under the lower staircase, `Σ (1 − fprᵢ₊₁)(tprᵢ₊₁ − tprᵢ)`.
///
/// # Examples
/// ```
/// use circuitscope_measures::{circuits_auc, circuits_auc_pessimistic};
///
/// // One circuit with half of the true entries and none of the false ones; a worse one beside it.
/// let circuits = [(0.0, 0.5), (0.5, 0.25)];
/// assert_eq!(circuits_auc_pessimistic(&circuits), 0.5);
/// assert_eq!(circuits_auc_pessimistic(&circuits[..1]), 0.5);
/// assert_eq!(circuits_auc(&circuits[..1]), 0.75);
/// ```
#[must_use]
pub fn circuits_auc_pessimistic(circuits: &[(f64, f64)]) -> f64 {
    let mut points = with_ends(circuits);
    let all = points.clone();
    let beaten = |point: &(f64, f64)| all.iter().any(|o| o.0 < point.0 && o.1 > point.1);
    points.retain(|point| !beaten(point));
    let steps = points.windows(2);
    steps.map(|w| (1.0 - w[1].0) * (w[1].1 - w[0].1)).sum()
}

/// The points in order of their rates, from (0, 0) to (1, 1).
fn with_ends(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points = [&[(0.0, 0.0)], points, &[(1.0, 1.0)]].concat();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    points
}

/// The mean of several ROC curves, as `(fpr, tpr)` corners: at each false positive rate the mean of
/// their true positive rates (vertical averaging). Vertical stretches of a curve stay vertical, so the
/// area under the mean is the mean of the areas.
///
/// Empty for no curves.
///
/// # Panics
/// If a curve has no points.
///
/// # Examples
/// ```
/// use circuitscope_measures::{Ranking, mean_roc};
///
/// # fn main() -> Result<(), circuitscope_measures::Error> {
/// let best = Ranking::new(&[true, false], &[2.0, 1.0])?.roc();
/// let worst = Ranking::new(&[true, false], &[1.0, 2.0])?.roc();
/// assert_eq!(mean_roc(&[best, worst]), [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn mean_roc(curves: &[Vec<RocPoint>]) -> Vec<(f64, f64)> {
    let mut rates: Vec<f64> = curves.iter().flatten().map(|point| point.fpr).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let mean = |at: &dyn Fn(&[RocPoint]) -> f64| {
        curves.iter().map(|curve| at(curve)).sum::<f64>() / curves.len() as f64
    };
    let mut corners = Vec::with_capacity(2 * rates.len());
    for rate in rates {
        let (low, high) = (
            mean(&|curve| lower(curve, rate)),
            mean(&|curve| upper(curve, rate)),
        );
        corners.push((rate, low));
        if high > low {
            corners.push((rate, high));
        }
    }
    corners
}

/// Height at which a curve arrives at a rate.
fn lower(curve: &[RocPoint], rate: f64) -> f64 {
    let next = curve.partition_point(|point| point.fpr < rate);
    match next.checked_sub(1) {
        Some(last) => between(curve[last], curve[next.min(curve.len() - 1)], rate),
        None => curve[0].tpr,
    }
}

/// Height at which a curve leaves a rate.
fn upper(curve: &[RocPoint], rate: f64) -> f64 {
    let next = curve.partition_point(|point| point.fpr <= rate);
    match curve.get(next) {
        Some(point) => between(curve[next.saturating_sub(1)], *point, rate),
        None => curve[curve.len() - 1].tpr,
    }
}

fn between(from: RocPoint, to: RocPoint, rate: f64) -> f64 {
    if to.fpr <= from.fpr {
        return from.tpr;
    }
    from.tpr + (to.tpr - from.tpr) * (rate - from.fpr) / (to.fpr - from.fpr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ranking;
    use proptest::prelude::*;

    fn rankings() -> impl Strategy<Value = Vec<Ranking>> {
        prop::collection::vec(prop::collection::vec(-4i32..4, 9), 1..5).prop_map(|all| {
            let truth = [true, false, false, true, false, false, false, true, false];
            let scored = |scores: Vec<i32>| scores.into_iter().map(f64::from).collect::<Vec<_>>();
            all.into_iter()
                .map(|scores| Ranking::new(&truth, &scored(scores)).unwrap())
                .collect()
        })
    }

    proptest! {
        #[test]
        fn area_under_the_mean_is_the_mean_area(rankings in rankings()) {
            let curves: Vec<_> = rankings.iter().map(Ranking::roc).collect();
            let mean = mean_roc(&curves);
            let area: f64 =
                mean.windows(2).map(|w| (w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0).sum();
            let expected = rankings.iter().map(Ranking::auc).sum::<f64>() / rankings.len() as f64;
            prop_assert!((area - expected).abs() < 1e-12, "{} against {}", area, expected);
            prop_assert!(mean.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1));
            prop_assert_eq!((mean[0], mean[mean.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
        }

        #[test]
        fn mean_of_equal_curves_is_the_curve(rankings in rankings()) {
            let curve = rankings[0].roc();
            let mean = mean_roc(&[curve.clone(), curve.clone()]);
            for (fpr, tpr) in mean {
                let on_curve = curve.windows(2).any(|w| {
                    (w[0].fpr..=w[1].fpr).contains(&fpr)
                        && (between(w[0], w[1], fpr) - tpr).abs() < 1e-12
                        || fpr == w[1].fpr && (tpr - w[1].tpr).abs() < 1e-12
                });
                prop_assert!(on_curve, "({}, {})", fpr, tpr);
            }
        }
    }

    #[test]
    fn no_curves_have_no_mean() {
        assert!(mean_roc(&[]).is_empty());
    }
}
