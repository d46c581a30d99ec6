//! What is done with a circuit that was chosen: it is run, tested, and read.

use std::time::Instant;

use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::{HeadId, Progress};
use circuitscope_eval::methods::{PatchingSettings, own_codes};
use circuitscope_eval::{
    CardSettings, CircuitTests, Evidence, KeptBySize, PromptParts, QualitySettings, TestSettings,
    circuit_quality, kept_by_size, test_circuit,
};
use circuitscope_model::Tokenizer;
use derive_setters::Setters;

use super::Found;
use crate::{Error, cards};

/// Whether a circuit is run with all other heads ablated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Judging {
    /// Where the model can be run on prompts in pairs, with the effect of its first members.
    #[default]
    Auto,
    /// Whatever it takes, with the effect of all members.
    All,
    /// Not at all; nor is it said what heads do.
    None,
}

circuitscope_core::names!(pub Judging: "way to judge a circuit" { Auto => "auto", All => "all", None => "none" });

/// What is done with a circuit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ExamineSettings {
    /// Whether it is run.
    pub judging: Judging,
    /// Random circuits that it is set beside. Default: [`QualitySettings`] and [`TestSettings`] say how many.
    pub random: Option<usize>,
    /// Whether it is put to the tests of an ideal circuit.
    pub tests: bool,
    /// Heads of which it is said what they do, whether they are in the circuit or not.
    pub explain: Vec<HeadId>,
    /// Whether codes come from a dictionary that was there already, and are not kept.
    pub given_codes: bool,
}

impl ExamineSettings {
    /// Random circuits that were asked for, and how many tests need at least, where that is more: with fewer a circuit that is ahead
    /// of all of them is not shown to be ahead of 90 %.
    #[must_use]
    pub fn too_few_draws(&self) -> Option<(usize, usize)> {
        let tests = TestSettings::default();
        let fewest = CircuitTests::fewest_draws(tests.quantile, tests.level);
        let random = self
            .random
            .filter(|random| self.tests && *random < fewest)?;
        Some((random, fewest))
    }
}

/// A part of [`examine`] that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Examined {
    /// What the circuit keeps is known: [`Found::quality`], [`Found::kept_by_size`].
    Judged,
    /// It was put to the tests: [`Found::tests`].
    Tested,
    /// What its heads do is known: [`Found::cards`].
    Described,
}

/// Runs the circuit with all other heads ablated, puts it to the tests that were asked for, and reads what its heads
/// signal; each part is told as soon as it is there. Nothing where there is no circuit, or no model to run.
///
/// `words` are the parts of the prompts and what makes tokens words. `device` is where the model is differentiated, as in
/// [`discover`](crate::discover()).
///
/// # Errors
/// [`circuitscope_eval::Error::NeedsModel`] where a model is needed for what was asked for; those of running it; those of `told`.
pub fn examine<B: AutodiffBackend, E: From<Error>>(
    found: &mut Found,
    evidence: &Evidence<B::InnerBackend>,
    words: Option<(&PromptParts, &Tokenizer)>,
    settings: &ExamineSettings,
    device: &B::Device,
    progress: &dyn Progress,
    mut told: impl FnMut(Examined, &Found) -> Result<(), E>,
) -> Result<(), E> {
    let fail = |error: circuitscope_eval::Error| E::from(error.into());
    let (circuit, seed) = (found.circuit(), found.settings.seed);
    let pairs = found.settings.methods.patching.patch_pairs;
    let causal = evidence.causal(&found.method);
    let wanted = match settings.judging {
        Judging::None => false,
        Judging::Auto => causal.is_ok(),
        Judging::All => true,
    };
    if wanted && !circuit.is_empty() {
        let start = Instant::now();
        let mut how =
            QualitySettings::default()
                .with_pairs(pairs)
                .with_members(match settings.judging {
                    Judging::All => usize::MAX,
                    _ => QualitySettings::default().members,
                });
        if let Some(random) = settings.random {
            how = how.with_random(random);
        }
        let causal = evidence.causal(&found.method).map_err(fail)?;
        let quality = circuit_quality(causal, &circuit, how, seed, progress).map_err(fail)?;
        found.quality = Some(quality);
        let ranking: Vec<HeadId> = found.heads.iter().map(|ranked| ranked.head).collect();
        // A circuit need not be the best heads.
        if ranking.starts_with(&circuit) {
            let sizes = KeptBySize::sizes(circuit.len(), ranking.len());
            let sizes = (sizes.as_slice(), circuit.len());
            let kept = kept_by_size(causal, &ranking, sizes, how.pairs, progress).map_err(fail)?;
            found.kept_by_size = Some(kept);
        }
        found.stage("judge", start);
        told(Examined::Judged, found)?;
    }
    if settings.tests && !circuit.is_empty() {
        let start = Instant::now();
        let mut how = TestSettings::default().with_pairs(pairs);
        if let Some(random) = settings.random {
            how = how.with_random(random);
        }
        let causal = evidence.causal(&found.method).map_err(fail)?;
        let tests = test_circuit(causal, &circuit, how, seed, progress).map_err(fail)?;
        found.tests = Some(tests);
        found.stage("test", start);
        told(Examined::Tested, found)?;
    }
    describe::<B>(found, evidence, words, settings, device, progress).map_err(E::from)?;
    if found.cards.is_some() {
        told(Examined::Described, found)?;
    }
    Ok(())
}

/// Reads what heads of the circuit, and those asked about, do.
fn describe<B: AutodiffBackend>(
    found: &mut Found,
    evidence: &Evidence<B::InnerBackend>,
    words: Option<(&PromptParts, &Tokenizer)>,
    settings: &ExamineSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> crate::Result<()> {
    let mut heads: Vec<HeadId> = match settings.judging {
        Judging::None => Vec::new(),
        _ => found.circuit(),
    };
    let more = settings.explain.iter().filter(|head| !heads.contains(head));
    let more: Vec<HeadId> = more.copied().collect();
    heads.extend(more);
    if heads.is_empty() {
        return Ok(());
    }
    let causal = match evidence.causal(&found.method) {
        Ok(causal) => causal,
        Err(_) if settings.explain.is_empty() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let Some(words) = words else {
        return Ok(());
    };
    let start = Instant::now();
    let rank = |head: HeadId| {
        let place = found.heads.iter().position(|ranked| ranked.head == head);
        (head, place.map_or(0, |place| place + 1))
    };
    let heads: Vec<(HeadId, usize)> = heads.into_iter().map(rank).collect();
    let (seed, methods) = (found.settings.seed, &found.settings.methods);
    let mut how = CardSettings::default().with_n_codes(methods.sae.n_codes);
    let pairs = methods.patching.gradient_pairs;
    if pairs != PatchingSettings::default().gradient_pairs {
        how = how.with_pairs(pairs);
    }
    let own = if settings.given_codes {
        None
    } else {
        own_codes(&found.method, evidence, &methods.sae, seed, progress)?
    };
    let made = cards::<B>(
        causal,
        words,
        own.as_deref(),
        &heads,
        &how,
        (seed, device),
        progress,
    )?;
    found.cards = Some(made);
    found.stage("cards", start);
    Ok(())
}
