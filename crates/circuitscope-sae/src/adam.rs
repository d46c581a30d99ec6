use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::TrainConfig;

/// Adam's step with its bias corrections folded into two numbers that every parameter shares.
///
/// Adam (Kingma & Ba 2015, algorithm 1) moves `w` by `−η m̂ / (√v̂ + ε)`, with `m̂ = m / (1 − β₁ᵗ)`
/// and `v̂ = v / (1 − β₂ᵗ)`. With the moments kept as plain decayed sums, `m̃ = m / (1 − β₁)` and
/// `ṽ = v / (1 − β₂)`, and `s² = (1 − β₂) / (1 − β₂ᵗ)`, this is
/// `−(η / s) (1 − β₁) / (1 − β₁ᵗ) · m̃ / (√ṽ + ε / s)`: the same numbers with fewer kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamStep {
    beta_1: f64,
    beta_2: f64,
    /// `(η / s) (1 − β₁) / (1 − β₁ᵗ)`
    rate: f64,
    /// `ε / s`
    epsilon: f64,
}

impl AdamStep {
    /// The step number `time`, from 1.
    pub(crate) fn new(config: &TrainConfig, time: i32) -> Self {
        let TrainConfig {
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            ..
        } = *config;
        Self::of(learning_rate, [beta_1, beta_2], epsilon, time)
    }

    /// The same of single settings, where the learning rate is one of the step's own.
    pub(crate) fn of(
        learning_rate: f64,
        [beta_1, beta_2]: [f64; 2],
        epsilon: f64,
        time: i32,
    ) -> Self {
        let scale = ((1.0 - beta_2) / (1.0 - beta_2.powi(time))).sqrt();
        Self {
            beta_1,
            beta_2,
            rate: learning_rate / scale * (1.0 - beta_1) / (1.0 - beta_1.powi(time)),
            epsilon: epsilon / scale,
        }
    }

    /// The step in the host's memory: `w` and its sums of gradients and of squares after a step along `g`.
    #[expect(
        clippy::inline_always,
        reason = "what is not inlined is not compiled for the vector instructions of its caller"
    )]
    #[inline(always)]
    pub(crate) fn apply(
        &self,
        w: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
    ) {
        let (beta_1, beta_2) = (self.beta_1 as f32, self.beta_2 as f32);
        let (rate, epsilon) = (self.rate as f32, self.epsilon as f32);
        for (((w, m), v), g) in w.iter_mut().zip(first).zip(second).zip(gradient) {
            *m = *m * beta_1 + g;
            *v = *v * beta_2 + g * g;
            *w -= *m / (v.sqrt() + epsilon) * rate;
        }
    }
}

/// The moments of one parameter, as decayed sums; none before the first step.
#[derive(Debug, Clone)]
pub(crate) struct Moments<B: Backend, const D: usize> {
    sums: Option<(Tensor<B, D>, Tensor<B, D>)>,
}

impl<B: Backend, const D: usize> Moments<B, D> {
    pub(crate) const fn new() -> Self {
        Self { sums: None }
    }

    /// With these sums of gradients and of squares.
    pub(crate) const fn of(first: Tensor<B, D>, second: Tensor<B, D>) -> Self {
        Self {
            sums: Some((first, second)),
        }
    }

    /// The sums of gradients and of squares.
    pub(crate) fn sums(&self) -> Option<(Tensor<B, D>, Tensor<B, D>)> {
        self.sums.clone()
    }

    /// `parameter` after one step along `gradient`, both of one shape.
    pub(crate) fn step(
        &mut self,
        adam: &AdamStep,
        parameter: Tensor<B, D>,
        gradient: Tensor<B, D>,
    ) -> Tensor<B, D> {
        let square = gradient.clone() * gradient.clone();
        let (first, second) = match self.sums.take() {
            None => (gradient, square),
            Some((first, second)) => (
                first.mul_scalar(adam.beta_1) + gradient,
                second.mul_scalar(adam.beta_2) + square,
            ),
        };
        let denominator = second.clone().sqrt().add_scalar(adam.epsilon);
        let step = (first.clone() / denominator).mul_scalar(adam.rate);
        self.sums = Some((first, second));
        parameter - step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    /// Against the textbook form in f64. The bound allows some ten f32 roundings of numbers up to 1.
    #[test]
    fn equals_the_textbook_form() {
        let config = TrainConfig::new().with_learning_rate(0.1);
        let device = FlexDevice;
        let gradients = [0.5, -0.25, 3.0, 0.0, 1e-6];
        let (mut w, mut m, mut v) = (1.0f64, 0.0f64, 0.0f64);
        let mut tensor = Tensor::<Flex, 1>::from_floats([1.0], &device);
        let mut moments = Moments::new();
        for (time, g) in (1..).zip(gradients) {
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let m_hat = m / (1.0 - 0.9f64.powi(time));
            let v_hat = v / (1.0 - 0.999f64.powi(time));
            w -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
            let step = AdamStep::new(&config, time);
            tensor = moments.step(&step, tensor, Tensor::from_floats([g as f32], &device));
            let found = tensor.clone().into_scalar();
            assert!((f64::from(found) - w).abs() < 1e-6, "{time}: {found} {w}");
        }
    }
}
