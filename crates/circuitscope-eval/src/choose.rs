mod knee;

use burn::tensor::backend::Backend;
use circuitscope_core::{Circuit, HeadId, Progress, Seed};
use circuitscope_measures::{Scores, Selection};
use circuitscope_score::stats::{Stability, half_samples};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

pub use knee::KneeChoice;

use crate::ablate::HeadCircuits;
use crate::frequencies::on_halves;
use crate::words::figure;
use crate::{
    Choice, Discover, Error, Evidence, Frequencies, Measured, Null, Result, Significance, null,
    significance,
};

/// How heads are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ChooseSettings {
    /// The rule; `None` for [`About::choice`](crate::About::choice), else [`Choice::default_for`] the evidence. A rule that nobody asked for shows no
    /// circuit rather than one of more than a third of the heads.
    pub choice: Option<Choice>,
    /// The most heads that are shown: the best of those chosen.
    pub max_heads: Option<usize>,
    /// Pairs that [`Choice::Knee`] runs, at most. Default 10.
    pub pairs: usize,
    /// Where half samples and relabellings start from.
    pub seed: Seed,
}

impl Default for ChooseSettings {
    fn default() -> Self {
        Self {
            choice: None,
            max_heads: None,
            pairs: 10,
            seed: Seed::default(),
        }
    }
}

/// Why there is a circuit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// The rule chose these heads.
    Chosen,
    /// No head stands out.
    NoneStandsOut,
    /// The largest score lies within what shuffled labels give ([`Null`]).
    WithinChance,
    /// Nobody asked for this rule, and it would name so many heads: more than a third of the model.
    TooMany(usize),
    /// Faithfulness grows evenly with the number of heads: no number of heads is better than another.
    NoBend,
    /// Ablating all heads changes nothing in the metric.
    NoEffect,
}

/// Chosen heads, and what the choice rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chosen {
    /// The rule that chose.
    pub selection: Choice,
    /// The heads, as a circuit without edges.
    pub circuit: Circuit,
    /// Why there is a circuit, or none.
    pub verdict: Verdict,
    /// Heads that the rule chose, where [`ChooseSettings::max_heads`] left some of them out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cut_from: Option<usize>,
    /// Whether scores say more than shuffled labels do; absent for methods that cannot tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub null: Option<Null>,
    /// How often the rule chooses each head on half samples of the prompts, where it looks at scores alone and the method
    /// scores such samples.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frequencies: Option<Frequencies>,
    /// Of [`Choice::FalseDiscoveryRate`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub significance: Option<Significance>,
    /// Of [`Choice::Stability`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stability: Option<StableChoice>,
    /// Of [`Choice::Knee`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub knee: Option<KneeChoice>,
}

/// How often each head is among the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StableChoice {
    /// For each head, in index order, the share of half samples on which it is among the best.
    pub frequencies: Vec<f64>,
    /// How many heads are the best.
    pub best: usize,
    /// Half samples drawn.
    pub half_samples: usize,
    /// Bound on the number of heads chosen for no reason, under the assumptions of
    /// [`Stability::stable`].
    pub expected_false: f64,
}

/// Half samples that [`Choice::Stability`] takes.
const HALF_SAMPLES: usize = 100;

