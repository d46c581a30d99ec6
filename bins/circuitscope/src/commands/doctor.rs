//! `doctor`: what is there to compute on, and does it compute correctly?

use anyhow::Result;
use circuitscope::conformance::{self, Conformance, Record};
use circuitscope::hooks::{Intervene, Intervention, Op, Site};
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::device::{B, BackendName, Device, DeviceName, quietly};
use crate::failure::Negative;
use crate::output::Printer;
use crate::progress::Terminal;
use crate::version::VERSION;

/// What an injected fault multiplies an activation by.
const FAULT: f64 = 1.001;

/// The same in the pass that is differentiated: gradients are compared with differences of values in f32,
/// which are a tenth as sharp.
const GRADIENT_FAULT: f64 = 1.05;

/// Reciprocals that are further off than this were not made by a division.
const EXACT: f64 = 1e-6;

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    /// Whether every device that is present computes correctly.
    healthy: bool,
    /// What `--device cpu` stands for here.
    cpu: Option<String>,
    backends: Vec<Backend>,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    compiled: bool,
    /// Why it has no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
    devices: Vec<Checked>,
}

#[derive(Debug, Serialize)]
struct Checked {
    device: String,
    hardware: String,
    passed: bool,
    seconds: f64,
    /// Why nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    conformance: Option<Conformance>,
}

pub(crate) fn run(args: &DoctorArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    if let Some(path) = &args.write_record {
        let device = DeviceName::default().open()?;
        let record = Record::measure::<B>(device.plain(), device.exec(), None)?;
        record.write(path)?;
        return Ok(());
    }
    // A device that was asked for by name and is not there is an error, not a finding.
    let only = args.device.map(DeviceName::open).transpose()?;
    let cpu = DeviceName::Cpu.open().ok().map(|device| device.name);
    let mut backends = Vec::new();
    for name in BackendName::ALL {
        let (devices, absent) = match (&only, name.devices()) {
            (_, Err(why)) => (Vec::new(), Some(format!("{why:#}"))),
            (None, Ok(devices)) => (devices, None),
            (Some(only), Ok(devices)) => {
                let chosen = devices
                    .into_iter()
                    .filter(|device| device.name == only.name);
                (chosen.collect(), None)
            }
        };
        let fault = args.inject_fault;
        let devices = devices.iter().map(|device| check(device, fault, progress));
        backends.push(Backend {
            name: name.name(),
            compiled: name.compiled(),
            absent,
            devices: devices.collect(),
        });
    }
    let mut checked = backends.iter().flat_map(|backend| &backend.devices);
    let report = Report {
        version: VERSION,
        healthy: checked.all(|device| device.passed),
        cpu,
        backends,
    };
    printer.print(&report, || report.text())?;
    if report.healthy {
        Ok(())
    } else {
        Err(Negative.into())
    }
}

fn check(device: &Device, fault: Option<Site>, progress: &Terminal) -> Checked {
    use circuitscope::Progress;

    let progress: &dyn Progress = progress;
    let stage = progress.stage(&format!("checking {device}"), 1);
    let start = std::time::Instant::now();
    let scaled = |by| Intervene::new(fault.map(|site| Intervention::new(site, Op::Scale(by))));
    // A driver that fails does so by panicking inside burn.
    let outcome = quietly(|| {
        let exec = device.exec();
        let mut outcome = conformance::check_with::<B, _>(device.plain(), exec, scaled(FAULT))?;
        let (plain, training, fault) = (device.plain(), device.training(), scaled(GRADIENT_FAULT));
        let gradients = conformance::check_gradients_with::<B, _>(plain, &training, exec, fault)?;
        outcome.checks.extend(gradients);
        Ok::<_, conformance::Error>(outcome)
    });
    drop(stage);
    let outcome = outcome.and_then(|outcome| Ok(outcome?));
    let (conformance, error) = match outcome {
        Ok(conformance) => (Some(conformance), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Checked {
        device: device.name.clone(),
        hardware: device.hardware.clone(),
        passed: conformance.as_ref().is_some_and(Conformance::passed),
        seconds: start.elapsed().as_secs_f64(),
        error,
        conformance,
    }
}

impl Report {
    fn text(&self) -> String {
        let cpu = self.cpu.as_deref().unwrap_or("none");
        let head = format!("circuitscope {}\n--device cpu is {cpu}\n\n", self.version);
        let backends = self.backends.iter().map(|backend| {
            let absent = backend.absent.iter();
            let absent = absent.map(|why| format!("{}: {why}\n", backend.name));
            absent
                .chain(backend.devices.iter().map(Checked::text))
                .collect::<String>()
        });
        [head].into_iter().chain(backends).collect()
    }
}

impl Checked {
    fn text(&self) -> String {
        let head = format!("{} ({}): ", self.device, self.hardware);
        let Some(conformance) = &self.conformance else {
            let why = self.error.as_deref().unwrap_or("no reason given");
            return format!("{head}FAILED: {why}\n");
        };
        let checks = conformance.checks.len();
        let near_ties = conformance.near_ties;
        let Some(failure) = conformance.first_failure() else {
            let tightest = match conformance.tightest() {
                None => ", bit for bit".to_owned(),
                Some(check) => format!(
                    "; nearest to its tolerance: {}, {:.1e} of {:.1e}",
                    check.name, check.difference, check.tolerance
                ),
            };
            let mut checks_made = conformance.checks.iter();
            let reciprocal = checks_made.find(|check| check.name == conformance::RECIPROCAL);
            let rough = reciprocal.filter(|check| check.difference > EXACT);
            let rough = rough.map_or_else(String::new, |check| {
                format!(
                    "; its reciprocals are approximate (within {:.1e}), and so are gradients",
                    check.difference
                )
            });
            return format!(
                "{head}is right in all {checks} checks{tightest}; {near_ties} near-ties among the codes{rough}; {:.1} s\n",
                self.seconds
            );
        };
        let place = failure.worst.as_ref().map_or_else(String::new, |worst| {
            format!(
                ", at {:?} found {} expected {}",
                worst.index, worst.found, worst.expected
            )
        });
        let failed = conformance.checks.iter().filter(|check| !check.passed);
        format!(
            "{head}FAILED {} of {checks} checks; the first that differs is {}: by {:.1e}, tolerance {:.1e}{place}\n",
            failed.count(),
            failure.name,
            failure.difference,
            failure.tolerance
        )
    }
}
