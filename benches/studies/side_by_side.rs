//! The stages of the method on the input of `benches/python/side_by_side.py`, timed one by one:
//!
//! ```text
//! side_by_side FOLDER
//! ```
//! reads `model/` and `input.safetensors` there, writes `circuitscope.safetensors` and adds a line of
//! seconds to `circuitscope.jsonl`.

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::{Tensor, TensorData};
use circuitscope::model::{LoadSettings, Processing, capture_head_means, load_dir};
use circuitscope::sae::{Encoder as _, SaeConfig, SparseAutoencoder, TrainConfig, Trainer};
use circuitscope::score::{CodeTable, node_scores, pair_scores};
use circuitscope::{Exec, NoProgress, Polarity};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// Name and seconds of a stage.
type Times = Vec<(&'static str, f64)>;

fn timed<T>(times: &mut Times, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work()?;
    times.push((name, start.elapsed().as_secs_f64()));
    Ok(result)
}

const EXAMPLES: usize = 10;
const STEPS: usize = 500;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("expected a folder")?;
    let folder = PathBuf::from(folder);
    let device = FlexDevice;
    let settings = LoadSettings::from(Processing::Raw).with_exec(Exec::all_cores());
    let loaded = load_dir::<Flex>(&folder.join("model"), settings, &device, &NoProgress)?;
    let input = fs_err::read(folder.join("input.safetensors"))?;
    let input = SafeTensors::deserialize(&input)?;
    let floats = |name: &str| -> Result<Vec<f32>> {
        let view = input.tensor(name)?;
        let words = view.data().as_chunks::<4>().0.iter();
        Ok(words.map(|word| f32::from_le_bytes(*word)).collect())
    };
    let tokens = input.tensor("tokens")?;
    let (prompts, length) = (tokens.shape()[0], tokens.shape()[1]);
    let ids = tokens.data().as_chunks::<4>().0.iter();
    let ids: Vec<u32> = ids.map(|word| u32::from_le_bytes(*word)).collect();
    let sequences: Vec<&[u32]> = ids.chunks(length).collect();
    let pairs = prompts / 2;
    let d = loaded.model.config().d_model;
    let codes = floats("b_enc")?.len();
    let matrix = |name: &str, shape: [usize; 2]| -> Result<Tensor<Flex, 2>> {
        Ok(Tensor::from_data(
            TensorData::new(floats(name)?, shape),
            &device,
        ))
    };
    let start = SparseAutoencoder {
        w_enc: matrix("W_enc", [d, codes])?,
        w_dec: matrix("W_dec", [codes, d])?,
        b_enc: matrix("b_enc", [1, codes])?.squeeze_dim(0),
        b_dec: matrix("b_dec", [1, d])?.squeeze_dim(0),
    };

    let mut times = Vec::new();
    drop(capture_head_means(
        &loaded.model,
        &sequences[..2],
        4096,
        &device,
        &NoProgress,
    )?);
    let means = timed(&mut times, "capture", || {
        Ok(capture_head_means(
            &loaded.model,
            &sequences,
            4096,
            &device,
            &NoProgress,
        )?)
    })?;

    let grid = loaded.model.config().grid();
    let heads = grid.len();
    let half = EXAMPLES / 2;
    let of_class = |from: usize| means.clone().narrow(0, from, half);
    let chosen = Tensor::cat(vec![of_class(0), of_class(pairs)], 0);
    let config = SaeConfig::new(d).with_d_sae(codes);
    let steps = TrainConfig::new()
        .with_steps(STEPS)
        .with_exec(Exec::all_cores());
    let trained = timed(&mut times, "train", || {
        let x = chosen.reshape([EXAMPLES * heads, d]);
        let mut trainer = Trainer::new(&config, &steps, start, x)?;
        for _ in 0..STEPS {
            trainer.step()?;
        }
        Ok(trainer.finish()?)
    })?;

    let found = timed(&mut times, "encode", || {
        Ok(trained
            .sae
            .codes(means.clone().reshape([prompts * heads, d]))?)
    })?;

    let mut labels = vec![Polarity::Positive; pairs];
    labels.resize(prompts, Polarity::Negative);
    let (nodes, edges) = timed(&mut times, "score", || {
        let table = CodeTable::new(grid, labels, found.clone())?.paper_compatible();
        Ok((node_scores(&table)?, pair_scores(&table)?))
    })?;

    if let Some(dead) = trained.history.dead.last() {
        println!("features active nowhere at the end: {dead} of {codes}");
    }
    let line: Vec<String> = times
        .iter()
        .map(|(name, t)| format!("{name:?}: {t:.6}"))
        .collect();
    let mut lines = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("circuitscope.jsonl"))?;
    writeln!(lines, "{{{}}}", line.join(", "))?;

    let floats = |tensor: TensorData| -> Vec<u8> {
        tensor.iter::<f32>().flat_map(f32::to_le_bytes).collect()
    };
    let ints = |values: &mut dyn Iterator<Item = i32>| -> Vec<u8> {
        values.flat_map(i32::to_le_bytes).collect()
    };
    let losses = trained
        .history
        .loss
        .iter()
        .flat_map(|&loss| (loss as f32).to_le_bytes());
    let sae = trained.sae;
    let outputs: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = vec![
        (
            "means",
            Dtype::F32,
            vec![prompts, heads, d],
            floats(means.into_data()),
        ),
        (
            "W_enc",
            Dtype::F32,
            vec![d, codes],
            floats(sae.w_enc.into_data()),
        ),
        (
            "W_dec",
            Dtype::F32,
            vec![codes, d],
            floats(sae.w_dec.into_data()),
        ),
        (
            "b_enc",
            Dtype::F32,
            vec![codes],
            floats(sae.b_enc.into_data()),
        ),
        ("b_dec", Dtype::F32, vec![d], floats(sae.b_dec.into_data())),
        ("losses", Dtype::F32, vec![STEPS], losses.collect()),
        (
            "codes",
            Dtype::I32,
            vec![prompts, heads],
            ints(&mut found.into_iter()),
        ),
        (
            "nodes",
            Dtype::I32,
            vec![heads],
            ints(&mut nodes.iter().map(|n| n.unique as i32)),
        ),
        (
            "edges",
            Dtype::I32,
            vec![heads, heads],
            ints(&mut edges.unique().iter().map(|&n| n as i32)),
        ),
    ];
    let views = outputs.iter().map(|(name, dtype, shape, bytes)| {
        Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    fs_err::write(
        folder.join("circuitscope.safetensors"),
        safetensors::serialize(views, None)?,
    )?;
    Ok(())
}
