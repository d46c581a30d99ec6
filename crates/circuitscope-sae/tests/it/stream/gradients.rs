//! Gradients by hand against automatic differentiation, on the host and in tensor operations.

use burn::tensor::{Tensor, TensorData};
use circuitscope_sae::{Objective, StreamConfig, StreamTrainer, TrainedDictionary};

use super::{ROWS, all, distance, on_host, start, steps, x, y};
use crate::{A, B, device};

fn constant(values: &[f32], shape: [usize; 2]) -> Tensor<A, 2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device())
}

/// 1 where a feature is among the chosen: the k largest of each list, found by sorting.
fn largest(h: &[f32], width: usize, k: usize, takes: impl Fn(usize, f32) -> bool) -> Vec<f32> {
    let mut on = vec![0.0; h.len()];
    for (list, h) in h.chunks(width).enumerate() {
        let mut order: Vec<usize> = (0..width)
            .filter(|&at| takes(list * width + at, h[at]))
            .collect();
        order.sort_by(|a, b| h[*b].total_cmp(&h[*a]));
        for &at in order.iter().take(k) {
            on[list * width + at] = 1.0;
        }
    }
    on
}

/// In the order of [`lists`].
fn expected(
    config: &StreamConfig,
    at: &TrainedDictionary,
    dead: &[bool],
    penalty: f64,
) -> Vec<Vec<f32>> {
    let (d_in, d_out, n) = (config.d_in, config.d_out, config.d_sae);
    let leaf = |values: &[f32], shape| constant(values, shape).require_grad();
    let w_enc = leaf(&at.w_enc, [d_in, n]);
    let w_dec = leaf(&at.w_dec, [n, d_out]);
    let b_enc = leaf(&at.b_enc, [1, n]);
    let b_dec = leaf(&at.b_dec, [1, d_out]);
    let w_skip = at.w_skip.as_ref().map(|w_skip| leaf(w_skip, [d_out, d_in]));
    let trained = matches!(config.objective, Objective::JumpRelu { .. });
    let threshold = at.threshold.as_ref().filter(|_| trained);
    let threshold = threshold.map(|threshold| leaf(threshold, [1, n]));
    let b_mag = at.b_mag.as_ref().map(|b_mag| leaf(b_mag, [1, n]));
    let r_mag = at.r_mag.as_ref().map(|r_mag| leaf(r_mag, [1, n]));
    let x_rows = constant(&x(9), [ROWS, d_in]);
    let target = y(config, 9).map_or_else(|| x_rows.clone(), |y| constant(&y, [ROWS, d_out]));

    let centred = if config.centred {
        x_rows.clone() - b_dec.clone()
    } else {
        x_rows.clone()
    };
    let product = centred.matmul(w_enc.clone());
    let mut h = product.clone() + b_enc.clone();
    let gate = h.clone();
    let gates: Vec<f32> = gate.to_data().iter::<f32>().collect();
    if let (Some(b_mag), Some(r_mag)) = (&b_mag, &r_mag) {
        h = product * r_mag.clone().exp() + b_mag.clone();
    }
    let values: Vec<f32> = h.to_data().iter::<f32>().collect();
    let on = match config.objective {
        Objective::TopK { k } => largest(&values, n, k, |_, h| h > 0.0),
        Objective::BatchTopK { k } => largest(&values, n * ROWS, k * ROWS, |_, h| h > 0.0),
        Objective::JumpRelu { .. } => {
            let threshold = at.threshold.as_ref().unwrap();
            let above = |(at, h): (usize, &f32)| f32::from(*h > threshold[at % n]);
            values.iter().enumerate().map(above).collect()
        }
        Objective::Standard { .. } => values.iter().map(|h| f32::from(*h > 0.0)).collect(),
        Objective::Gated { .. } => {
            let both = gates.iter().zip(&values);
            both.map(|(pi, h)| f32::from(*pi > 0.0 && *h > 0.0))
                .collect()
        }
        _ => unreachable!(),
    };
    let on = constant(&on, [ROWS, n]);
    let mut f = h.clone() * on.clone();
    let mut loss = Tensor::<A, 1>::zeros([1], &device());
    if let (Objective::JumpRelu { bandwidth, .. }, Some(threshold)) = (config.objective, &threshold)
    {
        // What a threshold is held to change: constants times a difference that is 0.
        let near = (h.clone() - threshold.clone())
            .abs()
            .lower_elem(bandwidth / 2.0)
            .float();
        let moved = threshold.clone() - threshold.clone().detach();
        let pull = near.clone() * threshold.clone().detach().div_scalar(-bandwidth);
        f = f + pull.detach() * moved.clone();
        let count = on + near.div_scalar(-bandwidth).detach() * moved;
        loss = loss + count.sum().mul_scalar(penalty / ROWS as f64);
    }
    let lengths = (w_dec.clone() * w_dec.clone())
        .sum_dim(1)
        .sqrt()
        .transpose();
    let positive = burn::tensor::activation::relu(gate);
    let penalised = match config.objective {
        Objective::Standard { .. } => Some(f.clone()),
        Objective::Gated { .. } => Some(positive.clone()),
        _ => None,
    };
    if let Some(penalised) = penalised {
        let sizes = (penalised * lengths).sum();
        loss = loss + sizes.mul_scalar(penalty / ROWS as f64);
    }
    if let Objective::Gated { frozen_decoder, .. } = config.objective {
        let held = |leaf: &Tensor<A, 2>| {
            let leaf = leaf.clone();
            if frozen_decoder { leaf.detach() } else { leaf }
        };
        let miss = positive.matmul(held(&w_dec)) + held(&b_dec) - target.clone();
        loss = loss + (miss.clone() * miss).sum().div_scalar(ROWS as f64);
    }
    let mut made = f.matmul(w_dec.clone()) + b_dec.clone();
    if let Some(w_skip) = &w_skip {
        made = made + x_rows.matmul(w_skip.clone().transpose());
    }
    let error = made - target;
    loss = loss
        + (error.clone() * error.clone())
            .sum()
            .div_scalar(ROWS as f64);
    let count = dead.iter().filter(|dead| **dead).count();
    let revives = matches!(
        config.objective,
        Objective::TopK { .. } | Objective::BatchTopK { .. }
    );
    if count > 0 && revives {
        let chosen = largest(&values, n, config.k_aux.min(count), |at, _| dead[at % n]);
        let left = -error.detach();
        let miss = (h * constant(&chosen, [ROWS, n])).matmul(w_dec.clone()) - left;
        let weight = config.aux_coefficient * (count as f64 / config.k_aux as f64).min(1.0);
        loss = loss + (miss.clone() * miss).sum().mul_scalar(weight / ROWS as f64);
    }
    let gradients = loss.backward();
    let read = |leaf: &Tensor<A, 2>| -> Vec<f32> {
        let gradient: Tensor<B, 2> = leaf.grad(&gradients).unwrap();
        gradient.to_data().iter::<f32>().collect()
    };
    let some = [
        Some(&w_enc),
        Some(&w_dec),
        Some(&b_enc),
        Some(&b_dec),
        threshold.as_ref(),
        w_skip.as_ref(),
        b_mag.as_ref(),
        r_mag.as_ref(),
    ];
    some.into_iter().flatten().map(read).collect()
}

