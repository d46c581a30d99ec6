//! `evaluate`: known circuits, methods and controls. The same calls as the program makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::causal::Ablation;
use circuitscope::eval::methods::{self, BoxedMethod, FromFile, MethodSettings, method};
use circuitscope::eval::{About, EVALUATING, EvaluateSettings, evaluate as run_all};
use circuitscope::measures::{
    FolderStore, MemoryStore, RunRecord, RunStore, SETTINGS_FILE, write_json,
};
use circuitscope::model::{Loaded, PrependBos};
use circuitscope::report::render;
use circuitscope::tasks::{IOI, TASKS, TaskSpec};
use circuitscope::{
    CaptureSettings, CircuitChoice, CrossSettings, EVAL_PAIRS, EvalSettings, JudgedBy, Metric,
    PrepareSettings, Progress, PromptBehaviour, PromptStart, Provenance, RESULTS_FILE, Results,
    Schema, Seed, available_memory, behaviour_file, cross_tasks, judged_as, judged_task,
    known_circuits, prepare_task, two_tasks,
};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::Model;
use crate::prompts::{self, open_task};
use crate::settings;
use crate::work::{self, raised, run, to_json};

type B = Autodiff<Flex>;

/// What was asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    tasks: Option<Vec<String>>,
    methods: String,
    n_examples: Option<usize>,
    seeds: usize,
    resamples: usize,
    faithfulness: bool,
    cross_task: bool,
    /// Files of scores of other tools, judged as methods.
    scores: Vec<PathBuf>,
    circuit: Option<String>,
    prepend_bos: String,
    max_batch_tokens: Option<usize>,
    metric: Option<String>,
    reference: String,
    seed: u64,
    settings: Map<String, Value>,
    arguments: Vec<String>,
}

/// The same, read.
struct Asked {
    options: Options,
    methods: Vec<&'static About>,
    circuit: Option<CircuitChoice>,
    prepend_bos: PrependBos,
    metric: Option<Metric>,
    ablation: Ablation,
    /// Of every task, but for λ, which is the task's unless it was asked for.
    settings: MethodSettings,
}

impl Asked {
    fn read(options: Options) -> Result<Self> {
        let said = |name: &str, error: &dyn std::fmt::Display| anyhow::anyhow!("{name}: {error}");
        for (name, none) in [
            ("tasks", options.tasks.as_ref().is_some_and(Vec::is_empty)),
            ("methods", options.methods.is_empty()),
        ] {
            if none {
                bail!("{name}: found none, expected at least one");
            }
        }
        let methods = methods::parse_list(&options.methods)?;
        let metric = options.metric.as_deref().map(str::parse::<Metric>);
        let metric = metric.transpose().map_err(|error| said("metric", &error))?;
        if let Some(metric) = metric {
            methods
                .iter()
                .try_for_each(|method| method.check_metric(metric))?;
        }
        work::in_range("seeds", Some(options.seeds), 1..=work::SEEDS)?;
        let last = options.seeds as u64 - 1;
        if options.seed.checked_add(last).is_none() {
            bail!(
                "seed: found {}, expected one with {last} after it up to {}",
                options.seed,
                u64::MAX
            );
        }
        for (name, number) in [
            ("examples", options.n_examples),
            ("max_batch_tokens", options.max_batch_tokens),
        ] {
            work::in_range(name, number, 1..=work::MOST)?;
        }
        work::in_range("resamples", Some(options.resamples), 0..=work::MOST)?;
        let prepend_bos = options.prepend_bos.parse::<PrependBos>();
        let circuit = options.circuit.as_deref().map(prompts::circuit);
        let usual = MethodSettings::default();
        let settings = settings::methods(&usual, &options.settings, &options.arguments);
        Ok(Self {
            methods,
            circuit: circuit.transpose()?,
            prepend_bos: prepend_bos.map_err(|error| said("prepend_bos", &error))?,
            metric,
            ablation: options.reference.parse()?,
            settings: settings?,
            options,
        })
    }

    fn l1(&self) -> Option<f64> {
        self.options
            .settings
            .get("l1_coefficient")
            .and_then(Value::as_f64)
    }

