use core::fmt;

use circuitscope::eval::About;
use circuitscope::eval::causal::{Ablation, Metric};
use circuitscope::eval::methods::{MethodSettings, PatchedEdges, PatchingSettings, SaeSettings};
use circuitscope::model::{LoadSettings, Precision, PrependBos, Processing};
use circuitscope::tasks::TaskSpec;
use circuitscope::{PrepareSettings, REFERENCE};
use clap::builder::ValueHint;
use clap::{Args, ValueEnum};

use super::task::{l1_help, metric_help};
use super::{CODES, EXAMPLES, STEPS, count, count_or_none};

/// The variable of the environment that names a model where the command line names none.
pub(crate) const MODEL_VARIABLE: &str = "CIRCUITSCOPE_MODEL";

/// The model that is run where none is asked for.
fn model_by_default() -> String {
    let named = std::env::var_os(MODEL_VARIABLE).filter(|name| !name.is_empty());
    let named = named.map(|name| name.to_string_lossy().into_owned());
    named.unwrap_or_else(|| REFERENCE.to_owned())
}

/// The model and how it is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// `reference`, a folder, a GGUF file, `ollama:NAME`, or `owner/name[@revision]` of the hub
    ///
    /// `reference` (the small model inside this program, which knows the words of its tasks alone), or a folder with a
    /// model in Hugging Face layout (config.json, model.safetensors or `pytorch_model.bin`, tokenizer.json) or a
    /// TransformerLens model, or a GGUF file, or `ollama:NAME` of a model that Ollama keeps, or
    /// `owner/name[@revision]` of the Hugging Face hub (cached; `HF_HOME`, `HF_TOKEN` and
    /// `HF_HUB_OFFLINE` count). Quantised weights are dequantised as `--dtype` says. Where this is not given,
    /// `CIRCUITSCOPE_MODEL` in the environment counts.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::AnyPath, default_value_t = model_by_default())]
    pub(crate) model: String,
    /// Weights as stored, or with norms folded in and writing weights centred, as TransformerLens
    /// does by default
    #[arg(long, value_enum, default_value_t = ProcessingArg::Folded, value_name = "HOW", hide_short_help = true)]
    pub(crate) processing: ProcessingArg,
    /// Put the beginning-of-sequence token before every prompt that does not begin with it: `auto` as the
    /// model's own tokenizer does, and yes for GPT-2 and TransformerLens models, as in the paper
    #[arg(long, default_value_t = PrepareSettings::default().prepend_bos, value_name = "auto|true|false", hide_short_help = true)]
    pub(crate) prepend_bos: PrependBos,
    /// Refuse a config.json with keys that no model here reads, instead of naming them in a note
    #[arg(long, hide_short_help = true)]
    pub(crate) strict_config: bool,
    /// What the model is held and computed in; norms and softmax are always f32, logits are made in
    /// it and kept in f32
    #[arg(long, default_value_t = Precision::default(), value_name = "f32|f16|bf16", hide_short_help = true)]
    pub(crate) dtype: Precision,
    /// Largest batch, in padded tokens; changes no result [default: by the device's memory, at most
    /// 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), hide_short_help = true)]
    pub(crate) max_batch_tokens: Option<u32>,
    /// Run the model even on a device that does not agree with a CPU (see `circuitscope doctor`)
    #[arg(long, hide_short_help = true)]
    pub(crate) trust_device: bool,
}

impl ModelArgs {
    /// Whether the environment, not the command line, seems to name the model.
    pub(crate) fn is_from_environment(&self) -> bool {
        self.model != REFERENCE && self.model == model_by_default()
    }

    pub(crate) fn load_settings(&self) -> LoadSettings {
        LoadSettings::default()
            .with_processing(self.processing.into())
            .with_precision(self.dtype)
            .with_strict_config(self.strict_config)
    }
}

/// `--processing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProcessingArg {
    /// As stored
    Raw,
    /// Folded and centred
    Folded,
}

impl From<ProcessingArg> for Processing {
    fn from(arg: ProcessingArg) -> Self {
        match arg {
            ProcessingArg::Raw => Self::Raw,
            ProcessingArg::Folded => Self::Folded,
        }
    }
}

impl fmt::Display for ProcessingArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Folded => "folded",
        })
    }
}

/// The dictionary of the methods that have one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Dictionary")]
pub(crate) struct SaeArgs {
    /// Number of features, that is of possible codes
    #[arg(long, value_name = "N", default_value_t = SaeSettings::default().n_codes, value_parser = count::<CODES>, hide_short_help = true)]
    pub(crate) codes: usize,
    #[arg(long, value_name = "LAMBDA", help = l1_help(SaeSettings::default().l1_coefficient), hide_short_help = true)]
    pub(crate) l1: Option<f64>,
    /// Examples to train on, drawn at random from both classes
    #[arg(long, value_name = "N", default_value_t = SaeSettings::default().train_examples, value_parser = count::<EXAMPLES>, hide_short_help = true)]
    pub(crate) train_examples: usize,
    /// Steps of full-batch Adam
    #[arg(long, value_name = "N", default_value_t = SaeSettings::default().steps, value_parser = count_or_none::<STEPS>, hide_short_help = true)]
    pub(crate) steps: usize,
}

