use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Sizes at which MIB measures circuits, as shares of all members (arXiv 2504.13151, §3.2).
pub const MIB_SIZES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// How many of `members` a share is: rounded down, as MIB does.
///
/// ```
/// use circuitscope_measures::{MIB_SIZES, circuit_size};
/// assert_eq!(MIB_SIZES.map(|share| circuit_size(share, 32)), [0, 0, 0, 0, 0, 1, 3, 6, 16, 32]);
/// ```
#[must_use]
pub fn circuit_size(share: f64, members: usize) -> usize {
    // 0.1 · 10 is a little less than 1 in binary for some shares.
    (share * members as f64 + 1e-9).floor() as usize
}

/// Order in which members enter a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// From the highest score to the lowest: members that work against the behaviour come last. What
    /// CPR is measured on.
    Signed,
    /// From the largest score of either sign to the smallest. What CMD is measured on.
    Absolute,
}

impl Order {
    /// Indices of scores in this order; equal scores in index order.
    #[must_use]
    pub fn ranking(self, scores: &[f64]) -> Vec<usize> {
        let key = |at: usize| match self {
            Self::Signed => scores[at],
            Self::Absolute => scores[at].abs(),
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
        order
    }
}

/// What a metric falls to, and from where: shares of the fall say what a circuit keeps.
///
/// Two such shares have names of their own, for what is ablated is not the same:
///
/// | name | `empty` | where |
/// |---|---|---|
/// | *faithfulness* | everything ablated, MLPs and the input included (arXiv 2504.13151, eq. 1) | [`Faithfulness`](crate::Faithfulness), CPR, CMD |
/// | *head share* | all heads ablated, MLPs and the input kept | a circuit that was chosen, the curve of the knee |
///
/// ```
/// use circuitscope_measures::Baseline;
///
/// let baseline = Baseline { full: 4.5, empty: 0.5 };
/// assert_eq!(baseline.share(2.5)?, 0.5);
/// assert_eq!(baseline.fall(), 4.0);
/// assert!(Baseline { full: 2.0, empty: 2.0 }.share(1.0).is_err());
/// # Ok::<(), circuitscope_measures::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// `m(M)`: the metric of the whole model.
    pub full: f64,
    /// `m(∅)`: the metric with everything ablated, or with all heads.
    pub empty: f64,
}

impl Baseline {
    /// What ablating takes from the metric; below 0 where it raises it.
    #[must_use]
    pub fn fall(self) -> f64 {
        self.full - self.empty
    }

    /// `(m(C) − m(∅)) / (m(M) − m(∅))`: the share of the fall that a circuit keeps. May lie outside 0 to 1.
    ///
    /// # Errors
    /// [`Error::NoEffect`] where ablating changes nothing.
    pub fn share(self, kept: f64) -> Result<f64> {
        let (Self { full, empty }, fall) = (self, self.fall());
        if fall == 0.0 || !fall.is_finite() {
            return Err(Error::NoEffect { full, empty });
        }
        Ok((kept - empty) / fall)
    }
}

/// Integrated circuit performance ratio, CPR: the area under faithfulness over circuit size, by the
/// trapezoid rule between the sizes given, without a point at 0 and without clipping (arXiv
/// 2504.13151, eq. 2). Higher is better; overshooting is rewarded.
///
/// `points` are (share of members, faithfulness) in order of size.
///
/// ```
/// use circuitscope_measures::{cmd, cpr};
/// let points = [(0.5, 0.0), (1.0, 1.0)];
/// assert_eq!((cpr(&points), cmd(&points)), (0.25, 0.25));
/// // Twice the model's own performance: counted for CPR, against CMD.
/// let points = [(0.0, 2.0), (1.0, 2.0)];
/// assert_eq!((cpr(&points), cmd(&points)), (2.0, 1.0));
/// ```
#[must_use]
pub fn cpr(points: &[(f64, f64)]) -> f64 {
    area(points, |faithfulness| faithfulness)
}

/// Integrated circuit-model distance, CMD: the same area of `|1 − f|`. Lower is better.
#[must_use]
pub fn cmd(points: &[(f64, f64)]) -> f64 {
    area(points, |faithfulness| (1.0 - faithfulness).abs())
}

/// The area under accuracy over the logarithm of the share of members, by the trapezoid rule, divided by its length: the
/// mean accuracy over sizes where each factor counts alike, as in MIB's evaluation. 1 is the best; `None` for fewer
/// than two sizes.
///
/// `points` are (share of members, accuracy) in order of size.
///
/// ```
/// use circuitscope_measures::accuracy_area;
/// // Right on all pairs from a tenth of the members on, on half of them at a hundredth.
/// let area = accuracy_area(&[(0.01, 0.5), (0.1, 1.0), (1.0, 1.0)]).unwrap();
/// assert!((area - (0.75 + 1.0) / 2.0).abs() < 1e-12);
/// assert_eq!(accuracy_area(&[(1.0, 1.0)]), None);
/// ```
#[must_use]
pub fn accuracy_area(points: &[(f64, f64)]) -> Option<f64> {
    let (first, last) = (points.first()?.0.ln(), points.last()?.0.ln());
    let logarithms = points
        .iter()
        .map(|(share, accuracy)| (share.ln(), *accuracy));
    let logarithms: Vec<(f64, f64)> = logarithms.collect();
    (last > first).then(|| (area(&logarithms, |accuracy| accuracy) / (last - first)).min(1.0))
}

fn area(points: &[(f64, f64)], height: impl Fn(f64) -> f64) -> f64 {
    let strips = points.windows(2);
    strips
        .map(|pair| (pair[1].0 - pair[0].0) * (height(pair[0].1) + height(pair[1].1)) / 2.0)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_lines() {
        // f = x at MIB's sizes: ∫ x from .001 to 1, and ∫ (1 − x).
        let line = MIB_SIZES.map(|x| (x, x));
        let (low, high) = (0.001f64, 1.0f64);
        assert!((cpr(&line) - (high * high - low * low) / 2.0).abs() < 1e-12);
        assert!((cmd(&line) - (1.0 - low).powi(2) / 2.0).abs() < 1e-12);
        let perfect = MIB_SIZES.map(|x| (x, 1.0));
        assert!((cpr(&perfect) - 0.999).abs() < 1e-12);
        assert_eq!(cmd(&perfect), 0.0);
    }

    #[test]
    fn orders_differ_where_scores_are_negative() {
        let scores = [0.5, -3.0, 0.0, 2.0];
        assert_eq!(Order::Signed.ranking(&scores), [3, 0, 2, 1]);
        assert_eq!(Order::Absolute.ranking(&scores), [1, 3, 0, 2]);
        assert_eq!(Order::Absolute.ranking(&[1.0, -1.0, 1.0]), [0, 1, 2]);
    }

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(circuit_size(0.1, 10), 1);
        assert_eq!(circuit_size(0.001, 32_491), 32);
        assert_eq!(circuit_size(1.0, 7), 7);
        assert_eq!(circuit_size(0.5, 7), 3);
    }
}
