//! Progress: bars on a terminal, lines elsewhere.

use core::fmt;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use circuitscope::Progress;
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use crate::interrupt::interrupted;
use crate::output::note;

/// Work shorter than this is over before a bar could be read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often stages are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often work that shows no bars says where it is.
const SILENCE: Duration = Duration::from_secs(30);
/// Time after which the pace of the steps so far says when the stage will end.
const ENOUGH: Duration = Duration::from_secs(2);
/// Time, or steps, after which it says so well enough to warn of it.
const SURE: Duration = Duration::from_secs(20);
const SURE_STEPS: u64 = 5;
/// Work that takes longer says so.
const LONG: Duration = Duration::from_hours(1);

/// One bar for each stage that is open, shown on stderr after a second; where stderr is no terminal, a
/// line every half minute.
#[derive(Debug, Clone)]
pub(crate) struct Terminal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bars: MultiProgress,
    stages: Mutex<Stages>,
    shown: Shown,
}

/// What of the progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Bars,
    Lines,
    Nothing,
}

#[derive(Debug, Default)]
struct Stages {
    open: Vec<Stage>,
    /// Names of finished stages with the seconds they took, summed over repetitions.
    done: Vec<(String, f64)>,
    /// Stages that were said to take long.
    warned: Vec<String>,
    /// When the last line was written, or the first stage began.
    spoke: Option<Instant>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    /// What it is at.
    at: Option<String>,
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Stage {
    /// What it is called on the screen.
    fn label(&self) -> &str {
        self.at.as_deref().unwrap_or(&self.name)
    }

    fn pace(&self, now: Instant) -> Pace {
        Pace {
            done: self.bar.position(),
            total: self.bar.length().unwrap_or(0),
            elapsed: now.duration_since(self.started),
        }
    }
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    done: u64,
    total: u64,
    elapsed: Duration,
}

impl Pace {
    /// What is left, once there is something to go by.
    fn left(self) -> Option<Duration> {
        let known = self.done > 0 && self.elapsed >= ENOUGH;
        let steps = self.total.saturating_sub(self.done) as f64 / self.done as f64;
        known.then(|| self.elapsed.mul_f64(steps))
    }

    /// The whole stage, where it is known to take long.
    fn long(self) -> Option<Duration> {
        let sure = self.done >= SURE_STEPS || self.elapsed >= SURE;
        let whole = self.elapsed + self.left().filter(|_| sure)?;
        (whole >= LONG).then_some(whole)
    }
}

impl Stages {
    /// What a line says: every open stage, outer ones first.
    fn line(&self, now: Instant) -> Option<String> {
        let (last, outer) = self.open.split_last()?;
        let outer = outer.iter().map(|stage| {
            let Pace { done, total, .. } = stage.pace(now);
            format!("{} {done}/{total}", stage.label())
        });
        let pace = last.pace(now);
        let inner = format!("{} {}/{}", last.label(), pace.done, pace.total);
        let time = format!("{:#} so far", HumanDuration(pace.elapsed));
        let left = pace.left().map(HumanDuration);
        let left = left.map(|left| format!("about {left:#} left"));
        let parts = outer.chain([inner, time]).chain(left);
        Some(parts.collect::<Vec<_>>().join(", "))
    }

    /// A line, if none was written for long enough.
    fn due(&mut self, now: Instant) -> Option<String> {
        let spoke = *self.spoke.get_or_insert(now);
        if self.open.is_empty() {
            self.spoke = None;
        } else if now.duration_since(spoke) >= SILENCE {
            self.spoke = Some(now);
            return self.line(now);
        }
        None
    }

