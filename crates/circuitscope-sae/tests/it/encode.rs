//! Codes against a plain loop.

use burn::tensor::Tensor;
use circuitscope_core::Seed;
use circuitscope_sae::{EncodeConfig, Encoder as _, Error, INACTIVE, SaeConfig, SparseAutoencoder};
use proptest::prelude::*;

use crate::{B, device, matrix, uniform, values};

/// `W_enc [d_in, d_sae]`, `b_enc [d_sae]`, `b_dec [d_in]`, row by row.
struct Plain {
    d_in: usize,
    d_sae: usize,
    w_enc: Vec<f32>,
    b_enc: Vec<f32>,
    b_dec: Vec<f32>,
}

impl Plain {
    fn of(sae: &SparseAutoencoder<B>) -> Self {
        Self {
            d_in: sae.d_in(),
            d_sae: sae.d_sae(),
            w_enc: values(&sae.w_enc),
            b_enc: values(&sae.b_enc),
            b_dec: values(&sae.b_dec),
        }
    }

    fn sae(&self) -> SparseAutoencoder<B> {
        SparseAutoencoder {
            w_enc: matrix(&self.w_enc, self.d_in, self.d_sae),
            w_dec: Tensor::zeros([self.d_sae, self.d_in], &device()),
            b_enc: Tensor::from_floats(&self.b_enc[..], &device()),
            b_dec: Tensor::from_floats(&self.b_dec[..], &device()),
        }
    }

    fn features(&self, x: &[f32]) -> Vec<f32> {
        (0..self.d_sae)
            .map(|j| {
                let mut sum = 0.0f32;
                for (i, x) in x.iter().enumerate() {
                    sum += (x - self.b_dec[i]) * self.w_enc[i * self.d_sae + j];
                }
                (sum + self.b_enc[j]).max(0.0)
            })
            .collect()
    }

    fn code(&self, x: &[f32]) -> i32 {
        let mut code = INACTIVE;
        let mut largest = 0.0;
        for (j, f) in self.features(x).into_iter().enumerate() {
            if f > largest {
                (code, largest) = (j as i32, f);
            }
        }
        code
    }

    fn codes(&self, x: &[f32]) -> Vec<i32> {
        x.chunks_exact(self.d_in).map(|x| self.code(x)).collect()
    }

    /// Relative distance of the two largest features.
    fn margin(&self, x: &[f32]) -> f32 {
        let mut f = self.features(x);
        f.sort_by(|a, b| b.total_cmp(a));
        (f[0] - f[1]) / f[0]
    }
}

#[test]
fn codes_of_the_paper_s_size_equal_a_plain_loop() {
    let (rows, d_in) = (288, 768);
    let sae = SaeConfig::new(d_in)
        .init::<B>(Seed::new(1), &device())
        .unwrap();
    let plain = Plain::of(&sae);
    let x = uniform(2, rows, d_in);
    // Sums of 768 products in another order differ by some 1e-6; no row of this data is that close
    // to a tie, so that equality is required of all of them.
    let least = x
        .chunks_exact(d_in)
        .map(|x| plain.margin(x))
        .fold(f32::INFINITY, f32::min);
    assert!(least > 1e-5, "{least}");
    let codes = sae.codes(matrix(&x, rows, d_in)).unwrap();
    assert_eq!(codes, plain.codes(&x));
    let mut distinct = codes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 50, "a test of few codes shows little");
}

#[test]
fn features_equal_a_plain_loop() {
    let sae = SaeConfig::new(30)
        .with_d_sae(17)
        .init::<B>(Seed::new(5), &device())
        .unwrap();
    let plain = Plain::of(&sae);
    let x = uniform(6, 9, 30);
    let found = values(&sae.encode(matrix(&x, 9, 30)));
    let expected: Vec<f32> = x.chunks_exact(30).flat_map(|x| plain.features(x)).collect();
    // Sums of 30 products of size below 1, in two orders.
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 2e-6, "{found} {expected}");
    }
}

