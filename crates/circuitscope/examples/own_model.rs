//! Heads that matter on your own prompts in your own model, on the CPU.
//!
//! ```text
//! cargo run --release --example own_model -- MODEL.gguf PAIRS.jsonl
//! ```
//! where each line of PAIRS.jsonl is `{"positive": "…", "negative": "…"}`. Without arguments: the model inside the crate on a
//! task of its own.

#![expect(clippy::print_stdout, reason = "what was found is printed")]

use std::error::Error;
use std::path::PathBuf;

use circuitscope::cpu::Model;
use circuitscope::eval::CardSettings;
use circuitscope::prelude::*;
use circuitscope::tasks::read_pairs;

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (model, prompts) = match given.as_slice() {
        [model, pairs] => {
            let model = Model::load(model, LoadSettings::default(), &NoProgress)?;
            let prompts = model.prepare(read_pairs(pairs)?, None, PrepareSettings::default())?;
            (model, prompts)
        }
        [] => {
            let model = Model::reference()?;
            let prompts = model.task(&INDUCTION, 20, Seed::new(0), PrepareSettings::default())?;
            (model, prompts)
        }
        _ => return Err("expected a model and a file of pairs, or nothing".into()),
    };
    let run = model.run(&prompts, CaptureSettings::default(), &NoProgress)?;
    for said in run.behaviour(Seed::new(0), &NoProgress)?.sentences() {
        println!("{said}");
    }
    let found = run.discover(&DiscoverSettings::default(), &NoProgress)?;
    for said in found.chosen.sentences() {
        println!("{said}");
    }
    let ranking = found.scores.ranking();
    let ranks = (1..).zip(&ranking);
    let chosen =
        ranks.filter(|(_, (head, _))| found.chosen.circuit.heads().any(|one| one == *head));
    let heads: Vec<(HeadId, usize)> = chosen.map(|(rank, (head, _))| (*head, rank)).collect();
    let cards = run.cards(&heads, &CardSettings::default(), Seed::new(0), &NoProgress)?;
    for card in &cards.heads {
        println!(
            "{} {}: {}",
            card.head,
            card.effect_words(),
            card.role_words()
        );
    }
    Ok(())
}
