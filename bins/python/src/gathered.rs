//! What `discover` starts from: examples, a model run on them, and what is known of both.

use anyhow::{Result, bail};
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::causal::{Ablation, CausalEvidence};
use circuitscope::eval::methods::MethodSettings;
use circuitscope::eval::{self, About, Choice, Evidence, Gradient};
use circuitscope::found::{Gathered, Judging, OnlyCorrect};
use circuitscope::hooks::HeadActivations;
use circuitscope::model::Loaded;
use circuitscope::tasks::{TaskSpec, few_examples, write_pairs};
use circuitscope::{
    CaptureSettings, CircuitChoice, DISCOVER_PAIRS, Exec, KnownCircuits, PrepareSettings,
    PreparedPrompts, Progress, PromptBehaviour, PromptStart, Provenance, available_memory, capture,
    causal_where_possible, circuits_if_known, prepare, task_prompts,
};

use crate::discover::Asked;
use crate::prompts;

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
    if let Some(said) = method.stands_in(asked) {
        told.note(said);
    }
    method
}

/// Without a model.
pub(crate) fn of_outputs(
    asked: &Asked,
    outputs: HeadActivations,
    told: &mut Told,
) -> Result<Gathered<Flex>> {
    if asked.examine.judging == Judging::All || asked.examine.tests || asked.only_correct {
        bail!("faithfulness, tests and only_correct run the model: found head_outputs alone");
    }
    if !asked.examine.explain.is_empty() {
        bail!("explain runs the model: found head_outputs alone");
    }
    if asked.rule == Some(Choice::Knee) {
        return Err(eval::Error::KneeNeedsModel.into());
    }
    for name in &asked.unread {
        told.note(format!(
            "{name} is not read: no model runs with head_outputs"
        ));
    }
    let evidence = Evidence::from_file(outputs, &FlexDevice)?.with_exec(Exec::all_cores());
    let few = few_examples(evidence.labels());
    let few = few.iter().map(ToString::to_string).collect();
    Ok(Gathered::of_outputs(
        suited(asked.method, false, told),
        evidence,
        few,
    ))
}

/// Runs the model on the prompts.
pub(crate) fn gather(
    asked: &Asked,
    loaded: Loaded<Flex>,
    task: Option<&TaskSpec>,
    methods: &MethodSettings,
    told: &mut Told,
    progress: &dyn Progress,
) -> Result<Gathered<Flex>> {
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
    let warnings = prompts.warnings(task, method);
    settings = settings.for_method(method);
    let mut evidence = capture(&loaded, &prompts, settings, &FlexDevice, progress)?;
    let parts = prompts.parts(loaded.tokenizer()?)?;
    let metric = causal.is_some().then(|| prompts.metric().clone());
    if let Some(causal) = causal {
        evidence = evidence.with_causal(causal);
    }
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

fn check_tests(prompts: &PreparedPrompts, methods: &MethodSettings) -> Result<()> {
    let pairs = prompts.tested(methods.patching.patch_pairs)?;
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
    let (causal, said) = causal_where_possible(loaded, prompts, settings, must, &FlexDevice)?;
    told.notes.extend(said);
    Ok(causal)
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
    Ok(circuits_if_known(loaded, task, choice.as_ref())?)
}
