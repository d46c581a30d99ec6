//! Steps: both ways to compute them, what they report, what they refuse.

use burn::tensor::Tensor;
use circuitscope_core::Seed;
use circuitscope_sae::{Error, Objective, StreamConfig, StreamTrainer, TrainedDictionary};

use super::{
    BATCHTOPK, D, FEATURES, ROWS, TOPK, all, autoencoder, distance, gated, jumprelu, on_host,
    standard, start, steps, transcoder, x, y,
};
use crate::{B, device, matrix, uniform, values};

fn lists(dictionary: &TrainedDictionary) -> Vec<&[f32]> {
    let mut lists = vec![
        &dictionary.w_enc[..],
        &dictionary.w_dec,
        &dictionary.b_enc,
        &dictionary.b_dec,
    ];
    lists.extend(dictionary.threshold.as_deref());
    lists.extend(dictionary.w_skip.as_deref());
    lists.extend(dictionary.b_mag.as_deref());
    lists.extend(dictionary.r_mag.as_deref());
    lists
}

/// Adam divides by the size of gradients, so that roundings of small ones grow: the bound is on whole lists, and the first
/// step is not on the rows of whose mean `b_dec` is made, which leave a transcoder's `b_dec` without gradient.
#[test]
fn host_and_device_agree() {
    for config in all() {
        let (mut device, mut host) = (start(&config), start(&on_host(&config)));
        for batch in 1..7 {
            let y = y(&config, batch);
            let on_device = device.step_host(&x(batch), y.as_deref()).unwrap();
            let on_host = host.step_host(&x(batch), y.as_deref()).unwrap();
            assert_eq!((on_host.dead, on_host.l0), (on_device.dead, on_device.l0));
            let apart = (on_host.loss - on_device.loss).abs();
            assert!(
                apart < 1e-5 * on_device.loss,
                "{config:?}: loss differs by {apart}"
            );
        }
        let (device, host) = (device.dictionary().unwrap(), host.dictionary().unwrap());
        assert_eq!(device.firing_rates, host.firing_rates);
        for (host, device) in lists(&host).into_iter().zip(lists(&device)) {
            let distance = distance(host, device);
            assert!(distance < 1e-5, "{config:?}: {distance}");
        }
    }
}

/// The same rows as a tensor and as a slice.
#[test]
fn tensors_and_slices_are_the_same() {
    for config in [
        autoencoder(TOPK),
        on_host(&autoencoder(TOPK)),
        on_host(&transcoder(TOPK)),
    ] {
        let (mut slices, mut tensors) = (start(&config), start(&config));
        let (x, y) = (x(1), y(&config, 1));
        let record = slices.step_host(&x, y.as_deref()).unwrap();
        let y = y.map(|y| matrix(&y, ROWS, config.d_out));
        assert_eq!(tensors.step(matrix(&x, ROWS, D), y).unwrap(), record);
        assert_eq!(tensors.dictionary().unwrap(), slices.dictionary().unwrap());
    }
}

/// What a step reports is what the dictionary before it does.
#[test]
fn records_describe_the_dictionary_before_the_step() {
    for config in [
        autoencoder(TOPK),
        on_host(&autoencoder(TOPK)),
        autoencoder(jumprelu()),
        autoencoder(standard()).with_unit_norm(false),
        autoencoder(gated(true)),
    ] {
        let mut trainer = start(&config);
        steps(&mut trainer, 0..1);
        let dictionary = trainer.dictionary().unwrap();
        let encoder = dictionary.encoder::<B>(&device()).unwrap();
        trainer.reset_statistics();
        let rows = x(1);
        let record = trainer.step_host(&rows, None).unwrap();
        let tensor = matrix(&rows, ROWS, D);
        let features = values(&encoder.encode(tensor.clone()));
        let made = values(&encoder.reconstruct(tensor.clone()).unwrap());
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let error: f64 = rows.iter().zip(&made).map(square).sum();
        let mean = values(&tensor.mean_dim(0));
        let spread: f64 = rows.iter().zip(mean.iter().cycle()).map(square).sum();
        // The penalty is on what is penalised before the step: λ rises to .2 in the second of three steps.
        if let Objective::Standard { .. } = config.objective {
            let lengths: Vec<f64> = dictionary
                .w_dec
                .chunks(D)
                .map(|row| {
                    row.iter()
                        .map(|w| f64::from(*w).powi(2))
                        .sum::<f64>()
                        .sqrt()
                })
                .collect();
            let sizes = features.iter().zip(lengths.iter().cycle());
            let sizes: f64 = sizes.map(|(f, length)| f64::from(*f) * length).sum();
            let penalty = 0.2 * sizes / ROWS as f64;
            let apart = record.loss - record.error - penalty;
            assert!(apart.abs() < 1e-5 * penalty, "{apart} of {penalty}");
        }
        let active = features.iter().filter(|f| **f > 0.0).count();
        assert!((record.error * ROWS as f64 - error).abs() < 1e-5 * error);
        assert!((record.fvu - error / spread).abs() < 1e-5 * record.fvu);
        assert_eq!(record.l0, active as f64 / ROWS as f64);
        let statistics = trainer.statistics();
        assert_eq!((statistics.rows, statistics.steps), (ROWS as u64, 1));
        assert!((statistics.fvu - record.fvu).abs() < 1e-12);
        for feature in 0..FEATURES {
            let rows = features
                .iter()
                .skip(feature)
                .step_by(FEATURES)
                .filter(|f| **f > 0.0);
            assert_eq!(
                statistics.firing_rates[feature],
                rows.count() as f64 / ROWS as f64
            );
        }
    }
}

