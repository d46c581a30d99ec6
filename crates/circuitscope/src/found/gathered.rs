//! What is known before heads are scored.

use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Progress};
use circuitscope_eval::causal::Ablation;
use circuitscope_eval::{About, Evidence, PromptParts};
use circuitscope_model::{ModelProvenance, Tokenizer};

use super::{Found, OnlyCorrect, Settings};
use crate::{
    DiscoverSettings, KnownCircuits, MetricChoice, PromptBehaviour, PromptStart, Provenance, Result,
};

/// Evidence, and what is known about it.
#[derive(Debug)]
pub struct Gathered<B: Backend> {
    /// That asked for or, where the model is not run on pairs, the one that takes its place.
    pub method: &'static About,
    /// What it starts from.
    pub evidence: Evidence<B>,
    /// The graph of the model, where one was run; what follows is of it, too.
    pub graph: Option<Graph>,
    /// Where the model came from.
    pub model: Option<ModelProvenance>,
    /// The circuit known for the task in this model, if one is, and whose it is.
    pub truth: Option<KnownCircuits>,
    /// What stands before prompts.
    pub bos: Option<PromptStart>,
    /// What limits what can be found with these prompts.
    pub prompt_warnings: Vec<String>,
    /// What the model makes of the prompts.
    pub behaviour: Option<PromptBehaviour>,
    /// Pairs that the model gets right, where only they are used.
    pub only_correct: Option<OnlyCorrect>,
    /// What makes tokens words.
    pub tokenizer: Option<Tokenizer>,
    /// The prompts as a file of pairs, where they are such.
    pub pairs: Option<String>,
    /// Named parts and variables of the prompts.
    pub parts: PromptParts,
    /// What is read from the output, where the model is run on pairs.
    pub metric: Option<MetricChoice>,
}

impl<B: Backend> Gathered<B> {
    /// Without a model: outputs of heads that were there already, and what limits what can be found with them.
    #[must_use]
    pub fn of_outputs(
        method: &'static About,
        evidence: Evidence<B>,
        prompt_warnings: Vec<String>,
    ) -> Self {
        Self {
            method,
            evidence,
            graph: None,
            model: None,
            truth: None,
            bos: None,
            prompt_warnings,
            behaviour: None,
            only_correct: None,
            tokenizer: None,
            pairs: None,
            parts: PromptParts::default(),
            metric: None,
        }
    }

    /// Mean length of what each head puts out, for methods that read it ([`Found::rank`]).
    ///
    /// # Errors
    /// As [`Evidence::norms`].
    pub fn norms(&self, progress: &dyn Progress) -> Result<Option<Vec<f64>>> {
        if self.method.needs.model {
            return Ok(None);
        }
        Ok(Some(self.evidence.norms(progress)?))
    }
}

impl Found {
    /// Everything that is known before heads are scored: of `examples`, by the settings that they are to be scored with and
    /// what takes the place of ablated heads.
    #[must_use]
    pub fn begun<B: Backend>(
        examples: String,
        gathered: &Gathered<B>,
        settings: &DiscoverSettings,
        ablation: Ablation,
        provenance: Provenance,
    ) -> Self {
        let mut found = Self::new(
            examples,
            settings.method.clone(),
            gathered.evidence.grid(),
            gathered.evidence.labels(),
            Settings {
                prepend_bos: gathered.bos.clone(),
                methods: settings.methods.clone(),
                dictionary: None,
                seed: settings.seed,
            },
            provenance,
        );
        found.prompt_warnings.clone_from(&gathered.prompt_warnings);
        found.behaviour.clone_from(&gathered.behaviour);
        found.only_correct = gathered.only_correct;
        found.metric.clone_from(&gathered.metric);
        found.ablation = gathered.metric.as_ref().map(|_| ablation);
        found.model.clone_from(&gathered.model);
        found.known_circuit = gathered.truth.as_ref().map(|known| known.known.clone());
        found
    }
}
