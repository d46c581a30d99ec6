//! `eval`: known circuits, methods and controls; a table and a report.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use circuitscope::eval::methods::{BoxedMethod, FromFile, MethodSettings, method};
use circuitscope::eval::{self, EVALUATING, EvaluateSettings, JudgedTask, evaluate};
use circuitscope::measures::DISCOVERY_FILE;
use circuitscope::measures::{
    FolderStore, RunKey, RunRecord, RunStore as _, SETTINGS_FILE, read_kept, write_json,
};
use circuitscope::model::Loaded;
use circuitscope::report::PAGE_FILE;
use circuitscope::tasks::{IOI, TASKS, TaskSpec};
use circuitscope::{
    CircuitChoice, EVAL_PAIRS, EvalSettings, JudgedBy, PrepareSettings, PromptBehaviour,
    PromptStart, RESULTS_FILE, Results, Schema, behaviour_file, judged_as, judged_task,
    known_circuits, prepare_task,
};
use circuitscope::{Progress, Seed};

use super::eval_text::results_text;
use super::judge_files;
use super::{bos, cross_task, inputs, pages};
use crate::args::EvalArgs;
use crate::device::{B, Device};
use crate::interrupt::{self, Kept};
use crate::output::{self, Printer, indented, note};
use crate::progress::{Terminal, Whole};
use crate::provenance::{self, Provenance};

pub(crate) fn run(args: &EvalArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    if args.task.is_none() && !args.scores.is_empty() {
        return judge_files::run(args, printer);
    }
    let printer = printer.keeping(true);
    let mut provenance = provenance::start();
    let methods = &args.method.0;
    let last = args.seed.seed.checked_add(args.seeds as u64 - 1);
    if last.is_none() {
        bail!(
            "--seed {}: found {} seeds from there on, expected them to be at most {}",
            args.seed.seed,
            args.seeds,
            u64::MAX
        );
    }
    args.patching.check(methods)?;
    let device = args.device.device.open()?;
    provenance.on(&device);
    check_circuit(args, &mut provenance)?;
    let loaded = inputs::load_model(&args.model, &device, progress)?;
    let tasks = tasks(args, &loaded, &mut provenance)?;
    cross_task::check(args, tasks.len())?;
    let files = files_to_judge(args, &tasks, &loaded)?;
    provenance.input_all(&args.scores)?;
    inputs::writable_folder(&args.output)?;
    inputs::own_folder(
        &args.output,
        SETTINGS_FILE,
        &[DISCOVERY_FILE, RESULTS_FILE, PAGE_FILE],
    )?;
    let start = bos::settle(&loaded, &args.model, false, &mut [], inputs::prompt)?;
    let said = start.sentence();
    let settings = settings(args, &loaded, start, &device, &provenance)?;
    let mut store = FolderStore::open(&args.output, &settings)?;
    for (_, by) in &tasks {
        by.check(&args.output)?;
    }
    interrupt::keep(Kept {
        said: "finished parts are kept; run the same command to go on".to_owned(),
        json: None,
    });

    let mut records = Vec::new();
    let mut behaviours = BTreeMap::new();
    let names = methods.iter().map(|about| about.name.as_ref());
    let names: Vec<&str> = names.chain(files.iter().map(FromFile::name)).collect();
    let unfinished = tasks.iter().map(|(task, _)| keys(args, task, &names));
    let unfinished = unfinished.filter(|keys| !keys.iter().all(|key| store.contains(key)));
    let runs = unfinished.map(|keys| keys.len()).sum();
    let whole = Whole::new(progress, EVALUATING, runs);
    for (task, by) in &tasks {
        let keys = keys(args, task, &names);
        // Where one is missing, all are read as they are come to.
        let finished = if keys.iter().all(|key| store.contains(key)) {
            let runs = keys.iter().map(|key| store.load(key));
            runs.collect::<Result<Option<Vec<_>>, _>>()?
        } else {
            None
        };
        by.write(&args.output)?;
        let known = behaviour(&args.output, &task.name)?;
        let (behaviour, runs) = if let (Some(runs), Some(behaviour)) = (finished, known) {
            tracing::info!(%task, "all runs were finished before");
            printer.part(&behaviour_text(&task.name, &behaviour))?;
            (behaviour, runs)
        } else {
            run_task(
                args, task, by, &files, &loaded, &device, &mut store, printer, &whole,
            )?
        };
        behaviours.insert(task.name.clone().into_owned(), behaviour);
        records.extend(runs);
    }

    let crossed = if args.cross_task {
        cross_task::run(args, &tasks, &records, &loaded, &device, progress)?
    } else {
        Vec::new()
    };
    let mut results = Results::new(behaviours, &records, provenance.of_evaluation(settings));
    results.cross_task = crossed;
    results.write(&args.output.join(RESULTS_FILE))?;
    let judged = tasks.into_iter().map(|(_, by)| (by.task.clone(), by));
    let page = pages::evaluation(&args.output, &records, &results, &judged.collect())?;
    printer.print(&results, || {
        format!("{said}\n{}", results_text(&results, &page))
    })
}

