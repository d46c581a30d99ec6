use std::path::Path;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, TensorData};
use circuitscope_core::Seed;
use rayon::prelude::*;

use super::checkpoint::{self, Saved};
use super::device::Device;
use super::host::Host;
use super::params::Params;
use super::statistics::{Window, fvu};
use super::{
    Batch, Objective, Outcome, StepRecord, StreamConfig, StreamStatistics, TrainedDictionary,
    mean_row,
};
use crate::adam::AdamStep;
use crate::autoencoder::uploaded;
use crate::{Error, Result};

/// Weight of a batch in the running mean of the smallest activation that was kept: SAELens' `topk_threshold_lr`.
const THRESHOLD_RATE: f64 = 0.01;

/// Trains a dictionary on batches of rows.
///
/// With [`Exec::in_host_memory`](circuitscope_core::Exec) and `TopK` or `BatchTopK`, a step is computed on the host, where k features of a
/// row cost k rows of a product; elsewhere in tensor operations. Both give the same up to rounding.
///
/// # Determinism
/// The first weights come from the seed's streams `sae/stream/w_enc` and `sae/stream/w_dec`, and the first rows; nothing
/// else is drawn. The same rows in the same batches give the same weights, and so they do over a
/// [`checkpoint`](Self::checkpoint).
///
/// # Memory
/// Three times the weights, `[rows, d_sae]` once on the host and about six times in tensor operations, and two to four
/// `[rows, d_out]`.
///
/// # Examples
/// ```
/// use circuitscope_core::{Exec, Seed};
/// use circuitscope_sae::synthetic::Synthetic;
/// use circuitscope_sae::{Objective, StreamConfig, StreamTrainer};
///
/// type B = burn_flex::Flex;
/// let mut rows = Synthetic::new(16, 8).stream(Seed::new(1))?;
/// let config = StreamConfig::new(8, 16, Objective::TopK { k: 2 })
///     .with_learning_rate(1e-2)
///     .with_exec(Exec::all_cores());
/// let first = rows.next_rows(256);
/// let mut trainer = StreamTrainer::<B>::new(&config, &first, None, Seed::new(0), &Default::default())?;
/// let before = trainer.step_host(&first, None)?;
/// for _ in 0..100 {
///     trainer.step_host(&rows.next_rows(256), None)?;
/// }
/// trainer.reset_statistics();
/// trainer.step_host(&rows.next_rows(256), None)?;
/// assert!(trainer.statistics().fvu < before.fvu / 2.0);
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
#[derive(Debug)]
pub struct StreamTrainer<B: Backend> {
    config: StreamConfig,
    seed: Seed,
    /// Steps done.
    step: u64,
    /// The running mean of the smallest activation that was kept, of `BatchTopK`.
    threshold: Option<f64>,
    /// For how many steps each feature has not been active.
    since: Vec<u64>,
    window: Window,
    engine: Engine<B>,
    device: B::Device,
}

#[derive(Debug)]
enum Engine<B: Backend> {
    Host(Box<Host>),
    Device(Device<B>),
}

/// Gradients of the loss of one batch: those of the weights before their part along rows of fixed length is removed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StreamGradients {
    /// `[d_in, d_sae]`
    pub w_enc: Vec<f32>,
    /// `[d_sae, d_out]`
    pub w_dec: Vec<f32>,
    /// `[d_sae]`: of the gate, of `Gated`.
    pub b_enc: Vec<f32>,
    /// `[d_out]`
    pub b_dec: Vec<f32>,
    /// `[d_sae]` of `JumpRelu`.
    pub threshold: Option<Vec<f32>>,
    /// `[d_out, d_in]` where there is a skip connection.
    pub w_skip: Option<Vec<f32>>,
    /// `[d_sae]` of `Gated`.
    pub b_mag: Option<Vec<f32>>,
    /// `[d_sae]` of `Gated`.
    pub r_mag: Option<Vec<f32>>,
}

