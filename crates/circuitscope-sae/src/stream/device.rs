//! The same step in tensor operations: five dense products (eight of `Gated`), on any device and for every objective.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, Transaction};

use super::gate::Gate;
use super::params::{PARAMS, Params};
use super::{Objective, Outcome, StreamConfig};
use crate::adam::{AdamStep, Moments};
use crate::autoencoder::uploaded;
use crate::read::{execute, floats};
use crate::{Error, Result};

/// Halvings of the interval in which the smallest number that is kept lies. Each may cost a bit of its range; f32 has 24.
const HALVINGS: usize = 40;

/// What a row of `W_dec` is divided by, at least: one of length 0 has no direction.
const LEAST_LENGTH: f64 = 1e-6;

/// A matrix for each parameter, lists as one row; without the ones that a configuration does not have.
#[derive(Debug, Clone)]
pub(super) struct Tensors<B: Backend> {
    /// `[d_sae, d_in]`
    w_enc: Tensor<B, 2>,
    /// `[d_sae, d_out]`
    w_dec: Tensor<B, 2>,
    /// `[1, d_sae]`
    b_enc: Tensor<B, 2>,
    /// `[1, d_out]`
    b_dec: Tensor<B, 2>,
    /// `[1, d_sae]`
    threshold: Option<Tensor<B, 2>>,
    /// `[d_out, d_in]`
    w_skip: Option<Tensor<B, 2>>,
    /// `[1, d_sae]`
    b_mag: Option<Tensor<B, 2>>,
    /// `[1, d_sae]`
    r_mag: Option<Tensor<B, 2>>,
}

/// What a penalty on sizes adds.
struct Penalty<B: Backend> {
    /// To the gradient of `W_dec`, `[d_sae, d_out]`.
    to_dec: Tensor<B, 2>,
    /// To that of each size of a feature, `[1, d_sae]`.
    slope: Tensor<B, 2>,
    /// What the penalty is a multiple of, over all rows.
    sum: Tensor<B, 1>,
}

/// Weights and Adam's sums.
#[derive(Debug)]
pub(super) struct Device<B: Backend> {
    weights: Tensors<B>,
    moments: [Moments<B, 2>; PARAMS],
}

impl<B: Backend> Tensors<B> {
    fn upload(config: &StreamConfig, params: &Params, device: &B::Device) -> Self {
        let [w_enc, w_dec, b_enc, b_dec, threshold, w_skip, b_mag, r_mag] = params.lists();
        let &StreamConfig {
            d_in, d_out, d_sae, ..
        } = config;
        let some = |values: &[f32], shape| {
            (!values.is_empty()).then(|| uploaded::<B, 2>(values, shape, device))
        };
        Self {
            w_enc: uploaded(w_enc, [d_sae, d_in], device),
            w_dec: uploaded(w_dec, [d_sae, d_out], device),
            b_enc: uploaded(b_enc, [1, d_sae], device),
            b_dec: uploaded(b_dec, [1, d_out], device),
            threshold: some(threshold, [1, d_sae]),
            w_skip: some(w_skip, [d_out, d_in]),
            b_mag: some(b_mag, [1, d_sae]),
            r_mag: some(r_mag, [1, d_sae]),
        }
    }

    /// In the order of `Params`.
    fn list(self) -> [Option<Tensor<B, 2>>; PARAMS] {
        [
            Some(self.w_enc),
            Some(self.w_dec),
            Some(self.b_enc),
            Some(self.b_dec),
            self.threshold,
            self.w_skip,
            self.b_mag,
            self.r_mag,
        ]
    }

    pub(super) fn read(self) -> Result<Params> {
        download(self.list())
    }

    /// A list of `[1, d_sae]`, zeros where a configuration has none.
    fn or_zeros(&self, list: Option<&Tensor<B, 2>>) -> Tensor<B, 2> {
        list.cloned().unwrap_or_else(|| self.b_enc.zeros_like())
    }

    /// A penalty of `weight` times `Σ sizes_i |W_dec,i|` over all rows.
    ///
    /// # Shapes
    /// - `sizes`: `[rows, d_sae]`
    fn penalised(&self, sizes: Tensor<B, 2>, weight: f64) -> Penalty<B> {
        let lengths = self.lengths();
        // [1, d_sae] -> [d_sae, 1]
        let sums = sizes.sum_dim(0).transpose();
        let along = self.w_dec.clone() / lengths.clone().clamp_min(LEAST_LENGTH);
        Penalty {
            to_dec: along * sums.clone().mul_scalar(weight),
            slope: lengths.clone().transpose().mul_scalar(weight),
            sum: (sums * lengths).sum(),
        }
    }

