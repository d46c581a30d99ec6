//! What `discover` starts from: examples, a model run on them, and what is known of both.

use std::mem;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::eval::causal::{Ablation, CausalEvidence};
use circuitscope::eval::{self, About, Choice, Evidence, Gradient, PromptParts};
use circuitscope::hooks::HeadActivations;
use circuitscope::model::{self, Loaded, ModelProvenance, Tokenizer};
use circuitscope::tasks::{
    LabelledPrompts, PromptWarning, TaskSpec, few_examples, prompt_warnings, read_lines,
    read_pairs, write_pairs,
};
use circuitscope::{
    CaptureSettings, DISCOVER_PAIRS, Error, KnownCircuits, MetricChoice, PrepareSettings,
    PreparedPrompts, PromptBehaviour, PromptStart, capture, causal_evidence, known_circuits,
    prepare, task_prompts,
};
use circuitscope::{Graph, Metric, Seed};

use circuitscope::found::OnlyCorrect;

use super::found_text::Stages;
use super::{bos, inputs};
use crate::args::{Behaviour, DiscoverArgs, Judge, TaskArg};
use crate::device::{B, Device};
use crate::output::{count, note};
use crate::progress::Terminal;
use crate::provenance::Provenance;

/// Evidence, and what is known about it.
pub(super) struct Gathered {
    /// That asked for or, where the model is not run on pairs, the one that takes its place.
    pub(super) method: &'static About,
    pub(super) evidence: Evidence<B>,
    pub(super) graph: Option<Graph>,
    pub(super) model: Option<ModelProvenance>,
    pub(super) truth: Option<KnownCircuits>,
    pub(super) bos: Option<PromptStart>,
    pub(super) prompt_warnings: Vec<String>,
    pub(super) behaviour: Option<PromptBehaviour>,
    pub(super) only_correct: Option<OnlyCorrect>,
    pub(super) tokenizer: Option<Tokenizer>,
    /// The prompts as a file of pairs, where they are such.
    pub(super) pairs: Option<String>,
    /// Named parts and variables of the prompts.
    pub(super) parts: PromptParts,
    /// What is read from the output, where a model is run.
    pub(super) metric: Option<MetricChoice>,
}

/// Reads the examples, loads the model and runs it on them.
pub(super) fn gather(
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
        if args.patching.ablation != Ablation::default() {
            note("note: --reference is not read: no model runs with --activations");
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
            pairs: None,
            parts: PromptParts::default(),
            metric: None,
        });
    }
    let prompts = read(args, provenance)?;
    if let Some(task) = task {
        inputs::check_circuit(&args.model, args.circuit.as_ref(), &task.name)?;
    }
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
    let pairs = write_pairs(&prompts);
    let plain = prompts.texts.clone();
    let mut texts = mem::take(&mut prompts.texts);
    let place = |prompt| place(args, &prompts, prompt);
    let bos = bos::settle(&loaded, &args.model, args.chat, &mut texts, place)?;
    prompts.texts = texts;
    prompts.move_parts(&plain);
    let how = PrepareSettings::default()
        .with_metric(args.patching.metric)
        .with_prepend_bos(bos.setting());
    let mut prompts = prepare(&loaded, prompts, task, how)?;
    for said in prompts.notes() {
        note(&format!("note: {said}"));
    }
    let mut settings = inputs::capture_settings(&args.model, device);
    settings.ablation = args.patching.ablation;
    settings.seed = seed;
    let mut causal = runs(args, &loaded, &prompts, settings, device)?;
    if args.tests {
        let pairs = prompts.prompts().pairs.len();
        let pairs = pairs.min(args.patching.patch_pairs as usize);
        if prompts.metric().metric == Metric::Kl {
            let metric = Metric::Kl;
            return Err(eval::Error::NoTests { metric }.into());
        }
        if pairs < 2 {
            bail!(
                "--tests: found {} to run circuits on (--patch-pairs at most), expected at least 2",
                count(pairs, "pair")
            );
        }
    }
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
            "note: method {} reads neither --metric nor --reference: they say how circuits are chosen by --select \
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
    let parts = prompts.parts(loaded.tokenizer()?)?;
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
        pairs,
        parts,
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
        || args.tests
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
pub(super) fn examples(args: &DiscoverArgs) -> String {
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
