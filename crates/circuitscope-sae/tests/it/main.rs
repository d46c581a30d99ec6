//! Integration tests of `circuitscope-sae`.
#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod architectures;
mod constraint;
mod dictionaries;
mod dispatch;
mod encode;
mod files;
mod golden;
mod golden_rows;
mod many;
mod run;
mod saelens;
mod stream;
mod transcoders;

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::Seed;
use rand::Rng as _;

type B = Flex;
type A = Autodiff<Flex>;

fn device() -> FlexDevice {
    FlexDevice
}

/// `[rows, width]` numbers in [−1, 1), the same for the same seed.
fn uniform(seed: u64, rows: usize, width: usize) -> Vec<f32> {
    let mut rng = Seed::new(seed).rng();
    (0..rows * width)
        .map(|_| (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn matrix(values: &[f32], rows: usize, width: usize) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, width]), &device())
}

fn values<const D: usize>(tensor: &Tensor<B, D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}
