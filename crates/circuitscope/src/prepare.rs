use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};
use circuitscope_eval::causal::{Ablation, CausalEvidence, Metric, TokenPair};
use circuitscope_eval::{Evidence, JudgedTask};
use circuitscope_hooks::Site;
use circuitscope_model::{
    DecoderConfig, LoadSettings, Loaded, ModelBytes, capture_head_means,
    capture_head_means_and_last, load_bytes,
};
use circuitscope_tasks::{
    AnswerToken, Answers, GroundTruth, LabelledPrompts, PromptSet, SplitAnswer, Task, Vocabulary,
    check_answers, check_pair_lengths, generate, ground_truths, reference_files,
};

use crate::stream::HeadOutputs;
use crate::{Error, Result};

/// What causal methods read from the model's output, and how they ablate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CausalSettings {
    /// What is read. Default: by the task ([`default_metric`]); for prompts of one's own the logit
    /// difference, the log-probability where no pair has wrong answers, KL where answers are not known.
    pub metric: Option<Metric>,
    /// What takes the place of an ablated output.
    pub ablation: Ablation,
}

/// The metric of a task: the probability difference for greater-than (Hanna et al. 2023, arXiv
/// 2305.00586), the logit difference for all others.
#[must_use]
pub const fn default_metric(task: Task) -> Metric {
    match task {
        Task::GreaterThan => Metric::ProbabilityDifference,
        Task::Ioi | Task::Docstring | Task::Induction => Metric::LogitDifference,
    }
}

/// How prompts become activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureSettings {
    /// Whether the model's beginning-of-sequence token is put before each prompt; its position counts
    /// in the mean. Default: yes, as in the paper.
    pub prepend_bos: bool,
    /// Largest batch, in padded tokens; changes no result. Default: by `memory`.
    pub max_batch_tokens: Option<usize>,
    /// Bytes that the device has for a batch and everything else
    /// ([`circuitscope_model::DecoderConfig::max_batch_tokens`]). Default 2 GiB.
    pub memory: u64,
    /// Whether to keep what heads put out at the last position, too
    /// ([`reads_last`](circuitscope_eval::methods::reads_last)). Default: no.
    pub last_position: bool,
    /// Head outputs that take more bytes than this are not held, but made anew whenever a method reads
    /// them; changes no result beyond rounding. Default: a quarter of `memory`.
    pub hold: Option<u64>,
    /// For methods that change the model or differentiate it.
    pub causal: CausalSettings,
}

impl CaptureSettings {
    /// Padded tokens of a batch of prompts of up to `pos` tokens whose `sites` are captured: as asked
    /// for, else by memory.
    #[must_use]
    pub fn batch_tokens(&self, config: &DecoderConfig, pos: usize, sites: &[Site]) -> usize {
        let by_memory = || config.max_batch_tokens(pos, sites, self.memory);
        self.max_batch_tokens.unwrap_or_else(by_memory)
    }
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            prepend_bos: true,
            max_batch_tokens: None,
            memory: 2 << 30,
            last_position: false,
            hold: None,
            causal: CausalSettings::default(),
        }
    }
}

/// The reference model that is compiled into the crate: 4 layers × 8 heads, trained so that the
/// circuits of all four tasks are known.
///
/// # Errors
/// None for the shipped files; those of [`load_bytes`] if they were exchanged.
pub fn load_reference<B: Backend>(
    settings: impl Into<LoadSettings>,
    device: &B::Device,
) -> Result<Loaded<B>> {
    let files = reference_files();
    let bytes = ModelBytes {
        name: "reference",
        config: files.config,
        weights: files.weights,
        tokenizer: Some(files.tokenizer),
    };
    Ok(load_bytes(&bytes, settings, device)?)
}

/// Which vocabulary the prompts for a model are written in: the reference model's words if the
/// model's token 1 is `<bos>`, else GPT-2's.
///
/// # Errors
/// If the model has no tokenizer.
pub fn vocabulary<B: Backend>(loaded: &Loaded<B>) -> Result<Vocabulary> {
    let words = loaded.tokenizer()?.token(1).as_deref() == Some("<bos>");
    Ok(if words {
        Vocabulary::Reference
    } else {
        Vocabulary::Gpt2
    })
}

