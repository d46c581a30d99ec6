//! `discover`: examples of a behaviour in, ranked heads and a circuit out.

use std::mem;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::eval::causal::{Ablation, CausalEvidence};
use circuitscope::eval::methods::MethodSettings;
use circuitscope::eval::{
    self, About, Choice, Evidence, Gradient, QualitySettings, SignalSettings, circuit_quality,
};
use circuitscope::hooks::HeadActivations;
use circuitscope::measures::SETTINGS_FILE;
use circuitscope::measures::Scores;
use circuitscope::model::{self, Loaded, ModelProvenance, Tokenizer};
use circuitscope::report::{PAGE_FILE, PICTURES_FOLDER};
use circuitscope::tasks::{
    LabelledPrompts, PromptWarning, TaskSpec, few_examples, prompt_warnings, read_lines, read_pairs,
};
use circuitscope::{
    CaptureSettings, CircuitChoice, DISCOVER_PAIRS, DiscoverSettings, Error, KnownCircuits,
    MetricChoice, PrepareSettings, PreparedPrompts, PromptBehaviour, PromptStart, Signals, capture,
    causal_evidence, discover_by, discover_with, known_circuits, prepare, task_prompts,
};
use circuitscope::{Graph, Seed, TRAINING};

use super::dictionary::{self, Given, Origin};
use super::found::{Found, OnlyCorrect, Settings, Stage};
use super::kept::{DISCOVERY_FILE, Report, saved};
use super::{bos, exports, inputs, pages};
use crate::args::{Behaviour, DiscoverArgs, Judge, TaskArg};
use crate::device::{B, Device};
use crate::interrupt::{self, Kept};
use crate::output::{Printer, indented, note};
use crate::progress::Terminal;
use crate::provenance::Provenance;

/// Evidence, and what is known about it.
struct Gathered {
    /// That asked for or, where the model is not run on pairs, the one that takes its place.
    method: &'static About,
    evidence: Evidence<B>,
    graph: Option<Graph>,
    model: Option<ModelProvenance>,
    truth: Option<KnownCircuits>,
    bos: Option<PromptStart>,
    prompt_warnings: Vec<String>,
    behaviour: Option<PromptBehaviour>,
    only_correct: Option<OnlyCorrect>,
    tokenizer: Option<Tokenizer>,
    /// What is read from the output, where a model is run.
    metric: Option<MetricChoice>,
}

/// What this command leaves in its folder.
const RESULTS: [&str; 5] = [
    DISCOVERY_FILE,
    exports::IMPORTANCES_FILE,
    exports::VIEWER_FILE,
    PAGE_FILE,
    PICTURES_FOLDER,
];