    /// Of the rows of `W_dec`, `[d_sae, 1]`.
    fn lengths(&self) -> Tensor<B, 2> {
        (self.w_dec.clone() * self.w_dec.clone()).sum_dim(1).sqrt()
    }
}

impl<B: Backend> Device<B> {
    pub(super) fn new(
        config: &StreamConfig,
        [weights, first, second]: [&Params; 3],
        device: &B::Device,
    ) -> Self {
        let sums = |params| Tensors::<B>::upload(config, params, device).list();
        let mut second = sums(second).into_iter();
        let mut first = sums(first).into_iter();
        let moments =
            core::array::from_fn(
                |_| match (first.next().flatten(), second.next().flatten()) {
                    (Some(first), Some(second)) => Moments::of(first, second),
                    _ => Moments::new(),
                },
            );
        Self {
            weights: Tensors::upload(config, weights, device),
            moments,
        }
    }

    /// Weights and Adam's sums, read back.
    pub(super) fn read(&self) -> Result<[Params; 3]> {
        let weights = self.weights.clone().read()?;
        let sums = |second: bool| {
            let of = |moments: &Moments<B, 2>| {
                let (a, b) = moments.sums()?;
                Some(if second { b } else { a })
            };
            download(self.moments.each_ref().map(of))
        };
        Ok([weights, sums(false)?, sums(true)?])
    }

