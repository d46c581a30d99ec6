//! What `discover` starts from: examples, a model run on them, and what is known of both.

use std::mem;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::eval::causal::{Ablation, CausalEvidence};
use circuitscope::eval::{self, About, Choice, Evidence, Gradient};
use circuitscope::found::{Gathered, OnlyCorrect};
use circuitscope::hooks::HeadActivations;
use circuitscope::model::{self, Loaded};
use circuitscope::tasks::{
    LabelledPrompts, TaskSpec, few_examples, read_lines, read_pairs, write_pairs,
};
use circuitscope::{
    CaptureSettings, DISCOVER_PAIRS, Error, PrepareSettings, PreparedPrompts, PromptBehaviour,
    Seed, capture, causal_where_possible, circuits_if_known, prepare, task_prompts,
};

use super::found_text::Stages;
use super::{bos, inputs};
use crate::args::{Behaviour, DiscoverArgs, Judge, TaskArg};
use crate::device::{B, Device};
use crate::output::{count, note};
use crate::progress::Terminal;
use crate::provenance::Provenance;

/// Reads the examples, loads the model and runs it on them.
pub(super) fn gather(
    args: &DiscoverArgs,
    task: Option<&TaskSpec>,
    device: &Device,
    provenance: &mut Provenance,
    stages: &mut Stages,
    progress: &Terminal,
) -> Result<Gathered<B>> {
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
        let few = few.iter().map(ToString::to_string).collect();
        return Ok(Gathered::of_outputs(
            suited(args.method, false),
            evidence,
            few,
        ));
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
            let truth = circuits_if_known(&loaded, task, args.circuit.as_ref())?;
            (prompts, truth)
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
        let pairs = prompts.tested(args.patching.patch_pairs as usize)?;
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
    let warnings = prompts.warnings(task, method);
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
    let mut gathered = Gathered::of_outputs(
        method,
        evidence,
        warnings.iter().map(ToString::to_string).collect(),
    );
    gathered.graph = Some(loaded.model.config().graph());
    gathered.model = Some(loaded.provenance);
    gathered.tokenizer = loaded.tokenizer;
    gathered.pairs = pairs;
    gathered.parts = parts;
    gathered.truth = truth;
    gathered.bos = Some(bos);
    gathered.behaviour = Some(behaviour);
    gathered.only_correct = only_correct;
    gathered.metric = metric;
    Ok(gathered)
}

/// [`About::suited`], and a note where another method takes the place of the one asked for.
fn suited(asked: &'static About, runs: bool) -> &'static About {
    let method = asked.suited(runs);
    if let Some(said) = method.stands_in(asked) {
        note(&format!("note: {said}"));
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
    let causal = causal_where_possible(loaded, prompts, settings, must, device.plain());
    let (causal, said) = causal.map_err(|error| located(error, args, prompts.prompts()))?;
    if let Some(said) = said {
        note(&format!("note: {said}"));
    }
    Ok(causal)
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
