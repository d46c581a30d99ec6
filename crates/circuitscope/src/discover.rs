use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Progress, Seed};
use circuitscope_eval::methods::{self, MethodSettings, method};
use circuitscope_eval::{Choice, ChooseSettings, Chosen, Discover, Evidence, choose};
use circuitscope_measures::Scores;
use circuitscope_tasks::TaskSpec;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::Result;

/// How a circuit is looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct DiscoverSettings {
    /// Name of the method, one of [`circuitscope_eval::methods::names`]. Default `recommended`; where the
    /// evidence came without a model, `recommended-activations` takes its place ([`Discovery::method`]).
    pub method: String,
    /// Settings of the methods.
    pub methods: MethodSettings,
    /// How heads are chosen. Default: [`Choice::default_for`] the evidence.
    pub choice: Option<Choice>,
    /// The most heads that are shown. Default: no limit.
    pub max_heads: Option<usize>,
    /// The seed of every random choice.
    pub seed: Seed,
}

impl Default for DiscoverSettings {
    fn default() -> Self {
        Self {
            method: methods::DEFAULT.name.clone().into_owned(),
            methods: MethodSettings::default(),
            choice: None,
            max_heads: None,
            seed: Seed::default(),
        }
    }
}

impl DiscoverSettings {
    /// The defaults for a task: what `circuitscope discover --task` takes, too.
    #[must_use]
    pub fn for_task(task: &TaskSpec) -> Self {
        Self {
            methods: MethodSettings::for_task(task),
            ..Self::default()
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Discovery {
    /// Name of the method.
    pub method: String,
    /// A score for each head, and for each directed pair.
    pub scores: Scores,
    /// The heads chosen, and what the choice rests on.
    #[serde(flatten)]
    pub chosen: Chosen,
}

/// Scores every head of a model and chooses a circuit, in one call.
///
/// `device` is where the model is differentiated: for burn's dispatch backend an autodiff device, for
/// every other backend the device of the evidence.
///
/// # Errors
/// An unknown method, evidence that does not suit it, or a request to stop.
pub fn discover<B: AutodiffBackend>(
    evidence: &Evidence<B::InnerBackend>,
    settings: &DiscoverSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Discovery> {
    discover_with::<B, crate::Error>(evidence, settings, device, progress, |_| Ok(()))
}

/// The same, telling the scores to `scored` as soon as they are there: choosing heads may take much longer.
///
/// # Errors
/// As [`discover`], and those of `scored`.
pub fn discover_with<B: AutodiffBackend, E: From<crate::Error>>(
    evidence: &Evidence<B::InnerBackend>,
    settings: &DiscoverSettings,
    device: &B::Device,
    progress: &dyn Progress,
    scored: impl FnOnce(&Scores) -> Result<(), E>,
) -> Result<Discovery, E> {
    let fail = |error: circuitscope_eval::Error| E::from(error.into());
    let asked = methods::about(&settings.method).map_err(fail)?;
    let name = &asked.suited(evidence.causal(&asked.name).is_ok()).name;
    let method = method::<B>(name, &settings.methods, device).map_err(fail)?;
    discover_by(method.as_ref(), evidence, settings, progress, scored)
}

/// Scores every head by a method that need not be one of this project's, and chooses a circuit. Of the settings,
/// the name of a method and the settings of methods are not read, but for the number of pairs that are run.
///
/// # Errors
/// Evidence that does not suit the method, a request to stop, and those of `scored`.
pub fn discover_by<B: Backend, E: From<crate::Error>>(
    method: &dyn Discover<B>,
    evidence: &Evidence<B>,
    settings: &DiscoverSettings,
    progress: &dyn Progress,
    scored: impl FnOnce(&Scores) -> Result<(), E>,
) -> Result<Discovery, E> {
    let fail = |error: circuitscope_eval::Error| E::from(error.into());
    let measured = method
        .measure(evidence, settings.seed, progress)
        .map_err(fail)?;
    let scores = measured.scores(None).map_err(fail)?;
    scored(&scores)?;
    let defaults = ChooseSettings::default();
    let how = ChooseSettings::default()
        .with_choice(settings.choice)
        .with_max_heads(settings.max_heads)
        .with_pairs(defaults.pairs.min(settings.methods.patching.patch_pairs))
        .with_seed(settings.seed);
    let chosen =
        choose(how, method, measured.as_ref(), &scores, evidence, progress).map_err(fail)?;
    Ok(Discovery {
        method: method.name().to_owned(),
        scores,
        chosen,
    })
}