pub(crate) fn run(args: &DiscoverArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    let mut provenance = Provenance::start();
    args.patching.check(&[args.method])?;
    let rule = args.select;
    let in_pairs = args.behaviour.task.is_some() || args.behaviour.pairs.is_some();
    let method = args.method.suited(in_pairs);
    if !method.relabels && matches!(rule, Some(Choice::FalseDiscoveryRate(_))) {
        let method = method.name.clone().into_owned();
        return Err(circuitscope::eval::Error::NoNull { method }.into());
    }
    let device = args.device.device.open()?;
    provenance.on(&device);
    let given = Given::load(args, &device, &mut provenance)?;
    if let Some(folder) = &args.output {
        inputs::writable_folder(folder)?;
        inputs::own_folder(folder, DISCOVERY_FILE, &RESULTS)?;
        if folder.join(SETTINGS_FILE).exists() {
            bail!(
                "--output {}: found {SETTINGS_FILE}, the mark of `circuitscope eval`; choose another folder",
                folder.display()
            );
        }
    }
    let mut stages = Stages(Vec::new());
    if let Some(file) = &args.save_activations {
        let within = args.output.as_ref().map(|folder| file.strip_prefix(folder));
        if let Some(Ok(name)) = within
            && (name == Path::new("") || RESULTS.iter().any(|result| name.starts_with(result)))
        {
            bail!(
                "--save-activations {}: --output writes there, too; choose another file",
                file.display()
            );
        }
        inputs::writable_file("--save-activations", file)?;
    }
    let task = args.behaviour.task.as_ref();
    let task = task.map(|task| task.open(&mut provenance)).transpose()?;
    let task = task.as_ref();
    if let Some(CircuitChoice::File(file)) = &args.circuit {
        provenance.input(file)?;
    }
    let gathered = gather(args, task, &device, &mut provenance, &mut stages, progress)?;
    if let Some(path) = &args.save_activations {
        save_activations(&gathered.evidence, path, &provenance)?;
        interrupt::keep(Kept {
            said: format!("{}; no head was scored", saved(path)),
            json: None,
        });
    }
    if let Some(given) = &given {
        dictionary::check(&given.saved, args.other_site, gathered.evidence.d())?;
    }
    let settings = DiscoverSettings::default()
        .with_method(gathered.method.name.clone().into_owned())
        .with_methods(
            MethodSettings::default()
                .with_sae(args.sae.settings(task))
                .with_patching(args.patching.settings()),
        )
        .with_choice(rule)
        .with_max_heads(args.max_heads.map(|heads| heads as usize))
        .with_seed(Seed::new(args.seed.seed));
    let mut found = Found::of(&gathered, &settings, args, &provenance);
    if let Some(task) = task {
        found.examples = task.name.clone().into_owned();
        found.summary = Some(task.summary.clone().into_owned());
    }
    found.settings.dictionary = given.as_ref().map(|given| Origin::of(&given.saved));
    let report = Report {
        printer,
        folder: args.output.as_deref(),
        activations: args.save_activations.as_deref(),
    };
    if found.behaviour.is_some() {
        printer.part(&found.behaviour_text())?;
    }
    search(
        args, &gathered, given, &settings, &device, &mut found, stages, report, progress,
    )?;
    found.provenance = provenance.now();
    report.save(&found)?;
    let page = pages(args.output.as_deref(), &found, &gathered)?;
    let page = page.map_or_else(String::new, |page| format!("report: {}\n", page.display()));
    printer.print(&found, || format!("{}{page}", found.stages_text()))
}

/// Scores, chooses and judges; each part is told as soon as it is there.
#[expect(
    clippy::too_many_arguments,
    reason = "one call; what it reads and what it fills are different things"
)]
fn search(
    args: &DiscoverArgs,
    gathered: &Gathered,
    given: Option<Given>,
    settings: &DiscoverSettings,
    device: &Device,
    found: &mut Found,
    mut stages: Stages,
    report: Report<'_>,
    progress: &Terminal,
) -> Result<()> {
    let start = Instant::now();
    let mut scored = start;
    let evidence = &gathered.evidence;
    let device = &device.training();
    let told = |scores: &Scores| {
        stages.split(start, progress);
        found.rank(scores);
        found.stages.clone_from(&stages.0);
        report.ranked(found, args.top)?;
        scored = Instant::now();
        anyhow::Ok(())
    };
    let discovery = match given {
        None => discover_with::<B, anyhow::Error>(evidence, settings, device, progress, told),
        Some(given) => discover_by(&given.method(), evidence, settings, progress, told),
    }?;
    stages.add("choose", scored);
    found.complete(discovery, gathered.truth.as_ref());
    found.stages.clone_from(&stages.0);
    report.chosen(found)?;
    let circuit = found.circuit();
    let causal = evidence.causal(&gathered.method.name);
    let wanted = match args.faithfulness {
        Judge::None => false,
        Judge::Auto => causal.is_ok(),
        Judge::All => true,
    };
    if wanted && !circuit.is_empty() {
        let start = Instant::now();
        let how = QualitySettings::default()
            .with_pairs(args.patching.patch_pairs as usize)
            .with_members(match args.faithfulness {
                Judge::All => usize::MAX,
                _ => QualitySettings::default().members,
            });
        found.quality = Some(circuit_quality(
            evidence.causal(&gathered.method.name)?,
            &circuit,
            how,
            settings.seed,
            progress,
        )?);
        stages.add("judge", start);
        report.printer.part(&indented(&found.quality_sentences()))?;
    }
    if let (Ok(causal), Some(tokenizer)) = (&causal, &gathered.tokenizer)
        && args.faithfulness != Judge::None
        && !circuit.is_empty()
    {
        let start = Instant::now();
        let how = SignalSettings::default()
            .with_pairs(args.patching.gradient_pairs as usize)
            .with_n_codes(args.sae.codes);
        let on = (settings.seed, device);
        let signals = Signals::of::<B>(causal, tokenizer, &circuit, how, on, progress)?;
        found.signals = Some(signals);
        stages.add("signals", start);
        report.printer.part(&found.signals_text())?;
    }
    found.stages = stages.0;
    report.printer.part("")
}