/// Of one batch, then of a mean with weights .99 and .01.
#[test]
fn the_threshold_of_batchtopk_is_a_running_mean() {
    for config in [autoencoder(BATCHTOPK), on_host(&autoencoder(BATCHTOPK))] {
        let mut trainer = start(&config);
        assert_eq!(
            trainer.dictionary().unwrap().threshold.unwrap(),
            [0.0; FEATURES]
        );
        let mut mean: Option<f64> = None;
        for batch in 0..3 {
            let at = trainer.dictionary().unwrap();
            let rows = x(batch);
            let mut h: Vec<f32> = Vec::new();
            for row in rows.chunks(D) {
                for feature in 0..FEATURES {
                    let inner = row.iter().zip(&at.b_dec).enumerate();
                    let inner = inner.map(|(d, (x, b))| (x - b) * at.w_enc[d * FEATURES + feature]);
                    h.push(inner.sum::<f32>() + at.b_enc[feature]);
                }
            }
            h.sort_by(|a, b| b.total_cmp(a));
            let least = f64::from(h[3 * ROWS - 1]);
            mean = Some(mean.map_or(least, |mean| 0.99 * mean + 0.01 * least));
            trainer.step_host(&rows, None).unwrap();
        }
        let found = f64::from(trainer.dictionary().unwrap().threshold.unwrap()[0]);
        let mean = mean.unwrap();
        assert!((found - mean).abs() < 1e-5 * mean, "{found} {mean}");
    }
}

#[test]
fn rows_of_the_decoder_keep_their_length() {
    for config in all() {
        let mut trainer = start(&config);
        steps(&mut trainer, 0..5);
        let w_dec = trainer.dictionary().unwrap().w_dec;
        let norms = w_dec
            .chunks(config.d_out)
            .map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt());
        let kept = norms.filter(|norm| (norm - 1.0).abs() < 1e-5).count();
        assert_eq!(kept == FEATURES, config.unit_norm, "{config:?}: {kept}");
    }
}

/// Rows on one side of the origin, to which half of all features are turned the wrong way.
#[test]
fn the_auxiliary_term_revives_features() {
    let dead = |coefficient: f64| {
        let config = StreamConfig::new(D, 200, TOPK)
            .with_centred(false)
            .with_learning_rate(1e-2)
            .with_dead_after(20)
            .with_aux_coefficient(coefficient);
        let rows = |batch| x(batch).iter().map(|x| x + 1.0).collect::<Vec<_>>();
        let config = on_host(&config);
        let (first, seed) = (rows(0), Seed::new(5));
        let mut trainer = StreamTrainer::<B>::new(&config, &first, None, seed, &device()).unwrap();
        for batch in 0..400 {
            trainer.step_host(&rows(batch), None).unwrap();
        }
        trainer.statistics().dead
    };
    let (with, without) = (dead(1.0), dead(0.0));
    assert!(
        without > 100 && with < without / 2,
        "{with} with, {without} without"
    );
}

