//! What made a result: recorded in every file that a command writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use circuitscope_files::{self as files, FileError, Metadata};
use serde::Serialize;
use serde_json::json;

use crate::{EvalProvenance, EvalSettings};

/// What made a result, as it is recorded in files.
#[derive(Debug, Clone, Serialize)]
pub struct Provenance {
    /// Program and version.
    pub program: String,
    /// The command line, or one that does the same, program name left out.
    pub command: Vec<String>,
    /// Backend and hardware, where a device did the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// SHA-256 of each file read, by its path as given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Wall time so far, in seconds.
    pub seconds: f64,
    /// Highest resident memory so far, in bytes, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    #[serde(skip)]
    started: Instant,
}

impl Provenance {
    /// Starts the clock. `program` is what runs, with its version, `command` its arguments.
    #[must_use]
    pub fn start(program: impl Into<String>, command: Vec<String>) -> Self {
        Self {
            program: program.into(),
            command,
            device: None,
            inputs: BTreeMap::new(),
            seconds: 0.0,
            peak_memory_bytes: None,
            started: Instant::now(),
        }
    }

    /// Notes the device.
    pub fn on(&mut self, device: &impl ToString) {
        self.device = Some(device.to_string());
    }

    /// Notes an input file by its hash; it will not be written onto.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn input(&mut self, path: &Path) -> Result<(), FileError> {
        files::protect(path);
        let hash = files::sha256(path)?;
        self.inputs.insert(path.display().to_string(), hash);
        Ok(())
    }

    /// [`input`](Self::input) of all.
    ///
    /// # Errors
    /// As [`input`](Self::input), of the first that cannot be read.
    pub fn input_all<P: AsRef<Path>>(
        &mut self,
        paths: impl IntoIterator<Item = P>,
    ) -> Result<(), FileError> {
        paths
            .into_iter()
            .try_for_each(|path| self.input(path.as_ref()))
    }

    /// With time and memory as of now.
    #[must_use]
    pub fn now(&self) -> Self {
        Self {
            seconds: self.started.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory(),
            ..self.clone()
        }
    }

    /// Of an evaluation that ends now.
    #[must_use]
    pub fn of_evaluation(&self, settings: EvalSettings) -> EvalProvenance {
        let now = self.now();
        let mut made = EvalProvenance::unfinished(settings);
        made.program = Some(now.program);
        made.command = now.command;
        made.device = now.device;
        made.inputs = now.inputs;
        made.seconds = Some(now.seconds);
        made.peak_memory_bytes = now.peak_memory_bytes;
        made
    }

    /// As metadata of a safetensors file. Time and memory stay out, so that the same command writes
    /// the same bytes.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        Metadata::from([
            ("made_by".to_owned(), json!(self.program)),
            ("command".to_owned(), json!(self.command)),
            ("device".to_owned(), json!(self.device)),
            ("inputs".to_owned(), json!(self.inputs)),
        ])
    }
}

/// Highest resident memory of this process, in bytes; `None` where the system has no
/// `/proc/self/status`.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.2} GiB", mib / 1024.0)
    }
}

/// Bytes of memory that the system can give without swapping: what
/// [`CaptureSettings::memory`](crate::CaptureSettings::memory) may be on a CPU. `None` where it has no `/proc/meminfo`.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let info = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
