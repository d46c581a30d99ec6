//! `eval`: known circuits, methods and controls; a table and a report.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use circuitscope::core::{Progress as _, Seed, files};
use circuitscope::eval::methods::{BoxedMethod, FromFile, MethodSettings, about, method};
use circuitscope::eval::{EvaluateSettings, evaluate};
use circuitscope::measures::{
    FolderStore, RunKey, RunRecord, RunStore as _, Spread, SummaryRow, summarise,
};
use circuitscope::model::{Loaded, ModelProvenance};
use circuitscope::score::stats::Interval;
use circuitscope::tasks::{PromptWarning, Task, prompt_warnings};
use circuitscope::{
    CaptureSettings, KnownAs, PrepareSettings, PromptBehaviour, judged_task, known_as,
    known_circuits, prepare_task,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::bos::Bos;
use super::{inputs, pages};
use crate::args::EvalArgs;
use crate::device::{B, Device};
use crate::interrupt::{self, Kept};
use crate::output::{self, Printer, indented, note, table};
use crate::progress::Terminal;
use crate::provenance::{Provenance, VERSION};

/// Version of the files in the output folder.
const SCHEMA: u64 = 1;
/// Everything that is printed as JSON, in the output folder.
pub(crate) const RESULTS_FILE: &str = "results.json";
/// What the model makes of the prompts of each task, a file each, in the output folder.
const BEHAVIOUR_FOLDER: &str = "behaviour";

/// Bytes of the longest name of a row: it is part of the name of a file.
const LONGEST_NAME: usize = 100;

/// What is printed, and kept as `results.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// How well the model shows the behaviour of each task.
    pub(crate) behaviour: BTreeMap<String, PromptBehaviour>,
    /// One for each task, method and seed; full scores are in the folder `runs`.
    pub(crate) runs: Vec<Value>,
    /// One for each task and method.
    pub(crate) summary: Vec<SummaryRow>,
    pub(crate) provenance: Value,
}

pub(crate) fn run(args: &EvalArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = Provenance::start();
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
    let loaded = inputs::load_model(&args.model, &device, progress)?;
    let tasks = tasks(args, &loaded)?;
    let files = files_to_judge(args, &tasks, &loaded)?;
    for path in &args.scores {
        provenance.input(path)?;
    }
    inputs::writable_folder(&args.output)?;
    inputs::own_folder(
        &args.output,
        "settings.json",
        &["discovery.json", RESULTS_FILE, "report.html"],
    )?;
    let known = known_as(&loaded.provenance, args.circuit)?;
    let bos = Bos::settle(&loaded, &args.model, false, &mut [], inputs::prompt)?;
    let settings = settings(args, &loaded, known.as_ref(), &bos, &device, &provenance);
    let mut store = FolderStore::open(&args.output, &settings)?;
    interrupt::keep(Kept {
        said: "finished parts are kept; run the same command to go on".to_owned(),
        json: None,
    });

    let mut records = Vec::new();
    let mut behaviours = BTreeMap::new();
    for task in tasks {
        let names = methods.iter().map(|about| about.name.as_ref());
        let names: Vec<&str> = names.chain(files.iter().map(FromFile::name)).collect();
        let keys = keys(args, task, &names);
        // Where one is missing, all are read as they are come to.
        let finished = if keys.iter().all(|key| store.contains(key)) {
            let runs = keys.iter().map(|key| store.load(key));
            runs.collect::<Result<Option<Vec<_>>, _>>()?
        } else {
            None
        };
        let known = behaviour(&args.output, task.name())?;
        let (behaviour, runs) = if let (Some(runs), Some(behaviour)) = (finished, known) {
            tracing::info!(%task, "all runs were finished before");
            printer.part(&behaviour_text(task.name(), &behaviour))?;
            (behaviour, runs)
        } else {
            run_task(
                args, task, &files, &loaded, &device, &mut store, printer, progress,
            )?
        };
        behaviours.insert(task.name().to_owned(), behaviour);
        records.extend(runs);
    }

    let results = Results::new(
        behaviours,
        &records,
        &loaded.provenance,
        &settings,
        &provenance,
    );
    results.write(&args.output)?;
    let page = pages::evaluation(&args.output, &records, &results)?;
    printer.print(&results, || {
        format!("{}\n{}", bos.text(), results.text(&page))
    })
}

/// The tasks to judge: those asked for, or all whose circuit is known in this model.
fn tasks(args: &EvalArgs, loaded: &Loaded<B>) -> Result<Vec<Task>> {
    if let Some(tasks) = &args.task {
        for &task in &tasks.0 {
            known_circuits(loaded, task, args.circuit)?;
        }
        return Ok(tasks.0.clone());
    }
    let known: Vec<Task> = Task::ALL
        .into_iter()
        .filter(|&task| known_circuits(loaded, task, args.circuit).is_ok())
        .collect();
    if known.is_empty() {
        known_circuits(loaded, Task::Ioi, args.circuit)?;
    }
    Ok(known)
}