/// Chooses heads by `scores`, which are those of `measured` on all examples.
///
/// [`null`](crate::null()) runs first, except before [`Choice::FalseDiscoveryRate`], which has its own. Where
/// scores lie within chance no rule is followed but that of a number of heads and that of the knee: what
/// circuits keep is another witness, and such a circuit is shown if it keeps more than each of
/// [`KneeChoice::random`].
///
/// # Errors
/// [`Error::NoNull`], [`Error::NoResamples`], [`Error::KneeNeedsModel`] where a method or the evidence does
/// not have what the choice asks for; [`Error::Score`] for a share that is none; [`Error::Cancelled`].
pub fn choose<B: Backend>(
    settings: ChooseSettings,
    method: &dyn Discover<B>,
    measured: &dyn Measured,
    scores: &Scores,
    evidence: &Evidence<B>,
    progress: &dyn Progress,
) -> Result<Chosen> {
    let name = method.name();
    let causal = evidence.causal(name);
    let choice = settings.choice.or_else(|| method.about().choice);
    let choice = choice.unwrap_or(Choice::default_for(causal.is_ok()));
    let mut chosen = Chosen {
        selection: choice,
        circuit: Circuit::from_heads(scores.grid, []),
        verdict: Verdict::NoneStandsOut,
        cut_from: None,
        null: None,
        frequencies: None,
        significance: None,
        stability: None,
        knee: None,
    };
    // What cannot be done is said before long work.
    match choice {
        Choice::Knee if causal.is_err() => return Err(Error::KneeNeedsModel),
        Choice::Stability(_) if method.about().resamples == 0 => {
            return Err(Error::NoResamples {
                method: name.to_owned(),
            });
        }
        _ => {}
    }
    if !matches!(choice, Choice::FalseDiscoveryRate(_)) {
        chosen.null = null(measured, evidence, settings.seed, progress)?;
        let by_chance = chosen.null.as_ref().is_some_and(Null::within_chance);
        if by_chance && !choice.is_a_number() && choice != Choice::Knee {
            chosen.verdict = Verdict::WithinChance;
            return Ok(chosen);
        }
    }
    let by_chance = chosen.null.as_ref().is_some_and(Null::within_chance);
    let ranking = scores.ranking();
    let heads: Vec<HeadId> = match choice {
        Choice::Rule(selection) => {
            let samples = method.about().resamples.min(HALF_SAMPLES);
            if samples > 0 {
                let seed = settings.seed;
                chosen.frequencies =
                    Frequencies::of(selection, samples, measured, evidence, seed, progress)?;
            }
            selection.circuit(scores).heads().collect()
        }
        Choice::FalseDiscoveryRate(rate) => {
            // Finer p-values than one in a head's share of the rate need as many relabellings.
            let heads = scores.nodes.len() as f64;
            let count = ((heads / rate.max(0.001)).ceil() as usize).clamp(199, 9_999);
            let seed = settings.seed.stream("significance");
            let found = significance(name, measured, evidence, rate, count, seed, progress)?;
            let heads = found.selected.clone();
            chosen.significance = Some(found);
            heads
        }
        Choice::Stability(threshold) => {
            let (selected, stability) =
                stable(threshold, measured, evidence, settings.seed, progress)?;
            chosen.stability = Some(stability);
            selected
                .into_iter()
                .map(|at| scores.grid.head(at))
                .collect()
        }
        Choice::Knee => {
            let causal = evidence.causal(name)?;
            let runs = HeadCircuits::new(causal, settings.pairs, progress)?;
            let curve = knee::curve(&runs, causal.metric(), scores, progress);
            let mut curve = causal.located(curve)?;
            let size = knee::bend(&curve)?;
            if settings.choice.is_none() && curve.is_weak() {
                chosen.selection = Choice::Rule(Selection::Otsu);
                chosen.knee = Some(curve);
                if by_chance {
                    chosen.verdict = Verdict::WithinChance;
                    return Ok(chosen);
                }
                Selection::Otsu.circuit(scores).heads().collect()
            } else {
                if let Some(size) = size.filter(|_| by_chance) {
                    curve.random = knee::random(&runs, size, settings.seed, progress)?;
                }
                if size.is_some() && !curve.random.is_empty() && !curve.beats_random(size) {
                    chosen.verdict = Verdict::WithinChance;
                    chosen.knee = Some(curve);
                    return Ok(chosen);
                }
                if size.is_none() {
                    chosen.verdict = if curve.head_shares.is_empty() {
                        Verdict::NoEffect
                    } else {
                        Verdict::NoBend
                    };
                }
                let heads = curve.order[..size.unwrap_or(0)].to_vec();
                chosen.knee = Some(curve);
                heads
            }
        }
    };
    if heads.is_empty() {
        return Ok(chosen);
    }
    let asked = settings.choice.is_some() || settings.max_heads.is_some();
    if !asked && 3 * heads.len() > scores.grid.len() {
        chosen.verdict = Verdict::TooMany(heads.len());
        return Ok(chosen);
    }
    let limit = settings.max_heads.unwrap_or(usize::MAX);
    if heads.len() > limit {
        chosen.cut_from = Some(heads.len());
    }
    let best = ranking.iter().map(|(head, _)| *head);
    let best = best.filter(|head| heads.contains(head)).take(limit);
    chosen.circuit = Circuit::from_heads(scores.grid, best);
    chosen.verdict = Verdict::Chosen;
    Ok(chosen)
}

