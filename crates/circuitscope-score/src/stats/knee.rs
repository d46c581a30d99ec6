use serde::{Deserialize, Serialize};

use super::interval::require_finite;
use crate::{Error, Result};

/// On which side of the chord between its ends a curve bulges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bend {
    /// Above: gains shrink, as faithfulness over circuit size; or losses grow.
    Above,
    /// Below: losses shrink, as KL over number of edges or sorted scores over rank; or gains grow.
    Below,
}

/// The point of a curve that is farthest from its chord.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Knee {
    /// Index of the point.
    pub at: usize,
    /// Its x.
    pub x: f64,
    /// Its y.
    pub y: f64,
    /// How far it is above (or below) the chord, both axes scaled to [0, 1]; measured along y. At
    /// most 1.
    pub distance: f64,
}

/// Below this distance from its chord a curve counts as straight: rounding alone makes less.
const STRAIGHT: f64 = 1e-9;

/// The knee of a curve: the point farthest above or below the straight line between the curve's ends,
/// after x and y are each scaled from their smallest and largest value to [0, 1]. `None` if no point
/// is on that side of the line, or all y are equal.
///
/// This is Kneedle (Satopaa et al. 2011, "Finding a 'Kneedle' in a haystack", ICDCSW) without smoothing
/// and without sensitivity: of its local maxima the greatest one. It measures along y; the distance at a
/// right angle to the chord has its maximum at the same point. Of equally far points the one of least
/// x is the knee.
///
/// What is scaled matters: for circuit sizes that grow by factors, pass the logarithm of the size as x.
///
/// # Shapes
/// - `x`, `y`: `[points]`, x strictly increasing
///
/// # Errors
/// [`Error::TooFew`] for fewer than 3 points; [`Error::Length`]; [`Error::Value`] for a number that is
/// not finite or an x that is not above the one before it.
///
/// # Examples
/// ```
/// use circuitscope_score::stats::{Bend, knee};
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// // Faithfulness of circuits of 0 to 5 heads: nothing is gained after the third.
/// let sizes = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
/// let knee = knee(&sizes, &[0.0, 0.3, 0.6, 0.9, 0.95, 1.0], Bend::Above)?.unwrap();
/// assert_eq!(knee.x, 3.0);
/// assert!((knee.distance - 0.3).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
pub fn knee(x: &[f64], y: &[f64], bend: Bend) -> Result<Option<Knee>> {
    if x.len() < 3 {
        return Err(Error::TooFew {
            what: "points of a curve",
            found: x.len(),
            expected: 3,
        });
    }
    if y.len() != x.len() {
        return Err(Error::Length {
            what: "y of a curve",
            found: y.len(),
            expected: x.len(),
        });
    }
    require_finite("x of a curve", x)?;
    require_finite("y of a curve", y)?;
    if let Some(step) = x.windows(2).find(|step| step[1] <= step[0]) {
        return Err(Error::Value {
            what: "x of a curve",
            found: step[1],
            expected: "more than the x before it",
        });
    }
    let last = x.len() - 1;
    let low = y.iter().copied().fold(f64::INFINITY, f64::min);
    let span = y.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
    if span == 0.0 {
        return Ok(None);
    }
    let sign = match bend {
        Bend::Above => 1.0,
        Bend::Below => -1.0,
    };
    let mut best: Option<Knee> = None;
    for at in 1..last {
        let share = (x[at] - x[0]) / (x[last] - x[0]);
        let chord = y[0] + share * (y[last] - y[0]);
        let distance = sign * (y[at] - chord) / span;
        if distance > best.map_or(STRAIGHT, |best| best.distance) {
            best = Some(Knee {
                at,
                x: x[at],
                y: y[at],
                distance,
            });
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(x: &[f64], y: &[f64], bend: Bend) -> Option<usize> {
        knee(x, y, bend).unwrap().map(|knee| knee.at)
    }

    /// y = √x leaves its chord most at x = ¼, by ¼; y = x² falls below it most at ½, by ¼.
    #[test]
    fn closed_forms() {
        let x: Vec<f64> = (0..=100).map(|i| f64::from(i) / 100.0).collect();
        let root: Vec<f64> = x.iter().map(|x| x.sqrt()).collect();
        let found = knee(&x, &root, Bend::Above).unwrap().unwrap();
        assert_eq!((found.x, found.y, found.distance), (0.25, 0.5, 0.25));
        assert_eq!(at(&x, &root, Bend::Below), None);
        let square: Vec<f64> = x.iter().map(|x| x * x).collect();
        assert_eq!(at(&x, &square, Bend::Below), Some(50));
        // 1 − √x is the same curve upside down.
        let fall: Vec<f64> = x.iter().map(|x| 1.0 - x.sqrt()).collect();
        assert_eq!(at(&x, &fall, Bend::Below), Some(25));
    }

    #[test]
    fn straight_and_flat_curves_have_none() {
        let x = [0.0, 0.1, 0.7, 3.0];
        for bend in [Bend::Above, Bend::Below] {
            assert_eq!(at(&x, &x.map(|x| 1.0 - 0.3 * x), bend), None);
            assert_eq!(at(&x, &[2.0; 4], bend), None);
        }
    }

    /// A curve that rises above 1 and returns: the top is the knee, and the scale is that of all y.
    #[test]
    fn curves_may_overshoot() {
        let found = knee(&[0.0, 1.0, 2.0], &[0.0, 4.0, 2.0], Bend::Above)
            .unwrap()
            .unwrap();
        assert_eq!((found.at, found.distance), (1, 0.75));
    }

    #[test]
    fn refuses_what_is_no_curve() {
        let error = |x: &[f64], y: &[f64]| knee(x, y, Bend::Above).unwrap_err();
        assert!(matches!(
            error(&[0.0, 1.0], &[0.0, 1.0]),
            Error::TooFew { .. }
        ));
        assert!(matches!(
            error(&[0.0, 1.0, 2.0], &[0.0]),
            Error::Length { .. }
        ));
        assert!(matches!(
            error(&[0.0, 1.0, 1.0], &[0.0; 3]),
            Error::Value { found: 1.0, .. }
        ));
        assert!(matches!(
            error(&[0.0, 1.0, f64::NAN], &[0.0; 3]),
            Error::Value { .. }
        ));
    }

    proptest! {
        #[test]
        fn scale_and_shift_do_not_matter(
            y in prop::collection::vec(-8i32..8, 3..20), a in 1u8..4, b in -3i32..3,
        ) {
            let y: Vec<f64> = y.into_iter().map(f64::from).collect();
            let x: Vec<f64> = (0..y.len()).map(|at| at as f64).collect();
            // Powers of two, so that distances stay equal to the bit.
            let scale = 2.0f64.powi(i32::from(a));
            let x2: Vec<f64> = x.iter().map(|x| x * scale).collect();
            let y2: Vec<f64> = y.iter().map(|y| y * scale + scale * f64::from(b)).collect();
            for bend in [Bend::Above, Bend::Below] {
                let (one, other) = (knee(&x, &y, bend).unwrap(), knee(&x2, &y2, bend).unwrap());
                prop_assert_eq!(one.is_some(), other.is_some());
                if let (Some(one), Some(other)) = (one, other) {
                    prop_assert!((one.distance - other.distance).abs() < 1e-12);
                }
            }
        }
    }
}