impl<B: Backend> StreamTrainer<B> {
    /// Starts from random weights: rows of `W_dec` of length 1 and `W_enc` their transpose, or, for a transcoder,
    /// columns of `W_enc` of length 1 and `W_dec` 0, unless its rows are to have length 1, too. `b_dec` is the mean of
    /// `first`, the other biases and `W_skip` are 0.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`, row by row: the first batch, which is not trained on here
    /// - `y`: `[rows, d_out]` of a transcoder
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that is out of range or rows that do not fit it, [`Error::NonFinite`].
    pub fn new(
        config: &StreamConfig,
        x: &[f32],
        y: Option<&[f32]>,
        seed: Seed,
        device: &B::Device,
    ) -> Result<Self> {
        config.validate()?;
        let batch = batch(config, x, y, usize::MAX)?;
        let mean = mean_row(batch.y, config.d_out);
        let weights = Params::init(config, &mean, seed);
        Ok(Self::with(
            config,
            Saved {
                seed,
                step: 0,
                threshold: None,
                since: vec![0; config.d_sae],
                window: Window::new(config.d_out, config.d_sae),
                params: [weights, Params::zeros(config), Params::zeros(config)],
            },
            device,
        ))
    }

    fn with(config: &StreamConfig, saved: Saved, device: &B::Device) -> Self {
        let [weights, first, second] = saved.params;
        let engine = if on_host::<B>(config, device) {
            Engine::Host(Box::new(Host {
                weights,
                first,
                second,
            }))
        } else {
            Engine::Device(Device::new(config, [&weights, &first, &second], device))
        };
        Self {
            config: config.clone(),
            seed: saved.seed,
            step: saved.step,
            threshold: saved.threshold,
            since: saved.since,
            window: saved.window,
            engine,
            device: device.clone(),
        }
    }

    /// What it was made with.
    pub const fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// Steps done, also those before a [`resume`](Self::resume).
    pub const fn steps(&self) -> u64 {
        self.step
    }

    /// One step on rows in the host's memory.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`, row by row, at most [`batch_rows`](StreamConfig::batch_rows)
    /// - `y`: `[rows, d_out]` of a transcoder, and none of an autoencoder
    ///
    /// # Errors
    /// [`Error::Config`] for rows that do not fit the settings, [`Error::NonFinite`], [`Error::Diverged`] if the loss
    /// is not finite, [`Error::Device`]. The trainer is as before then.
    pub fn step_host(&mut self, x: &[f32], y: Option<&[f32]>) -> Result<StepRecord> {
        let batch = batch(&self.config, x, y, self.config.batch_rows)?;
        let dead = self.dead_features();
        let config = &self.config;
        match &mut self.engine {
            Engine::Host(host) => {
                let (backward, outcome) = host.forward::<B>(config, batch, &dead, &self.device);
                let (record, loss) = record(config, self.step, &outcome, dead.len())?;
                host.update(config, batch.x, &backward, &adam(config, self.step));
                self.count(&outcome, loss);
                Ok(record)
            }
            Engine::Device(_) => {
                let [x, y] = upload::<B>(config, batch, &self.device);
                self.step_on_device(&x, &y, &dead)
            }
        }
    }

    /// One step on rows on the device.
    ///
    /// # Shapes
    /// As [`step_host`](Self::step_host).
    ///
    /// # Errors
    /// As [`step_host`](Self::step_host).
    pub fn step(&mut self, x: Tensor<B, 2>, y: Option<Tensor<B, 2>>) -> Result<StepRecord> {
        if matches!(self.engine, Engine::Host(_)) {
            let floats = |tensor: Tensor<B, 2>| -> Vec<f32> {
                let data: TensorData = tensor.into_data();
                data.convert::<f32>().into_vec().unwrap_or_default()
            };
            let [_, width] = x.dims();
            check_width("x", width, self.config.d_in)?;
            let y = y.map(floats);
            return self.step_host(&floats(x), y.as_deref());
        }
        let y = match (y, self.config.transcoder) {
            (Some(y), true) => y,
            (None, false) => x.clone(),
            (y, _) => return Err(wrong_target(y.is_some())),
        };
        check_width("x", x.dims()[1], self.config.d_in)?;
        check_width("y", y.dims()[1], self.config.d_out)?;
        check_rows(x.dims()[0], y.dims()[0], self.config.batch_rows)?;
        let dead = self.dead_features();
        self.step_on_device(&x, &y, &dead)
    }

