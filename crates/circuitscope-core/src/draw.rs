//! Random numbers written out, so that no library's choice of a sampling algorithm can change recorded
//! results: the same generator gives the same numbers, bit for bit, in every release of this crate.
//!
//! ```
//! use circuitscope_core::{Seed, draw};
//!
//! let (mut a, mut b) = (Seed::new(1).rng(), Seed::new(1).rng());
//! let x = draw::unit(&mut a);
//! assert!((0.0..1.0).contains(&x));
//! assert_eq!(x, draw::unit(&mut b));
//! let [cos, sin] = draw::normal_pair(&mut a);
//! assert!(cos.is_finite() && sin.is_finite());
//! ```

use rand::Rng;

/// Uniform in [0, 1), all 53 bits used: one `u64` of the generator.
pub fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * 0.5f64.powi(53)
}

/// Two independent standard normal numbers by the Box-Muller transform (Ann. Math. Stat. 29:610,
/// 1958), that of the cosine first: two `u64` of the generator.
pub fn normal_pair(rng: &mut impl Rng) -> [f64; 2] {
    // 1 − u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    let (sin, cos) = (core::f64::consts::TAU * unit(rng)).sin_cos();
    [radius * cos, radius * sin]
}

/// Uniform among `0..n`, without bias: the high half of `word · n`, a word that would favour some
/// results being drawn again (Lemire, ACM Trans. Model. Comput. Simul. 29:3, 2019). One `u64` of the
/// generator, nearly always.
///
/// # Panics
/// If `n` is 0.
pub fn below(rng: &mut impl Rng, n: usize) -> usize {
    assert!(n > 0, "a number below 0");
    let n = n as u64;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        // 2^64 mod n words are too many for n equal shares.
        if product as u64 >= n.wrapping_neg() % n {
            return (product >> 64) as usize;
        }
    }
}

/// Puts `items` in random order, each order equally likely (Fisher-Yates): one [`below`] for each
/// item but the last.
pub fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    choose_first(rng, items, items.len());
}

/// Moves a random sample of `count` items, without replacement and in random order, to the front:
/// the first steps of [`shuffle`], so that a longer sample begins with the shorter one.
///
/// # Panics
/// If there are fewer items.
pub fn choose_first<T>(rng: &mut impl Rng, items: &mut [T], count: usize) {
    assert!(count <= items.len(), "{count} of {} items", items.len());
    for at in 0..count.min(items.len().saturating_sub(1)) {
        items.swap(at, at + below(rng, items.len() - at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    /// Each count is binomial(n, p); bounds are five standard deviations.
    #[track_caller]
    fn assert_even(counts: &[usize]) {
        let n = counts.iter().sum::<usize>() as f64;
        let p = 1.0 / counts.len() as f64;
        for &count in counts {
            let off = (count as f64 - n * p).abs();
            assert!(off <= 5.0 * (n * p * (1.0 - p)).sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn numbers_below_are_even() {
        let mut rng = Seed::new(1).rng();
        for n in [1, 2, 3, 7] {
            let mut counts = vec![0; n];
            (0..20_000).for_each(|_| counts[below(&mut rng, n)] += 1);
            assert_even(&counts);
        }
    }

    #[test]
    fn orders_are_even() {
        let mut rng = Seed::new(2).rng();
        let mut counts = [0; 6];
        for _ in 0..20_000 {
            let mut items = [0, 1, 2];
            shuffle(&mut rng, &mut items);
            let rank = items[0] * 2 + usize::from(items[1] > items[2]);
            counts[rank] += 1;
        }
        assert_even(&counts);
        shuffle::<u8>(&mut rng, &mut []);
    }

    #[test]
    fn samples_are_even() {
        let mut rng = Seed::new(3).rng();
        let mut counts = [0; 10];
        for _ in 0..20_000 {
            let mut items = [0usize, 1, 2, 3, 4];
            choose_first(&mut rng, &mut items, 2);
            let (low, high) = (items[0].min(items[1]), items[0].max(items[1]));
            counts[high * (high - 1) / 2 + low] += 1;
        }
        assert_even(&counts);
    }

    /// Mean 0, variance 1, fourth moment 3; bounds are five standard errors of 200,000 draws
    /// (variances of the estimates: 1/n, 2/n, 96/n).
    #[test]
    fn normals_have_normal_moments() {
        let n = 200_000;
        let mut rng = Seed::new(5).rng();
        let draws: Vec<f64> = (0..n / 2).flat_map(|_| normal_pair(&mut rng)).collect();
        let moment = |power| draws.iter().map(|x| x.powi(power)).sum::<f64>() / n as f64;
        let error = |variance: f64| 5.0 * (variance / n as f64).sqrt();
        assert!(moment(1).abs() < error(1.0), "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < error(2.0), "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < error(96.0), "{}", moment(4));
    }

    /// A change breaks every recorded result.
    #[test]
    fn draws_are_pinned() {
        struct Fixed(u64);
        impl rand::TryRng for Fixed {
            type Error = core::convert::Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                Ok(self.0 as u32)
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                Ok(self.0)
            }
            fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
                unreachable!("draws take whole numbers")
            }
        }
        assert_eq!(unit(&mut Fixed(0)), 0.0);
        assert_eq!(unit(&mut Fixed(u64::MAX)), 1.0 - 0.5f64.powi(53));
        assert_eq!(unit(&mut Fixed(1 << 63)), 0.5);
        assert_eq!(below(&mut Fixed(u64::MAX), 10), 9);
        // One above a half: the word of a half itself is one of those that are drawn again.
        assert_eq!(below(&mut Fixed((1 << 63) + 1), 10), 5);
        // Half a turn, radius √(2 ln 2).
        let [cos, sin] = normal_pair(&mut Fixed(1 << 63));
        assert_eq!(cos, -(2.0 * core::f64::consts::LN_2).sqrt());
        assert!(sin.abs() < 1e-15);
    }
}
