//! A worker: claims cells, runs them as `eval` does, keeps what they come to.

use std::collections::BTreeMap;
use std::slice;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use circuitscope::eval::methods::{BoxedMethod, method};
use circuitscope::eval::{EvaluateSettings, JudgedTask, evaluate};
use circuitscope::measures::{MemoryStore, RunRecord};
use circuitscope::model::Loaded;
use circuitscope::tasks::{TASK_FILE, TaskSpec};
use circuitscope::{EVAL_PAIRS, EvalSettings, JudgedBy, Progress, Seed, known_circuits};
use circuitscope_sweep::{
    Cell, CellRecord, Claim, Failure, Made, Plan, PlanFile, SCHEMA, Shard, Store, Worker,
    last_attempts,
};
use serde_json::json;

use super::{Context, context_name, open, options, plan, planned, program, variable};
use crate::args::{EvalArgs, SweepRunArgs};
use crate::commands::{bos, eval, inputs};
use crate::device::{B, Device, quietly};
use crate::interrupt::{self, Kept};
use crate::output::{Printer, count, note};
use crate::progress::Terminal;
use crate::provenance;

/// Name of the stage of a worker, a step for each cell.
const SWEEPING: &str = "sweeping";

/// A cell that so many workers had, and none finished, is not tried again by itself: it may be what ended them.
const MOST_ATTEMPTS: u32 = 10;

/// A device that fails so often in a row is not to be trusted with more.
const MOST_PANICS: usize = 3;

/// How often a worker that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(args: &SweepRunArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let file = PlanFile::read(&args.plan)?;
    let store = open(&file, true)?;
    let plan = if let Some(plan) = planned(&store, &file)? {
        plan
    } else {
        plan::make(&file, progress)?.write_new(&store)?;
        let plan = planned(&store, &file)?;
        plan.with_context(|| format!("{}: gone", store.address("plan.json")))?
    };
    let device = plan::device(&file)?.open()?;
    let (part, others) = part(args, &plan)?;

    let worker = Worker::join(&store, &host(), plan.lease)?;
    interrupt::before_leaving({
        let claims = worker.give_back();
        move || {
            if let Err(error) = claims.now() {
                note(&format!(
                    "note: cells were not given back ({error}): others take them over once the lease is over"
                ));
            }
        }
    });
    interrupt::keep(Kept {
        said: "cells that are done are kept, the others were given back; run the same command to go on".to_owned(),
        json: None,
    });
    let mut work = Work {
        file: &file,
        store: &store,
        plan: &plan,
        worker: &worker,
        device: &device,
        progress,
        methods: plan::methods(&file)?
            .iter()
            .map(|about| about.name.to_string())
            .collect::<Vec<_>>()
            .join(","),
        forgiven: if args.retry_failed {
            last_attempts(&store, "failures")?
        } else {
            BTreeMap::new()
        },
        model: None,
        broken: BTreeMap::new(),
        panics: 0,
        tally: Tally::default(),
    };
    let started = Instant::now();
    let outcome = work.all(part).and_then(|()| work.all(others));
    let tally = work.tally;
    drop(work.model);
    let left = worker.leave();
    outcome?;
    left?;
    let seconds = started.elapsed().as_secs_f64();
    let value = json!({
        "ran": tally.ran,
        "done_before": tally.done,
        "failed": tally.failed,
        "failed_before": tally.failed_before,
        "with_others": tally.with_others,
        "seconds": seconds,
        "store": store.location(),
    });
    printer.print(&value, || {
        let mut parts = vec![format!(
            "{} done in {seconds:.1} s",
            count(tally.ran, "cell")
        )];
        for (number, what) in [
            (tally.done, "done before, or by others"),
            (tally.with_others, "that others are at"),
            (tally.failed, "failed"),
            (
                tally.failed_before,
                "failed before (--retry-failed tries them again)",
            ),
        ] {
            if number > 0 {
                parts.push(format!("{number} {what}"));
            }
        }
        parts.join(", ")
    })?;
    let failed = tally.failed + tally.failed_before;
    if failed > 0 {
        bail!(
            "{} could not be run; `circuitscope sweep status {}` says why",
            count(failed, "cell"),
            args.plan.display()
        );
    }
    Ok(())
}

