//! Vectors of fixed length keep it, and gradients do not point along them.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use circuitscope_core::{NoProgress, Seed};
use circuitscope_sae::{
    Dictionary, SaeConfig, TrainConfig, TrainJob, Trainer, train, train_stacked,
};

use crate::{A, B, device, matrix, uniform, values};

/// Of one rescaled vector of at most 40 entries in f32: a few units in the last place.
const NORM: f32 = 5e-7;

fn decoder_axis(dictionary: Dictionary) -> usize {
    usize::from(dictionary == Dictionary::UnitNormAtoms)
}

/// Largest distance of the norms along `axis` from 1.
fn norm_error(w: &Tensor<B, 2>, axis: usize) -> f32 {
    let norms = values(&(w.clone() * w.clone()).sum_dim(axis).sqrt());
    norms
        .iter()
        .fold(0.0, |max, n| f32::max(max, (n - 1.0).abs()))
}

fn trainer(dictionary: Dictionary) -> Trainer<B> {
    let config = SaeConfig::new(40)
        .with_d_sae(24)
        .with_dictionary(dictionary);
    let sae = config.init::<B>(Seed::new(3), &device()).unwrap();
    let x = matrix(&uniform(4, 60, 40), 60, 40);
    Trainer::new(
        &config,
        &TrainConfig::new().with_learning_rate(0.01),
        sae,
        x,
    )
    .unwrap()
}

#[test]
fn norms_stay_one_after_every_step() {
    for dictionary in Dictionary::ALL {
        let mut trainer = trainer(dictionary);
        for step in 0..25 {
            let sae = trainer.sae();
            let encoder = norm_error(&sae.w_enc, 0);
            let decoder = norm_error(&sae.w_dec, decoder_axis(dictionary));
            assert!(
                encoder <= NORM && decoder <= NORM,
                "{dictionary}, step {step}: {encoder:e} {decoder:e}"
            );
            trainer.step().unwrap();
        }
        // The other axis is free: the check above is not one that any matrix passes.
        assert!(norm_error(&trainer.sae().w_dec, 1 - decoder_axis(dictionary)) > 0.01);
    }
}

#[test]
fn gradients_are_tangential() {
    for dictionary in Dictionary::ALL {
        let mut trainer = trainer(dictionary);
        for _ in 0..3 {
            trainer.step().unwrap();
        }
        let (sae, gradients) = (trainer.sae(), trainer.gradients().unwrap());
        for (w, g, axis) in [
            (&sae.w_enc, &gradients.w_enc, 0),
            (&sae.w_dec, &gradients.w_dec, decoder_axis(dictionary)),
        ] {
            let largest = values(g).iter().fold(0.0, |max: f32, v| max.max(v.abs()));
            let radial = values(&(w.clone() * g.clone()).sum_dim(axis));
            let radial = radial.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
            assert!(largest > 0.0);
            assert!(
                radial <= 1e-6 * largest.max(1e-3),
                "{dictionary}: {radial:e} of {largest:e}"
            );
        }
    }
}

