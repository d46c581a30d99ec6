//! How well dictionaries find known directions: 64 in 32 dimensions, each on 5 % of rows, trained and untrained.
//!
//!     cargo run --release -p circuitscope-sae --example synthetic

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use circuitscope_core::{Exec, Seed};
use circuitscope_sae::synthetic::{Synthetic, mean_max_cosine};
use circuitscope_sae::{Objective, Result, StreamConfig, StreamTrainer};

type B = burn_flex::Flex;

const FEATURES: usize = 64;
const D: usize = 32;
const BATCH: usize = 256;

fn main() -> Result<()> {
    println!("objective | steps | noise | seed | trained | untrained | FVU | L0 | dead");
    let jumprelu = Objective::JumpRelu {
        l0_coefficient: 0.05,
        l0_warm_up: 500,
        bandwidth: 0.1,
        threshold: 0.01,
    };
    let standard = Objective::Standard {
        l1_coefficient: 0.2,
        l1_warm_up: 500,
    };
    let gated = |frozen_decoder| Objective::Gated {
        l1_coefficient: 1.0,
        l1_warm_up: 500,
        frozen_decoder,
    };
    for objective in [
        Objective::TopK { k: 3 },
        Objective::TopK { k: 4 },
        Objective::BatchTopK { k: 3 },
        Objective::BatchTopK { k: 4 },
        jumprelu,
        standard,
        gated(true),
        gated(false),
    ] {
        for (steps, noise) in [(2000, 0.0), (4000, 0.0), (4000, 0.05)] {
            for seed in 1..=3 {
                let seed = Seed::new(seed);
                let mut rows = Synthetic::new(FEATURES, D).with_noise(noise).stream(seed)?;
                let config = StreamConfig::new(D, FEATURES, objective)
                    .with_learning_rate(3e-3)
                    .with_steps(steps)
                    .with_decay(steps / 3)
                    .with_dead_after(100)
                    .with_exec(Exec::all_cores());
                let first = rows.next_rows(BATCH);
                let device = burn_flex::FlexDevice;
                let mut trainer = StreamTrainer::<B>::new(&config, &first, None, seed, &device)?;
                let untrained = trainer.dictionary()?.w_dec;
                for step in 0..steps {
                    if step + 100 == steps {
                        trainer.reset_statistics();
                    }
                    trainer.step_host(&rows.next_rows(BATCH), None)?;
                }
                let cosine = |atoms: &[f32]| mean_max_cosine(atoms, rows.directions(), D);
                let found = trainer.statistics();
                println!(
                    "{objective:?} | {steps} | {noise} | {seed} | {:.3} | {:.3} | {:.3} | {:.2} | {}",
                    cosine(&trainer.dictionary()?.w_dec)?,
                    cosine(&untrained)?,
                    found.fvu,
                    found.l0,
                    found.dead
                );
            }
        }
    }
    Ok(())
}
