//! What `discover` starts from: examples, a model run on them, and what is known of both.

use anyhow::{Result, bail};
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::causal::{Ablation, CausalEvidence};
use circuitscope::eval::methods::MethodSettings;
use circuitscope::eval::{self, About, Choice, Evidence, Gradient, PromptParts};
use circuitscope::found::{Judging, OnlyCorrect};
use circuitscope::hooks::HeadActivations;
use circuitscope::model::Loaded;
use circuitscope::tasks::{PromptWarning, TaskSpec, few_examples, prompt_warnings, write_pairs};
use circuitscope::{
    CaptureSettings, CircuitChoice, DISCOVER_PAIRS, Error, Exec, KnownCircuits, Metric,
    MetricChoice, PrepareSettings, PreparedPrompts, Progress, PromptBehaviour, PromptStart,
    Provenance, available_memory, capture, causal_evidence, known_circuits, prepare, task_prompts,
};

use crate::discover::Asked;
use crate::prompts;

/// Evidence, and what is known about it.
pub(crate) struct Gathered {
    pub(crate) method: &'static About,
    pub(crate) evidence: Evidence<Flex>,
    /// The model, and the parts of the prompts.
    pub(crate) loaded: Option<(Loaded<Flex>, PromptParts)>,
    pub(crate) truth: Option<KnownCircuits>,
    pub(crate) bos: Option<PromptStart>,
    pub(crate) warnings: Vec<String>,
    pub(crate) behaviour: Option<PromptBehaviour>,
    pub(crate) only_correct: Option<OnlyCorrect>,
    pub(crate) metric: Option<MetricChoice>,
}

/// What is told of what was assumed, and files that were read.
pub(crate) struct Told {
    pub(crate) notes: Vec<String>,
    pub(crate) provenance: Provenance,
}

impl Told {
    pub(crate) fn note(&mut self, said: impl Into<String>) {
        self.notes.push(said.into());
    }
}