/// A finite difference along a great circle through each of a few weights equals the projected
/// gradient: the projection loses nothing but the radial part.
#[test]
fn projected_gradient_is_the_slope_on_the_sphere() {
    let x = matrix(&uniform(4, 60, 40), 60, 40);
    let dictionary = Dictionary::UnitNormAtoms;
    let config = SaeConfig::new(40)
        .with_d_sae(24)
        .with_dictionary(dictionary);
    let sae = config.init::<B>(Seed::new(3), &device()).unwrap();
    let loss = |w_dec: Tensor<B, 2>| {
        let mut at = sae.clone();
        at.w_dec = w_dec; // `Trainer::new` brings it back onto the sphere
        let train = TrainConfig::new().with_steps(1);
        let mut trainer = Trainer::<B>::new(&config, &train, at, x.clone()).unwrap();
        trainer.step().unwrap();
        trainer.finish().unwrap().history.loss[0]
    };
    let gradients = Trainer::<B>::new(&config, &TrainConfig::new(), sae.clone(), x.clone())
        .unwrap()
        .gradients()
        .unwrap();
    let gradient = values(&gradients.w_dec);
    let start = values(&sae.w_dec);
    // The loss is known to about 1e-7; a step of 0.02 gives slopes to 1e-5 plus its own curvature,
    // which the symmetric difference removes to second order.
    let step = 0.02;
    for at in [0, 7, 41, 399, 959] {
        let moved = |by: f32| {
            let mut w = start.clone();
            w[at] += by;
            loss(matrix(&w, 24, 40))
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let expected = f64::from(gradient[at]);
        assert!(
            (slope - expected).abs() < 3e-5 + 0.02 * expected.abs(),
            "{at}: {slope} {expected}"
        );
    }
}

/// The gradient by hand is that of automatic differentiation of the loss as the paper writes it, where so many
/// features are active nowhere that they are left out of the products, and where none is.
#[test]
fn gradients_by_hand_equal_automatic_ones() {
    for (dictionary, off) in Dictionary::ALL
        .into_iter()
        .flat_map(|d| [(d, -1e3), (d, 0.1)])
    {
        let config = SaeConfig::new(40)
            .with_d_sae(24)
            .with_l1_coefficient(0.3)
            .with_dictionary(dictionary);
        let mut sae = config.init::<B>(Seed::new(5), &device()).unwrap();
        // Half of the features are off or not, some vectors lie far from the origin.
        let biases: Vec<f32> = (0..24)
            .map(|j| if j % 2 == 0 { off } else { 0.1 })
            .collect();
        sae.b_enc = Tensor::from_floats(&biases[..], &device());
        sae.b_dec = Tensor::from_floats(&uniform(6, 1, 40)[..], &device());
        let x = matrix(&uniform(7, 60, 40), 60, 40);

        let tracked = |w: &Tensor<B, 2>| Tensor::<A, 2>::from_inner(w.clone()).require_grad();
        let row = |b: &Tensor<B, 1>| tracked(&b.clone().unsqueeze_dim(0));
        let (w_enc, w_dec) = (tracked(&sae.w_enc), tracked(&sae.w_dec));
        let (b_enc, b_dec) = (row(&sae.b_enc), row(&sae.b_dec));
        let input = Tensor::<A, 2>::from_inner(x.clone());
        let f = relu((input.clone() - b_dec.clone()).matmul(w_enc.clone()) + b_enc.clone());
        let error = f.clone().matmul(w_dec.clone()) + b_dec.clone() - input;
        let loss = (error.clone() * error).mean() + f.sum().mul_scalar(0.3 / 60.0);
        let slopes = loss.backward();
        let tangent = |g: Tensor<B, 2>, w: &Tensor<B, 2>, axis: usize| {
            let radial = (g.clone() * w.clone()).sum_dim(axis);
            values(&(g - w.clone() * radial))
        };
        let of_dec = w_dec.grad(&slopes).unwrap();
        let expected = [
            tangent(w_enc.grad(&slopes).unwrap(), &sae.w_enc, 0),
            tangent(of_dec, &sae.w_dec, decoder_axis(dictionary)),
            values(&b_enc.grad(&slopes).unwrap()),
            values(&b_dec.grad(&slopes).unwrap()),
        ];
        let trainer = Trainer::<B>::new(&config, &TrainConfig::new(), sae, x).unwrap();
        let found = trainer.gradients().unwrap();
        let found = [
            values(&found.w_enc),
            values(&found.w_dec),
            values(&found.b_enc),
            values(&found.b_dec),
        ];
        for (found, expected) in found.iter().zip(&expected) {
            let largest = expected.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            assert!(largest > 0.0);
            for (a, b) in found.iter().zip(expected) {
                let gap = (a - b).abs();
                assert!(
                    gap <= 2e-6 * largest,
                    "{dictionary}, {off}: {a} against {b}"
                );
            }
        }
    }
}

/// A whole training with and without leaving features out: alone it is done, side by side it is not.
#[test]
fn a_sparse_training_is_the_dense_one() {
    let job = TrainJob {
        config: SaeConfig::new(40).with_d_sae(24).with_l1_coefficient(1.0),
        x: matrix(&uniform(8, 60, 40), 60, 40),
        seed: Seed::new(3),
    };
    let steps = TrainConfig::new().with_steps(60).with_learning_rate(0.01);
    let sparse = train(&job.config, &steps, job.x.clone(), job.seed, &NoProgress);
    let sparse = sparse.unwrap();
    let dense = train_stacked(&[job.clone(), job], &steps, &NoProgress).unwrap();
    // Features did die, so that something was left out.
    assert!(
        *sparse.history.dead.last().unwrap() > 6,
        "{:?}",
        sparse.history.dead
    );
    for (a, b) in dense[0].history.loss.iter().zip(&sparse.history.loss) {
        assert!((a - b).abs() <= 1e-5 * a.abs(), "{a} against {b}");
    }
}