    fn step_on_device(
        &mut self,
        x: &Tensor<B, 2>,
        y: &Tensor<B, 2>,
        dead: &[u32],
    ) -> Result<StepRecord> {
        let config = &self.config;
        let Engine::Device(device) = &mut self.engine else {
            unreachable!("callers look")
        };
        let penalty = config.penalty(self.step);
        let (gradients, outcome) = device.forward(config, x, y, dead, penalty)?;
        let (record, loss) = record(config, self.step, &outcome, dead.len())?;
        device.update(config, gradients, &adam(config, self.step));
        self.count(&outcome, loss);
        Ok(record)
    }

    /// What a finished step changes beside weights.
    fn count(&mut self, outcome: &Outcome, loss: f64) {
        self.window.add(outcome, loss);
        for (since, fired) in self.since.iter_mut().zip(&outcome.fired) {
            *since = if *fired == 0 { *since + 1 } else { 0 };
        }
        if let (Objective::BatchTopK { .. }, Some(least)) =
            (self.config.objective, outcome.least_kept)
        {
            let least = f64::from(least);
            self.threshold = Some(self.threshold.map_or(least, |mean| {
                (1.0 - THRESHOLD_RATE) * mean + THRESHOLD_RATE * least
            }));
        }
        self.step += 1;
    }

    /// Features that were active on no row of the last [`dead_after`](StreamConfig::dead_after) steps, ascending.
    fn dead_features(&self) -> Vec<u32> {
        let dead = |(_, since): &(usize, &u64)| **since >= self.config.dead_after;
        let since = self.since.iter().enumerate().filter(dead);
        since.map(|(feature, _)| feature as u32).collect()
    }

    /// The gradients on a batch at the present weights; nothing changes.
    ///
    /// # Shapes
    /// As [`step_host`](Self::step_host).
    ///
    /// # Errors
    /// As [`step_host`](Self::step_host).
    pub fn gradients(&self, x: &[f32], y: Option<&[f32]>) -> Result<StreamGradients> {
        let config = &self.config;
        let batch = batch(config, x, y, config.batch_rows)?;
        let dead = self.dead_features();
        let gradients = match &self.engine {
            Engine::Host(host) => {
                let (backward, _) = host.forward::<B>(config, batch, &dead, &self.device);
                host.gradients(config, batch.x, &backward)
            }
            Engine::Device(device) => {
                let [x, y] = upload::<B>(config, batch, &self.device);
                let penalty = config.penalty(self.step);
                device.forward(config, &x, &y, &dead, penalty)?.0.read()?
            }
        };
        let some = |list: Vec<f32>| (!list.is_empty()).then_some(list);
        Ok(StreamGradients {
            w_enc: crate::init::transposed(&gradients.w_enc, config.d_sae, config.d_in),
            w_dec: gradients.w_dec,
            b_enc: gradients.b_enc,
            b_dec: gradients.b_dec,
            threshold: some(gradients.threshold),
            w_skip: some(gradients.w_skip),
            b_mag: some(gradients.b_mag),
            r_mag: some(gradients.r_mag),
        })
    }

    /// What was found since the beginning, or since [`reset_statistics`](Self::reset_statistics).
    pub fn statistics(&self) -> StreamStatistics {
        self.window.read(self.dead_features().len())
    }

