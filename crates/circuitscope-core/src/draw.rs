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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

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
        // Half a turn, radius √(2 ln 2).
        let [cos, sin] = normal_pair(&mut Fixed(1 << 63));
        assert_eq!(cos, -(2.0 * core::f64::consts::LN_2).sqrt());
        assert!(sin.abs() < 1e-15);
    }
}
