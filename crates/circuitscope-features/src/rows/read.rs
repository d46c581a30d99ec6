//! Reading rows in a random order.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use circuitscope_core::{Seed, draw};
use circuitscope_files::{FileError, Reader, read};
use rand_chacha::ChaCha8Rng;

use super::{ROWS_FILE, RowsMetadata, SCHEMA, order_of};
use crate::Result;

/// Rows that lie in a folder.
#[derive(Debug, Clone)]
pub struct Rows {
    folder: PathBuf,
    metadata: RowsMetadata,
}

/// Rows of one batch, on the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// `[rows, d_in]`
    pub x: Vec<f32>,
    /// `[rows, d_out]`, where rows come in pairs.
    pub y: Option<Vec<f32>>,
}

impl Rows {
    /// Opens what [`write_rows`](super::write_rows) wrote.
    ///
    /// # Errors
    /// A folder without [`ROWS_FILE`], or one that is no such file; shards that are not there.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(ROWS_FILE);
        let text = read(&path)?;
        let wrong = |found: String| {
            FileError::field(
                &path,
                "contents",
                found,
                format!("the {ROWS_FILE} of rows of tokens"),
            )
        };
        let metadata: RowsMetadata =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if metadata.schema != SCHEMA {
            let found = metadata.schema.to_string();
            return Err(FileError::field(&path, "schema", found, SCHEMA.to_string()).into());
        }
        for shard in &metadata.shards {
            let file = folder.join(&shard.file);
            let beside = Path::new(&shard.file).file_name() == Some(shard.file.as_ref());
            if !(beside && file.is_file()) {
                return Err(FileError::field(
                    &path,
                    "shards",
                    format!("{}, which is not beside it", shard.file),
                    "all shards beside this file",
                )
                .into());
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            metadata,
        })
    }

    /// The file that says what they are of.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(ROWS_FILE)
    }

    /// What they are of.
    #[must_use]
    pub const fn metadata(&self) -> &RowsMetadata {
        &self.metadata
    }

    /// All rows once, in batches of `rows` (the last one may have fewer), in the order of this epoch: shards in random order
    /// go through a buffer of at least `buffer` rows, of which each batch draws at random.
    #[must_use]
    pub fn batches(&self, rows: usize, buffer: usize, seed: Seed, epoch: u64) -> Batches<'_> {
        let mut rng = order_of(seed, epoch).rng();
        let mut shards: Vec<usize> = (0..self.metadata.shards.len()).collect();
        draw::shuffle(&mut rng, &mut shards);
        Batches {
            of: self,
            rows: rows.max(1),
            buffer: buffer.max(rows),
            shards: shards.into(),
            x: Vec::new(),
            y: Vec::new(),
            rng,
        }
    }

    /// Rows of one shard.
    fn shard(&self, at: usize) -> Result<Batch> {
        let RowsMetadata { d_in, d_out, .. } = self.metadata;
        let shard = &self.metadata.shards[at];
        let file = Reader::open(&self.folder.join(&shard.file))?;
        let x = file.tensor("x")?.shape(&[shard.rows, d_in])?.finite()?;
        let y = match &self.metadata.site_out {
            Some(_) => Some(file.tensor("y")?.shape(&[shard.rows, d_out])?.finite()?),
            None => None,
        };
        Ok(Batch { x, y })
    }
}

/// Batches of one epoch.
#[derive(Debug)]
pub struct Batches<'a> {
    of: &'a Rows,
    rows: usize,
    buffer: usize,
    /// Shards that were not read.
    shards: VecDeque<usize>,
    /// What waits in the buffer.
    x: Vec<f32>,
    y: Vec<f32>,
    rng: ChaCha8Rng,
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let RowsMetadata { d_in, d_out, .. } = self.of.metadata;
        while self.x.len() / d_in.max(1) < self.buffer
            && let Some(shard) = self.shards.pop_front()
        {
            match self.of.shard(shard) {
                Ok(mut read) => {
                    self.x.append(&mut read.x);
                    if let Some(mut y) = read.y {
                        self.y.append(&mut y);
                    }
                }
                Err(error) => {
                    self.shards.clear();
                    self.x.clear();
                    return Some(Err(error));
                }
            }
        }
        let waiting = self.x.len() / d_in.max(1);
        let rows = self.rows.min(waiting);
        if rows == 0 {
            return None;
        }
        let paired = !self.y.is_empty();
        let (mut x, mut y) = (Vec::with_capacity(rows * d_in), Vec::new());
        for left in (0..waiting).rev().take(rows) {
            // A row at random, whose place the last one takes.
            let at = draw::index(&mut self.rng, left + 1);
            x.extend_from_slice(&self.x[at * d_in..][..d_in]);
            self.x
                .copy_within(left * d_in..(left + 1) * d_in, at * d_in);
            self.x.truncate(left * d_in);
            if paired {
                y.extend_from_slice(&self.y[at * d_out..][..d_out]);
                self.y
                    .copy_within(left * d_out..(left + 1) * d_out, at * d_out);
                self.y.truncate(left * d_out);
            }
        }
        Some(Ok(Batch {
            x,
            y: paired.then_some(y),
        }))
    }
}