/// Files of other tools, pictures and the page.
fn pages(folder: Option<&Path>, found: &Found, gathered: &Gathered) -> Result<Option<PathBuf>> {
    let Some(folder) = folder else {
        return Ok(None);
    };
    if let (Some(graph), Some(behaviour)) = (&gathered.graph, &gathered.behaviour) {
        exports::write(
            folder,
            found,
            graph,
            gathered.evidence.d(),
            &behaviour.positive,
        )?;
    }
    Ok(Some(pages::discovery(folder, found)?))
}

fn gather(
    args: &DiscoverArgs,
    task: Option<&TaskSpec>,
    device: &Device,
    provenance: &mut Provenance,
    stages: &mut Stages,
    progress: &Terminal,
) -> Result<Gathered> {
    let start = Instant::now();
    if let Some(path) = &args.behaviour.activations {
        if args.faithfulness == Judge::All {
            bail!("--faithfulness runs the model: it cannot be used with --activations");
        }
        if args.select == Some(Choice::Knee) {
            return Err(eval::Error::KneeNeedsModel.into());
        }
        if args.patching.metric.is_some() {
            note("note: --metric is not read: no model runs with --activations");
        }
        provenance.input(path)?;
        let file = HeadActivations::read(path)?;
        let evidence = Evidence::from_file(file, device.plain());
        let evidence = evidence.with_context(|| path.display().to_string())?;
        let evidence = evidence.with_exec(device.exec());
        stages.add("read", start);
        let few = few_examples(evidence.labels());
        return Ok(Gathered {
            method: suited(args.method, false),
            evidence,
            model: None,
            graph: None,
            truth: None,
            bos: None,
            prompt_warnings: few.iter().map(ToString::to_string).collect(),
            behaviour: None,
            only_correct: None,
            tokenizer: None,
            metric: None,
        });
    }
    let prompts = read(args, provenance)?;
    let loaded = inputs::load_model(&args.model, device, progress)?;
    stages.add("load", start);

    let start = Instant::now();
    let seed = Seed::new(args.seed.seed);
    let (mut prompts, truth) = match (prompts, task) {
        (Some(prompts), _) => (prompts, None),
        (None, Some(task)) => {
            let pairs = args
                .examples
                .unwrap_or_else(|| task.examples_or(DISCOVER_PAIRS));
            let prompts = task_prompts(&loaded, task, pairs, seed)?;
            (prompts, truth(args, &loaded, task)?)
        }
        (None, None) => bail!("no examples: use --task, --pairs, --positive or --activations"),
    };
    let plain = prompts.texts.clone();
    let mut texts = mem::take(&mut prompts.texts);
    let place = |prompt| place(args, &prompts, prompt);
    let bos = bos::settle(&loaded, &args.model, args.chat, &mut texts, place)?;
    prompts.texts = texts;
    prompts.move_spans(&plain);
    let how = PrepareSettings::default()
        .with_metric(args.patching.metric)
        .with_prepend_bos(bos.setting());
    let mut prompts = prepare(&loaded, prompts, task, how)?;
    for said in prompts.notes() {
        note(&format!("note: {said}"));
    }
    let mut settings = inputs::capture_settings(&args.model, device);
    settings.ablation = args.patching.ablation;
    let mut causal = runs(args, &loaded, &prompts, settings, device)?;
    let behaviour = PromptBehaviour::measure(
        &loaded,
        &prompts,
        causal.as_ref(),
        device.plain(),
        seed,
        progress,
    );
    let behaviour = behaviour.map_err(|error| located(error, args, prompts.prompts()))?;
    let mut only_correct = None;
    if args.only_correct {
        let correct = behaviour.measured.as_ref();
        let correct = correct.and_then(circuitscope::eval::Behaviour::correct);
        let Some(correct) = correct else {
            bail!(
                "--only-correct: found pairs without answers in {}, expected the right answer of each",
                examples(args)
            );
        };
        let of = prompts.prompts().pairs.len();
        if correct.is_empty() {
            bail!("--only-correct: the model gets none of {of} pairs right");
        }
        only_correct = Some(OnlyCorrect {
            kept: correct.len(),
            of,
        });
        if correct.len() < of {
            prompts = prompts.only(&correct);
            causal = runs(args, &loaded, &prompts, settings, device)?;
        }
    }
    stages.add("answers", start);

    let start = Instant::now();
    let method = suited(args.method, causal.is_some());
    let ablation = args.patching.ablation != Ablation::default();
    if method.needs.gradient == Gradient::Own && (args.patching.metric.is_some() || ablation) {
        note(&format!(
            "note: method {} reads neither --metric nor --ablation: they say how circuits are chosen by --select \
             knee, and judged",
            method.name
        ));
    }
    let mut warnings = prompt_warnings(prompts.prompts());
    // Prompts of tasks are matched in their own way, but may be few.
    let few = |warning: &PromptWarning| matches!(warning, PromptWarning::FewPairs { .. });
    let ours = task.is_some_and(|task| task.files.is_empty());
    warnings.retain(|warning| !ours || few(warning));
    // Methods that run the model compare each prompt with its partner.
    let in_pairs = method.needs.model;
    warnings.retain(|warning| !in_pairs || !matches!(warning, PromptWarning::SameSentences { .. }));
    let hold = settings.hold;
    settings = settings.for_method(method);
    if args.save_activations.is_some() {
        settings.hold = hold;
    }
    let evidence = capture(&loaded, &prompts, settings, device.plain(), progress);
    let mut evidence = evidence.map_err(|error| located(error, args, prompts.prompts()))?;
    let metric = causal.is_some().then(|| prompts.metric().clone());
    if let Some(causal) = causal {
        evidence = evidence.with_causal(causal);
    }
    stages.add("capture", start);
    Ok(Gathered {
        method,
        evidence,
        graph: Some(loaded.model.config().graph()),
        model: Some(loaded.provenance),
        tokenizer: loaded.tokenizer,
        truth,
        bos: Some(bos),
        prompt_warnings: warnings.iter().map(ToString::to_string).collect(),
        behaviour: Some(behaviour),
        only_correct,
        metric,
    })
}