/// The files of `--scores`, as methods.
fn files_to_judge(args: &EvalArgs, tasks: &[Task], loaded: &Loaded<B>) -> Result<Vec<FromFile>> {
    if !args.scores.is_empty() && tasks.len() != 1 {
        bail!(
            "--scores: found {} tasks, expected the one --task that the scores are for",
            tasks.len()
        );
    }
    let mut names: Vec<String> = Vec::new();
    let files = args.scores.iter().map(|path| {
        let part = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let folder = part(path.parent().and_then(Path::file_name));
        let parts = folder.into_iter().chain(part(path.file_stem()));
        let name: String = parts.collect::<Vec<_>>().join("-");
        if about(&name).is_ok() {
            bail!(
                "--scores {}: its row would be named {name}, as a method is; rename the file",
                path.display()
            );
        }
        if name.chars().any(char::is_control) || name.len() > LONGEST_NAME {
            bail!(
                "--scores {}: found a name with control characters or of more than {LONGEST_NAME} bytes, expected \
                 one that a row can have; rename the file",
                path.display()
            );
        }
        if names.contains(&name) {
            bail!(
                "--scores {}: another file is named {name}, too; rename one",
                path.display()
            );
        }
        let graph = loaded.model.config().graph();
        let file = FromFile::read(&name, path, graph)?;
        names.push(name);
        for said in file.notes() {
            note(&format!("note: {}: {said}", path.display()));
        }
        Ok(file)
    });
    files.collect()
}

