use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};
use circuitscope_eval::causal::{Ablation, CausalEvidence};
use circuitscope_eval::{About, Evidence, JudgedTask};
use circuitscope_hooks::Site;
use circuitscope_model::{
    DecoderConfig, LoadSettings, Loaded, ModelBytes, capture_head_means,
    capture_head_means_and_last, load_bytes,
};
use circuitscope_tasks::{GroundTruth, LabelledPrompts, TaskSpec, Vocabulary, draw};
use derive_setters::Setters;

use crate::circuits::is_reference;
use crate::prepared::{PrepareSettings, PreparedPrompts, prepare};
use crate::stream::HeadOutputs;
use crate::{Error, Result};

/// Head outputs that take more bytes than this are not held where a method reads them once.
const HOLD: u64 = 128 << 20;

/// How prompts become activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CaptureSettings {
    /// Largest batch, in padded tokens; changes no result. Default: by `memory`.
    pub max_batch_tokens: Option<usize>,
    /// Bytes that the device has for a batch and everything else
    /// ([`circuitscope_model::DecoderConfig::max_batch_tokens`]). Default 2 GiB.
    pub memory: u64,
    /// Whether to keep what heads put out at the last position, too
    /// ([`Needs::last`](circuitscope_eval::Needs::last)). Default: no.
    pub last_position: bool,
    /// Head outputs that take more bytes than this are not held, but made anew whenever a method reads
    /// them; changes no result beyond rounding. Default: a quarter of `memory`.
    pub hold: Option<u64>,
    /// What takes the place of an output that is ablated.
    pub ablation: Ablation,
    /// What [`Ablation::Resample`] draws from. Default 0.
    pub seed: Seed,
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

impl CaptureSettings {
    /// Made to suit a method: what heads put out at the last position is kept where it reads that, and
    /// head outputs are held only where it reads them more than once. Changes no result beyond rounding.
    #[must_use]
    pub fn for_method(mut self, method: &About) -> Self {
        self.last_position = method.needs.last;
        // What changes the model makes its own passes, and reads no activations.
        self.hold = if method.needs.model {
            Some(0)
        } else {
            method.needs.reads_once.then_some(HOLD)
        };
        self
    }
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            max_batch_tokens: None,
            memory: 2 << 30,
            last_position: false,
            hold: None,
            ablation: Ablation::default(),
            seed: Seed::default(),
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
    let files = circuitscope_reference::FILES;
    let bytes = ModelBytes {
        name: "reference",
        config: files.config,
        weights: files.weights,
        tokenizer: Some(files.tokenizer),
    };
    Ok(load_bytes(&bytes, settings, device)?)
}

/// Which vocabulary the prompts for a model are written in: the reference model's words for that model,
/// else ordinary text in words that the model's tokenizer has.
#[must_use]
pub fn vocabulary<B: Backend>(loaded: &Loaded<B>) -> Vocabulary {
    if is_reference(&loaded.provenance) {
        Vocabulary::Reference
    } else {
        Vocabulary::Gpt2
    }
}

/// Pairs that `discover` draws of a task where no number is asked for.
pub const DISCOVER_PAIRS: usize = 50;
/// Pairs that `eval` draws of a task where no number is asked for.
pub const EVAL_PAIRS: usize = 250;

/// The vocabulary in which a task is posed to a model: tasks of the user's own are ordinary text to every
/// model.
fn posed_in<B: Backend>(loaded: &Loaded<B>, task: &TaskSpec) -> Vocabulary {
    if task.files.is_empty() {
        vocabulary(loaded)
    } else {
        Vocabulary::Gpt2
    }
}

/// Draws the prompts of a task in the words that a model has. Prompts of a pair have the same number of
/// tokens, unless the task gives its pairs itself.
///
/// # Errors
/// If the model has no tokenizer, or the task cannot be posed in its tokens.
pub fn task_prompts<B: Backend>(
    loaded: &Loaded<B>,
    task: &TaskSpec,
    n_pairs: usize,
    seed: Seed,
) -> Result<LabelledPrompts> {
    let tokenizer = loaded.tokenizer()?;
    let tokens = |text: &str| Ok(tokenizer.encode(text, false)?);
    Ok(draw(
        task,
        posed_in(loaded, task),
        n_pairs,
        seed,
        Some(&tokens),
    )?)
}

