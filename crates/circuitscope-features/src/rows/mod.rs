//! Rows of tokens on disk: what a dictionary is trained on.

mod read;
mod train;
mod write;

use std::collections::BTreeMap;

use circuitscope_core::Seed;
use circuitscope_hooks::Site;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use read::{Batch, Batches, Rows};
pub use train::{CHECKPOINT_ROWS_FILE, Course, TrainedRows, train_rows};
pub use write::{RowSettings, write_rows};

/// What says what a folder of rows holds.
pub const ROWS_FILE: &str = "rows.json";

/// The form of [`ROWS_FILE`].
const SCHEMA: u32 = 1;

/// What rows are of: all that a dictionary that is trained on them has to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RowsMetadata {
    /// The form of this file.
    pub schema: u32,
    /// Name of the model.
    pub model: String,
    /// How its weights were processed: `raw` or `folded`.
    pub processing: String,
    /// What a dictionary reads.
    pub site: String,
    /// What a transcoder writes, where rows come in pairs.
    pub site_out: Option<String>,
    /// Width of `site`: of heads side by side.
    pub d_in: usize,
    /// Width of `site_out`; that of `site` without one.
    pub d_out: usize,
    /// Whether a beginning-of-text token stands at the begin of every context.
    pub prepend_bos: bool,
    /// Most tokens of a context.
    pub context: usize,
    /// Whether the first position of every context is left out.
    pub skip_first: bool,
    /// Mean length of the residual stream that the site's layer reads, at the first position over that at all others: where it
    /// is large, the first position is a sink, where attention goes that has nothing to read.
    pub first_position: f64,
    /// Rows of all shards.
    pub rows: usize,
    /// The shards, in order.
    pub shards: Vec<Shard>,
    /// What made the rows: texts and their hashes, and whatever else the caller says.
    pub made_from: BTreeMap<String, Value>,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Name within the folder.
    pub file: String,
    /// Its rows.
    pub rows: usize,
}

/// The order in which an epoch reads.
fn order_of(seed: Seed, epoch: u64) -> Seed {
    seed.stream("rows").nth("epoch", epoch)
}

/// Where a site is in the pass, without its layer: heads side by side are one vector.
fn is_vector(site: Site) -> bool {
    site.head_axis() != Some(1) && !site.to_string().ends_with("hook_scale")
}