    fn seeds(&self) -> Vec<Seed> {
        let first = self.options.seed;
        let seeds = (0..self.options.seeds as u64).map(|at| Seed::new(first + at));
        seeds.collect()
    }

    fn capture(&self) -> CaptureSettings {
        CaptureSettings::default()
            .with_max_batch_tokens(self.options.max_batch_tokens)
            .with_memory(available_memory().unwrap_or(2 << 30))
            .with_ablation(self.ablation)
            .with_seed(Seed::new(self.options.seed))
    }

    fn prepare(&self) -> PrepareSettings {
        PrepareSettings::default()
            .with_metric(self.metric)
            .with_prepend_bos(self.prepend_bos)
    }

    /// What the runs have in common.
    fn settings(
        &self,
        loaded: &Loaded<Flex>,
        start: PromptStart,
        provenance: &mut Provenance,
    ) -> Result<EvalSettings> {
        let mut scores = Vec::new();
        for path in &self.options.scores {
            provenance.input(path)?;
            scores.extend(provenance.inputs.get(&path.display().to_string()).cloned());
        }
        let asked = self.circuit.as_ref();
        let (circuits, circuits_why) = judged_as(&loaded.provenance, asked)?;
        let (sae, patching) = (&self.settings.sae, &self.settings.patching);
        Ok(EvalSettings {
            schema: Schema,
            circuitscope: env!("CARGO_PKG_VERSION").to_owned(),
            model: loaded.provenance.clone(),
            circuits,
            circuits_why,
            prepend_bos: start,
            examples: self.options.n_examples.unwrap_or(EVAL_PAIRS),
            prompt_seed: self.options.seed,
            codes: sae.n_codes,
            l1: self.l1(),
            train_examples: sae.train_examples,
            steps: sae.steps,
            resamples: self.options.resamples,
            faithfulness: self.options.faithfulness,
            metric: self.metric,
            ablation: self.ablation,
            gradient_pairs: patching.gradient_pairs as u32,
            patch_pairs: patching.patch_pairs as u32,
            ig_steps: patching.ig_steps as u32,
            node_ig_steps: patching.node_ig_steps as u32,
            mask_steps: patching.mask_steps as u32,
            matryoshka_steps: patching.matryoshka_steps as u32,
            scores,
            device: "flex (CPU)".to_owned(),
        })
    }
}

/// Task, method and seed of a run, and its scores, `[layer, head]`.
type RunScores<'py> = (String, String, u64, Bound<'py, PyArrayDyn<f64>>);

/// What an evaluation found.
#[pyclass(frozen, module = "circuitscope._circuitscope")]
#[derive(Debug)]
pub struct Evaluation {
    results: Results,
    records: Vec<RunRecord>,
    judged: BTreeMap<String, JudgedBy>,
    notes: Vec<String>,
}

