//! Matrix products of a model's sizes, against sums in `f64`.
//!
//! Kernels are chosen by shape, on GPUs by timing them: a device that runs the reference model correctly
//! may still pick a wrong one for a larger model. Sampled entries of products of the sizes that the
//! model has are computed on the host in `f64`.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Seed, draw};
use circuitscope_model::DecoderConfig;

use super::record::Values;
use super::{Check, Conformance, Error};

/// Rows of the left matrix: about as many as a short prompt has tokens.
const ROWS: usize = 24;
/// Entries of each product that are compared.
const ENTRIES: usize = 200;
/// Largest difference allowed, times the root of the number of terms of a sum: entries are uniform
/// in [−1, 1), so that sums are of that size. `f32` in any order of summation stays a factor of ten
/// below; products in TF32 or bf16 exceed it.
pub const PRODUCT_TOLERANCE: f64 = 1e-5;

/// Inner and outer size of each kind of product in the blocks of a model: `[rows, inner] × [inner,
/// outer]`.
#[must_use]
pub fn sizes(config: &DecoderConfig) -> Vec<(usize, usize)> {
    let (d, z) = (config.d_model, config.n_heads * config.d_head);
    let mut sizes = vec![(d, z), (z, d)];
    if let Some(mlp) = &config.mlp {
        sizes.extend([(d, mlp.d_mlp), (mlp.d_mlp, d)]);
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Compares sampled entries of products of these sizes.
///
/// # Errors
/// [`Error::Device`].
pub fn check<B: Backend>(
    device: &B::Device,
    sizes: &[(usize, usize)],
) -> Result<Conformance, Error> {
    let checks = sizes
        .iter()
        .map(|&(inner, outer)| product::<B>(device, inner, outer));
    Ok(Conformance {
        checks: checks.collect::<Result<_, _>>()?,
        near_ties: 0,
    })
}

fn product<B: Backend>(device: &B::Device, inner: usize, outer: usize) -> Result<Check, Error> {
    let seed = Seed::new(0).stream(&format!("conformance/product/{inner}x{outer}"));
    let mut rng = seed.rng();
    let mut uniform = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|_| draw::below(&mut rng, 1 << 24) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    };
    let (left, right) = (uniform(ROWS * inner), uniform(inner * outer));
    let tensor = |data: &[f32], shape: [usize; 2]| {
        Tensor::<B, 2>::from_data(TensorData::new(data.to_vec(), shape), device)
    };
    let whole = tensor(&left, [ROWS, inner]).matmul(tensor(&right, [inner, outer]));
    let whole = Values::new(whole.into_data())?;
    let mut rng = seed.stream("entries").rng();
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    for _ in 0..ENTRIES {
        let (row, column) = (draw::below(&mut rng, ROWS), draw::below(&mut rng, outer));
        let terms = (0..inner)
            .map(|k| f64::from(left[row * inner + k]) * f64::from(right[k * outer + column]));
        expected.push(terms.sum::<f64>() as f32);
        found.push(whole.data[row * outer + column]);
    }
    let values = |data: Vec<f32>| Values {
        shape: vec![ENTRIES],
        data,
    };
    let name = format!("matrix product {ROWS}x{inner} by {inner}x{outer}");
    let tolerance = PRODUCT_TOLERANCE * (inner as f64).sqrt();
    Ok(Check::within(
        &name,
        &values(expected),
        &values(found),
        tolerance,
        |_| 1.0,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    #[test]
    fn products_of_a_cpu_are_right() {
        let config = DecoderConfig::gpt2(2, 4, 64, 32, 500);
        let sizes = sizes(&config);
        assert_eq!(sizes, [(64, 64), (64, 256), (256, 64)]);
        let conformance = check::<Flex>(&FlexDevice, &sizes).unwrap();
        assert!(conformance.passed(), "{:?}", conformance.first_failure());
        // Far inside: the tolerance is not what decides on a correct device.
        let tightest = conformance.tightest().unwrap();
        assert!(
            tightest.difference < 0.2 * tightest.tolerance,
            "{tightest:?}"
        );
    }

    #[test]
    fn products_of_fewer_bits_are_noticed() {
        // As TF32 does: ten bits of the significand are kept.
        let rounded = |x: f32| f32::from_bits(x.to_bits() & !0x1fff);
        let size = 64;
        let mut rng = Seed::new(1).rng();
        let terms: Vec<(f32, f32)> = (0..size)
            .map(|_| {
                let mut one = || draw::below(&mut rng, 1 << 24) as f32 / (1 << 23) as f32 - 1.0;
                (one(), one())
            })
            .collect();
        let exact: f64 = terms
            .iter()
            .map(|&(a, b)| f64::from(a) * f64::from(b))
            .sum();
        let few: f64 = terms
            .iter()
            .map(|&(a, b)| f64::from(rounded(a)) * f64::from(rounded(b)))
            .sum();
        assert!((exact - few).abs() > PRODUCT_TOLERANCE * (size as f64).sqrt());
    }
}