    /// Begins to count anew. Which features are dead does not change.
    pub fn reset_statistics(&mut self) {
        self.window = Window::new(self.config.d_out, self.config.d_sae);
    }

    /// The dictionary as it stands, with the firing rates of [`statistics`](Self::statistics).
    ///
    /// # Errors
    /// [`Error::Device`] if it cannot be read back, [`Error::Diverged`] if a weight is not finite.
    pub fn dictionary(&self) -> Result<TrainedDictionary> {
        let [weights, ..] = self.params()?;
        let finite = |list: &[f32]| list.iter().all(|value| value.is_finite());
        if !weights.lists().into_iter().all(finite) {
            return Err(Error::Diverged {
                step: self.step as usize,
            });
        }
        let rates = self.statistics().firing_rates;
        let rates = (self.window.rows() > 0).then_some(rates);
        Ok(TrainedDictionary::of(
            &self.config,
            self.seed,
            self.step,
            weights,
            self.threshold,
            rates,
        ))
    }

    /// Weights and Adam's sums.
    fn params(&self) -> Result<[Params; 3]> {
        match &self.engine {
            Engine::Host(host) => Ok([&host.weights, &host.first, &host.second].map(Params::clone)),
            Engine::Device(device) => device.read(),
        }
    }

    /// Writes all that [`resume`](Self::resume) needs into one file of the folder, [`CHECKPOINT_FILE`](super::CHECKPOINT_FILE): weights,
    /// Adam's sums of gradients and of squares, dead counters, threshold, statistics, settings and seed. The file is
    /// complete or as it was; the folder is created if need be.
    ///
    /// # Errors
    /// [`Error::File`] naming the file, [`Error::Device`].
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_sae::synthetic::Synthetic;
    /// use circuitscope_sae::{Objective, StreamConfig, StreamTrainer};
    ///
    /// type B = burn_flex::Flex;
    /// let (folder, device) = (tempfile::tempdir()?, Default::default());
    /// let mut rows = Synthetic::new(16, 8).stream(Seed::new(1))?;
    /// let x = rows.next_rows(64);
    /// let config = StreamConfig::new(8, 16, Objective::TopK { k: 2 });
    /// let mut trainer = StreamTrainer::<B>::new(&config, &x, None, Seed::new(0), &device)?;
    /// trainer.step_host(&x, None)?;
    /// trainer.checkpoint(folder.path())?;
    ///
    /// let mut resumed = StreamTrainer::<B>::resume(&config, folder.path(), &device)?;
    /// trainer.step_host(&x, None)?;
    /// resumed.step_host(&x, None)?;
    /// assert_eq!(resumed.dictionary()?, trainer.dictionary()?);
    ///
    /// let other = config.with_learning_rate(0.5);
    /// let refused = StreamTrainer::<B>::resume(&other, folder.path(), &device).unwrap_err();
    /// assert!(refused.to_string().contains("learning_rate"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(&self, folder: &Path) -> Result<()> {
        let saved = Saved {
            seed: self.seed,
            step: self.step,
            threshold: self.threshold,
            since: self.since.clone(),
            window: self.window.clone(),
            params: self.params()?,
        };
        checkpoint::write(&self.config, &saved, folder)
    }

    /// Goes on where a [`checkpoint`](Self::checkpoint) was written: the steps that follow are, bit for bit on the same
    /// backend and machine, those that would have followed then.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is not there or not whole, [`Error::Field`] if it was written with other settings,
    /// which names the first of them.
    pub fn resume(config: &StreamConfig, folder: &Path, device: &B::Device) -> Result<Self> {
        config.validate()?;
        let saved = checkpoint::read(config, folder)?;
        Ok(Self::with(config, saved, device))
    }
}

/// Whether a step is to be computed on the host.
fn on_host<B: Backend>(config: &StreamConfig, device: &B::Device) -> bool {
    let of_k = matches!(
        config.objective,
        Objective::TopK { .. } | Objective::BatchTopK { .. }
    );
    let f32s = || uploaded::<B, 1>(&[0.0], [1], device).dtype() == DType::F32;
    of_k && config.exec.in_host_memory && f32s()
}

