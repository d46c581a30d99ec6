//! What made a result: recorded in every file that a command writes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;
use circuitscope::files::{self, Metadata};
use circuitscope::{EvalProvenance, EvalSettings};
use serde::Serialize;
use serde_json::json;

use crate::device::Device;
use crate::version::VERSION;

/// The command line, program name included.
static LINE: OnceLock<Vec<OsString>> = OnceLock::new();

/// Notes the command line, with what a file of flags gives, for everything that is recorded.
pub(crate) fn as_typed(line: &[OsString]) {
    // There is one command line.
    LINE.set(line.to_vec()).ok();
}

/// What made a result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Provenance {
    /// Program and version.
    pub(crate) program: String,
    /// The command line, program name left out; what a file of flags gives stands at its end.
    pub(crate) command: Vec<String>,
    /// Backend and hardware, where a device did the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// SHA-256 of each file read, by its path as given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) inputs: BTreeMap<String, String>,
    /// Wall time so far, in seconds.
    pub(crate) seconds: f64,
    /// Highest resident memory so far, in bytes, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory_bytes: Option<u64>,
    #[serde(skip)]
    started: Instant,
}

impl Provenance {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self {
            program: format!("circuitscope {VERSION}"),
            command: LINE
                .get()
                .into_iter()
                .flatten()
                .skip(1)
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
            device: None,
            inputs: BTreeMap::new(),
            seconds: 0.0,
            peak_memory_bytes: None,
            started: Instant::now(),
        }
    }

    /// Notes the device.
    pub(crate) fn on(&mut self, device: &Device) {
        self.device = Some(device.to_string());
    }

    /// Notes an input file by its hash; it will not be written onto.
    pub(crate) fn input(&mut self, path: &Path) -> Result<()> {
        files::protect(path);
        let hash = files::sha256(path)?;
        self.inputs.insert(path.display().to_string(), hash);
        Ok(())
    }

    /// With time and memory as of now.
    pub(crate) fn now(&self) -> Self {
        Self {
            seconds: self.started.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory(),
            ..self.clone()
        }
    }

    /// Of an evaluation that ends now.
    pub(crate) fn of_evaluation(&self, settings: EvalSettings) -> EvalProvenance {
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
    pub(crate) fn metadata(&self) -> Metadata {
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
pub(crate) fn peak_memory() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes in the unit that suits them.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.2} GiB", mib / 1024.0)
    }
}