/// Prompts of a task for one model.
#[derive(Debug, Clone)]
pub struct TaskPrompts {
    /// The pairs; prompts of a pair have the same number of tokens.
    pub set: PromptSet,
    /// Answer words that this model's tokenizer splits. Head outputs do not depend on them; measures
    /// of the model's answers would.
    pub split_answers: Vec<SplitAnswer>,
}

/// Draws the prompts of a task in the vocabulary of a model.
///
/// # Errors
/// If the model has no tokenizer, or no pairs of equal length can be drawn for it.
pub fn task_prompts<B: Backend>(
    loaded: &Loaded<B>,
    task: Task,
    n_pairs: usize,
    seed: Seed,
) -> Result<TaskPrompts> {
    let tokenizer = loaded.tokenizer()?;
    let count = |text: &str| Ok(tokenizer.encode(text, false)?.len());
    let set = generate(task, vocabulary(loaded)?, n_pairs, seed, Some(&count))?;
    let split_answers = check_answers(&set, &count)?;
    Ok(TaskPrompts { set, split_answers })
}

/// Runs a model on prompts and keeps what the method reads: every head's output averaged over
/// positions. Where that would take more than [`CaptureSettings::hold`], the model is run when a method reads
/// it, some hundred prompts at a time.
///
/// # Errors
/// If a prompt cannot be tokenised or does not fit the model, if the two prompts of a pair differ in
/// token length, if a class is empty, or if `progress` asks to stop.
pub fn capture<B: Backend>(
    loaded: &Loaded<B>,
    prompts: &LabelledPrompts,
    settings: CaptureSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Evidence<B>> {
    let tokenizer = loaded.tokenizer()?;
    let tokens = prompts
        .texts
        .iter()
        .map(|text| tokenizer.encode(text, settings.prepend_bos))
        .collect::<Result<Vec<_>, _>>()?;
    let lengths: Vec<(usize, usize)> = prompts
        .pairs
        .iter()
        .map(|&(positive, negative)| (tokens[positive].len(), tokens[negative].len()))
        .collect();
    check_pair_lengths(&lengths)?;
    let model = &loaded.model;
    let config = model.config();
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
    let batch = settings.batch_tokens(config, longest, &[]);
    let grid = config.grid();
    let evidence = |x| Evidence::new(grid, x, prompts.labels.clone(), prompts.pairs.clone());
    let kinds = 1 + u64::from(settings.last_position);
    let bytes = 4 * kinds * (tokens.len() * grid.len() * config.d_model) as u64;
    if bytes > settings.hold.unwrap_or(settings.memory / 4) {
        config.check_tokens(&tokens)?;
        let source = HeadOutputs::new(model.clone(), tokens, batch, device.clone());
        let last = source.clone().at_last();
        let streamed = |source| {
            let (labels, pairs) = (prompts.labels.clone(), prompts.pairs.clone());
            Evidence::streamed(grid, Arc::new(source), labels, pairs)
        };
        let evidence = streamed(source)?;
        return Ok(if settings.last_position {
            evidence.with_last(streamed(last)?)?
        } else {
            evidence
        });
    }
    if settings.last_position {
        let [means, last] = capture_head_means_and_last(model, &tokens, batch, device, progress)?;
        return Ok(evidence(means)?.with_last(evidence(last)?)?);
    }
    let means = capture_head_means(model, &tokens, batch, device, progress)?;
    Ok(evidence(means)?)
}

/// The model with matched prompts, for methods that change it or differentiate it.
///
/// Answers that are not known leave [`Metric::Kl`] as the only metric. Answer words that the tokenizer
/// splits are judged by their first token.
///
/// # Errors
/// [`circuitscope_eval::Error::NoPairs`] where prompts are not matched, an answer that is no token of
/// the model, and those of [`CausalEvidence::new`].
pub fn causal_evidence<B: Backend>(
    loaded: &Loaded<B>,
    prompts: &LabelledPrompts,
    settings: CaptureSettings,
    device: &B::Device,
) -> Result<CausalEvidence<B>> {
    let tokenizer = loaded.tokenizer()?;
    let encode = |row: usize| tokenizer.encode(&prompts.texts[row], settings.prepend_bos);
    let token = |answer: &AnswerToken| match answer {
        AnswerToken::Id(id) => Ok(*id),
        AnswerToken::Word(word) => {
            let tokens = tokenizer.encode(word, false)?;
            tokens.first().copied().ok_or(Error::EmptyAnswer)
        }
    };
    let tokens = |answers: &[AnswerToken]| {
        let tokens = answers.iter().map(token);
        tokens.collect::<Result<Vec<_>>>()
    };
    let all =
        |has: fn(&Answers) -> bool| !prompts.answers.is_empty() && prompts.answers.iter().all(has);
    // What the answers that are there allow.
    let by_answers = if all(|answers| !answers.right.is_empty() && !answers.wrong.is_empty()) {
        Metric::LogitDifference
    } else if all(|answers| !answers.right.is_empty()) {
        Metric::LogProbability
    } else {
        Metric::Kl
    };
    let pairs = prompts.pairs.iter().enumerate().map(|(at, &rows)| {
        let answers = prompts.answers.get(at).cloned().unwrap_or_default();
        Ok(TokenPair {
            rows,
            clean: encode(rows.0)?,
            corrupt: encode(rows.1)?,
            position: None,
            right: tokens(&answers.right)?,
            wrong: tokens(&answers.wrong)?,
        })
    });
    let metric = settings.causal.metric.unwrap_or(by_answers);
    Ok(CausalEvidence::new(
        loaded.model.clone(),
        pairs.collect::<Result<_>>()?,
        metric,
        settings.causal.ablation,
        settings.memory,
        device,
    )?)
}

/// The circuits known for a task in a model: of the reference model by its vocabulary, of published
/// models by their shape. The variant that tables quote comes first.
///
/// # Errors
/// [`Error::NoKnownCircuit`].
pub fn known_circuits<B: Backend>(loaded: &Loaded<B>, task: Task) -> Result<Vec<GroundTruth>> {
    let config = loaded.model.config();
    let grid = config.grid();
    let model = match (vocabulary(loaded)?, grid.n_layers, grid.n_heads) {
        (Vocabulary::Reference, 4, 8) => Some("reference"),
        (Vocabulary::Gpt2, 12, 12) => Some("gpt2-small"),
        (Vocabulary::Gpt2, 4, 8) if config.mlp.is_none() => Some("attn-only-4l"),
        _ => None,
    };
    let truths = match model {
        Some(model) => ground_truths(task, model)?,
        None => Vec::new(),
    };
    if truths.is_empty() {
        Err(Error::NoKnownCircuit { task, grid })
    } else {
        Ok(truths)
    }
}

/// Draws, captures and joins with the known circuits: a task ready for
/// [`circuitscope_eval::evaluate`].
///
/// # Errors
/// As [`task_prompts`], [`capture`] and [`known_circuits`].
pub fn judged_task<B: Backend>(
    loaded: &Loaded<B>,
    task: Task,
    n_pairs: usize,
    seed: Seed,
    mut settings: CaptureSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<JudgedTask<B>> {
    let truths = known_circuits(loaded, task)?;
    let prompts = task_prompts(loaded, task, n_pairs, seed)?.set.labelled();
    let mut evidence = capture(loaded, &prompts, settings, device, progress)?;
    let metric = settings.causal.metric.unwrap_or(default_metric(task));
    settings.causal.metric = Some(metric);
    evidence = evidence.with_causal(causal_evidence(loaded, &prompts, settings, device)?);
    Ok(JudgedTask {
        task: task.name().to_owned(),
        evidence,
        truths,
    })
}
