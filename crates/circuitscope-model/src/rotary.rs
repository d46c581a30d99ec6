use core::f32::consts::TAU;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::batch::TokenBatch;
use crate::config::{RopeScaling, Rotary, RotaryPairs};

/// Cosines and sines of the angles of one batch.
pub(crate) struct Rotation<B: Backend> {
    pub(crate) rotary: Rotary,
    /// `[batch or 1, pos, 1, dim / 2]`.
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
}

impl<B: Backend> Rotation<B> {
    pub(crate) fn new(rotary: Rotary, batch: &TokenBatch<B>, device: &B::Device) -> Self {
        let half = rotary.dim / 2;
        let rates = rotary.rates();
        let table = |f: fn(f32) -> f32| {
            let values = (0..batch.pos())
                .flat_map(|position| rates.iter().map(move |rate| f(position as f32 * rate)));
            let values = TensorData::new(values.collect::<Vec<f32>>(), [batch.pos(), half]);
            let table = Tensor::<B, 2>::from_data(values, device);
            if batch.is_even() {
                table.reshape([1, batch.pos(), 1, half])
            } else {
                let ids = batch.position_ids();
                let ids = TensorData::new(ids, [batch.batch() * batch.pos()]);
                let rows = table.select(0, Tensor::<B, 1, Int>::from_data(ids, device));
                rows.reshape([batch.batch(), batch.pos(), 1, half])
            }
        };
        Self {
            rotary,
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    /// Rotates queries or keys, `[batch, pos, head, d_head]`. The angles are kept in f32; half
    /// precision is widened for the product.
    pub(crate) fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let dtype = x.dtype();
        let [rows, pos, heads, d_head] = x.dims();
        let (dim, half) = (self.rotary.dim, self.rotary.dim / 2);
        let rest = (dim < d_head).then(|| x.clone().slice_dim(3, dim..d_head));
        let x = x.slice_dim(3, 0..dim).cast(self.cos.dtype());
        let (a, b) = match self.rotary.pairs {
            RotaryPairs::Halves => (x.clone().slice_dim(3, 0..half), x.slice_dim(3, half..dim)),
            RotaryPairs::Adjacent => {
                let pairs = x.reshape([rows, pos, heads, half, 2]);
                let entry = |at: usize| pairs.clone().slice_dim(4, at..=at).squeeze_dim::<4>(4);
                (entry(0), entry(1))
            }
        };
        let turned = [
            a.clone() * self.cos.clone() - b.clone() * self.sin.clone(),
            b * self.cos.clone() + a * self.sin.clone(),
        ];
        let turned = match self.rotary.pairs {
            RotaryPairs::Halves => Tensor::cat(turned.to_vec(), 3),
            RotaryPairs::Adjacent => {
                Tensor::stack::<5>(turned.to_vec(), 4).reshape([rows, pos, heads, dim])
            }
        };
        let turned = turned.cast(dtype);
        match rest {
            Some(rest) => Tensor::cat(vec![turned, rest], 3),
            None => turned,
        }
    }
}

impl Rotary {
    /// Angle per position of each pair, in radians. Rounded to f32 at every step, as the reference
    /// implementations do: at position 2,000 an exact rate would differ by up to 1e-4 rad.
    fn rates(&self) -> Vec<f32> {
        let pairs = (0..self.dim / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / self.dim as f32;
            1.0 / (self.base as f32).powf(exponent)
        });
        pairs.map(|rate| self.scaling.scaled(rate)).collect()
    }
}

impl RopeScaling {
    fn scaled(&self, rate: f32) -> f32 {
        match *self {
            Self::None => rate,
            Self::Linear { factor } => rate / factor as f32,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original,
            } => {
                let (factor, original) = (factor as f32, original as f32);
                let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
                // Turns in the original context.
                let turns = original * rate / TAU;
                if turns > high {
                    rate
                } else if turns < low {
                    rate / factor
                } else {
                    let fast = (turns - low) / (high - low);
                    (1.0 - fast) * rate / factor + fast * rate
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(scaling: RopeScaling) -> Vec<f32> {
        let rotary = Rotary {
            dim: 6,
            base: 1000.0,
            pairs: RotaryPairs::Halves,
            scaling,
        };
        rotary.rates()
    }

    #[test]
    fn plain_rates_are_powers_of_the_base() {
        for (rate, expected) in rates(RopeScaling::None).into_iter().zip([1.0, 0.1, 0.01]) {
            assert!((rate - expected).abs() < 1e-7, "{rate} {expected}");
        }
    }

    #[test]
    fn linear_divides_every_rate() {
        let scaled = rates(RopeScaling::Linear { factor: 4.0 });
        for (scaled, rate) in scaled.into_iter().zip(rates(RopeScaling::None)) {
            assert_eq!(scaled, rate / 4.0);
        }
    }

    #[test]
    fn llama3_keeps_fast_blends_middling_and_slows_slow_pairs() {
        // Turns of the three pairs in 125.66 positions: 20, 2 and 0.2.
        let scaled = rates(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original: 20.0 * std::f64::consts::TAU,
        });
        // (2 - 1) / (4 - 1) of the middle pair is kept, the rest is divided by 8.
        let middle = 0.1 / 3.0 + 0.1 * 2.0 / 3.0 / 8.0;
        for (rate, expected) in scaled.into_iter().zip([1.0, middle, 0.01 / 8.0]) {
            assert!((rate - expected).abs() < 1e-7, "{rate} {expected}");
        }
    }
}
