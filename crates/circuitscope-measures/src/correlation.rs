//! How alike two orders are.

/// The rank of each value, 1 for the highest; equal values share the mean of their ranks. NaN comes first.
///
/// ```
/// use circuitscope_measures::average_ranks;
/// assert_eq!(average_ranks(&[0.5, 9.0, 0.5, 7.0]), [3.5, 1.0, 3.5, 2.0]);
/// ```
#[must_use]
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Zeros of both signs are equal.
    order.sort_by(|&a, &b| (values[b] + 0.0).total_cmp(&(values[a] + 0.0)));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let alike = |at: usize| values[order[at]] == values[order[from]];
        let to = (from + 1..order.len())
            .find(|&at| !alike(at))
            .unwrap_or(order.len());
        for &at in &order[from..to] {
            ranks[at] = (from + 1 + to) as f64 / 2.0;
        }
        from = to;
    }
    ranks
}

/// Spearman's ρ: Pearson's r of the [`average_ranks`] of both, from −1 for opposite orders to 1 for the same order.
/// Absent where all values of one are equal, or there are none: there is no order then.
///
/// # Panics
/// Unless there are as many values in both.
///
/// ```
/// use circuitscope_measures::spearman;
/// assert_eq!(spearman(&[1.0, 2.0, 30.0], &[-1.0, 0.0, 0.5]), Some(1.0));
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[7.0, 7.0, 7.0]), None);
/// ```
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "as many values in both");
    pearson(&average_ranks(a), &average_ranks(b))
}

/// Pearson's r, from −1 to 1. Absent where all values of one are equal, or there are none.
///
/// # Panics
/// Unless there are as many values in both.
///
/// ```
/// use circuitscope_measures::pearson;
/// assert_eq!(pearson(&[1.0, 2.0, 3.0], &[-2.0, -4.0, -6.0]), Some(-1.0));
/// assert_eq!(pearson(&[1.0, 2.0], &[7.0, 7.0]), None);
/// ```
#[must_use]
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "as many values in both");
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect()
    };
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = product(&a, &a) * product(&b, &b);
    (spread > 0.0).then(|| product(&a, &b) / spread.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: `1 − 6 Σ d² / (n (n² − 1))` without ties; with ties Pearson's r of 1.5, 1.5, 3 and 3, 2, 1 reversed.
    #[test]
    fn by_hand() {
        let close = |a: &[f64], b: &[f64], expected: f64| {
            let found = spearman(a, b).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        };
        close(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 3.0, 4.0], 0.8);
        close(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0], -1.0);
        close(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0], 0.75f64.sqrt());
        assert_eq!(spearman(&[], &[]), None);
        assert_eq!(spearman(&[1.0], &[2.0]), None);
    }

    #[test]
    fn zeros_of_both_signs_tie() {
        assert_eq!(average_ranks(&[0.0, -0.0, 1.0]), [2.5, 2.5, 1.0]);
        assert!(average_ranks(&[]).is_empty());
        assert_eq!(average_ranks(&[f64::NAN, f64::NAN]).len(), 2);
    }
}
