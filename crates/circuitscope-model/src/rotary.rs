use core::f32::consts::TAU;
use std::sync::OnceLock;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};

use crate::batch::TokenBatch;
use crate::config::{RopeScaling, Rotary, RotaryPairs};

/// Cosines and sines of the angles of one batch.
pub(crate) struct Rotation<B: Backend> {
    pub(crate) rotary: Rotary,
    /// `[batch or 1, pos, dim / 2]`, on the host.
    cosines: Vec<f32>,
    sines: Vec<f32>,
    /// The same as `[batch or 1, pos, 1, dim / 2]`, once queries or keys on a device ask for them.
    tables: OnceLock<[Tensor<B, 4>; 2]>,
    shape: [usize; 4],
}

impl<B: Backend> Rotation<B> {
    /// At every position of the batch.
    pub(crate) fn new(rotary: Rotary, batch: &TokenBatch<B>) -> Self {
        if batch.is_even() {
            let ids: Vec<usize> = (batch.offset..batch.span()).collect();
            Self::at(rotary, &ids, 1)
        } else {
            let ids = batch.position_ids().into_iter().map(|id| id as usize);
            Self::at(rotary, &ids.collect::<Vec<_>>(), batch.batch())
        }
    }

    /// At the last position of each prompt.
    pub(crate) fn at_last(rotary: Rotary, batch: &TokenBatch<B>) -> Self {
        Self::at(rotary, &batch.last_ids(), batch.batch())
    }

    /// At these positions, of so many rows.
    fn at(rotary: Rotary, ids: &[usize], rows: usize) -> Self {
        let rates = rotary.rates();
        let half = rates.len();
        let span = ids.iter().max().map_or(0, |last| last + 1);
        let table = |f: fn(f32) -> f32| {
            let at = |position| rates.iter().map(move |rate| f(position as f32 * rate));
            let all: Vec<f32> = (0..span).flat_map(at).collect();
            let entries = ids.iter().flat_map(|id| &all[id * half..(id + 1) * half]);
            entries.copied().collect::<Vec<f32>>()
        };
        Self {
            rotary,
            cosines: table(f32::cos),
            sines: table(f32::sin),
            tables: OnceLock::new(),
            shape: [rows, ids.len() / rows.max(1), 1, half],
        }
    }

    /// Cosines and sines beside `x`.
    fn tables(&self, x: &Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let tables = self.tables.get_or_init(|| {
            [&self.cosines, &self.sines].map(|values| {
                let values = TensorData::new(values.clone(), self.shape);
                Tensor::from_data(values, (&x.device(), DType::F32))
            })
        });
        tables.clone()
    }

    /// Rotates one query or key, of a row of the batch and one of its positions, in place.
    #[expect(
        clippy::inline_always,
        reason = "it is compiled for the vector instructions of its caller"
    )]
    #[inline(always)]
    pub(crate) fn turn(&self, row: usize, position: usize, x: &mut [f32]) {
        let [rows, pos, _, half] = self.shape;
        let at = (row % rows * pos + position) * half;
        let (cos, sin) = (&self.cosines[at..at + half], &self.sines[at..at + half]);
        let x = &mut x[..2 * half];
        match self.rotary.pairs {
            RotaryPairs::Halves => {
                let (a, b) = x.split_at_mut(half);
                for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
            RotaryPairs::Adjacent => {
                for ((pair, cos), sin) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
                    let (a, b) = (pair[0], pair[1]);
                    (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
        }
    }

    /// Rotates queries or keys, `[batch, pos, head, d_head]`. The angles are kept in f32; half
    /// precision is widened for the product.
    pub(crate) fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let dtype = x.dtype();
        let [rows, pos, heads, d_head] = x.dims();
        let (dim, half) = (self.rotary.dim, self.rotary.dim / 2);
        let rest = (dim < d_head).then(|| x.clone().slice_dim(3, dim..d_head));
        let [cos, sin] = self.tables(&x);
        let x = x.slice_dim(3, 0..dim).cast(cos.dtype());
        let (a, b) = match self.rotary.pairs {
            RotaryPairs::Halves => (x.clone().slice_dim(3, 0..half), x.slice_dim(3, half..dim)),
            RotaryPairs::Adjacent => {
                let pairs = x.reshape([rows, pos, heads, half, 2]);
                let entry = |at: usize| pairs.clone().slice_dim(4, at..=at).squeeze_dim::<4>(4);
                (entry(0), entry(1))
            }
        };
        let turned = [
            a.clone() * cos.clone() - b.clone() * sin.clone(),
            b * cos + a * sin,
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
