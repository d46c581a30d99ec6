//! Training on rows that lie on disk.

use std::path::Path;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};
use circuitscope_files::{FileError, read_to_string, sha256, write_atomic};
use circuitscope_sae::{
    CHECKPOINT_FILE, StepRecord, StreamConfig, StreamStatistics, StreamTrainer, TrainedDictionary,
    TrainedOn,
};

use super::{Rows, RowsMetadata};
use crate::{Error, Result};

/// A dictionary, and how its training went.
#[derive(Debug)]
#[non_exhaustive]
pub struct TrainedRows {
    /// The dictionary.
    pub dictionary: TrainedDictionary,
    /// Every step of this run, each before its update; those before a checkpoint that was gone on from are not here.
    pub records: Vec<StepRecord>,
    /// What was found in the last epoch.
    pub last_epoch: StreamStatistics,
    /// The step of the checkpoint that was gone on from, 0 without one.
    pub resumed_from: u64,
}

/// How often, and where, training is kept, and how long it lasts.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Course<'a> {
    /// How often every row is seen.
    pub epochs: u64,
    /// Rows that wait in memory, of which batches are drawn.
    pub buffer: usize,
    /// Where checkpoints go, which are gone on from where there is one.
    pub checkpoints: Option<&'a Path>,
    /// Steps between checkpoints.
    pub every: u64,
}

impl<'a> Course<'a> {
    /// So many epochs; half a million rows wait in memory, and a checkpoint is kept every 200 steps.
    #[must_use]
    pub const fn new(epochs: u64) -> Self {
        Self {
            epochs,
            buffer: 1 << 19,
            checkpoints: None,
            every: 200,
        }
    }

    /// Keeping checkpoints in a folder.
    #[must_use]
    pub const fn with_checkpoints(mut self, folder: &'a Path) -> Self {
        self.checkpoints = Some(folder);
        self
    }
}

impl Rows {
    /// Steps of an epoch in batches of `rows`.
    #[must_use]
    pub fn steps(&self, rows: usize) -> u64 {
        self.metadata().rows.div_ceil(rows.max(1)) as u64
    }

    /// What a dictionary that is trained on these rows is trained on.
    #[must_use]
    pub fn trained_on(&self) -> TrainedOn {
        let RowsMetadata {
            model,
            site,
            site_out,
            processing,
            prepend_bos,
            skip_first,
            ..
        } = self.metadata();
        let mut on = TrainedOn::default();
        on.model = Some(model.clone());
        on.hook_name = Some(site.clone());
        on.hook_name_out.clone_from(site_out);
        on.folded = Some(processing != "raw");
        on.prepend_bos = Some(*prepend_bos);
        on.first_position = Some(u64::from(*skip_first));
        on
    }
}

/// Trains a dictionary on all rows, epoch by epoch, each in an order of its own. Work that is stopped is kept as a checkpoint, and goes
/// on from there with the same result.
///
/// # Errors
/// Settings that do not fit the rows; a checkpoint of other settings, other rows or another seed; rows that cannot be read; [`Error::Cancelled`].
pub fn train_rows<B: Backend>(
    rows: &Rows,
    config: &StreamConfig,
    course: Course<'_>,
    seed: Seed,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<TrainedRows> {
    let metadata = rows.metadata();
    for (what, found, expected) in [
        ("d_in", config.d_in, metadata.d_in),
        ("d_out", config.d_out, metadata.d_out),
    ] {
        if found != expected {
            return Err(Error::Unfit {
                what: format!("{what} of the dictionary"),
                found: found.to_string(),
                expected: format!("{expected}, that of the rows"),
            });
        }
    }
    let of_epoch = rows.steps(config.batch_rows);
    if let Some(folder) = course.checkpoints {
        same_origin(rows, seed, folder)?;
    }
    let kept = course
        .checkpoints
        .filter(|folder| folder.join(CHECKPOINT_FILE).is_file());
    let mut trainer: Option<StreamTrainer<B>> = match kept {
        Some(folder) => Some(StreamTrainer::resume(config, folder, device)?),
        None => None,
    };
    let resumed_from = trainer.as_ref().map_or(0, StreamTrainer::steps);
    let stage = progress.stage(
        "training",
        (course.epochs * of_epoch).saturating_sub(resumed_from),
    );
    let mut records = Vec::new();
    for epoch in resumed_from / of_epoch.max(1)..course.epochs {
        let done = trainer.as_ref().map_or(0, StreamTrainer::steps);
        // Batches that were seen are drawn again, so that the rest is the same.
        let seen = (done - epoch * of_epoch) as usize;
        if let Some(trainer) = trainer.as_mut().filter(|_| seen == 0) {
            trainer.reset_statistics();
        }
        for batch in rows
            .batches(config.batch_rows, course.buffer, seed, epoch)
            .skip(seen)
        {
            let batch = batch?;
            let y = batch.y.as_deref();
            let trainer = match &mut trainer {
                Some(trainer) => trainer,
                none => none.insert(StreamTrainer::new(config, &batch.x, y, seed, device)?),
            };
            records.push(trainer.step_host(&batch.x, y)?);
            progress.advance(1);
            let cancelled = progress.cancelled();
            if let Some(folder) = course.checkpoints
                && (cancelled || trainer.steps() % course.every.max(1) == 0)
            {
                trainer.checkpoint(folder)?;
            }
            if cancelled {
                drop(stage);
                return Err(Error::Cancelled);
            }
        }
    }
    drop(stage);
    let Some(trainer) = trainer else {
        return Err(Error::Unfit {
            what: "rows".to_owned(),
            found: "none".to_owned(),
            expected: "at least one".to_owned(),
        });
    };
    Ok(TrainedRows {
        dictionary: trainer.dictionary()?,
        records,
        last_epoch: trainer.statistics(),
        resumed_from,
    })
}

/// Name of the file beside a checkpoint that says which rows and which seed it is of.
pub const CHECKPOINT_ROWS_FILE: &str = "stream.rows";

/// Fails where a checkpoint is of other rows or another seed; where there is none, keeps what the next one is of.
fn same_origin(rows: &Rows, seed: Seed, folder: &Path) -> Result<()> {
    let path = folder.join(CHECKPOINT_ROWS_FILE);
    let own = [sha256(&rows.path())?, seed.value().to_string()];
    if folder.join(CHECKPOINT_FILE).is_file() {
        let kept = read_to_string(&path)?;
        let kept: Vec<&str> = kept.split_whitespace().collect();
        for (at, (what, other)) in [("rows", "other rows"), ("seed", "another seed")]
            .into_iter()
            .enumerate()
        {
            if kept.get(at) != Some(&own[at].as_str()) {
                let found = format!("a checkpoint of {other}");
                let expected =
                    format!("one of these, or none: remove {CHECKPOINT_FILE} to begin anew");
                return Err(FileError::field(&path, what, found, expected).into());
            }
        }
        return Ok(());
    }
    fs_err::create_dir_all(folder).map_err(|source| FileError::cannot_write(folder, source))?;
    Ok(write_atomic(&path, |out| {
        writeln!(out, "{}", own.join(" "))
    })?)
}
