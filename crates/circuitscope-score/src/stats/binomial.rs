/// `P(X ≥ k)` for X successes of `n` independent trials of probability `p`, summed exactly.
///
/// The other tail is `P(X ≤ k) = binomial_at_least(n − k, n, 1 − p)`.
///
/// ```
/// use circuitscope_score::stats::binomial_at_least;
///
/// assert_eq!(binomial_at_least(0, 5, 0.3), 1.0);
/// assert!((binomial_at_least(2, 3, 0.5) - 0.5).abs() < 1e-15);
/// // 97 of 100 and more where 90 are expected.
/// assert!((binomial_at_least(97, 100, 0.9) - 0.007_836).abs() < 1e-6);
/// assert_eq!(binomial_at_least(6, 5, 0.3), 0.0);
/// ```
///
/// # Panics
/// Unless `p` lies in 0 to 1.
#[must_use]
pub fn binomial_at_least(k: usize, n: usize, p: f64) -> f64 {
    assert!((0.0..=1.0).contains(&p), "a probability of {p}");
    if k == 0 {
        return 1.0;
    }
    if k > n || p == 0.0 {
        return 0.0;
    }
    if p == 1.0 {
        return 1.0;
    }
    // ln P(X = i), from P(X = 0) on: no term overflows.
    let mut log = n as f64 * (-p).ln_1p();
    let odds = p.ln() - (-p).ln_1p();
    let mut sum = 0.0;
    for i in 1..=n {
        log += ((n + 1 - i) as f64 / i as f64).ln() + odds;
        if i >= k {
            sum += log.exp();
        }
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both tails together are everything.
    #[test]
    fn tails_add_up() {
        for n in [1, 7, 100] {
            for p in [0.02, 0.5, 0.9] {
                for k in 1..=n {
                    let above = binomial_at_least(k, n, p);
                    let below = binomial_at_least(n - (k - 1), n, 1.0 - p);
                    assert!((above + below - 1.0).abs() < 1e-12, "{k} of {n}, {p}");
                }
            }
        }
    }

    /// By hand: P(X ≥ 1) = 1 − (1 − p)ⁿ, P(X ≥ n) = pⁿ.
    #[test]
    fn ends() {
        assert!((binomial_at_least(1, 9, 0.2) - (1.0 - 0.8f64.powi(9))).abs() < 1e-14);
        assert!((binomial_at_least(9, 9, 0.2) - 0.2f64.powi(9)).abs() < 1e-18);
        assert_eq!(binomial_at_least(3, 9, 1.0), 1.0);
        assert_eq!(binomial_at_least(3, 9, 0.0), 0.0);
    }
}
