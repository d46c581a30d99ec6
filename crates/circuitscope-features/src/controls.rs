//! Dictionaries that learnt nothing: what a trained one has to be better than.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::{TensorData, activation::relu};
use circuitscope_core::{Seed, draw};
use circuitscope_sae::{Encoder, Reads};

/// Directions as features: `f = max(x W, 0)` with as many of the largest as `k` says, `y = f Wᵀ`.
#[derive(Debug, Clone)]
pub struct Directions<B: Backend> {
    /// `[d_in, n]`
    w: Tensor<B, 2>,
    k: Option<usize>,
}

impl<B: Backend> Directions<B> {
    /// The coordinates themselves, both ways: `2 d_in` features, the neuron basis.
    #[must_use]
    pub fn basis(d_in: usize, device: &B::Device) -> Self {
        let eye = Tensor::<B, 2>::eye(d_in, device);
        Self {
            w: Tensor::cat(vec![eye.clone(), -eye], 1),
            k: None,
        }
    }

    /// The same turned at random inside each of `heads` heads side by side (`seed.stream("rotation")`).
    #[must_use]
    pub fn rotated(d_in: usize, heads: usize, seed: Seed, device: &B::Device) -> Self {
        let mut rng = seed.stream("rotation").rng();
        let width = d_in / heads.max(1);
        let mut w = vec![0.0f32; d_in * d_in];
        for head in 0..heads {
            let turned = orthogonal(width, || draw::normal_pair(&mut rng)[0]);
            for (row, values) in turned.iter().enumerate() {
                let from = (head * width + row) * d_in + head * width;
                for (to, value) in w[from..from + width].iter_mut().zip(values) {
                    *to = *value as f32;
                }
            }
        }
        let w = Tensor::<B, 2>::from_data(TensorData::new(w, [d_in, d_in]), device);
        Self {
            w: Tensor::cat(vec![w.clone(), -w], 1),
            k: None,
        }
    }

    /// `n` random directions of unit length, the `k` strongest of which are active: a dictionary before training
    /// (`seed.stream("untrained")`).
    #[must_use]
    pub fn untrained(d_in: usize, n: usize, k: usize, seed: Seed, device: &B::Device) -> Self {
        let mut rng = seed.stream("untrained").rng();
        let mut w = vec![0.0f32; d_in * n];
        for at in 0..n {
            let column: Vec<f64> = (0..d_in).map(|_| draw::normal_pair(&mut rng)[0]).collect();
            let length = column.iter().map(|x| x * x).sum::<f64>().sqrt();
            for (row, value) in column.into_iter().enumerate() {
                w[row * n + at] = (value / length) as f32;
            }
        }
        Self {
            w: Tensor::from_data(TensorData::new(w, [d_in, n]), device),
            k: Some(k.clamp(1, n)),
        }
    }
}

/// Orthonormal rows of random vectors, one after the other (Gram and Schmidt).
fn orthogonal(n: usize, mut draw: impl FnMut() -> f64) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    while rows.len() < n {
        let mut row: Vec<f64> = (0..n).map(|_| draw()).collect();
        // Twice: rounding of the first pass is taken out by the second.
        for _ in 0..2 {
            for other in &rows {
                let along: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-6 {
            for x in &mut row {
                *x /= length;
            }
            rows.push(row);
        }
    }
    rows
}

impl<B: Backend> Encoder<B> for Directions<B> {
    fn d_in(&self) -> usize {
        self.w.dims()[0]
    }

    fn n_codes(&self) -> usize {
        self.w.dims()[1]
    }

    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let h = x.matmul(self.w.clone());
        match self.k {
            None => relu(h),
            Some(k) => {
                let nothing = h.zeros_like();
                let (values, index) = h.topk_with_indices(k, 1);
                nothing.scatter(1, index, relu(values), burn::tensor::IndexingUpdateOp::Add)
            }
        }
    }

    fn decode(&self, features: Tensor<B, 2>, _: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        Some(features.matmul(self.w.clone().swap_dims(0, 1)))
    }

    fn reads(&self) -> Option<Reads<B>> {
        Some(Reads {
            weight: self.w.clone(),
            bias: Tensor::zeros([self.w.dims()[1]], &self.w.device()),
        })
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(self.w.clone().swap_dims(0, 1))
    }
}