/// Judges methods by the known circuits of tasks.
#[pyfunction]
#[pyo3(signature = (model, options, output=None, progress=None))]
pub fn evaluate(
    py: Python<'_>,
    model: &Model,
    options: &str,
    output: Option<PathBuf>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Evaluation> {
    let options: Options = work::options(options)?;
    let asked = Asked::read(options).map_err(|error| raised(&error))?;
    let loaded = model.loaded();
    run(py, progress, move |progress| {
        let made = all(&asked, &loaded, output.as_deref(), progress)?;
        if let Some(folder) = &output {
            made.saved(folder)?;
        }
        Ok(made)
    })
}

fn all(
    asked: &Asked,
    loaded: &Loaded<Flex>,
    output: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let program = concat!("circuitscope ", env!("CARGO_PKG_VERSION"));
    let mut provenance = Provenance::start(program, Vec::new());
    provenance.on(&"flex (CPU)");
    let tasks = tasks(asked, loaded, &mut provenance)?;
    if asked.options.cross_task {
        two_tasks(tasks.len()).map_err(|error| anyhow!("cross_task: {error}"))?;
    }
    let (start, mut notes) =
        PromptStart::settle(loaded, asked.prepend_bos, false, &mut [], |at| {
            format!("prompt {}", at + 1)
        })?;
    let files = files(asked, &tasks, loaded, &mut notes)?;
    let settings = asked.settings(loaded, start, &mut provenance)?;
    let mut store: Box<dyn RunStore> = match output {
        None => Box::new(MemoryStore::default()),
        Some(folder) => {
            own_folder(folder)?;
            for (_, by) in &tasks {
                by.check(folder)?;
            }
            Box::new(FolderStore::open(folder, &settings)?)
        }
    };
    let runs = tasks.len() * (asked.methods.len() + files.len()) * asked.seeds().len();
    let _stage = progress.stage(EVALUATING, runs as u64);
    let (mut records, mut behaviours) = (Vec::new(), BTreeMap::new());
    for (task, by) in &tasks {
        let (behaviour, runs) = one(
            asked,
            task,
            by,
            &files,
            loaded,
            store.as_mut(),
            &mut notes,
            progress,
        )?;
        behaviours.insert(task.name.clone().into_owned(), behaviour);
        records.extend(runs);
    }
    let mut results = Results::new(behaviours, &records, provenance.of_evaluation(settings));
    if asked.options.cross_task {
        let how = CrossSettings {
            prepare: asked.prepare(),
            capture: asked.capture(),
            pairs: asked.settings.patching.patch_pairs,
        };
        results.cross_task = cross_tasks(loaded, &tasks, &records, how, &FlexDevice, progress)?;
    }
    let judged = tasks.into_iter().map(|(_, by)| (by.task.clone(), by));
    Ok(Evaluation {
        judged: judged.collect(),
        results,
        records,
        notes,
    })
}

/// The tasks to judge, each with what it is judged by: those asked for, or all whose circuit is known in this model.
fn tasks(
    asked: &Asked,
    loaded: &Loaded<Flex>,
    provenance: &mut Provenance,
) -> Result<Vec<(TaskSpec, JudgedBy)>> {
    let by = |task: TaskSpec, circuits| -> Result<(TaskSpec, JudgedBy)> {
        let pairs = asked.options.n_examples;
        let pairs = pairs.unwrap_or_else(|| task.examples_or(EVAL_PAIRS));
        let by = JudgedBy::new(&task, pairs, circuits)?;
        Ok((task, by))
    };
    let circuit = asked.circuit.as_ref();
    if let Some(CircuitChoice::File(file)) = circuit {
        provenance.input(file)?;
        let found = asked.options.tasks.as_ref().map_or(0, Vec::len);
        if found != 1 {
            bail!(
                "circuit: {}: found {found} tasks, expected the one whose circuit it is",
                file.display()
            );
        }
    }
    let mut tasks: Vec<(TaskSpec, JudgedBy)> = Vec::new();
    if let Some(named) = &asked.options.tasks {
        for name in named {
            let task = open_task(name, provenance)?;
            if tasks.iter().any(|(other, _)| other.name == task.name) {
                bail!("tasks: found {task} twice, expected tasks of different names");
            }
            let circuits = known_circuits(loaded, &task, circuit)?;
            tasks.push(by(task, circuits)?);
        }
        return Ok(tasks);
    }
    for task in TASKS {
        if let Ok(circuits) = known_circuits(loaded, task, circuit) {
            tasks.push(by((*task).clone(), circuits)?);
        }
    }
    if tasks.is_empty() {
        known_circuits(loaded, &IOI, circuit)?;
    }
    Ok(tasks)
}

/// The files of scores, as methods.
fn files(
    asked: &Asked,
    tasks: &[(TaskSpec, JudgedBy)],
    loaded: &Loaded<Flex>,
    notes: &mut Vec<String>,
) -> Result<Vec<FromFile>> {
    let paths = &asked.options.scores;
    if !paths.is_empty() && tasks.len() != 1 {
        bail!(
            "scores: found {} tasks, expected the one that the scores are for",
            tasks.len()
        );
    }
    let files = FromFile::read_all(paths, loaded.model.config().graph())?;
    for (file, path) in files.iter().zip(paths) {
        let said = file.notes().iter();
        notes.extend(said.map(|said| format!("{}: {said}", path.display())));
    }
    Ok(files)
}

/// One task.
#[expect(
    clippy::too_many_arguments,
    reason = "what a task is run with and where it goes"
)]
fn one(
    asked: &Asked,
    task: &TaskSpec,
    by: &JudgedBy,
    files: &[FromFile],
    loaded: &Loaded<Flex>,
    store: &mut dyn RunStore,
    notes: &mut Vec<String>,
    progress: &dyn Progress,
) -> Result<(PromptBehaviour, Vec<RunRecord>)> {
    let seed = Seed::new(asked.options.seed);
    let prompts = prepare_task(loaded, task, by.pairs, seed, asked.prepare())?;
    let said = prompts.notes().iter();
    notes.extend(said.map(|said| format!("{task}: {said}")));
    let few = prompts.few_pairs();
    notes.extend(few.map(|few| format!("warning: {task}: {few}")));
    let capture = asked
        .capture()
        .with_last_position(asked.methods.iter().any(|about| about.needs.last));
    let truths = by.circuits.truths.clone();
    let judged = judged_task(loaded, &prompts, truths, capture, &FlexDevice, progress)?;
    let causal = judged.evidence.causal("evaluate").ok();
    let behaviour =
        PromptBehaviour::measure(loaded, &prompts, causal, &FlexDevice, seed, progress)?;
    let mut settings = asked.settings.clone();
    if asked.l1().is_none() {
        settings.sae.l1_coefficient = task.l1_coefficient;
    }
    let methods = asked.methods.iter();
    let mut methods = methods
        .map(|about| method::<B>(&about.name, &settings, &FlexDevice))
        .collect::<Result<Vec<BoxedMethod<B>>, _>>()?;
    for file in files {
        methods.push(Box::new(file.clone()));
    }
    let faithful = if asked.options.faithfulness {
        settings.patching.patch_pairs
    } else {
        0
    };
    let how = EvaluateSettings::default()
        .with_resamples(asked.options.resamples)
        .with_faithfulness_pairs(faithful);
    let runs = run_all::<B>(&[judged], &methods, &asked.seeds(), how, store, progress)?;
    Ok((behaviour, runs))
}