#[test]
fn reconstruction_by_hand() {
    let sae = SparseAutoencoder::<B> {
        w_enc: Tensor::from_floats([[1.0, -1.0], [2.0, 0.5]], &device()),
        w_dec: Tensor::from_floats([[3.0, 0.0], [1.0, 1.0]], &device()),
        b_enc: Tensor::from_floats([0.5, 0.25], &device()),
        b_dec: Tensor::from_floats([1.0, -1.0], &device()),
    };
    // x − b_dec = [1, 3]; pre = [1 + 6 + .5, −1 + 1.5 + .25]
    let features = sae.encode(Tensor::from_floats([[2.0, 2.0]], &device()));
    assert_eq!(values(&features), [7.5, 0.75]);
    assert_eq!(
        values(&sae.decode(features)),
        [22.5 + 0.75 + 1.0, 0.75 - 1.0]
    );
}

#[test]
fn first_of_equal_features_wins_at_every_width() {
    // Backends switch algorithms with the width of a row.
    for d_sae in [1, 2, 3, 16, 17, 64, 200, 1000] {
        for first in [0, d_sae / 2, d_sae - 1] {
            let mut w_enc = vec![0.5; d_sae];
            w_enc[first..].fill(1.0);
            let plain = Plain {
                d_in: 1,
                d_sae,
                w_enc,
                b_enc: vec![0.0; d_sae],
                b_dec: vec![0.0],
            };
            let x = vec![1.0; 70];
            let codes = plain.sae().codes(matrix(&x, 70, 1)).unwrap();
            assert_eq!(codes, vec![first as i32; 70], "{d_sae} {first}");
        }
    }
}

#[test]
fn near_ties_are_counted_within_the_tolerance() {
    // Features are the coordinates themselves.
    let plain = Plain {
        d_in: 2,
        d_sae: 2,
        w_enc: vec![1.0, 0.0, 0.0, 1.0],
        b_enc: vec![0.0; 2],
        b_dec: vec![0.0; 2],
    };
    let x = [
        [4.0, 4.0],   // tie
        [4.0, 3.5],   // one eighth
        [3.0, 4.0],   // one quarter
        [4.0, 0.0],   // far
        [4.0, -4.0],  // only one active
        [-1.0, -1.0], // inactive: a tie of zeros is none
    ];
    let x = matrix(x.as_flattened(), 6, 2);
    let count = |tolerance| {
        let config = EncodeConfig::new()
            .with_near_ties(tolerance)
            .with_tile_rows(4);
        let codes = plain.sae().encode_codes(x.clone(), &config).unwrap();
        assert_eq!(codes.codes, [0, 0, 1, 0, 0, -1]);
        assert_eq!(codes.inactive, 1);
        codes.near_ties.unwrap()
    };
    assert_eq!(count(0.0), 1);
    assert_eq!(count(0.125), 2);
    assert_eq!(count(0.2), 2);
    assert_eq!(count(0.25), 3);
    let config = EncodeConfig::new();
    assert_eq!(
        plain
            .sae()
            .encode_codes(x.clone(), &config)
            .unwrap()
            .near_ties,
        None
    );
}