    /// What is to be said of stages that are found to take long, once for each.
    fn warnings(&mut self, now: Instant) -> Vec<String> {
        let mut said = Vec::new();
        for stage in &self.open {
            let pace = stage.pace(now);
            if self.warned.contains(&stage.name) {
                continue;
            }
            if let Some(whole) = pace.long() {
                said.push(format!(
                    "note: {} will take about {} ({} of {} steps done in {:#}); Ctrl-C stops it",
                    stage.name,
                    HumanDuration(whole),
                    pace.done,
                    pace.total,
                    HumanDuration(pace.elapsed),
                ));
                self.warned.push(stage.name.clone());
            }
        }
        said
    }
}

impl Terminal {
    pub(crate) fn new(wanted: bool) -> Self {
        let shown = match (wanted, std::io::stderr().is_terminal()) {
            (false, _) => Shown::Nothing,
            (true, true) => Shown::Bars,
            (true, false) => Shown::Lines,
        };
        let target = if shown == Shown::Bars {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let shared = Arc::new(Shared {
            bars: MultiProgress::with_draw_target(target),
            stages: Mutex::default(),
            shown,
        });
        if shown != Shown::Nothing {
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

    /// Puts bars on the screen whose time has come and moves the clocks of the others, or writes lines.
    fn show(&self, stages: &mut Stages) {
        let now = Instant::now();
        for warning in stages.warnings(now) {
            self.bars.suspend(|| note(&warning));
        }
        if self.shown == Shown::Lines {
            if let Some(line) = stages.due(now) {
                note(&line);
            }
            return;
        }
        for stage in &mut stages.open {
            if !stage.shown && stage.started.elapsed() > PATIENCE {
                stage.bar = self.bars.add(stage.bar.clone());
                stage.shown = true;
            }
            if stage.shown {
                stage.bar.tick();
            }
        }
    }
}

/// What is left of a stage, on its bar.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let pace = Pace {
        done: state.pos(),
        total: state.len().unwrap_or(0),
        elapsed: state.elapsed(),
    };
    if let Some(left) = pace.left() {
        write!(out, ", {:#} left", HumanDuration(left)).ok();
    }
}

/// What stands on a bar of steps.
const STEPS: &str = "{msg} {wide_bar} {pos}/{len}, {elapsed}{left}";

impl Terminal {
    fn open(&self, stage: &str, total: u64, template: &str) {
        self.open_from(stage, (0, total), Instant::now(), template);
    }

    /// Opens a stage of which some steps were done since it `started`.
    fn open_from(&self, stage: &str, steps: (u64, u64), started: Instant, template: &str) {
        let (done, total) = steps;
        self.0.with_stages(|stages| {
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .with_key("left", left);
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
                .with_style(style)
                .with_message(stage.to_owned())
                .with_position(done)
                .with_elapsed(started.elapsed());
            stages.open.push(Stage {
                name: stage.to_owned(),
                at: None,
                bar,
                started,
                shown: false,
            });
        });
    }
}

/// Progress that takes all stages of one name for parts of one stage: where it is and how long it will take is said
/// of the whole.
#[derive(Debug)]
pub(crate) struct Whole<'t> {
    terminal: &'t Terminal,
    stage: &'static str,
    total: u64,
    done: AtomicU64,
    started: Instant,
    /// Of each open stage, whether it is such a part.
    parts: Mutex<Vec<bool>>,
}

impl<'t> Whole<'t> {
    /// The stages called `stage`, which have `total` steps together.
    pub(crate) fn new(terminal: &'t Terminal, stage: &'static str, total: usize) -> Self {
        Self {
            terminal,
            stage,
            total: total as u64,
            done: AtomicU64::new(0),
            started: Instant::now(),
            parts: Mutex::default(),
        }
    }

    fn push(&self, part: bool) {
        if let Ok(mut parts) = self.parts.lock() {
            parts.push(part);
        }
    }
}

impl Progress for Whole<'_> {
    fn begin(&self, stage: &str, total: u64) {
        let part = stage == self.stage;
        self.push(part);
        if part {
            let done = self.done.load(Ordering::Relaxed);
            let steps = (done, self.total.max(done + total));
            self.terminal.open_from(stage, steps, self.started, STEPS);
        } else {
            self.terminal.begin(stage, total);
        }
    }

    fn begin_bytes(&self, stage: &str, total: u64) {
        self.push(false);
        self.terminal.begin_bytes(stage, total);
    }

    fn at(&self, what: &str) {
        self.terminal.at(what);
    }

    fn advance(&self, steps: u64) {
        let part = self.parts.lock().ok();
        if part.is_some_and(|parts| parts.last() == Some(&true)) {
            self.done.fetch_add(steps, Ordering::Relaxed);
        }
        self.terminal.advance(steps);
    }

    fn end(&self) {
        if let Ok(mut parts) = self.parts.lock() {
            parts.pop();
        }
        self.terminal.end();
    }

