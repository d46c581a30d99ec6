/// Mean and population standard deviation (divisor n, numpy's default), which the authors report
/// over trials.
///
/// # Panics
/// If there are no values.
///
/// # Examples
/// ```
/// use circuitscope_measures::mean_std;
/// assert_eq!(mean_std(&[1.0, 3.0]), (2.0, 1.0));
/// assert_eq!(mean_std(&[0.5]), (0.5, 0.0));
/// ```
#[must_use]
pub fn mean_std(values: &[f64]) -> (f64, f64) {
    assert!(!values.is_empty(), "mean of no values");
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / n;
    (mean, variance.sqrt())
}