    /// The gradients of a batch, before anything is made tangent, and what is read back.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::NonFinite`].
    pub(super) fn forward(
        &self,
        config: &StreamConfig,
        x: &Tensor<B, 2>,
        y: &Tensor<B, 2>,
        dead: &[u32],
        penalty: f64,
    ) -> Result<(Tensors<B>, Outcome)> {
        let weights = &self.weights;
        let [rows, _] = x.dims();
        let d_sae = config.d_sae;
        let vectors = rows as f64;
        // [rows, d_in] x [d_in, d_sae] -> [rows, d_sae]
        let centred = if config.centred {
            x.clone() - weights.b_dec.clone()
        } else {
            x.clone()
        };
        let product = centred.clone().matmul(weights.w_enc.clone().transpose());
        let mut h = product.clone() + weights.b_enc.clone();
        let mut gate = None;
        let on = match config.objective {
            Objective::TopK { k } => {
                let largest = h.clone().max_dim(1);
                h.clone().greater(cut(&h, largest.zeros_like(), largest, k))
            }
            Objective::BatchTopK { k } => {
                let all = h.clone().reshape([1, rows * d_sae]);
                let largest = all.clone().max_dim(1);
                let cut = cut(&all, largest.zeros_like(), largest, k * rows);
                all.greater(cut).reshape([rows, d_sae])
            }
            Objective::JumpRelu { .. } => h
                .clone()
                .greater(weights.or_zeros(weights.threshold.as_ref())),
            Objective::Standard { .. } => h.clone().greater_elem(0.0),
            Objective::Gated { .. } => {
                let gates = Gate::new(product, h, weights.or_zeros(weights.r_mag.as_ref()));
                let (magnitude, on) = gates.magnitude(weights.or_zeros(weights.b_mag.as_ref()));
                (h, gate) = (magnitude, Some(gates));
                on
            }
        };
        let off = on.clone().bool_not();
        let f = h.clone().mask_fill(off.clone(), 0.0);
        // [rows, d_sae] x [d_sae, d_out] -> [rows, d_out]
        let mut error = f.clone().matmul(weights.w_dec.clone()) + weights.b_dec.clone() - y.clone();
        if let Some(w_skip) = &weights.w_skip {
            error = error + x.clone().matmul(w_skip.clone().transpose());
        }
        let to_output = error.clone().mul_scalar(2.0 / vectors);
        let mut to_dec = f.clone().transpose().matmul(to_output.clone());
        let mut to_f = to_output.clone().matmul(weights.w_dec.clone().transpose());
        let sizes = match (config.objective, &gate) {
            (Objective::Standard { .. }, _) => Some(f.clone()),
            (_, gate) => gate.as_ref().map(Gate::positive),
        };
        let sized = sizes.map(|sizes| weights.penalised(sizes, penalty / vectors));
        if let Some(sized) = &sized {
            to_dec = to_dec + sized.to_dec.clone();
        }
        if let (Objective::Standard { .. }, Some(sized)) = (config.objective, &sized) {
            to_f = to_f + sized.slope.clone();
        }
        let to_threshold = match (config.objective, &weights.threshold) {
            (Objective::JumpRelu { bandwidth, .. }, Some(threshold)) => {
                let near = (h.clone() - threshold.clone())
                    .abs()
                    .lower_elem(bandwidth / 2.0);
                let slope = to_f.clone() * threshold.clone();
                let slope = slope.add_scalar(penalty / vectors).div_scalar(-bandwidth);
                Some(slope.mask_fill(near.bool_not(), 0.0).sum_dim(0))
            }
            _ => None,
        };
        let mut to_h = to_f.mask_fill(off, 0.0);
        let mut aux = None;
        if let Some(weight) = config.aux_weight(dead.len()) {
            let chosen = largest_dead(&h, dead, config.k_aux);
            let z = h.mask_fill(chosen.clone().bool_not(), 0.0);
            let miss = z.clone().matmul(weights.w_dec.clone()) + error.clone();
            let to_miss = miss.clone().mul_scalar(2.0 * weight / vectors);
            to_dec = to_dec + z.transpose().matmul(to_miss.clone());
            let to_z = to_miss.matmul(weights.w_dec.clone().transpose());
            to_h = to_h + to_z.mask_fill(chosen.bool_not(), 0.0);
            aux = Some((miss.clone() * miss).sum().mul_scalar(weight / vectors));
        }
        let mut to_b_enc = to_h.clone().sum_dim(0);
        let mut to_b_dec = to_output.clone().sum_dim(0);
        let (mut to_b_mag, mut to_r_mag) = (None, None);
        if let (Some(gate), Some(sized), Objective::Gated { frozen_decoder, .. }) =
            (&gate, &sized, config.objective)
        {
            let base = weights.b_dec.clone() - y.clone();
            let alone = gate.alone(&weights.w_dec, base, sized.slope.clone());
            if !frozen_decoder {
                let output = alone.to_output;
                to_dec = to_dec + gate.positive().transpose().matmul(output.clone());
                to_b_dec = to_b_dec + output.sum_dim(0);
            }
            to_b_enc = alone.to_pi.clone().sum_dim(0);
            aux = Some(alone.error);
            let to = gate.backward(to_h, alone.to_pi);
            (to_b_mag, to_r_mag) = (Some(to.b_mag), Some(to.r_mag));
            to_h = to.product;
        }
        if config.centred {
            let through = to_h.clone().sum_dim(0);
            to_b_dec = to_b_dec - through.matmul(weights.w_enc.clone());
        }
        let gradients = Tensors {
            w_enc: to_h.transpose().matmul(centred),
            w_dec: to_dec,
            b_enc: to_b_enc,
            b_dec: to_b_dec,
            threshold: to_threshold,
            w_skip: weights
                .w_skip
                .is_some()
                .then(|| to_output.transpose().matmul(x.clone())),
            b_mag: to_b_mag,
            r_mag: to_r_mag,
        };
        let squares = (error.clone() * error).sum();
        let aux = aux.unwrap_or_else(|| squares.zeros_like());
        let sizes = sized.map_or_else(|| squares.zeros_like(), |sized| sized.sum);
        let mut outcome = outcome(x, y, &f, on, [squares, aux, sizes])?;
        if matches!(config.objective, Objective::JumpRelu { .. }) {
            outcome.penalised = outcome.fired.iter().sum::<u64>() as f64;
        }
        outcome.penalised /= vectors;
        Ok((gradients, outcome))
    }

    /// Adam's step, with rows of `W_dec` kept at their length where that is asked for.
    pub(super) fn update(
        &mut self,
        config: &StreamConfig,
        mut gradients: Tensors<B>,
        adam: &AdamStep,
    ) {
        if config.unit_norm {
            let w_dec = self.weights.w_dec.clone();
            let radial = (gradients.w_dec.clone() * w_dec.clone()).sum_dim(1);
            gradients.w_dec = gradients.w_dec - w_dec * radial;
        }
        let Self { weights, moments } = self;
        let [w_enc, w_dec, b_enc, b_dec, threshold, w_skip, b_mag, r_mag] = moments;
        weights.w_enc = w_enc.step(adam, weights.w_enc.clone(), gradients.w_enc);
        weights.w_dec = w_dec.step(adam, weights.w_dec.clone(), gradients.w_dec);
        weights.b_enc = b_enc.step(adam, weights.b_enc.clone(), gradients.b_enc);
        weights.b_dec = b_dec.step(adam, weights.b_dec.clone(), gradients.b_dec);
        if let (Some(value), Some(gradient)) = (weights.threshold.take(), gradients.threshold) {
            weights.threshold = Some(threshold.step(adam, value, gradient).clamp_min(0.0));
        }
        for (weight, moments, gradient) in [
            (&mut weights.w_skip, w_skip, gradients.w_skip),
            (&mut weights.b_mag, b_mag, gradients.b_mag),
            (&mut weights.r_mag, r_mag, gradients.r_mag),
        ] {
            if let (Some(value), Some(gradient)) = (weight.take(), gradient) {
                *weight = Some(moments.step(adam, value, gradient));
            }
        }
        if config.unit_norm {
            weights.w_dec = weights.w_dec.clone() / weights.lengths();
        }
    }
}

