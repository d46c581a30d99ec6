use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::{Progress, Seed};
use circuitscope_eval::methods::{MethodSettings, method};
use circuitscope_eval::{Choice, Chosen, Evidence, Scores, Selection, choose};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How a circuit is looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiscoverSettings {
    /// Name of the method, one of [`circuitscope_eval::methods::NAMES`]. Default `sae`.
    pub method: String,
    /// Settings of the methods.
    pub methods: MethodSettings,
    /// How heads are chosen. Default by Otsu's threshold.
    pub choice: Choice,
    /// The seed of every random choice.
    pub seed: Seed,
}

impl Default for DiscoverSettings {
    fn default() -> Self {
        Self {
            method: "sae".to_owned(),
            methods: MethodSettings::default(),
            choice: Choice::Rule(Selection::Otsu),
            seed: Seed::default(),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    let method = method::<B>(&settings.method, &settings.methods, device)?;
    let measured = method.measure(evidence, settings.seed, progress)?;
    let pairs = settings.methods.patching.patch_pairs;
    let (choice, seed) = (settings.choice, settings.seed);
    let (scores, chosen) = choose(
        choice,
        method.as_ref(),
        measured.as_ref(),
        evidence,
        pairs,
        seed,
        progress,
    )?;
    Ok(Discovery {
        method: settings.method.clone(),
        chosen,
        scores,
    })
}