    fn cancelled(&self) -> bool {
        self.terminal.cancelled()
    }
}

impl Progress for Terminal {
    fn begin(&self, stage: &str, total: u64) {
        self.open(stage, total, STEPS);
    }

    fn begin_bytes(&self, stage: &str, total: u64) {
        let template = "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}{left}";
        self.open(stage, total, template);
    }

    fn at(&self, what: &str) {
        self.0.with_stages(|stages| {
            if let Some(stage) = stages.open.last_mut() {
                stage.bar.set_message(what.to_owned());
                stage.at = Some(what.to_owned());
            }
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, done: u64, total: u64, started: Instant) -> Stage {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        bar.set_position(done);
        Stage {
            name: name.to_owned(),
            at: None,
            bar,
            started,
            shown: false,
        }
    }

    fn after(seconds: u64) -> (Instant, Instant) {
        let start = Instant::now();
        (start, start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_line_every_half_minute_says_stage_count_and_time_left() {
        let (start, now) = after(40);
        let mut stages = Stages::default();
        assert_eq!(stages.due(start), None, "nothing is done yet");
        stages.open.push(stage("methods", 1, 3, start));
        stages.open.push(stage("capturing", 10, 30, start));
        assert_eq!(stages.due(start), None, "it has only begun");
        assert_eq!(
            stages.due(now).unwrap(),
            "methods 1/3, capturing 10/30, 40s so far, about 80s left"
        );
        assert_eq!(stages.due(now + Duration::from_secs(29)), None);
        assert!(stages.due(now + SILENCE).is_some());
        // A stage that begins later has its own half minute.
        stages.open.clear();
        assert_eq!(stages.due(now + 3 * SILENCE), None);
        stages.open.push(stage("training", 0, 5, now));
        assert_eq!(stages.due(now + 4 * SILENCE), None);
    }

    #[test]
    fn stages_of_one_name_are_parts_of_one_and_say_what_they_are_at() {
        let terminal = Terminal::new(false);
        let whole = Whole::new(&terminal, "evaluating", 6);
        let paces = || {
            let stages = terminal.0.stages.lock().unwrap();
            let open = stages.open.iter();
            open.map(|stage| {
                (
                    stage.label().to_owned(),
                    stage.bar.position(),
                    stage.bar.length(),
                )
            })
            .collect::<Vec<_>>()
        };
        for task in ["ioi", "docstring"] {
            whole.begin("evaluating", 3);
            for seed in 0..3 {
                whole.at(&format!("{task} · sae, seed {seed}"));
                whole.begin("training", 10);
                whole.advance(10);
                whole.end();
                whole.advance(1);
            }
            if task == "docstring" {
                let expected = ("docstring · sae, seed 2".to_owned(), 6, Some(6));
                assert_eq!(paces(), [expected]);
            }
            whole.end();
        }
        assert!(paces().is_empty());
        assert!(terminal.seconds("evaluating").is_some());
    }

    #[test]
    fn the_time_left_needs_a_step_and_two_seconds() {
        let pace = |done, seconds| Pace {
            done,
            total: 100,
            elapsed: Duration::from_secs(seconds),
        };
        assert_eq!(pace(0, 50).left(), None);
        assert_eq!(pace(50, 1).left(), None);
        assert_eq!(pace(25, 10).left(), Some(Duration::from_secs(30)));
        assert_eq!(pace(100, 10).left(), Some(Duration::ZERO));
    }

    #[test]
    fn more_than_an_hour_is_said_once() {
        let (start, now) = after(10);
        let mut stages = Stages::default();
        // 5 of 2,500 steps in ten seconds: 5,000 seconds.
        stages.open.push(stage("patching edges", 5, 2500, start));
        let said = stages.warnings(now);
        assert_eq!(
            said,
            [
                "note: patching edges will take about 83 minutes (5 of 2500 steps done in 10s); Ctrl-C stops it"
            ]
        );
        assert!(stages.warnings(now).is_empty());
        // Four steps are too few to go by so early.
        stages.open[0] = stage("others", 4, 2500, start);
        assert!(stages.warnings(now).is_empty());
        assert_eq!(stages.warnings(now + Duration::from_secs(10)).len(), 1);
        stages.open[0] = stage("short", 5, 1000, start);
        assert!(stages.warnings(now).is_empty());
    }
}