fn lists(trainer: &StreamTrainer<B>) -> Vec<Vec<f32>> {
    let y = y(trainer.config(), 9);
    let found = trainer.gradients(&x(9), y.as_deref()).unwrap();
    let mut lists = vec![found.w_enc, found.w_dec, found.b_enc, found.b_dec];
    lists.extend(found.threshold);
    lists.extend(found.w_skip);
    lists.extend(found.b_mag);
    lists.extend(found.r_mag);
    lists
}

/// After a few steps: no weight is 0 any more, and some features are dead.
#[test]
fn equal_those_of_automatic_differentiation() {
    let mut with_dead = 0;
    for config in all() {
        for config in [config.clone(), on_host(&config)] {
            let mut trainer = start(&config);
            steps(&mut trainer, 0..2);
            trainer.reset_statistics();
            steps(&mut trainer, 2..4);
            // Dead after two steps: active on none of the rows of the last two.
            let at = trainer.dictionary().unwrap();
            let dead: Vec<bool> = at
                .firing_rates
                .as_ref()
                .unwrap()
                .iter()
                .map(|rate| *rate == 0.0)
                .collect();
            let count = dead.iter().filter(|dead| **dead).count();
            assert_eq!(count, trainer.statistics().dead);
            with_dead += usize::from(count > 0);
            // Step 4 is after the warm-up of the penalty.
            let expected = expected(&config, &at, &dead, 0.3);
            let found = lists(&trainer);
            assert_eq!(found.len(), expected.len());
            for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    expected.iter().any(|value| *value != 0.0),
                    "{config:?}: {which} is 0"
                );
                let distance = distance(found, expected);
                assert!(
                    distance < 1e-5,
                    "{config:?}: gradient {which} differs by {distance}"
                );
            }
        }
    }
    assert!(with_dead >= 8, "dead features in {with_dead} cases only");
}