#[test]
fn no_rows_have_no_codes() {
    let sae = SaeConfig::new(3)
        .with_d_sae(2)
        .init::<B>(Seed::new(0), &device())
        .unwrap();
    assert!(
        sae.codes(Tensor::zeros([0, 3], &device()))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn non_finite_activations_are_an_error() {
    let sae = SaeConfig::new(3)
        .with_d_sae(5)
        .init::<B>(Seed::new(0), &device())
        .unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = uniform(1, 10, 3);
        x[7 * 3 + 1] = bad;
        let config = EncodeConfig::new().with_tile_rows(4);
        let error = sae.encode_codes(matrix(&x, 10, 3), &config).unwrap_err();
        assert!(
            matches!(&error, Error::NonFinite { rows } if *rows == (4..8)),
            "{error}"
        );
    }
}

#[test]
fn wrong_width_and_settings_are_named() {
    let sae = SaeConfig::new(3)
        .with_d_sae(5)
        .init::<B>(Seed::new(0), &device())
        .unwrap();
    let x = matrix(&uniform(1, 2, 4), 2, 4);
    assert_eq!(
        sae.codes(x).unwrap_err().to_string(),
        "the activations have width 4, the dictionary takes d_in = 3"
    );
    let x = matrix(&uniform(1, 2, 3), 2, 3);
    let error = |config: EncodeConfig| sae.encode_codes(x.clone(), &config).unwrap_err();
    assert_eq!(
        error(EncodeConfig::new().with_tile_rows(0)).to_string(),
        "tile_rows is 0: expected at least 1"
    );
    assert_eq!(
        error(EncodeConfig::new().with_near_ties(1.0)).to_string(),
        "near_tie_tolerance is 1: expected a number in [0, 1)"
    );
}

prop_compose! {
    /// Small integers: all sums are exact in f32, so that ties are real ties.
    fn integers(count: usize)(values in prop::collection::vec(-2i8..=2, count)) -> Vec<f32> {
        values.into_iter().map(f32::from).collect()
    }
}

prop_compose! {
    fn problem()(d_in in 1usize..6, d_sae in 1usize..24, rows in 1usize..30)
        (
            w_enc in integers(d_in * d_sae),
            b_enc in integers(d_sae),
            b_dec in integers(d_in),
            x in integers(rows * d_in),
            d_in in Just(d_in),
            d_sae in Just(d_sae),
            rows in Just(rows),
        ) -> (Plain, Vec<f32>, usize) {
        (Plain { d_in, d_sae, w_enc, b_enc, b_dec }, x, rows)
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain")
            .field("w_enc", &self.w_enc)
            .field("b_enc", &self.b_enc)
            .field("b_dec", &self.b_dec)
            .finish_non_exhaustive()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn codes_equal_the_plain_loop_with_ties((plain, x, rows) in problem(), tile_rows in 1usize..40) {
        let config = EncodeConfig::new().with_tile_rows(tile_rows);
        let found = plain.sae().encode_codes(matrix(&x, rows, plain.d_in), &config).unwrap();
        let expected = plain.codes(&x);
        prop_assert_eq!(found.inactive, expected.iter().filter(|c| **c == INACTIVE).count());
        prop_assert_eq!(found.codes, expected);
    }

    #[test]
    fn exact_ties_are_counted((plain, x, rows) in problem(), tile_rows in 1usize..40) {
        let config = EncodeConfig::new().with_near_ties(0.0).with_tile_rows(tile_rows);
        let found = plain.sae().encode_codes(matrix(&x, rows, plain.d_in), &config).unwrap();
        let ties = x.chunks_exact(plain.d_in).filter(|x| {
            let f = plain.features(x);
            let largest = f.iter().copied().fold(0.0, f32::max);
            largest > 0.0 && f.iter().filter(|f| **f == largest).count() > 1
        });
        prop_assert_eq!(found.near_ties, Some(ties.count()));
    }

    /// The code of a row does not depend on the other rows.
    #[test]
    fn tiles_do_not_change_codes(seed in 0u64..1000, tile_rows in 1usize..50) {
        let sae = SaeConfig::new(24).with_d_sae(40).init::<B>(Seed::new(seed), &device()).unwrap();
        let x = matrix(&uniform(seed + 1, 47, 24), 47, 24);
        let whole = sae.codes(x.clone()).unwrap();
        let config = EncodeConfig::new().with_tile_rows(tile_rows);
        prop_assert_eq!(sae.encode_codes(x, &config).unwrap().codes, whole);
    }
}