/// [`About::suited`], and a note where another method takes the place of the one asked for.
fn suited(asked: &'static About, runs: bool) -> &'static About {
    let method = asked.suited(runs);
    if method != asked {
        note(&format!(
            "note: method {} runs the model on pairs of prompts; without, {} takes its place",
            asked.name, method.name
        ));
    }
    method
}

/// The model with the pairs, wherever there are pairs that it can be run on; an error where it must be.
fn runs(
    args: &DiscoverArgs,
    loaded: &Loaded<B>,
    prompts: &PreparedPrompts,
    settings: CaptureSettings,
    device: &Device,
) -> Result<Option<CausalEvidence<B>>> {
    let must = args.method.suited(false).needs.model
        || args.faithfulness == Judge::All
        || args.only_correct
        || args.select == Some(Choice::Knee);
    if prompts.prompts().pairs.is_empty() && !must {
        return Ok(None);
    }
    match causal_evidence(loaded, prompts, settings, device.plain()) {
        Ok(causal) => Ok(Some(causal)),
        Err(Error::Eval(why @ eval::Error::Unaligned(_))) if !must => {
            note(&format!(
                "note: the model's answers are not read and no circuit is run: {why}"
            ));
            Ok(None)
        }
        Err(error) => Err(located(error, args, prompts.prompts())),
    }
}

/// The circuit known for a task in this model, if one is, and whose it is.
fn truth(
    args: &DiscoverArgs,
    loaded: &Loaded<B>,
    task: &TaskSpec,
) -> Result<Option<KnownCircuits>> {
    match known_circuits(loaded, task, args.circuit.as_ref()) {
        Ok(known) => Ok(Some(known)),
        Err(Error::NoKnownCircuit { .. } | Error::NoOwnCircuit { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes what the method starts from, in the form that `train` and `encode` read.
fn save_activations(evidence: &Evidence<B>, path: &Path, provenance: &Provenance) -> Result<()> {
    let data = evidence.activations()?.to_data().convert::<f32>();
    let data = data.into_vec::<f32>();
    let data = data.map_err(|error| anyhow!("the device failed: {error:?}"))?;
    let labels = evidence.labels().to_vec();
    let file = HeadActivations::new(evidence.grid(), evidence.d(), labels, data);
    Ok(file.write(path, provenance.metadata())?)
}

/// The user's own prompts, before the model is loaded: a wrong file should not cost that time.
fn read(args: &DiscoverArgs, provenance: &mut Provenance) -> Result<Option<LabelledPrompts>> {
    let behaviour = &args.behaviour;
    if let Some(path) = &behaviour.pairs {
        let prompts = read_pairs(path)?;
        provenance.input(path)?;
        return Ok(Some(prompts));
    }
    if let (Some(positive), Some(negative)) = (&behaviour.positive, &args.negative) {
        let prompts = read_lines(positive, negative)?;
        provenance.input(positive)?;
        provenance.input(negative)?;
        return Ok(Some(prompts));
    }
    Ok(None)
}

/// Where a prompt that does not fit stands; of other errors, what the prompts are.
fn located(error: Error, args: &DiscoverArgs, prompts: &LabelledPrompts) -> anyhow::Error {
    match &error {
        Error::Model(model) | Error::Eval(eval::Error::Model(model)) => match model {
            model::Error::PromptTooLong {
                prompt,
                length,
                n_ctx,
            } => anyhow!(
                "{}: found {length} tokens, expected at most {n_ctx}, as many as the model takes",
                place(args, prompts, *prompt)
            ),
            _ => anyhow::Error::from(error).context(examples(args)),
        },
        _ => anyhow::Error::from(error).context(examples(args)),
    }
}

/// Where a prompt stands: in its file or, of a task's, among all.
fn place(args: &DiscoverArgs, prompts: &LabelledPrompts, prompt: usize) -> String {
    let place = prompts.prompt_place(prompt);
    match (&prompts.origin, prompts.pairs.is_empty()) {
        (Some(_), false) => place,
        _ => format!("{}: {place}", examples(args)),
    }
}

/// What shows the behaviour: a task, or files.
fn examples(args: &DiscoverArgs) -> String {
    let Behaviour {
        task,
        pairs,
        positive,
        activations,
    } = &args.behaviour;
    let files: Vec<String> = [pairs, positive, &args.negative, activations]
        .into_iter()
        .flatten()
        .map(|path| path.display().to_string())
        .collect();
    match task {
        Some(TaskArg::Named(task)) => task.name.clone().into_owned(),
        Some(TaskArg::Folder(folder)) => folder.display().to_string(),
        None => files.join(" against "),
    }
}

struct Stages(Vec<Stage>);

impl Stages {
    fn add(&mut self, name: &'static str, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        self.0.push(Stage { name, seconds });
    }

    /// The method's time, with training told apart where there was one.
    fn split(&mut self, start: Instant, progress: &Terminal) {
        let all = start.elapsed().as_secs_f64();
        let training = progress.seconds(TRAINING);
        if let Some(seconds) = training {
            self.0.push(Stage {
                name: "train",
                seconds,
            });
        }
        self.0.push(Stage {
            name: if training.is_some() {
                "encode and score"
            } else {
                "score"
            },
            seconds: all - training.unwrap_or(0.0),
        });
    }
}

impl Found {
    /// Everything that is known before heads are scored.
    fn of(
        gathered: &Gathered,
        settings: &DiscoverSettings,
        args: &DiscoverArgs,
        provenance: &Provenance,
    ) -> Self {
        let labels = gathered.evidence.labels();
        let positives = labels.iter().filter(|label| label.label() == 1).count();
        let grid = gathered.evidence.grid();
        Self {
            examples: examples(args),
            summary: None,
            prompt_warnings: gathered.prompt_warnings.clone(),
            behaviour: gathered.behaviour.clone(),
            only_correct: gathered.only_correct,
            metric: gathered.metric.clone(),
            ablation: gathered.metric.as_ref().map(|_| args.patching.ablation),
            method: settings.method.clone(),
            n_layers: grid.n_layers,
            n_heads: grid.n_heads,
            positives,
            negatives: labels.len() - positives,
            heads: Vec::new(),
            nodes: Vec::new(),
            divergence: None,
            chosen: None,
            known: None,
            quality: None,
            signals: None,
            graph: None,
            edges: None,
            paper_edge_head_counts: None,
            dictionary: None,
            model: gathered.model.clone(),
            known_circuit: gathered.truth.as_ref().map(|known| known.known.clone()),
            settings: Settings {
                prepend_bos: gathered.bos.clone(),
                methods: settings.methods.clone(),
                dictionary: None,
                seed: settings.seed,
            },
            stages: Vec::new(),
            provenance: provenance.now(),
        }
    }
}