/// Fails where a circuit in a file is of no one task, or of another model as far as that can be told before it is
/// loaded.
fn check_circuit(args: &EvalArgs, provenance: &mut Provenance) -> Result<()> {
    let Some(CircuitChoice::File(file)) = &args.circuit else {
        return Ok(());
    };
    let Some([task]) = args.task.as_ref().map(|tasks| tasks.0.as_slice()) else {
        bail!(
            "--circuit {}: found {}, expected the one --task whose circuit it is",
            file.display(),
            args.task.as_ref().map_or_else(
                || "no --task".to_owned(),
                |tasks| output::count(tasks.0.len(), "task")
            )
        );
    };
    provenance.input(file)?;
    let task = task.open(provenance)?;
    inputs::check_circuit(&args.model, args.circuit.as_ref(), &task.name)
}

/// The tasks to judge, each with what it is judged by: those asked for, or all whose circuit is known in
/// this model.
fn tasks(
    args: &EvalArgs,
    loaded: &Loaded<B>,
    provenance: &mut Provenance,
) -> Result<Vec<(TaskSpec, JudgedBy)>> {
    let asked = args.circuit.as_ref();
    let by = |task: TaskSpec, circuits| -> Result<(TaskSpec, JudgedBy)> {
        let pairs = args
            .examples
            .unwrap_or_else(|| task.examples_or(EVAL_PAIRS));
        let by = JudgedBy::new(&task, pairs, circuits)?;
        Ok((task, by))
    };
    let mut tasks: Vec<(TaskSpec, JudgedBy)> = Vec::new();
    if let Some(named) = &args.task {
        for named in &named.0 {
            let task = named.open(provenance)?;
            if tasks.iter().any(|(other, _)| other.name == task.name) {
                bail!("--task: found {task} twice, expected tasks of different names");
            }
            let circuits = known_circuits(loaded, &task, asked)?;
            tasks.push(by(task, circuits)?);
        }
        return Ok(tasks);
    }
    for task in TASKS {
        if let Ok(circuits) = known_circuits(loaded, task, asked) {
            tasks.push(by((*task).clone(), circuits)?);
        }
    }
    if tasks.is_empty() {
        known_circuits(loaded, &IOI, asked)?;
    }
    Ok(tasks)
}

/// The files of `--scores`, as methods.
fn files_to_judge(
    args: &EvalArgs,
    tasks: &[(TaskSpec, JudgedBy)],
    loaded: &Loaded<B>,
) -> Result<Vec<FromFile>> {
    if !args.scores.is_empty() && tasks.len() != 1 {
        bail!(
            "--scores: found {} tasks, expected the one --task that the scores are for",
            tasks.len()
        );
    }
    let graph = loaded.model.config().graph();
    let files = FromFile::read_all(&args.scores, graph).map_err(|error| match error {
        eval::Error::RowName { .. } => anyhow!("--scores {error}"),
        error => error.into(),
    })?;
    for (file, path) in files.iter().zip(&args.scores) {
        for said in file.notes() {
            note(&format!("note: {}: {said}", path.display()));
        }
    }
    Ok(files)
}

fn keys(args: &EvalArgs, task: &TaskSpec, methods: &[&str]) -> Vec<RunKey> {
    let seeds = || seeds(args).map(Seed::value);
    methods
        .iter()
        .flat_map(|method| {
            seeds().map(|seed| RunKey {
                task: task.name.clone().into_owned(),
                method: (*method).to_owned(),
                seed,
            })
        })
        .collect()
}

fn seeds(args: &EvalArgs) -> impl Iterator<Item = Seed> {
    let first = args.seed.seed;
    (0..args.seeds as u64).map(move |at| Seed::new(first + at))
}

/// What the model makes of the prompts of a task, as an earlier run found it.
pub(crate) fn behaviour(folder: &Path, task: &str) -> Result<Option<PromptBehaviour>> {
    Ok(read_kept(&behaviour_file(folder, task))?)
}

fn behaviour_text(task: &str, behaviour: &PromptBehaviour) -> String {
    format!(
        "what the model makes of {task}:\n{}\n",
        indented(&behaviour.sentences())
    )
}