fn stable<B: Backend>(
    threshold: f64,
    measured: &dyn Measured,
    evidence: &Evidence<B>,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<(Vec<usize>, StableChoice)> {
    let best = Stability::largest_q(evidence.grid().len(), threshold, 1.0)?.max(1);
    let seed = seed.stream("stability");
    let halves = half_samples(evidence.labels(), evidence.pairs(), HALF_SAMPLES, seed)?;
    let mut scores = Vec::with_capacity(halves.len());
    on_halves(&halves, measured, progress, |found| {
        scores.push(found.nodes);
        Ok(())
    })?;
    let stability = Stability::new(&scores, best)?;
    let found = stability.stable(threshold)?;
    let choice = StableChoice {
        frequencies: stability.frequencies().to_vec(),
        best,
        half_samples: halves.len(),
        expected_false: found.expected_false,
    };
    Ok((found.selected, choice))
}

impl Chosen {
    /// Why there is this circuit, or none, in sentences without full stops; those that warn begin with
    /// `warning:`.
    pub fn sentences(&self) -> Vec<String> {
        let heads = self.circuit.grid.len();
        let size = self.circuit.heads().count();
        let mut sentences = Vec::new();
        match self.verdict {
            Verdict::Chosen => {
                if 3 * size > heads {
                    sentences.push(format!(
                        "warning: {size} of {heads} heads are more than a third of the model: that is hardly a circuit"
                    ));
                }
                sentences.extend(self.cut_from.map(|all| {
                    format!("the rule chose {all} heads, of which the best {size} are shown")
                }));
            }
            // The sentence of the null says so.
            Verdict::WithinChance => {}
            Verdict::NoneStandsOut => sentences.push("no head stands out: no circuit shown".to_owned()),
            Verdict::TooMany(chosen) => sentences.push(format!(
                "{chosen} of {heads} heads would be chosen, more than a third of the model: these scores do not part a circuit from the rest; none is shown"
            )),
            Verdict::NoBend => sentences.push(
                "what is kept grows evenly with the number of heads: no number of heads is better than another, no circuit shown"
                    .to_owned(),
            ),
            Verdict::NoEffect => sentences.push(
                "ablating all heads changes nothing in the metric: heads do not carry the difference between the prompts, no circuit shown"
                    .to_owned(),
            ),
        }
        if let Some(significance) = &self.significance {
            sentences.push(format!(
                "at most {:.0} % of these heads are expected to tell the classes apart by chance alone ({} relabellings); that is not to say that they take part",
                100.0 * significance.rate,
                significance.relabellings
            ));
        }
        if let Some(frequencies) = &self.frequencies {
            let grid = self.circuit.grid;
            sentences.push(frequencies.sentence(|at| grid.head(at)));
        }
        if let Some(stability) = &self.stability {
            sentences.push(format!(
                "heads that are among the best {} on most of {} half samples of the prompts",
                stability.best, stability.half_samples
            ));
        }
        let weak = self.knee.as_ref().filter(|knee| knee.is_weak());
        sentences.extend(weak.map(|knee| {
            format!(
                "warning: ablating all heads hardly changes the metric ({} from {}), so that what circuits keep says \
                 little; another reference may say more (heads are chosen by {})",
                figure(knee.values.first().copied().unwrap_or(knee.full)),
                figure(knee.full),
                match self.selection {
                    Choice::Knee => "the knee all the same",
                    _ => "their scores alone",
                }
            )
        }));
        let knee = self.knee.as_ref().filter(|knee| !knee.is_weak());
        let against = knee.map(KneeChoice::against).unwrap_or_default();
        if !against.is_empty() {
            let named = against
                .iter()
                .map(|(head, effect)| format!("{head} ({})", figure(*effect)));
            sentences.push(format!(
                "working against the behaviour, and left out (what the model loses without each): {}",
                named.collect::<Vec<_>>().join(", ")
            ));
        }
        let found = self.circuit.heads().count();
        if let Choice::Rule(Selection::Top(asked)) = self.selection
            && self.cut_from.is_none()
            && found < asked
        {
            sentences.push(format!(
                "top:{asked} takes all {found}: there are no more heads"
            ));
        }
        if self.selection == Choice::Knee
            && self.verdict == Verdict::Chosen
            && self.cut_from.is_none()
        {
            sentences.push(
                "more heads than these would add little to what the circuit keeps (the knee of circuits of growing size)"
                    .to_owned(),
            );
        }
        let random = self.knee.as_ref().map_or(&[][..], |knee| &knee.random);
        match &self.null {
            Some(null) if !random.is_empty() && self.verdict != Verdict::WithinChance => {
                sentences.push(format!(
                    "the largest scores alone lie within what shuffled labels give (p = {}), but the circuit \
                     keeps more than each of {} random ones of its size",
                    figure(null.p_value),
                    random.len()
                ));
            }
            null => sentences.extend(null.as_ref().map(Null::sentence)),
        }
        sentences
    }
}
