//! `train` as a whole: the same seed, the untrained dictionary, the history, errors, stopping.

use core::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::Tensor;
use circuitscope_core::{NoProgress, Progress, Seed};
use circuitscope_sae::{
    Dictionary, Encoder as _, Error, SaeConfig, TrainConfig, Trained, Trainer, train,
};

use crate::{B, device, matrix, uniform, values};

const ROWS: usize = 96;
const D_IN: usize = 32;

fn config() -> SaeConfig {
    SaeConfig::new(D_IN).with_d_sae(48)
}

fn data() -> Tensor<B, 2> {
    matrix(&uniform(11, ROWS, D_IN), ROWS, D_IN)
}

fn run(config: &SaeConfig, steps: usize, seed: u64) -> Trained<B> {
    train(
        config,
        &TrainConfig::new().with_steps(steps),
        data(),
        Seed::new(seed),
        &NoProgress,
    )
    .unwrap()
}

#[test]
fn same_seed_gives_the_same_bits() {
    for dictionary in Dictionary::ALL {
        let config = config().with_dictionary(dictionary);
        let (first, second) = (run(&config, 60, 4), run(&config, 60, 4));
        assert_eq!(values(&first.sae.w_enc), values(&second.sae.w_enc));
        assert_eq!(values(&first.sae.w_dec), values(&second.sae.w_dec));
        assert_eq!(first.history, second.history);
        let codes = first.sae.codes(data()).unwrap();
        assert_eq!(codes, second.sae.codes(data()).unwrap());
        assert_ne!(codes, run(&config, 60, 5).sae.codes(data()).unwrap());
    }
}

#[test]
fn no_steps_give_the_untrained_dictionary() {
    let untrained = config().init::<B>(Seed::new(4), &device()).unwrap();
    let trained = run(&config(), 0, 4);
    assert!(trained.history.is_empty());
    assert_eq!(
        trained.sae.codes(data()).unwrap(),
        untrained.codes(data()).unwrap()
    );
    // The weights are normalised once more, in f32.
    for (a, b) in values(&trained.sae.w_dec)
        .iter()
        .zip(values(&untrained.w_dec))
    {
        assert!((a - b).abs() <= 2.0 * f32::EPSILON * b.abs(), "{a} {b}");
    }
}

#[test]
fn history_describes_the_untrained_dictionary_first() {
    let untrained = config().init::<B>(Seed::new(4), &device()).unwrap();
    let trained = run(&config(), 30, 4);
    let history = &trained.history;
    assert_eq!(history.len(), 30);

    // Everything again from the definitions, in f64 on the host.
    let x = values(&data());
    let features = untrained.encode(data());
    let reconstruction = values(&untrained.decode(features.clone()));
    let features = values(&features);
    let (m, n, d) = (ROWS as f64, 48, D_IN);
    let square_sum: f64 = x
        .iter()
        .zip(&reconstruction)
        .map(|(x, r)| f64::from(r - x).powi(2))
        .sum();
    let total: f64 = (0..d)
        .map(|column| {
            let column: Vec<f64> = x
                .iter()
                .skip(column)
                .step_by(d)
                .map(|v| f64::from(*v))
                .collect();
            let mean = column.iter().sum::<f64>() / m;
            column.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
        })
        .sum();
    let l1 = features.iter().map(|f| f64::from(*f)).sum::<f64>() / m;
    let l0 = features.iter().filter(|f| **f > 0.0).count() as f64 / m;
    let dead = (0..n)
        .filter(|j| features.iter().skip(*j).step_by(n).all(|f| *f == 0.0))
        .count();
    // Means of a few thousand f32 numbers.
    let close = |found: f64, expected: f64| {
        assert!(
            (found - expected).abs() < 1e-5 * expected.abs(),
            "{found} {expected}"
        );
    };
    close(history.mse[0], square_sum / (m * d as f64));
    close(history.l1[0], l1);
    close(history.loss[0], square_sum / (m * d as f64) + 0.02 * l1);
    close(history.explained_variance[0], 1.0 - square_sum / total);
    close(history.l0[0], l0);
    assert_eq!(history.dead[0], dead);
    assert!(history.loss[29] < history.loss[0]);
}