#[test]
fn an_untrained_dictionary_starts_as_documented() {
    let trainer = start(&autoencoder(TOPK));
    let at = trainer.dictionary().unwrap();
    assert!(at.firing_rates.is_none() && at.steps == 0);
    let row = |feature: usize| &at.w_dec[feature * D..(feature + 1) * D];
    let column: Vec<f32> = (0..D).map(|d| at.w_enc[d * FEATURES + 7]).collect();
    assert_eq!(row(7), column);
    let rows = x(0);
    let mean = rows.iter().step_by(D).map(|x| f64::from(*x)).sum::<f64>() / ROWS as f64;
    assert!((f64::from(at.b_dec[0]) - mean).abs() < 1e-6);
    let at = start(&transcoder(TOPK)).dictionary().unwrap();
    assert!(at.w_dec.iter().all(|w| *w == 0.0) && at.w_skip.unwrap().iter().all(|w| *w == 0.0));
    let other = StreamTrainer::<B>::new(&autoencoder(TOPK), &rows, None, Seed::new(6), &device());
    assert_ne!(
        other.unwrap().dictionary().unwrap().w_dec,
        trainer.dictionary().unwrap().w_dec
    );
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let config = autoencoder(TOPK).with_batch_rows(ROWS);
    for config in [config.clone(), on_host(&config)] {
        let mut trainer = start(&config);
        let before = trainer.dictionary().unwrap();
        let mut message =
            |x: &[f32], y: Option<&[f32]>| trainer.step_host(x, y).unwrap_err().to_string();
        assert_eq!(
            message(&[0.0; 13], None),
            "x is 13 numbers, in rows of 12: expected whole rows: a multiple of d_in numbers, for y of d_out"
        );
        assert_eq!(message(&[], None), "no activations to train on");
        assert_eq!(
            message(&[0.0; (ROWS + 1) * D], None),
            "x is of 71 rows: expected at most batch_rows"
        );
        assert_eq!(
            message(&[0.0; D], Some(&[0.0; D])),
            "y is given: expected none for an autoencoder, which reconstructs x"
        );
        let mut broken = x(1);
        broken[5 * D + 3] = f32::NAN;
        assert!(message(&broken, None).contains("NaN or infinite values in rows 5 to 5"));
        let large = vec![f32::MAX / 4.0; 2 * D];
        assert!(matches!(
            trainer.step_host(&large, None),
            Err(Error::Diverged { step: 0 } | Error::NonFinite { .. })
        ));
        assert_eq!(trainer.dictionary().unwrap(), before);
        assert_eq!(trainer.steps(), 0);
    }
    let mut trainer = start(&transcoder(TOPK));
    let missing = trainer.step_host(&x(0), None).unwrap_err().to_string();
    assert_eq!(
        missing,
        "y is missing: expected the rows that a transcoder is to make of x"
    );
    let few = trainer
        .step_host(&x(0), Some(&uniform(1, 2, 10)))
        .unwrap_err()
        .to_string();
    assert_eq!(few, "y is of 2 rows: expected as many rows as x");
    let wide: Tensor<B, 2> = matrix(&uniform(1, 2, 3), 2, 3);
    let wide = start(&autoencoder(TOPK))
        .step(wide, None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        wide,
        "x is of width 3, not 12: expected rows of width d_in, for y of d_out"
    );
}

#[test]
fn settings_out_of_range_are_named() {
    let config = autoencoder(TOPK);
    for (field, config) in [
        ("k", StreamConfig::new(D, 2, TOPK)),
        ("d_out", config.clone().with_d_out(3)),
        ("skip", config.clone().with_skip(true)),
        ("centred", transcoder(TOPK).with_centred(true)),
        ("decay", config.clone().with_decay(3)),
        ("batch_rows", config.clone().with_batch_rows(0)),
        ("learning_rate", config.clone().with_learning_rate(f64::NAN)),
        ("beta_2", config.clone().with_beta_2(1.0)),
        ("l0_coefficient", autoencoder(Objective::jump_relu(-1.0))),
        (
            "l1_coefficient",
            autoencoder(Objective::standard(f64::INFINITY)),
        ),
        ("l1_coefficient", autoencoder(Objective::gated(-1.0))),
        ("objective", transcoder(gated(true))),
    ] {
        let y = y(&config, 0);
        let made = StreamTrainer::<B>::new(&config, &x(0), y.as_deref(), Seed::new(0), &device());
        let message = made.unwrap_err().to_string();
        assert!(message.starts_with(&format!("{field} is ")), "{message}");
    }
}
