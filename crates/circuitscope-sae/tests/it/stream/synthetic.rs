//! Known directions are found.

use circuitscope_core::{Exec, Seed};
use circuitscope_sae::synthetic::{Synthetic, mean_max_cosine};
use circuitscope_sae::{Objective, StreamConfig, StreamTrainer};

use crate::{B, device};

const FEATURES: usize = 64;
const D: usize = 32;
const BATCH: usize = 256;
const JUMPRELU: Objective = Objective::JumpRelu {
    l0_coefficient: 0.05,
    l0_warm_up: 500,
    bandwidth: 0.1,
    threshold: 0.01,
};

const STANDARD: Objective = Objective::Standard {
    l1_coefficient: 0.2,
    l1_warm_up: 500,
};
const GATED: Objective = Objective::Gated {
    l1_coefficient: 1.0,
    l1_warm_up: 500,
    frozen_decoder: true,
};

/// Cosines to the truth of a trained and of the untrained dictionary, and the FVU of the last steps.
fn found(objective: Objective, steps: u64, seed: u64) -> (f64, f64, f64) {
    let mut rows = Synthetic::new(FEATURES, D).stream(Seed::new(seed)).unwrap();
    let config = StreamConfig::new(D, FEATURES, objective)
        .with_learning_rate(3e-3)
        .with_steps(steps)
        .with_decay(steps / 3)
        .with_dead_after(100)
        .with_exec(Exec::all_cores());
    let first = rows.next_rows(BATCH);
    let mut trainer =
        StreamTrainer::<B>::new(&config, &first, None, Seed::new(seed), &device()).unwrap();
    let cosine = |trainer: &StreamTrainer<B>, truth: &[f32]| {
        mean_max_cosine(&trainer.dictionary().unwrap().w_dec, truth, D).unwrap()
    };
    let untrained = cosine(&trainer, rows.directions());
    for step in 0..steps {
        if step + 50 == steps {
            trainer.reset_statistics();
        }
        trainer.step_host(&rows.next_rows(BATCH), None).unwrap();
    }
    (
        cosine(&trainer, rows.directions()),
        untrained,
        trainer.statistics().fvu,
    )
}

/// The measure of SAELens' synthetic benchmark on 64 features in 32 dimensions, each on 5 % of rows.
#[test]
fn trained_dictionaries_find_the_directions_and_untrained_ones_do_not() {
    for (objective, steps) in [
        (Objective::TopK { k: 4 }, 2000),
        (Objective::BatchTopK { k: 4 }, 4000),
        (JUMPRELU, 4000),
        (STANDARD, 4000),
        (GATED, 4000),
    ] {
        for seed in [1, 2] {
            let (trained, untrained, fvu) = found(objective, steps, seed);
            println!(
                "{objective:?}, seed {seed}: {trained:.3} trained, {untrained:.3} untrained, FVU {fvu:.4}"
            );
            assert!(trained >= 0.9, "{objective:?}: {trained}");
            assert!(untrained <= 0.5, "{objective:?}: {untrained}");
        }
    }
}