/// The `k` largest of each row among dead features.
fn largest_dead<B: Backend>(h: &Tensor<B, 2>, dead: &[u32], k: usize) -> Tensor<B, 2, Bool> {
    let [_, d_sae] = h.dims();
    let mut alive = vec![1.0f32; d_sae];
    for &feature in dead {
        alive[feature as usize] = 0.0;
    }
    let alive = uploaded::<B, 2>(&alive, [1, d_sae], &h.device());
    let alive = alive.greater_elem(0.5).expand(h.dims());
    // Below every number, so that the least is kept, too.
    let least = h.clone().mask_fill(alive.clone(), f32::MAX).min_dim(1);
    let least = least.clone() - least.abs().mul_scalar(1e-3).add_scalar(1e-3);
    let among = h.clone().mask_fill(alive, f32::MIN);
    let largest = among.clone().max_dim(1);
    among.clone().greater(cut(&among, least, largest, k))
}

/// A number for each row of which the `k` largest entries are above, and no others: found by halving `low` to `high`,
/// as sorting is slow on devices. Ties are kept together; where fewer than `k` are above `low`, it stays.
fn cut<B: Backend>(
    h: &Tensor<B, 2>,
    mut low: Tensor<B, 2>,
    mut high: Tensor<B, 2>,
    k: usize,
) -> Tensor<B, 2> {
    for _ in 0..HALVINGS {
        let middle = (low.clone() + high.clone()).mul_scalar(0.5);
        let above = h.clone().greater(middle.clone()).int().sum_dim(1);
        let enough = above.greater_equal_elem(k as i64);
        low = low.mask_where(enough.clone(), middle.clone());
        high = middle.mask_where(enough, high);
    }
    low
}

/// Reads back what a step needs on the host, at once.
fn outcome<B: Backend>(
    x: &Tensor<B, 2>,
    y: &Tensor<B, 2>,
    f: &Tensor<B, 2>,
    on: Tensor<B, 2, Bool>,
    [squares, aux, penalised]: [Tensor<B, 1>; 3],
) -> Result<Outcome> {
    let [rows, _] = x.dims();
    let mean = y.clone().mean_dim(0);
    let deviation = y.clone() - mean.clone();
    let least = f.clone().mask_fill(on.clone().bool_not(), f32::MAX).min();
    let read = floats(execute(
        Transaction::default()
            .register(on.float().sum_dim(0))
            .register(mean)
            .register((deviation.clone() * deviation).sum())
            .register(squares)
            .register(aux)
            .register(penalised)
            .register(least)
            .register(x.clone().sum() + y.clone().sum()),
    )?);
    let [fired, mean, spread, squares, aux, penalised, least, sum] = &read[..] else {
        return Err(Error::Device {
            message: format!("asked for 8 tensors, got {}", read.len()),
        });
    };
    let one = |list: &Vec<f64>| list.first().copied().unwrap_or(f64::NAN);
    if !one(sum).is_finite() {
        return Err(Error::NonFinite { rows: 0..rows });
    }
    let fired: Vec<u64> = fired.iter().map(|&count| count as u64).collect();
    let some = fired.iter().any(|&count| count > 0);
    Ok(Outcome {
        squared_error: one(squares),
        aux: one(aux),
        penalised: one(penalised),
        fired,
        least_kept: some.then(|| one(least) as f32),
        mean: mean.clone(),
        spread: one(spread),
        rows,
    })
}

fn download<B: Backend>(tensors: [Option<Tensor<B, 2>>; PARAMS]) -> Result<Params> {
    let mut transaction = Transaction::default();
    let present = tensors.each_ref().map(Option::is_some);
    for tensor in tensors.into_iter().flatten() {
        transaction = transaction.register(tensor);
    }
    if !present.contains(&true) {
        return Ok(Params::of(core::array::from_fn(|_| Vec::new())));
    }
    let mut read = execute(transaction)?.into_iter();
    Ok(Params::of(present.map(|present| {
        let data = if present { read.next() } else { None };
        data.map_or_else(Vec::new, |data| data.iter::<f32>().collect())
    })))
}