/// Cells that are taken at once, as numbers in the plan.
type Units = Vec<Vec<usize>>;

/// What this worker does first, and what it does after that.
fn part(args: &SweepRunArgs, plan: &Plan) -> Result<(Units, Units)> {
    let mut units = plan.units();
    if let Some(named) = &args.cell {
        return Ok((vec![vec![plan.find(named)?]], Vec::new()));
    }
    let shard = match args.shard {
        Some(shard) => Some((shard, "--shard".to_owned())),
        None => Shard::from_environment(args.shards, variable)?
            .map(|(shard, scheduler)| (shard, scheduler.to_string())),
    };
    let Some((shard, said)) = shard else {
        if args.shards.is_some() {
            bail!(
                "--shards: found no variable of SLURM or Kubernetes that says which part this is, expected one, or --shard I/N"
            );
        }
        return Ok((units, Vec::new()));
    };
    let range = shard.of(units.len());
    let after = units.split_off(range.end);
    let ours = units.split_off(range.start);
    let cells = ours.iter().map(Vec::len).sum::<usize>();
    note(&format!(
        "note: part {shard} of the work, by {said}: {}",
        count(cells, "cell")
    ));
    let others = if args.help_others {
        // Those that come next, then from the beginning: helpers do not all begin at the same.
        after.into_iter().chain(units).collect()
    } else {
        Vec::new()
    };
    Ok((ours, others))
}

/// The name of this machine.
fn host() -> String {
    let said = fs_err::read_to_string("/proc/sys/kernel/hostname").ok();
    let said = said.or_else(|| {
        let name = std::env::var_os("COMPUTERNAME").or_else(|| std::env::var_os("HOSTNAME"))?;
        Some(name.to_string_lossy().into_owned())
    });
    let said = said.map(|name| name.trim().to_owned());
    said.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "machine".to_owned())
}

/// The first error of this type among the causes of one.
fn cause<E: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// What a cell failed by, and what helps.
fn failure(error: &anyhow::Error) -> String {
    match cause(error) {
        Some(circuitscope::Error::NoKnownCircuit { .. }) => {
            format!("{error:#}; a task of your own says it in [[circuits]] of {TASK_FILE}")
        }
        _ => format!("{error:#}"),
    }
}

/// What became of the cells.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    ran: usize,
    done: usize,
    failed: usize,
    failed_before: usize,
    with_others: usize,
}

/// A model that is loaded, for one set of settings, and the task that was posed to it last.
struct Model {
    settings: String,
    name: String,
    args: EvalArgs,
    loaded: Loaded<B>,
    common: EvalSettings,
    task: Option<(TaskSpec, JudgedTask<B>)>,
}

struct Work<'w> {
    file: &'w PlanFile,
    store: &'w Store,
    plan: &'w Plan,
    worker: &'w Worker<'w>,
    device: &'w Device,
    progress: &'w Terminal,
    /// All methods of the plan, comma-separated: what is captured for one serves all.
    methods: String,
    /// The last failed attempt of each cell that is tried again.
    forgiven: BTreeMap<String, u32>,
    model: Option<Model>,
    /// Models and tasks of models that this worker cannot use, with the reason.
    broken: BTreeMap<[String; 3], String>,
    /// How often the device failed in a row.
    panics: usize,
    tally: Tally,
}