fn adam(config: &StreamConfig, step: u64) -> AdamStep {
    let time = i32::try_from(step + 1).unwrap_or(i32::MAX);
    let betas = [config.beta_1, config.beta_2];
    AdamStep::of(config.rate(step), betas, config.epsilon, time)
}

/// What a step reports, and its loss.
fn record(
    config: &StreamConfig,
    step: u64,
    outcome: &Outcome,
    dead: usize,
) -> Result<(StepRecord, f64)> {
    let rows = outcome.rows as f64;
    let error = outcome.squared_error / rows;
    let l0 = outcome.fired.iter().sum::<u64>() as f64 / rows;
    let loss = error + outcome.aux + config.penalty(step) * outcome.penalised;
    if !loss.is_finite() {
        return Err(Error::Diverged {
            step: step as usize,
        });
    }
    let record = StepRecord {
        step,
        rows: outcome.rows,
        loss,
        error,
        aux: outcome.aux,
        fvu: fvu(outcome.squared_error, outcome.spread),
        l0,
        dead,
        learning_rate: config.rate(step),
    };
    Ok((record, loss))
}

fn upload<B: Backend>(
    config: &StreamConfig,
    batch: Batch<'_>,
    device: &B::Device,
) -> [Tensor<B, 2>; 2] {
    let x = uploaded::<B, 2>(batch.x, [batch.rows, config.d_in], device);
    let y = if config.transcoder {
        uploaded::<B, 2>(batch.y, [batch.rows, config.d_out], device)
    } else {
        x.clone()
    };
    [x, y]
}

/// Rows that fit the settings, all of them finite.
fn batch<'a>(
    config: &StreamConfig,
    x: &'a [f32],
    y: Option<&'a [f32]>,
    most: usize,
) -> Result<Batch<'a>> {
    let y = match (y, config.transcoder) {
        (Some(y), true) => y,
        (None, false) => x,
        (y, _) => return Err(wrong_target(y.is_some())),
    };
    for (field, list, width) in [("x", x, config.d_in), ("y", y, config.d_out)] {
        if !list.len().is_multiple_of(width) {
            let expected = "whole rows: a multiple of d_in numbers, for y of d_out";
            return Err(Error::Config {
                field,
                found: format!("{} numbers, in rows of {width}", list.len()),
                expected,
            });
        }
        let broken = list
            .par_chunks(width)
            .position_first(|row| row.iter().any(|value| !value.is_finite()));
        if let Some(row) = broken {
            return Err(Error::NonFinite { rows: row..row + 1 });
        }
    }
    let rows = x.len() / config.d_in;
    check_rows(rows, y.len() / config.d_out, most)?;
    Ok(Batch { x, y, rows })
}

fn wrong_target(given: bool) -> Error {
    let (found, expected) = if given {
        ("given", "none for an autoencoder, which reconstructs x")
    } else {
        ("missing", "the rows that a transcoder is to make of x")
    };
    Error::Config {
        field: "y",
        found: found.to_owned(),
        expected,
    }
}

fn check_width(field: &'static str, found: usize, width: usize) -> Result<()> {
    if found == width {
        return Ok(());
    }
    Err(Error::Config {
        field,
        found: format!("of width {found}, not {width}"),
        expected: "rows of width d_in, for y of d_out",
    })
}

fn check_rows(rows: usize, of_y: usize, most: usize) -> Result<()> {
    if rows == 0 {
        return Err(Error::Empty);
    }
    let wrong = |field, found: usize, expected| {
        Err(Error::Config {
            field,
            found: format!("of {found} rows"),
            expected,
        })
    };
    if of_y != rows {
        return wrong("y", of_y, "as many rows as x");
    }
    if rows > most {
        return wrong("x", rows, "at most batch_rows");
    }
    Ok(())
}
