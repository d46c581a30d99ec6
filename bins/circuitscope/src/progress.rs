//! Progress bars on a terminal, and stopping at Ctrl-C.

use core::fmt;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use circuitscope::core::Progress;
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

/// Work shorter than this is over before a bar could be read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often bars that wait are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Steps before their pace says when the stage will end.
const ENOUGH_STEPS: u64 = 5;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C (and SIGTERM) ask the work to stop at its next safe point; a second one stops the
/// program at once.
pub(crate) fn catch_interrupts() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(crate::failure::INTERRUPTED.into());
        }
    })
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// One bar for each stage that is open, shown on stderr after a second; silent when stderr is no
/// terminal.
#[derive(Debug)]
pub(crate) struct Terminal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bars: MultiProgress,
    stages: Mutex<Stages>,
    visible: bool,
}

#[derive(Debug, Default)]
struct Stages {
    open: Vec<Stage>,
    /// Names of finished stages with the seconds they took, summed over repetitions.
    done: Vec<(String, f64)>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Terminal {
    pub(crate) fn new(wanted: bool) -> Self {
        let visible = wanted && std::io::stderr().is_terminal();
        let target = if visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let shared = Arc::new(Shared {
            bars: MultiProgress::with_draw_target(target),
            stages: Mutex::default(),
            visible,
        });
        if visible {
            // A stage may take long before its first step is done.
            let watched = Arc::downgrade(&shared);
            thread::spawn(move || {
                while let Some(shared) = watched.upgrade() {
                    shared.with_stages(|stages| shared.show(stages));
                    drop(shared);
                    thread::sleep(TICK);
                }
            });
        }
        Self(shared)
    }

    /// Takes every bar off the screen, for good.
    pub(crate) fn clear(&self) {
        self.0.with_stages(|stages| {
            for stage in stages.open.drain(..) {
                stage.bar.finish_and_clear();
            }
            self.0.bars.clear().ok();
        });
    }

    /// How long each stage that the libraries announced took, in seconds.
    pub(crate) fn seconds(&self, stage: &str) -> Option<f64> {
        let stages = self.0.stages.lock().ok()?;
        let (_, seconds) = stages.done.iter().find(|(name, _)| name == stage)?;
        Some(*seconds)
    }
}

impl Shared {
    fn with_stages(&self, act: impl FnOnce(&mut Stages)) {
        if let Ok(mut stages) = self.stages.lock() {
            act(&mut stages);
        }
    }

    /// Puts bars on the screen whose time has come, and moves the clocks of the others.
    fn show(&self, stages: &mut Stages) {
        for stage in &mut stages.open {
            if self.visible && !stage.shown && stage.started.elapsed() > PATIENCE {
                stage.bar = self.bars.add(stage.bar.clone());
                stage.shown = true;
            }
            if stage.shown {
                stage.bar.tick();
            }
        }
    }
}

/// What is left of a stage, once there is something to go by.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    if state.pos() >= ENOUGH_STEPS {
        let left = HumanDuration(state.eta());
        write!(out, ", {left:#} left").ok();
    }
}

impl Terminal {
    fn open(&self, stage: &str, total: u64, template: &str) {
        self.0.with_stages(|stages| {
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .with_key("left", left);
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
                .with_style(style)
                .with_message(stage.to_owned());
            stages.open.push(Stage {
                name: stage.to_owned(),
                bar,
                started: Instant::now(),
                shown: false,
            });
        });
    }
}

impl Progress for Terminal {
    fn begin(&self, stage: &str, total: u64) {
        self.open(
            stage,
            total,
            "{msg} {wide_bar} {pos}/{len}, {elapsed}{left}",
        );
    }

    fn begin_bytes(&self, stage: &str, total: u64) {
        let template = "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}{left}";
        self.open(stage, total, template);
    }

    fn advance(&self, steps: u64) {
        self.0.with_stages(|stages| {
            if let Some(stage) = stages.open.last() {
                stage.bar.inc(steps);
            }
        });
    }

    fn end(&self) {
        self.0.with_stages(|stages| {
            let Some(stage) = stages.open.pop() else {
                return;
            };
            stage.bar.finish_and_clear();
            let seconds = stage.started.elapsed().as_secs_f64();
            match stages.done.iter_mut().find(|(name, _)| *name == stage.name) {
                Some((_, sum)) => *sum += seconds,
                None => stages.done.push((stage.name, seconds)),
            }
        });
    }

    fn cancelled(&self) -> bool {
        interrupted()
    }
}
