use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::{Circuit, Progress, Seed};
use circuitscope_eval::methods::{MethodSettings, method};
use circuitscope_eval::{Evidence, Scores, Selection, Significance, significance};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How a circuit is looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiscoverSettings {
    /// Name of the method, one of [`circuitscope_eval::methods::NAMES`]. Default `sae`.
    pub method: String,
    /// Settings of the methods.
    pub methods: MethodSettings,
    /// How heads are chosen from the scores.
    pub selection: Selection,
    /// Choose by significance instead: heads that stand out from random relabellings of the prompts
    /// at this false discovery rate. Default none.
    pub false_discovery_rate: Option<f64>,
    /// The seed of every random choice.
    pub seed: Seed,
}

impl Default for DiscoverSettings {
    fn default() -> Self {
        Self {
            method: "sae".to_owned(),
            methods: MethodSettings::default(),
            selection: Selection::Otsu,
            false_discovery_rate: None,
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
    /// The heads chosen by [`DiscoverSettings::selection`], or by significance.
    pub circuit: Circuit,
    /// What the choice by significance rests on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub significance: Option<Significance>,
}

/// Scores every head of a model and chooses a circuit, in one call.
///
/// `device` is where dictionaries are trained: for burn's dispatch backend an autodiff device, for
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
    let scores = measured.scores(None)?;
    let significance = match settings.false_discovery_rate {
        None => None,
        Some(rate) => {
            // Finer p-values than one in a head's share of the rate need as many relabellings.
            let heads = scores.nodes.len() as f64;
            let count = ((heads / rate.max(0.001)).ceil() as usize).clamp(199, 9_999);
            Some(significance(
                method.name(),
                measured.as_ref(),
                evidence,
                rate,
                count,
                settings.seed.stream("significance"),
                progress,
            )?)
        }
    };
    let circuit = match &significance {
        Some(significance) => significance.circuit(&scores),
        None => settings.selection.circuit(&scores),
    };
    Ok(Discovery {
        method: settings.method.clone(),
        circuit,
        significance,
        scores,
    })
}