/// [`About::suited`], and a note where another method takes the place of the one asked for.
fn suited(asked: &'static About, runs: bool, told: &mut Told) -> &'static About {
    let method = asked.suited(runs);
    if method != asked {
        told.note(format!(
            "method {} runs the model on pairs of prompts; without, {} takes its place",
            asked.name, method.name
        ));
    }
    method
}

/// Without a model.
pub(crate) fn of_outputs(
    asked: &Asked,
    outputs: HeadActivations,
    told: &mut Told,
) -> Result<Gathered> {
    if asked.examine.judging == Judging::All || asked.examine.tests || asked.only_correct {
        bail!("faithfulness, tests and only_correct run the model: found head_outputs alone");
    }
    if asked.rule == Some(Choice::Knee) {
        return Err(eval::Error::KneeNeedsModel.into());
    }
    let evidence = Evidence::from_file(outputs, &FlexDevice)?.with_exec(Exec::all_cores());
    let few = few_examples(evidence.labels());
    Ok(Gathered {
        method: suited(asked.method, false, told),
        evidence,
        loaded: None,
        truth: None,
        bos: None,
        warnings: few.iter().map(ToString::to_string).collect(),
        behaviour: None,
        only_correct: None,
        metric: None,
    })
}

/// Runs the model on the prompts; beside what comes of it the prompts as a file of pairs, where they are such.
pub(crate) fn gather(
    asked: &Asked,
    loaded: Loaded<Flex>,
    task: Option<&TaskSpec>,
    methods: &MethodSettings,
    told: &mut Told,
    progress: &dyn Progress,
) -> Result<(Gathered, Option<String>)> {
    for assumed in &loaded.provenance.notes {
        told.note(format!("{}: {assumed}", loaded.provenance.name));
    }
    let given = asked.examples.read(&mut told.provenance)?;
    let (mut drawn, truth) = match (given, task) {
        (Some(prompts), _) => (prompts, None),
        (None, Some(task)) => {
            let pairs = asked
                .n_examples
                .unwrap_or_else(|| task.examples_or(DISCOVER_PAIRS));
            let prompts = task_prompts(&loaded, task, pairs, asked.seed)?;
            (prompts, truth(asked, &loaded, task, told)?)
        }
        (None, None) => bail!("no examples: give task, pairs, or positive and negative"),
    };
    let pairs = write_pairs(&drawn);
    let plain = drawn.texts.clone();
    let mut texts = std::mem::take(&mut drawn.texts);
    let place = |prompt: usize| {
        let place = drawn.prompt_place(prompt);
        match (&drawn.origin, drawn.pairs.is_empty()) {
            (Some(_), false) => place,
            _ => format!("{}: {place}", asked.examples.name()),
        }
    };
    let start = PromptStart::settle(&loaded, asked.prepend_bos, asked.chat, &mut texts, place);
    let (bos, said) = start?;
    told.notes.extend(said);
    drawn.texts = texts;
    drawn.move_parts(&plain);
    let how = PrepareSettings::default()
        .with_metric(asked.metric)
        .with_prepend_bos(bos.setting());
    let mut prompts = prepare(&loaded, drawn, task, how)?;
    told.notes.extend_from_slice(prompts.notes());

    let mut settings = CaptureSettings::default()
        .with_max_batch_tokens(asked.max_batch_tokens)
        .with_memory(available_memory().unwrap_or(2 << 30))
        .with_ablation(asked.ablation)
        .with_seed(asked.seed);
    let mut causal = runs(asked, &loaded, &prompts, settings, told)?;
    if asked.examine.tests {
        check_tests(&prompts, methods)?;
    }
    let behaviour = PromptBehaviour::measure(
        &loaded,
        &prompts,
        causal.as_ref(),
        &FlexDevice,
        asked.seed,
        progress,
    )?;
    let mut only_correct = None;
    if asked.only_correct {
        let correct = behaviour.measured.as_ref();
        let correct = correct.and_then(eval::Behaviour::correct);
        let Some(correct) = correct else {
            bail!("only_correct: found pairs without answers, expected the right answer of each");
        };
        let of = prompts.prompts().pairs.len();
        if correct.is_empty() {
            bail!("only_correct: the model gets none of {of} pairs right");
        }
        let kept = correct.len();
        only_correct = Some(OnlyCorrect { kept, of });
        if kept < of {
            prompts = prompts.only(&correct);
            causal = runs(asked, &loaded, &prompts, settings, told)?;
        }
    }
    let method = suited(asked.method, causal.is_some(), told);
    if method.needs.gradient == Gradient::Own
        && (asked.metric.is_some() || asked.ablation != Ablation::default())
    {
        told.note(format!(
            "method {} reads neither metric nor reference: they say how circuits are chosen by the rule knee, and judged",
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
    settings = settings.for_method(method);
    let mut evidence = capture(&loaded, &prompts, settings, &FlexDevice, progress)?;
    let parts = prompts.parts(loaded.tokenizer()?)?;
    let metric = causal.is_some().then(|| prompts.metric().clone());
    if let Some(causal) = causal {
        evidence = evidence.with_causal(causal);
    }
    let gathered = Gathered {
        method,
        evidence,
        loaded: Some((loaded, parts)),
        truth,
        bos: Some(bos),
        warnings: warnings.iter().map(ToString::to_string).collect(),
        behaviour: Some(behaviour),
        only_correct,
        metric,
    };
    Ok((gathered, pairs))
}

fn check_tests(prompts: &PreparedPrompts, methods: &MethodSettings) -> Result<()> {
    let pairs = prompts.prompts().pairs.len();
    let pairs = pairs.min(methods.patching.patch_pairs);
    if prompts.metric().metric == Metric::Kl {
        let metric = Metric::Kl;
        return Err(eval::Error::NoTests { metric }.into());
    }
    if pairs < 2 {
        bail!(
            "tests: found {pairs} pairs to run circuits on (patch_pairs at most), expected at least 2"
        );
    }
    Ok(())
}

/// The model with the pairs, wherever there are pairs that it can be run on; an error where it must be.
fn runs(
    asked: &Asked,
    loaded: &Loaded<Flex>,
    prompts: &PreparedPrompts,
    settings: CaptureSettings,
    told: &mut Told,
) -> Result<Option<CausalEvidence<Flex>>> {
    let must = asked.method.suited(false).needs.model
        || asked.examine.judging == Judging::All
        || asked.examine.tests
        || asked.only_correct
        || asked.rule == Some(Choice::Knee);
    if prompts.prompts().pairs.is_empty() && !must {
        return Ok(None);
    }
    match causal_evidence(loaded, prompts, settings, &FlexDevice) {
        Ok(causal) => Ok(Some(causal)),
        Err(Error::Eval(why @ eval::Error::Unaligned(_))) if !must => {
            told.note(format!(
                "the model's answers are not read and no circuit is run: {why}"
            ));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The circuit known for a task in this model, if one is, and whose it is.
fn truth(
    asked: &Asked,
    loaded: &Loaded<Flex>,
    task: &TaskSpec,
    told: &mut Told,
) -> Result<Option<KnownCircuits>> {
    let choice = asked.circuit.as_deref().map(prompts::circuit).transpose()?;
    if let Some(CircuitChoice::File(file)) = &choice {
        told.provenance.input(file)?;
    }
    match known_circuits(loaded, task, choice.as_ref()) {
        Ok(known) => Ok(Some(known)),
        Err(Error::NoKnownCircuit { .. } | Error::NoOwnCircuit { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