#[test]
fn features_that_never_fire_are_dead() {
    let mut sae = config().init::<B>(Seed::new(4), &device()).unwrap();
    let mut bias = values(&sae.b_enc);
    bias[3] = -1e3;
    bias[40] = -1e3;
    sae.b_enc = Tensor::from_floats(&bias[..], &device());
    let alive = |bias: &[f32]| bias.iter().filter(|b| **b > -1.0).count();
    let train = TrainConfig::new().with_steps(2);
    let mut trainer = Trainer::<B>::new(&config(), &train, sae, data()).unwrap();
    trainer.step().unwrap();
    trainer.step().unwrap();
    let trained = trainer.finish().unwrap();
    assert_eq!(trained.history.dead, [2, 2]);
    // Without a gradient Adam does not move them.
    let bias = values(&trained.sae.b_enc);
    assert_eq!((bias[3], bias[40], alive(&bias)), (-1e3, -1e3, 46));
}

#[test]
fn wrong_data_are_an_error() {
    let attempt = |x: Tensor<B, 2>| {
        train(
            &config(),
            &TrainConfig::new().with_steps(1),
            x,
            Seed::new(0),
            &NoProgress,
        )
        .unwrap_err()
    };
    let mut bad = uniform(11, ROWS, D_IN);
    bad[100] = f32::NAN;
    assert!(matches!(
        attempt(matrix(&bad, ROWS, D_IN)),
        Error::NonFinite { .. }
    ));
    assert!(matches!(
        attempt(Tensor::zeros([3, D_IN + 1], &device())),
        Error::Width {
            expected: D_IN,
            found: 33
        }
    ));
    assert!(matches!(
        attempt(Tensor::zeros([0, D_IN], &device())),
        Error::Empty
    ));
}

#[test]
fn a_diverging_loss_is_an_error() {
    let error = train(
        &config(),
        &TrainConfig::new().with_steps(20).with_learning_rate(1e30),
        data(),
        Seed::new(0),
        &NoProgress,
    )
    .unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 1 }), "{error}");
    // A loss is seen before its step, so that one step's damage shows in the weights alone.
    let mut sae = config().init::<B>(Seed::new(4), &device()).unwrap();
    sae.b_dec = Tensor::full([D_IN], f32::NAN, &device());
    let train = TrainConfig::new().with_steps(0);
    let error = Trainer::<B>::new(&config(), &train, sae, data())
        .unwrap()
        .finish()
        .unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 0 }), "{error}");
}

#[test]
fn the_autoencoder_must_have_the_configured_size() {
    let sae = config().init::<B>(Seed::new(4), &device()).unwrap();
    let other = config().with_d_sae(47);
    let error = Trainer::<B>::new(&other, &TrainConfig::new(), sae, data()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "d_sae is 47: expected the size of the autoencoder to be trained"
    );
}

/// Several trainings at once, as an evaluation over seeds runs them.
#[test]
fn trainings_in_threads_do_not_disturb_each_other() {
    let alone: Vec<_> = (0..3).map(|seed| run(&config(), 40, seed)).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|seed| scope.spawn(move || run(&config(), 40, seed)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone.history, together.history);
        assert_eq!(values(&alone.sae.w_enc), values(&together.sae.w_enc));
    }
}

#[test]
fn equal_vectors_have_an_explained_variance() {
    let x = Tensor::<B, 2>::ones([5, D_IN], &device());
    let trained = train(
        &config(),
        &TrainConfig::new().with_steps(2),
        x,
        Seed::new(0),
        &NoProgress,
    )
    .unwrap();
    assert_eq!(trained.history.explained_variance, [0.0, 0.0]);
}

/// Counts steps and stops after the third.
#[derive(Default)]
struct Stopper {
    done: AtomicU64,
    ended: AtomicU64,
}

impl Progress for Stopper {
    fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
    }
    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) == 3
    }
}

#[test]
fn training_stops_when_asked() {
    let stopper = Stopper::default();
    let error = train(
        &config(),
        &TrainConfig::new(),
        data(),
        Seed::new(0),
        &stopper,
    )
    .unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 3 }), "{error}");
    assert_eq!(stopper.ended.load(Ordering::Relaxed), 1);
}