impl SaeArgs {
    /// With λ as asked for; where nothing was, as the task has it, if it is one.
    pub(crate) fn settings(&self, task: Option<&TaskSpec>) -> SaeSettings {
        let usual = task.map_or_else(MethodSettings::default, MethodSettings::for_task);
        SaeSettings::default()
            .with_n_codes(self.codes)
            .with_l1_coefficient(self.l1.unwrap_or(usual.sae.l1_coefficient))
            .with_train_examples(self.train_examples)
            .with_steps(self.steps)
    }
}

/// Help of `--ig-steps`.
fn ig_help() -> String {
    let usual = patching();
    format!(
        "Points that integrated gradients average over [default: {} for nodes, {} for edges]",
        usual.node_ig_steps, usual.ig_steps
    )
}

/// Help of `--mask-steps`.
fn mask_help() -> String {
    let usual = patching();
    format!(
        "Optimiser steps of the methods that learn masks [default: {}, {} for Matryoshka masks]",
        usual.mask_steps, usual.matryoshka_steps
    )
}

fn patching() -> PatchingSettings {
    PatchingSettings::default()
}

/// Methods that change the model or differentiate it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Patching")]
pub(crate) struct PatchingArgs {
    #[arg(long, help = "What is read from the model's output", long_help = metric_help())]
    pub(crate) metric: Option<Metric>,
    /// What takes the place of an ablated output, that is what effects are measured against: `negative` (the
    /// same on the matched negative prompt), `mean` (over all negative prompts), `position-mean` (the same at
    /// each position), `zero`, or `resample` (the same on another positive prompt of as many tokens, drawn
    /// by --seed)
    #[arg(long = "reference", alias = "ablation", default_value_t = Ablation::default(), value_name = "HOW", hide_short_help = true)]
    pub(crate) ablation: Ablation,
    /// Pairs that gradients are averaged over, at most
    #[arg(long, value_name = "N", default_value_t = patching().gradient_pairs as u32, value_parser = clap::value_parser!(u32).range(1..), hide_short_help = true)]
    pub(crate) gradient_pairs: u32,
    /// Pairs that single nodes, edges and circuits are run on, at most
    #[arg(long, value_name = "N", default_value_t = patching().patch_pairs as u32, value_parser = clap::value_parser!(u32).range(1..), hide_short_help = true)]
    pub(crate) patch_pairs: u32,
    /// Edges that `activation-patching` patches one by one, besides every head and MLP: `none`, those
    /// among the N heads with the largest effects and from them to the logits, or `all`, which takes
    /// hours on models of 100 heads and more. `recommended` scores all of them, in about three times its
    /// own time, unless this is `none`
    #[arg(long, default_value_t = patching().edges, value_name = "none|N|all", hide_short_help = true)]
    pub(crate) edges: PatchedEdges,
    #[arg(long, value_name = "N", help = ig_help(), value_parser = clap::value_parser!(u32).range(1..=10_000), hide_short_help = true)]
    pub(crate) ig_steps: Option<u32>,
    #[arg(long, value_name = "N", help = mask_help(), value_parser = clap::value_parser!(u32).range(1..=1_000_000), hide_short_help = true)]
    pub(crate) mask_steps: Option<u32>,
}

impl PatchingArgs {
    pub(crate) fn settings(&self) -> PatchingSettings {
        PatchingSettings::default()
            .with_gradient_pairs(self.gradient_pairs as usize)
            .with_patch_pairs(self.patch_pairs as usize)
            .with_ig_steps(self.ig_steps() as usize)
            .with_node_ig_steps(self.node_ig_steps() as usize)
            .with_mask_steps(self.mask_steps() as usize)
            .with_matryoshka_steps(self.matryoshka_steps() as usize)
            .with_edges(self.edges)
    }

    /// Points of integrated gradients of edges.
    pub(crate) fn ig_steps(&self) -> u32 {
        self.ig_steps.unwrap_or(patching().ig_steps as u32)
    }

    /// Of nodes.
    pub(crate) fn node_ig_steps(&self) -> u32 {
        self.ig_steps.unwrap_or(patching().node_ig_steps as u32)
    }

    /// Steps of hard gates.
    pub(crate) fn mask_steps(&self) -> u32 {
        self.mask_steps.unwrap_or(patching().mask_steps as u32)
    }

    /// Of Matryoshka masks.
    pub(crate) fn matryoshka_steps(&self) -> u32 {
        self.mask_steps
            .unwrap_or(patching().matryoshka_steps as u32)
    }

    /// Fails if one of these methods cannot differentiate the metric that was asked for.
    pub(crate) fn check(&self, methods: &[&About]) -> Result<(), circuitscope::eval::Error> {
        let Some(metric) = self.metric else {
            return Ok(());
        };
        let mut methods = methods.iter();
        methods.try_for_each(|about| about.check_metric(metric))
    }
}