/// Poses a task to the model: evidence on its prompts beside the known circuits, and what the model makes of them.
pub(super) fn posed(
    args: &EvalArgs,
    task: &TaskSpec,
    by: &JudgedBy,
    loaded: &Loaded<B>,
    device: &Device,
    progress: &dyn Progress,
) -> Result<(JudgedTask<B>, PromptBehaviour)> {
    let seed = Seed::new(args.seed.seed);
    let how = PrepareSettings::default()
        .with_metric(args.patching.metric)
        .with_prepend_bos(args.model.prepend_bos);
    let prompts = prepare_task(loaded, task, by.pairs, seed, how)?;
    for said in prompts.notes() {
        note(&format!("note: {task}: {said}"));
    }
    if let Some(few) = prompts.few_pairs() {
        note(&format!("warning: {task}: {few}"));
    }
    let judged = judged_task(
        loaded,
        &prompts,
        by.circuits.truths.clone(),
        inputs::capture_settings(&args.model, device)
            .with_ablation(args.patching.ablation)
            .with_seed(seed)
            .with_last_position(args.method.0.iter().any(|about| about.needs.last)),
        device.plain(),
        progress,
    );
    let judged = judged.map_err(|error| of_task(error.into(), task))?;
    let behaviour = PromptBehaviour::measure(
        loaded,
        &prompts,
        judged.evidence.causal("eval").ok(),
        device.plain(),
        seed,
        progress,
    )?;
    Ok((judged, behaviour))
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a task is run with and where it goes"
)]
fn run_task(
    args: &EvalArgs,
    task: &TaskSpec,
    by: &JudgedBy,
    judged_files: &[FromFile],
    loaded: &Loaded<B>,
    device: &Device,
    store: &mut FolderStore,
    printer: Printer,
    progress: &dyn Progress,
) -> Result<(PromptBehaviour, Vec<RunRecord>)> {
    if progress.cancelled() {
        bail!("interrupted before task {task}");
    }
    let (judged, behaviour) = posed(args, task, by, loaded, device, progress)?;
    printer.part(&behaviour_text(&task.name, &behaviour))?;
    write_json(&behaviour_file(&args.output, &task.name), &behaviour)?;
    let settings = method_settings(args, task);
    let methods = args.method.0.iter();
    let mut methods = methods
        .map(|about| method::<B>(&about.name, &settings, &device.training()))
        .collect::<Result<Vec<BoxedMethod<B>>, _>>()?;
    for file in judged_files {
        methods.push(Box::new(file.clone()));
    }
    let seeds: Vec<Seed> = seeds(args).collect();
    let settings = evaluate_settings(args);
    let runs = evaluate::<B>(&[judged], &methods, &seeds, settings, store, progress);
    let runs = runs.map_err(|error| of_task(error.into(), task))?;
    Ok((behaviour, runs))
}

/// What is done besides judging scores on all prompts.
pub(super) fn evaluate_settings(args: &EvalArgs) -> EvaluateSettings {
    EvaluateSettings::default()
        .with_resamples(args.resamples)
        .with_faithfulness_pairs(if args.faithfulness {
            args.patching.patch_pairs as usize
        } else {
            0
        })
}

/// The error with its task, where it names none.
pub(super) fn of_task(error: anyhow::Error, task: &TaskSpec) -> anyhow::Error {
    let named = format!("task {}", task.name);
    if format!("{error:#}").contains(&named) {
        error
    } else {
        error.context(named)
    }
}

pub(super) fn method_settings(args: &EvalArgs, task: &TaskSpec) -> MethodSettings {
    MethodSettings::default()
        .with_sae(args.sae.settings(Some(task)))
        .with_patching(args.patching.settings())
}

/// What the runs in a folder have in common.
pub(super) fn settings(
    args: &EvalArgs,
    loaded: &Loaded<B>,
    start: PromptStart,
    device: &Device,
    provenance: &Provenance,
) -> Result<EvalSettings> {
    let (circuits, circuits_why) = judged_as(&loaded.provenance, args.circuit.as_ref())?;
    let scores = args.scores.iter().map(|path| path.display().to_string());
    let scores = scores.filter_map(|path| provenance.inputs.get(&path).cloned());
    Ok(EvalSettings {
        schema: Schema,
        circuitscope: crate::version::VERSION.to_owned(),
        model: loaded.provenance.clone(),
        circuits,
        circuits_why,
        prepend_bos: start,
        examples: args.examples.unwrap_or(EVAL_PAIRS),
        prompt_seed: args.seed.seed,
        codes: args.sae.codes,
        l1: args.sae.l1,
        train_examples: args.sae.train_examples,
        steps: args.sae.steps,
        resamples: args.resamples,
        faithfulness: args.faithfulness,
        metric: args.patching.metric,
        ablation: args.patching.ablation,
        gradient_pairs: args.patching.gradient_pairs,
        patch_pairs: args.patching.patch_pairs,
        ig_steps: args.patching.ig_steps(),
        node_ig_steps: args.patching.node_ig_steps(),
        mask_steps: args.patching.mask_steps(),
        matryoshka_steps: args.patching.matryoshka_steps(),
        // A file that has changed is another method.
        scores: scores.collect(),
        device: device.kind(),
    })
}
