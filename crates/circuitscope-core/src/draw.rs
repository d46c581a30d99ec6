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

/// Uniform among `0..n` but for a bias of at most n · 2⁻⁶⁴: Canon's method (the high half of `word · n`, corrected
/// by one more word where its low half leaves room for doubt), as `random_range` of rand 0.10 has it. One or two
/// `u32` of the generator.
///
/// Prompts and training examples of recorded results were drawn by this; [`below`] is for what is new.
///
/// # Panics
/// If `n` is 0, or 2³² or more.
pub fn index(rng: &mut (impl Rng + ?Sized), n: usize) -> usize {
    let words = u32::try_from(n);
    canon(
        rng,
        words.unwrap_or_else(|error| panic!("a number below {n}: {error}")),
    ) as usize
}

/// Uniform among `0..n`.
fn canon(rng: &mut (impl Rng + ?Sized), n: u32) -> u32 {
    assert!(n > 0, "a number below 0");
    let product = |word: u32| u64::from(word) * u64::from(n);
    let first = product(rng.next_u32());
    let (mut high, low) = ((first >> 32) as u32, first as u32);
    if low > n.wrapping_neg() {
        let second = (product(rng.next_u32()) >> 32) as u32;
        high += u32::from(low.checked_add(second).is_none());
    }
    high
}

/// `count` different numbers among `0..n` in random order: by Floyd's method (Bentley, Commun. ACM 30:754, 1987) where
/// it is the faster one, by the first steps of a Fisher-Yates shuffle elsewhere, both over [`index`], as
/// `seq::index::sample` of rand 0.10 does for fewer than 163 numbers.
///
/// Training examples of recorded results were drawn by this; [`choose_first`] is for what is new.
///
/// # Panics
/// If `count` is above `n`, or `n` is 2³² or more.
pub fn sample(rng: &mut (impl Rng + ?Sized), n: usize, count: usize) -> Vec<usize> {
    assert!(count <= n, "{count} of {n} numbers");
    let wide = count as f32;
    if count <= 11 || (count < 163 && n as f32 >= (10.0 + 1.6 * wide) * wide) {
        let mut chosen = Vec::with_capacity(count);
        for last in n - count..n {
            let one = index(rng, last + 1);
            if let Some(at) = chosen.iter().position(|&chosen| chosen == one) {
                chosen[at] = last;
            }
            chosen.push(one);
        }
        return chosen;
    }
    let mut all: Vec<usize> = (0..n).collect();
    for at in 0..count {
        let from = at + index(rng, n - at);
        all.swap(at, from);
    }
    all.truncate(count);
    all
}

/// Puts `items` in random order, each order equally likely but for [`index`]'s bias: Fisher-Yates with several steps out
/// of one word, as `SliceRandom::shuffle` of rand 0.10.
///
/// Folds of recorded results were drawn by this; [`shuffle`] is for what is new.
///
/// # Panics
/// If there are 2³² items or more.
pub fn reorder<T>(rng: &mut (impl Rng + ?Sized), items: &mut [T]) {
    assert!(u32::try_from(items.len()).is_ok(), "{} items", items.len());
    // Uniform below the product of the sizes of the next `steps` steps.
    let (mut word, mut steps) = (0, 1);
    for at in 0..items.len() {
        let size = at as u32 + 1;
        if steps == 0 {
            let mut bound = size;
            steps = 1;
            while let Some(larger) = bound.checked_mul(size + steps) {
                bound = larger;
                steps += 1;
            }
            word = canon(rng, bound);
        }
        steps -= 1;
        let other = if steps == 0 { word } else { word % size };
        word /= size;
        items.swap(at, other as usize);
    }
}

/// Uniform in [low, high), 23 bits used: one `u32` of the generator. As `random_range` of rand 0.10; `high` itself may
/// come by rounding.
pub fn between(rng: &mut (impl Rng + ?Sized), low: f32, high: f32) -> f32 {
    // In [1, 2): the bits of the fraction under the exponent of 1.
    let one_to_two = f32::from_bits(rng.next_u32() >> 9 | 1.0f32.to_bits());
    (one_to_two - 1.0) * (high - low) + low
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

    /// What they were written for: the numbers that recorded results were drawn with.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "compares with them")]
    fn draws_are_those_of_rand_0_10() {
        use rand::RngExt as _;
        use rand::seq::{SliceRandom as _, index as indices};

        for seed in 0..200 {
            let (mut own, mut theirs) = (Seed::new(seed).rng(), Seed::new(seed).rng());
            // Of large ranges many words need a second one.
            for n in [1, 2, 3, 10, 1000, (1 << 31) + 1, u32::MAX as usize] {
                assert_eq!(index(&mut own, n), theirs.random_range(0..n), "below {n}");
            }
            for (n, count) in [
                (20, 0),
                (20, 10),
                (12, 12),
                (500, 10),
                (500, 100),
                (9000, 60),
                (40_000, 162),
                (9000, 400),
            ] {
                let expected = indices::sample(&mut theirs, n, count).into_vec();
                assert_eq!(sample(&mut own, n, count), expected, "{count} of {n}");
            }
            for n in [0, 1, 2, 3, 20, 500] {
                let mut items: Vec<usize> = (0..n).collect();
                let mut expected = items.clone();
                reorder(&mut own, &mut items);
                expected.shuffle(&mut theirs);
                assert_eq!(items, expected);
            }
            let (low, high) = (1e-6, 1.0 - 1e-6);
            assert_eq!(between(&mut own, low, high), theirs.random_range(low..high));
            assert_eq!(unit(&mut own), theirs.random::<f64>());
            assert_eq!(own, theirs);
        }
    }

    /// The same without rand's algorithms, whose next release may have others.
    #[test]
    fn draws_of_recorded_results_are_pinned() {
        let mut rng = Seed::new(7).rng();
        let mut found: Vec<usize> = (0..10).map(|_| index(&mut rng, 1000)).collect();
        found.extend(sample(&mut rng, 500, 10));
        found.extend(sample(&mut rng, 30, 12));
        let mut items: Vec<usize> = (0..12).collect();
        reorder(&mut rng, &mut items);
        found.extend(items);
        found.push(between(&mut rng, 1e-6, 1.0 - 1e-6).to_bits() as usize);
        let expected = [
            140,
            157,
            182,
            167,
            270,
            704,
            36,
            726,
            71,
            601,
            398,
            176,
            119,
            41,
            126,
            421,
            178,
            181,
            246,
            494,
            13,
            6,
            22,
            0,
            18,
            4,
            27,
            12,
            16,
            17,
            14,
            21,
            2,
            6,
            1,
            9,
            4,
            0,
            7,
            5,
            10,
            11,
            3,
            8,
            1_065_027_056,
        ];
        assert_eq!(found, expected);
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