/// Fails where a folder holds results of something else.
fn own_folder(folder: &Path) -> Result<()> {
    if folder.is_file() {
        bail!(
            "{}: found a file, expected a folder or nothing",
            folder.display()
        );
    }
    let others = [RESULTS_FILE, circuitscope::measures::DISCOVERY_FILE];
    let found = others.into_iter().find(|name| folder.join(name).exists());
    match found {
        Some(found) if !folder.join(SETTINGS_FILE).exists() => bail!(
            "{}: found {found} and no {SETTINGS_FILE}, expected a new folder, or one of an evaluation",
            folder.display()
        ),
        _ => Ok(()),
    }
}

#[pymethods]
impl Evaluation {
    /// Everything, as `results.json` has it.
    fn json(&self) -> PyResult<String> {
        to_json(&self.results)
    }

    /// The scores of each run: task, method, seed, `[layer, head]`.
    fn scores<'py>(&self, py: Python<'py>) -> PyResult<Vec<RunScores<'py>>> {
        let runs = self.records.iter().map(|record| {
            let grid = record.scores.grid;
            let shape = [grid.n_layers, grid.n_heads];
            let nodes = crate::arrays::shaped(py, record.scores.nodes.clone(), &shape)?;
            let (task, method) = (record.task.clone(), record.method.clone());
            Ok((task, method, record.seed, nodes))
        });
        runs.collect()
    }

    /// What was assumed, one sentence each.
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Writes everything into a folder, as `eval --output` does; the path of the page.
    fn save(&self, folder: PathBuf) -> PyResult<PathBuf> {
        self.saved(&folder).map_err(|error| raised(&error))
    }
}

impl Evaluation {
    fn saved(&self, folder: &Path) -> Result<PathBuf> {
        own_folder(folder)?;
        for by in self.judged.values() {
            by.check(folder)?;
        }
        let mut store = FolderStore::open(folder, &self.results.provenance.settings)?;
        for record in &self.records {
            let key = record.key();
            if !store.contains(&key) {
                store.save(&key, record)?;
            }
        }
        for by in self.judged.values() {
            by.write(folder)?;
        }
        for (task, behaviour) in &self.results.behaviour {
            write_json(&behaviour_file(folder, task), behaviour)?;
        }
        self.results.write(&folder.join(RESULTS_FILE))?;
        let page = self.results.page(&self.records, &self.judged)?;
        Ok(render(&page)?.write(folder)?)
    }
}