/// Runs a model on prompts and keeps what the method reads: every head's output averaged over
/// positions, so that prompts of a pair may differ in length. Where that would take more than [`CaptureSettings::hold`], the model is run when a method reads
/// it, some hundred prompts at a time.
///
/// # Errors
/// If a prompt does not fit the model, if a class is empty, or if `progress` asks to stop.
pub fn capture<B: Backend>(
    loaded: &Loaded<B>,
    prepared: &PreparedPrompts,
    settings: CaptureSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Evidence<B>> {
    let (prompts, tokens) = (prepared.prompts(), prepared.tokens());
    let model = &loaded.model;
    let config = model.config();
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
    let batch = settings.batch_tokens(config, longest, &[]);
    let grid = config.grid();
    let exec = model.exec();
    let evidence = |x| {
        let evidence = Evidence::new(grid, x, prompts.labels.clone(), prompts.pairs.clone());
        Ok::<_, Error>(evidence?.with_exec(exec))
    };
    let kinds = 1 + u64::from(settings.last_position);
    let bytes = 4 * kinds * (tokens.len() * grid.len() * config.d_model) as u64;
    if bytes > settings.hold.unwrap_or(settings.memory / 4) {
        config.check_tokens(tokens)?;
        let tokens = Arc::clone(tokens);
        let source = HeadOutputs::new(model.clone(), tokens, batch, device.clone());
        let last = source.clone().at_last();
        let streamed = |source| {
            let (labels, pairs) = (prompts.labels.clone(), prompts.pairs.clone());
            let evidence = Evidence::streamed(grid, Arc::new(source), labels, pairs);
            Ok::<_, Error>(evidence?.with_exec(exec))
        };
        let evidence = streamed(source)?;
        return Ok(if settings.last_position {
            evidence.with_last(streamed(last)?)?
        } else {
            evidence
        });
    }
    if settings.last_position {
        let [means, last] = capture_head_means_and_last(model, tokens, batch, device, progress)?;
        return Ok(evidence(means)?.with_last(evidence(last)?)?);
    }
    let means = capture_head_means(model, tokens, batch, device, progress)?;
    evidence(means)
}

/// The model with matched prompts, for methods that change it or differentiate it.
///
/// # Errors
/// [`circuitscope_eval::Error::NoPairs`] where prompts are not matched, [`circuitscope_eval::Error::Unaligned`] where
/// their tokens cannot be said to correspond, and those of [`CausalEvidence::new`].
pub fn causal_evidence<B: Backend>(
    loaded: &Loaded<B>,
    prepared: &PreparedPrompts,
    settings: CaptureSettings,
    device: &B::Device,
) -> Result<CausalEvidence<B>> {
    let (pairs, aligned) = prepared.pairs()?;
    let evidence = CausalEvidence::aligned(
        loaded.model.clone(),
        pairs,
        aligned,
        prepared.metric().metric,
        settings.ablation,
        settings.memory,
        device,
    )?;
    Ok(evidence.with_seed(settings.seed))
}

/// [`causal_evidence`] wherever there are pairs that the model can be run on, and an error only where it `must` be run. Else nothing,
/// with the reason in a sentence where there are pairs.
///
/// # Errors
/// As [`causal_evidence`].
pub fn causal_where_possible<B: Backend>(
    loaded: &Loaded<B>,
    prepared: &PreparedPrompts,
    settings: CaptureSettings,
    must: bool,
    device: &B::Device,
) -> Result<(Option<CausalEvidence<B>>, Option<String>)> {
    if prepared.prompts().pairs.is_empty() && !must {
        return Ok((None, None));
    }
    match causal_evidence(loaded, prepared, settings, device) {
        Ok(causal) => Ok((Some(causal), None)),
        Err(Error::Eval(why @ circuitscope_eval::Error::Unaligned(_))) if !must => Ok((
            None,
            Some(format!(
                "the model's answers are not read and no circuit is run: {why}"
            )),
        )),
        Err(error) => Err(error),
    }
}

/// Draws the prompts of a task for a model and makes them ready ([`prepare`]).
///
/// # Errors
/// As [`task_prompts`] and [`prepare`].
pub fn prepare_task<B: Backend>(
    loaded: &Loaded<B>,
    task: &TaskSpec,
    n_pairs: usize,
    seed: Seed,
    settings: PrepareSettings,
) -> Result<PreparedPrompts> {
    let prompts = task_prompts(loaded, task, n_pairs, seed)?;
    prepare(loaded, prompts, Some(task), settings)
}

/// Captures prompts and joins them with the circuits known for their task
/// ([`known_circuits`](crate::known_circuits)): a task ready for [`circuitscope_eval::evaluate`].
///
/// # Errors
/// As [`capture`] and [`causal_evidence`]; [`Error::NoTruths`] without circuits.
pub fn judged_task<B: Backend>(
    loaded: &Loaded<B>,
    prepared: &PreparedPrompts,
    truths: Vec<GroundTruth>,
    settings: CaptureSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<JudgedTask<B>> {
    let task = truths.first().ok_or(Error::NoTruths)?.task.clone();
    let evidence = capture(loaded, prepared, settings, device, progress)?;
    let causal = causal_evidence(loaded, prepared, settings, device)?;
    let evidence = evidence.with_causal(causal);
    Ok(JudgedTask {
        task,
        evidence,
        truths,
    })
}
