//! Pictures and pages in an output folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use circuitscope::measures::RunRecord;
use circuitscope::report::render;
use circuitscope::{JudgedBy, Results};

/// The page of an evaluation.
pub(crate) fn evaluation(
    folder: &Path,
    records: &[RunRecord],
    results: &Results,
    judged: &BTreeMap<String, JudgedBy>,
) -> Result<PathBuf> {
    Ok(render(&results.page(records, judged)?)?.write(folder)?)
}
