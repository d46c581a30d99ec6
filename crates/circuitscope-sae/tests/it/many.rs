//! Many dictionaries at a time are what each would be alone.

use std::sync::atomic::{AtomicU64, Ordering};

use circuitscope_core::{Exec, NoProgress, Progress, Seed};
use circuitscope_sae::{
    Dictionary, Error, SaeConfig, TrainConfig, TrainJob, Trained, train, train_many, train_stacked,
};

use crate::{B, matrix, uniform, values};

/// Sums of up to 60 products in another order, through 30 steps of Adam at a tenth of its usual distance
/// from them.
const ROUNDING: f32 = 2e-5;

/// Different seeds, values of λ, constraints, sizes and vectors; most of one shape.
fn jobs() -> Vec<TrainJob<B>> {
    let job = |at: u64, d_sae, dictionary, rows: usize| TrainJob {
        config: SaeConfig::new(12)
            .with_d_sae(d_sae)
            .with_l1_coefficient(0.01 * at as f64)
            .with_dictionary(dictionary),
        x: matrix(&uniform(at, rows, 12), rows, 12),
        seed: Seed::new(at),
    };
    let (paper, atoms) = (Dictionary::PaperCompatible, Dictionary::UnitNormAtoms);
    vec![
        job(0, 20, paper, 60),
        job(1, 20, atoms, 60),
        job(2, 20, paper, 60),
        job(3, 8, paper, 60),
        job(4, 20, paper, 40),
        job(5, 20, paper, 60),
    ]
}

fn assert_alike(found: &Trained<B>, alone: &Trained<B>, name: &str) {
    let (a, b) = (&found.sae, &alone.sae);
    let weights = [
        (values(&a.w_enc), values(&b.w_enc)),
        (values(&a.w_dec), values(&b.w_dec)),
        (values(&a.b_enc), values(&b.b_enc)),
        (values(&a.b_dec), values(&b.b_dec)),
    ];
    for (found, alone) in weights {
        assert_eq!(found.len(), alone.len(), "{name}");
        let worst = found.iter().zip(&alone).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert!(worst <= ROUNDING, "{name}: {worst}");
    }
    assert_eq!(found.history.loss.len(), 30);
    for (a, b) in found.history.loss.iter().zip(&alone.history.loss) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{name}: {a} {b}");
    }
    assert_eq!(found.history.l0, alone.history.l0, "{name}");
}

#[test]
fn each_is_what_it_would_be_alone() {
    let (jobs, steps) = (jobs(), TrainConfig::new().with_steps(30));
    let alone = jobs.iter().map(|job| {
        let TrainJob { config, x, seed } = job.clone();
        train(&config, &steps, x, seed, &NoProgress).unwrap()
    });
    let alone: Vec<_> = alone.collect();
    let host = steps.clone().with_exec(Exec::host(3));
    for (way, found) in [
        (
            "one after the other",
            train_many(&jobs, &steps, &NoProgress),
        ),
        ("side by side", train_many(&jobs, &host, &NoProgress)),
        ("stacked", train_stacked(&jobs, &steps, &NoProgress)),
    ] {
        let found = found.unwrap();
        assert_eq!(found.len(), jobs.len());
        for (at, (found, alone)) in found.iter().zip(&alone).enumerate() {
            assert_alike(found, alone, &format!("{way} {at}"));
        }
    }
    assert!(
        train_many::<B>(&[], &steps, &NoProgress)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_fault_or_a_request_to_stop_ends_all() {
    struct StopAfter(AtomicU64);
    impl Progress for StopAfter {
        fn advance(&self, steps: u64) {
            self.0.fetch_sub(steps, Ordering::Relaxed);
        }
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed) < 1000
        }
    }

    let steps = TrainConfig::new().with_steps(30).with_exec(Exec::host(3));
    for train in [train_many::<B>, train_stacked::<B>] {
        let stopped = train(&jobs(), &steps, &StopAfter(AtomicU64::new(1040)));
        assert!(matches!(stopped, Err(Error::Cancelled { .. })));
        let mut bad = jobs();
        bad[4].x = matrix(&[f32::NAN; 24], 2, 12);
        let bad = train(&bad, &steps, &NoProgress);
        assert!(matches!(bad, Err(Error::NonFinite { .. })));
        let mut narrow = jobs();
        narrow[5].x = matrix(&uniform(0, 4, 11), 4, 11);
        let narrow = train(&narrow, &steps, &NoProgress);
        assert!(matches!(narrow, Err(Error::Width { found: 11, .. })));
    }
}
