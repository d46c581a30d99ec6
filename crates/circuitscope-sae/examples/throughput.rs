//! Rows a second of a training step of a dictionary, on this machine's cores: what `benches/python/train_dictionary.py`
//! does with SAELens, on the same rows.
//!
//!     cargo run --release -p circuitscope-sae --example throughput -- rows.safetensors
//!
//! The file is made if it is not there. Further arguments: architecture (topk or batchtopk), the steps after which
//! features are dead (1000), and a folder to save the dictionary in; what it does to the first batch is printed then, which
//! `train_dictionary.py --check` prints of SAELens on the same folder.

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Exec, Seed};
use circuitscope_files::{Entry, Metadata, Reader, Writer};
use circuitscope_sae::synthetic::Synthetic;
use circuitscope_sae::{
    Objective, SaeMetadata, StreamConfig, StreamTrainer, TrainedOn, load_dir, save_trained,
};

type B = burn_flex::Flex;

const D: usize = 576;
const FEATURES: usize = 2304;
const K: usize = 32;
const BATCH: usize = 4096;
/// Batches that are trained on in turn.
const BATCHES: usize = 8;
/// Steps that do not count, and steps that do.
const STEPS: [usize; 2] = [5, 30];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &arguments[..] else {
        return Err("give a file of rows, which is made if it is not there".into());
    };
    let path = Path::new(path);
    if !path.exists() {
        let synthetic = Synthetic::new(FEATURES, D)
            .with_probability(0.01)
            .with_noise(0.05);
        let rows = synthetic.stream(Seed::new(0))?.next_rows(BATCHES * BATCH);
        let entry = Entry::of::<f32>("rows", &[BATCHES * BATCH, D]);
        let mut writer = Writer::create(path, vec![entry], Metadata::new())?;
        writer.fill("rows", &rows)?;
        writer.finish()?;
    }
    let rows = Reader::open(path)?.tensor("rows")?.finite()?;
    let batches: Vec<&[f32]> = rows.chunks(BATCH * D).collect();
    let objective = match rest.first().map_or("topk", String::as_str) {
        "topk" => Objective::TopK { k: K },
        "batchtopk" => Objective::BatchTopK { k: K },
        other => return Err(format!("{other}: expected topk or batchtopk").into()),
    };
    let dead_after = rest.get(1).map_or(Ok(1000), |steps| steps.parse())?;
    let exec = Exec::all_cores();
    let config = StreamConfig::new(D, FEATURES, objective)
        .with_exec(exec)
        .with_dead_after(dead_after);
    let device = burn_flex::FlexDevice;
    let mut trainer = StreamTrainer::<B>::new(&config, batches[0], None, Seed::new(0), &device)?;
    let [warm, timed] = STEPS;
    let mut seconds: Vec<f64> = Vec::new();
    let mut last = None;
    for step in 0..warm + timed {
        let start = Instant::now();
        last = Some(trainer.step_host(batches[step % BATCHES], None)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut seconds = seconds.split_off(warm);
    let total: f64 = seconds.iter().sum();
    seconds.sort_by(f64::total_cmp);
    println!(
        "{} threads, {objective:?}: {:.0} rows/s over {timed} steps; a step takes {:.1} ms (median), {:.1} at best",
        exec.host_threads,
        (timed * BATCH) as f64 / total,
        1e3 * seconds[timed / 2],
        1e3 * seconds[0]
    );
    if let Some(last) = last {
        println!(
            "FVU {:.4}, dead {}, loss {:.4}",
            last.fvu, last.dead, last.loss
        );
    }
    if let Some(folder) = rest.get(2).map(Path::new) {
        let dictionary = trainer.dictionary()?;
        save_trained(
            &dictionary,
            &SaeMetadata::default(),
            &TrainedOn::default(),
            folder,
        )?;
        let saved = load_dir::<B>(folder, &device)?;
        let data = TensorData::new(batches[0].to_vec(), [BATCH, D]);
        let x = Tensor::<B, 2>::from_data(data, &device);
        let features = saved.encoder.encode(x.clone());
        let l0 = features
            .clone()
            .greater_elem(0.0)
            .float()
            .sum()
            .into_scalar()
            / BATCH as f32;
        let sum = features.clone().sum().into_scalar();
        let made = saved.encoder.decode(features, x.clone());
        let made = made.ok_or("an autoencoder writes")?;
        let squares = |x: Tensor<B, 2>| (x.clone() * x).sum().into_scalar();
        let spread = squares(x.clone() - x.clone().mean_dim(0));
        println!(
            "{} read again: L0 {l0:.4}, mean sum {:.5}, FVU {:.6}",
            saved.architecture,
            sum / BATCH as f32,
            squares(made - x) / spread
        );
    }
    Ok(())
}