fn keys(args: &EvalArgs, task: Task, methods: &[&str]) -> Vec<RunKey> {
    let seeds = || seeds(args).map(Seed::value);
    methods
        .iter()
        .flat_map(|method| {
            seeds().map(|seed| RunKey {
                task: task.name().to_owned(),
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

fn behaviour_file(folder: &Path, task: &str) -> PathBuf {
    folder.join(BEHAVIOUR_FOLDER).join(format!("{task}.json"))
}

/// What the model makes of the prompts of a task, as an earlier run found it.
pub(crate) fn behaviour(folder: &Path, task: &str) -> Result<Option<PromptBehaviour>> {
    let path = behaviour_file(folder, task);
    if path.is_file() {
        let read = inputs::read_json(&path).map(Some);
        read.map_err(|error| anyhow!("{error:#}; delete it to run again"))
    } else {
        Ok(None)
    }
}

fn behaviour_text(task: &str, behaviour: &PromptBehaviour) -> String {
    format!(
        "what the model makes of {task}:\n{}\n",
        indented(&behaviour.sentences())
    )
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a task is run with and where it goes"
)]
fn run_task(
    args: &EvalArgs,
    task: Task,
    judged_files: &[FromFile],
    loaded: &Loaded<B>,
    device: &Device,
    store: &mut FolderStore,
    printer: Printer,
    progress: &Terminal,
) -> Result<(PromptBehaviour, Vec<RunRecord>)> {
    if progress.cancelled() {
        bail!("interrupted before task {task}");
    }
    let seed = Seed::new(args.seed.seed);
    let how = PrepareSettings {
        metric: args.patching.metric,
        prepend_bos: args.model.prepend_bos,
    };
    let prompts = prepare_task(loaded, task, args.examples, seed, how)?;
    for said in prompts.notes() {
        note(&format!("note: {task}: {said}"));
    }
    for warning in prompt_warnings(prompts.prompts()) {
        if matches!(warning, PromptWarning::FewPairs { .. }) {
            note(&format!("warning: {task}: {warning}"));
        }
    }
    let judged = judged_task(
        loaded,
        &prompts,
        known_circuits(loaded, task, args.circuit)?,
        CaptureSettings {
            ablation: args.patching.ablation,
            last_position: args.method.0.iter().any(|about| about.needs.last),
            ..inputs::capture_settings(&args.model, device)
        },
        device.plain(),
        progress,
    )?;
    let behaviour = PromptBehaviour::measure(
        loaded,
        &prompts,
        judged.evidence.causal("eval").ok(),
        device.plain(),
        seed,
        progress,
    )?;
    printer.part(&behaviour_text(task.name(), &behaviour))?;
    let mut json = serde_json::to_vec_pretty(&behaviour)?;
    json.push(b'\n');
    let path = behaviour_file(&args.output, task.name());
    files::write_atomic(&path, |out| out.write_all(&json))?;
    let settings = method_settings(args, task);
    let methods = args.method.0.iter();
    let mut methods = methods
        .map(|about| method::<B>(&about.name, &settings, &device.training()))
        .collect::<Result<Vec<BoxedMethod<B>>, _>>()?;
    for file in judged_files {
        methods.push(Box::new(file.clone()));
    }
    let seeds: Vec<Seed> = seeds(args).collect();
    let settings = EvaluateSettings {
        resamples: args.resamples,
        faithfulness_pairs: if args.faithfulness {
            args.patching.patch_pairs as usize
        } else {
            0
        },
    };
    let runs = evaluate::<B>(&[judged], &methods, &seeds, settings, store, progress)?;
    Ok((behaviour, runs))
}

/// λ is the paper's, which differs for docstring.
fn method_settings(args: &EvalArgs, task: Task) -> MethodSettings {
    MethodSettings {
        sae: args.sae.settings(inputs::l1_of(Some(task))),
        patching: args.patching.settings(),
    }
}

/// What the runs in a folder have in common.
fn settings(
    args: &EvalArgs,
    loaded: &Loaded<B>,
    known: Option<&KnownAs>,
    bos: &Bos,
    device: &Device,
    provenance: &Provenance,
) -> Value {
    json!({
        "schema": SCHEMA,
        "circuitscope": VERSION,
        "model": loaded.provenance,
        "circuits": known.map(|known| &known.model),
        "circuits_why": known.map(|known| &known.why),
        "prepend_bos": bos,
        "examples": args.examples,
        "prompt_seed": args.seed.seed,
        "codes": args.sae.codes,
        "l1": args.sae.l1,
        "train_examples": args.sae.train_examples,
        "steps": args.sae.steps,
        "resamples": args.resamples,
        "faithfulness": args.faithfulness,
        "metric": args.patching.metric,
        "ablation": args.patching.ablation,
        "gradient_pairs": args.patching.gradient_pairs,
        "patch_pairs": args.patching.patch_pairs,
        "ig_steps": args.patching.ig_steps,
        "mask_steps": args.patching.mask_steps,
        // A file that has changed is another method.
        "scores": provenance.inputs.values().collect::<Vec<_>>(),
        "device": device.kind(),
    })
}

impl Results {
    fn new(
        behaviour: BTreeMap<String, PromptBehaviour>,
        records: &[RunRecord],
        model: &ModelProvenance,
        settings: &Value,
        provenance: &Provenance,
    ) -> Self {
        let mut made_by = json!(provenance.now());
        made_by["model"] = json!(model);
        made_by["settings"] = settings.clone();
        Self {
            behaviour,
            runs: records.iter().map(without_scores).collect(),
            summary: summarise(records),
            provenance: made_by,
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        files::write_atomic(&folder.join(RESULTS_FILE), |out| out.write_all(&json))?;
        Ok(())
    }

    pub(crate) fn text(&self, page: &Path) -> String {
        let beaten = self.summary.iter().filter(|row| !row.not_above.is_empty());
        let notes: Vec<String> = beaten
            .map(|row| {
                let controls = row.not_above.join(", ");
                format!(
                    "note: on {}, {} is not clearly above {controls}\n",
                    row.task, row.method
                )
            })
            .collect();
        let table = summary_table(&self.summary);
        format!("{table}{}\nreport: {}", notes.concat(), page.display())
    }
}

/// A run without its scores, which would swamp the output; what the dictionary did stays.
pub(crate) fn without_scores(record: &RunRecord) -> Value {
    let mut value = json!(record);
    if let Some(run) = value.as_object_mut() {
        run.remove("scores");
        if let Some(dictionary) = &record.scores.dictionary {
            run.insert("dictionary".to_owned(), json!(dictionary));
        }
    }
    value
}

/// The table of methods (controls in brackets) on tasks.
pub(crate) fn summary_table(rows: &[SummaryRow]) -> String {
    let spread = |spread: Spread, digits: usize| {
        format!("{:.digits$} ± {:.digits$}", spread.mean, spread.std)
    };
    let none = || "–".to_owned();
    let range = |interval: Option<Interval>| {
        interval.map_or_else(none, |x| format!("{:.2} to {:.2}", x.low, x.high))
    };
    let optional = |value: Option<Spread>| value.map_or_else(|| "–".to_owned(), |x| spread(x, 3));
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let method = if row.control {
                format!("[{}]", row.method)
            } else {
                row.method.clone()
            };
            vec![
                row.task.clone(),
                method,
                spread(row.node_auc, 3),
                range(row.node_interval),
                optional(row.edge_auc),
                range(row.edge_interval),
                optional(row.paper_edge_auc),
                spread(row.best_f1, 3),
                row.jaccard.map_or_else(none, |x| format!("{:.2}", x.mean)),
                format!("{:.2} s", row.seconds.mean),
            ]
        })
        .collect();
    let seeds = rows.first().map_or(0, |row| row.seeds);
    let header = [
        "task",
        "method [control]",
        "node AUC",
        "95 %",
        "edge AUC",
        "95 %",
        "paper's edge AUC",
        "best F1",
        "Jaccard",
        "time",
    ];
    format!(
        "{}mean ± standard deviation over {}; 95 %: from half samples of the prompts; Jaccard: \
         likeness of the circuits chosen on them; the paper's edge AUC judges heads, not edges\n",
        table(&header, &cells),
        output::count(seeds, "seed")
    )
}