impl Work<'_> {
    /// Does all of some units: first what is free, then what was taken by workers that turn out to be no more.
    fn all(&mut self, units: Units) -> Result<()> {
        let progress: &dyn Progress = self.progress;
        let total: usize = units.iter().map(Vec::len).sum();
        let _stage = progress.stage(SWEEPING, total as u64);
        let mut units = units;
        // When the workers of cells that are taken were heard first.
        let mut heard = BTreeMap::new();
        // Looks again soon, for most cells are done soon, and then less and less often.
        let (mut pause, longest) = (LOOK, self.worker.every() / 4);
        loop {
            let mut taken = Vec::new();
            for unit in units {
                let mut ours = Vec::new();
                let mut later = Vec::new();
                for at in unit {
                    self.go_on()?;
                    let cell = &self.plan.cells[at];
                    let forgiven = self.forgiven.get(&cell.key).copied().unwrap_or(0);
                    match self.worker.claim(cell, forgiven)? {
                        Claim::Ours(attempt) => ours.push((cell, attempt)),
                        Claim::Done => self.settled(|tally| &mut tally.done),
                        Claim::Failed => self.settled(|tally| &mut tally.failed_before),
                        Claim::Taken { heard: now, .. } => {
                            // Who was heard again lives, and finishes what it began.
                            if *heard.entry(at).or_insert(now) < now {
                                self.settled(|tally| &mut tally.with_others);
                            } else {
                                later.push(at);
                            }
                        }
                        other => bail!("{cell}: found {other:?}, expected to know what to do"),
                    }
                }
                if !ours.is_empty() {
                    self.run(&ours)?;
                }
                if !later.is_empty() {
                    taken.push(later);
                }
            }
            if taken.is_empty() {
                return Ok(());
            }
            progress.at("waiting for a sign of life of other workers");
            let until = Instant::now() + pause;
            pause = (2 * pause).min(longest.max(LOOK));
            while Instant::now() < until {
                self.go_on()?;
                thread::sleep(LOOK);
            }
            units = taken;
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.progress.cancelled() {
            bail!("interrupted");
        }
        Ok(())
    }

    fn settled(&mut self, of: impl Fn(&mut Tally) -> &mut usize) {
        *of(&mut self.tally) += 1;
        self.progress.advance(1);
    }

    /// Runs cells that this worker has claimed: one, or all seeds of a method without random choices.
    fn run(&mut self, ours: &[(&Cell, u32)]) -> Result<()> {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let cells: Vec<&Cell> = ours.iter().map(|(cell, _)| *cell).collect();
        let tired = ours.iter().find(|(cell, attempt)| {
            *attempt > MOST_ATTEMPTS + self.forgiven.get(&cell.key).copied().unwrap_or(0)
        });
        let outcome = match tired {
            Some((_, attempt)) => Err(anyhow::anyhow!(
                "{} had this cell, and none finished it: it may be what ended them",
                count(*attempt as usize - 1, "worker")
            )),
            // A driver that fails does so by panicking inside burn: of one cell, not of all.
            None => quietly(|| self.records(&cells)).unwrap_or_else(|panic| {
                self.panics += 1;
                self.model = None;
                Err(panic.context("the device failed"))
            }),
        };
        let seconds = clock.elapsed().as_secs_f64() / ours.len() as f64;
        let made = |attempt: u32| Made {
            worker: self.worker.name().to_owned(),
            host: self.worker.host().to_owned(),
            program: program(),
            device: self.device.to_string(),
            attempt,
            started: Made::time(started),
            seconds,
        };
        match outcome {
            Ok(records) => {
                self.panics = 0;
                for ((cell, attempt), record) in ours.iter().zip(records) {
                    let counts = self.worker.commit(&CellRecord {
                        schema: SCHEMA,
                        cell: (*cell).clone(),
                        made: made(*attempt),
                        record,
                    })?;
                    if counts {
                        self.settled(|tally| &mut tally.ran);
                    } else {
                        self.settled(|tally| &mut tally.done);
                    }
                }
            }
            Err(error) => {
                self.go_on()?;
                // A store that cannot be written is no fault of the cell.
                if let Some(circuitscope_sweep::Error::Store { .. }) = cause(&error) {
                    return Err(error);
                }
                let error = failure(&error);
                note(&format!("error: {}: {error}", ours[0].0));
                for (cell, attempt) in ours {
                    self.worker.fail(&Failure {
                        schema: SCHEMA,
                        cell: (*cell).clone(),
                        made: made(*attempt),
                        error: error.clone(),
                    })?;
                    self.settled(|tally| &mut tally.failed);
                }
                if self.panics >= MOST_PANICS {
                    bail!("the device failed {MOST_PANICS} times in a row: {error}");
                }
            }
        }
        Ok(())
    }

    /// What cells of one method come to.
    fn records(&mut self, cells: &[&Cell]) -> Result<Vec<RunRecord>> {
        let cell = cells[0];
        let place = |task: &str| [cell.settings.clone(), cell.model.clone(), task.to_owned()];
        for task in ["", &cell.task] {
            // Loading once more what did not load takes as long as the first time.
            if let Some(reason) = self.broken.get(&place(task)) {
                bail!("{reason}");
            }
        }
        if let Err(error) = self.load(cell) {
            self.broken.insert(place(""), format!("{error:#}"));
            return Err(error);
        }
        if let Err(error) = self.pose(cell) {
            self.broken.insert(place(&cell.task), format!("{error:#}"));
            return Err(error);
        }
        let Some(Model {
            args,
            task: Some((task, judged)),
            ..
        }) = &self.model
        else {
            bail!("{cell}: found no model, expected the one that was loaded");
        };
        let settings = eval::method_settings(args, task);
        let methods: [BoxedMethod<B>; 1] = [method::<B>(
            &cell.method,
            &settings,
            &self.device.training(),
        )?];
        let seeds: Vec<Seed> = cells.iter().map(|cell| Seed::new(cell.seed)).collect();
        let mut settings: EvaluateSettings = eval::evaluate_settings(args);
        if cell.seed != self.plan.prompt_seed {
            // Curves are slow to measure and differ little between seeds: of the first alone, as in `eval`.
            settings = settings.with_faithfulness_pairs(0);
        }
        let runs = evaluate::<B>(
            slice::from_ref(judged),
            &methods,
            &seeds,
            settings,
            &mut MemoryStore::default(),
            self.progress,
        );
        runs.map_err(|error| eval::of_task(error.into(), task))
    }

    /// Makes sure that the model of a cell is loaded, as its settings say.
    fn load(&mut self, cell: &Cell) -> Result<()> {
        let there = self.model.as_ref();
        if there
            .is_some_and(|model| (&model.settings, &model.name) == (&cell.settings, &cell.model))
        {
            return Ok(());
        }
        // Two models at once may be too many.
        self.model = None;
        let planned = self.plan.model(cell);
        let planned =
            planned.with_context(|| format!("{cell}: a model that the plan does not have"))?;
        let settings = self.file.settings.get(&cell.settings);
        let settings =
            settings.with_context(|| format!("{cell}: settings that the plan does not have"))?;
        let name = plan::to_load(self.file, planned);
        let args = options::eval_args(self.file, &cell.settings, settings, &name, &self.methods)?;
        let loaded = inputs::load_model(&args.model, self.device, self.progress)?;
        plan::check_loaded(planned, &loaded.provenance)?;
        let start = bos::settle(&loaded, &args.model, false, &mut [], inputs::prompt)?;
        let common = eval::settings(&args, &loaded, start, self.device, &provenance::start())?;
        self.model = Some(Model {
            settings: cell.settings.clone(),
            name: cell.model.clone(),
            args,
            loaded,
            common,
            task: None,
        });
        Ok(())
    }

    /// Makes sure that the task of a cell is posed to its model.
    fn pose(&mut self, cell: &Cell) -> Result<()> {
        let Some(model) = &mut self.model else {
            bail!("{cell}: found no model, expected the one that was loaded");
        };
        if model
            .task
            .as_ref()
            .is_some_and(|(task, _)| task.name == cell.task)
        {
            return Ok(());
        }
        model.task = None;
        let planned = self.plan.task(cell);
        let planned =
            planned.with_context(|| format!("{cell}: a task that the plan does not have"))?;
        let task = plan::open_task(self.file, &planned.given)?;
        let again = plan::planned_task(self.file, &planned.given, &task)?;
        if again != *planned {
            bail!(
                "task {}: found other files than were planned; plan anew where they are meant",
                task.name
            );
        }
        let args = &model.args;
        let pairs = args
            .examples
            .unwrap_or_else(|| task.examples_or(EVAL_PAIRS));
        let circuits = known_circuits(&model.loaded, &task, args.circuit.as_ref())?;
        let by = JudgedBy::new(&task, pairs, circuits)?;
        let (judged, behaviour) =
            eval::posed(args, &task, &by, &model.loaded, self.device, self.progress)?;
        if let Some(name) = context_name(self.plan, cell) {
            let context = Context {
                settings: model.common.clone(),
                judged_by: by,
                behaviour,
            };
            self.store
                .create(&name, &serde_json::to_vec_pretty(&context)?)?;
        }
        model.task = Some((task, judged));
        Ok(())
    }
}
