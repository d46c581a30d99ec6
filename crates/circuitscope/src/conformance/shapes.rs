//! Matrix products of a model's sizes, against sums in `f64`.
//!
//! Kernels are chosen by shape, on GPUs by timing them: a device that runs the reference model correctly
//! may still pick a wrong one for a larger model. So every size of weight that the model multiplies by
//! ([`Decoder::products`](circuitscope_model::Decoder::products)) is tried, with the model's own weights as they lie on
//! the device, and sampled entries are computed on the host in `f64`.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use circuitscope_core::{Seed, draw};
use circuitscope_model::Product;

use super::record::Values;
use super::{Check, Conformance, Error};

/// Rows of the left matrix: about as many as a short prompt has tokens.
const ROWS: usize = 24;
/// Columns of which entries are compared, in every row.
const COLUMNS: usize = 32;
/// Largest difference allowed in f32, relative to what a sum of so many terms of that size comes to: the length of the
/// row times the length of the column, divided by the root of the number of terms. `f32` in any order of summation
/// stays a factor of ten below; products in TF32 or bf16 exceed it.
pub const PRODUCT_TOLERANCE: f64 = 3e-5;

/// Compares sampled entries of products with these weights.
///
/// In half precision a device may round every partial sum, so that there the tolerance is the precision's unit times the
/// root of the number of terms.
///
/// # Errors
/// [`Error::Device`].
pub fn check<B: Backend>(
    device: &B::Device,
    products: &[Product<B>],
) -> Result<Conformance, Error> {
    let checks = products.iter().map(|product| check_one(device, product));
    Ok(Conformance {
        checks: checks.collect::<Result<_, _>>()?,
        near_ties: 0,
    })
}

fn check_one<B: Backend>(device: &B::Device, product: &Product<B>) -> Result<Check, Error> {
    let weight = &product.weight;
    let [inner, outer] = weight.dims();
    let dtype = weight.dtype();
    let seed = Seed::new(0).stream(&format!("conformance/product/{inner}x{outer}"));
    let mut rng = seed.rng();
    // Eight bits, so that every precision holds them as they are.
    let left: Vec<f32> = (0..ROWS * inner)
        .map(|_| draw::below(&mut rng, 1 << 8) as f32 / (1 << 7) as f32 - 1.0)
        .collect();
    let mut rng = seed.stream("entries").rng();
    let columns: Vec<i64> = (0..COLUMNS)
        .map(|_| draw::below(&mut rng, outer) as i64)
        .collect();
    let x = TensorData::new(left.clone(), [ROWS, inner]);
    let x = Tensor::<B, 2>::from_data(x, device).cast(dtype);
    let at = Tensor::<B, 1, Int>::from_data(TensorData::new(columns, [COLUMNS]), device);
    let read = |x: Tensor<B, 2>| Values::new(x.select(1, at.clone()).cast(DType::F32).into_data());
    let found = read(x.matmul(weight.clone()))?;
    let right = read(weight.clone())?;

    let (mut expected, mut relative) = (Vec::new(), Vec::new());
    for (at, &found) in found.data.iter().enumerate() {
        let row = &left[at / COLUMNS * inner..][..inner];
        let column = right.data.iter().skip(at % COLUMNS).step_by(COLUMNS);
        let terms = row.iter().zip(column.clone());
        let sum: f64 = terms.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
        let size = length(row.iter()) * length(column) / (inner as f64).sqrt();
        // A column of zeros gives zeros.
        let size = size.max(f64::from(f32::MIN_POSITIVE));
        expected.push((sum / size) as f32);
        relative.push((f64::from(found) / size) as f32);
    }
    let values = |data: Vec<f32>| Values {
        shape: vec![ROWS, COLUMNS],
        data,
    };
    let name = format!(
        "matrix product {ROWS}x{inner} by {inner}x{outer} ({})",
        product.name
    );
    let unit = match dtype {
        DType::F16 => Some(2f64.powi(-11)),
        DType::BF16 => Some(2f64.powi(-8)),
        _ => None,
    };
    let tolerance = unit.map_or(PRODUCT_TOLERANCE, |unit| unit * (inner as f64).sqrt());
    Ok(Check::within(
        &name,
        &values(expected),
        &values(relative),
        tolerance,
        |_| 1.0,
    ))
}

fn length<'v>(values: impl Iterator<Item = &'v f32>) -> f64 {
    values.map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Module as _;
    use burn_flex::{Flex, FlexDevice};
    use circuitscope_model::{Decoder, DecoderConfig};

    fn model(config: &DecoderConfig) -> Decoder<Flex> {
        config.init(Seed::new(0), &FlexDevice)
    }

    fn sizes(config: &DecoderConfig) -> Vec<[usize; 2]> {
        let products = model(config).products();
        products.iter().map(|of| of.weight.dims()).collect()
    }

    #[test]
    fn all_that_a_model_multiplies_by_is_checked() {
        let config = DecoderConfig::gpt2(2, 4, 64, 32, 500);
        // Queries, keys and values are one product, and the unembedding is one.
        let expected = [[64, 3 * 64], [64, 64], [64, 256], [256, 64], [64, 500]];
        assert_eq!(sizes(&config), expected);
        // Fewer heads for keys and values, and an MLP with a gate of another width.
        let mlp = config.mlp.map(|mlp| mlp.with_d_mlp(96).with_gated(true));
        let grouped = config.with_n_key_value_heads(2).with_mlp(mlp);
        let expected = [[64, 2 * 64], [64, 64], [64, 96], [96, 64], [64, 500]];
        assert_eq!(sizes(&grouped), expected);
        let names: Vec<_> = model(&grouped)
            .products()
            .into_iter()
            .map(|of| of.name)
            .collect();
        assert_eq!(names[0], "blocks.0.w_qkv");
        assert_eq!(names[4], "w_u");
    }

    #[test]
    fn products_of_a_cpu_are_right() {
        let model = model(&DecoderConfig::gpt2(2, 4, 64, 32, 500));
        let products = model.products();
        let conformance = check(&FlexDevice, &products).unwrap();
        assert!(conformance.passed(), "{:?}", conformance.first_failure());
        // Far inside: the tolerance is not what decides on a correct device.
        let tightest = conformance.tightest().unwrap();
        assert!(
            tightest.difference < 0.2 * tightest.tolerance,
            "{tightest:?}"
        );
        for dtype in [DType::F16, DType::BF16] {
            let halves = model.clone().no_grad().products().into_iter();
            let halves = halves.map(|of| Product {
                weight: of.weight.cast(dtype),
                ..of
            });
            let conformance = check(&FlexDevice, &halves.collect::<Vec<_>>()).unwrap();
            assert!(conformance.passed(), "{:?}", conformance.first_failure());
        }
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
        // Entries in [−1, 1): a length of √(n / 3) each.
        let unit = (size as f64).sqrt() / 3.0;
        assert!((exact - few).abs() > PRODUCT_TOLERANCE * unit);
    }
}
