use burn::tensor::backend::Backend;
use circuitscope_core::{Circuit, HeadId, Progress, Seed, draw};
use circuitscope_score::stats::{Bend, Stability, half_samples, knee};
use serde::{Deserialize, Serialize};

use crate::ablate::HeadCircuits;
use crate::causal::Metric;
use crate::measures::faithfulness;
use crate::words::figure;
use crate::{
    Discover, Error, Evidence, Measured, Null, Result, Scores, Selection, Significance, null,
    significance,
};

/// How heads are chosen where no circuit is known.
///
/// What each gives on models whose circuits are known is in `docs/methods/choosing.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Heads that stand out from random relabellings of the prompts at this false discovery rate
    /// ([`significance`]). Only methods that score codes have such a null.
    FalseDiscoveryRate(f64),
    /// Heads that are among the best on at least this share of half samples of the prompts
    /// ([`Stability`]). Only methods that score a resample without starting anew can tell.
    Stability(f64),
    /// The best heads up to where faithfulness stops growing fast ([`knee`] of faithfulness over the
    /// number of heads kept): needs the model and answers, and knows what the metric knows.
    Knee,
    /// By the scores alone.
    #[serde(untagged)]
    Rule(Selection),
}

impl Choice {
    /// What is taken where nothing is asked for: [`Choice::Knee`] where the model is there with pairs of
    /// prompts, else Otsu's threshold.
    #[must_use]
    pub const fn default_for(runs_model: bool) -> Self {
        if runs_model {
            Self::Knee
        } else {
            Self::Rule(Selection::Otsu)
        }
    }

    /// Whether a number of heads was asked for, whatever they score.
    const fn is_a_number(self) -> bool {
        matches!(self, Self::Rule(Selection::Top(_)))
    }
}

/// How heads are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChooseSettings {
    /// The rule; `None` for [`Discover::choice`], else [`Choice::default_for`] the evidence. A rule that nobody asked for shows no
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

/// The curve that bends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KneeChoice {
    /// What was read from the output.
    pub metric: Metric,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// The metric of the whole model.
    pub full: f64,
    /// What the whole model loses when each of the best heads alone is ablated, best first; below 0 (above,
    /// where ablating all heads raises the metric) for heads that work against the behaviour.
    pub effects: Vec<(HeadId, f64)>,
    /// Heads in the order in which they are kept: by rank, those that work against the behaviour last.
    pub order: Vec<HeadId>,
    /// Number of heads kept, from none to all.
    pub sizes: Vec<usize>,
    /// The metric with so many heads kept, the mean over pairs.
    pub values: Vec<f64>,
    /// Faithfulness of each ([`faithfulness`]); empty where ablating all heads changes nothing.
    pub faithfulness: Vec<f64>,
    /// The metric of random circuits of the size at the knee, where the scores alone lie within chance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub random: Vec<f64>,
}

/// See [`KneeChoice::is_weak`].
const WEAK: f64 = 0.05;

impl KneeChoice {
    /// Heads among the best that work against the behaviour, with what the whole model loses without each.
    pub fn against(&self) -> Vec<(HeadId, f64)> {
        let empty = self.values.first().copied().unwrap_or(self.full);
        let effects = self.effects.iter().copied();
        effects
            .filter(|(_, effect)| is_against(*effect, self.full, empty))
            .collect()
    }

    /// Whether ablating all heads changes the metric so little that shares of the change say nothing: by less than
    /// 5 % of what the whole model has.
    pub fn is_weak(&self) -> bool {
        let empty = self.values.first().copied().unwrap_or(self.full);
        (self.full - empty).abs() < WEAK * self.full.abs()
    }

    /// Whether the circuit of `size` heads keeps more than each of the random ones.
    fn beats_random(&self, size: Option<usize>) -> bool {
        let at = self.sizes.iter().position(|kept| Some(*kept) == size);
        let Some(value) = at.map(|at| self.values[at]) else {
            return false;
        };
        let sign = if self.full < self.values[0] {
            -1.0
        } else {
            1.0
        };
        let mut random = self.random.iter();
        random.all(|random| sign * random < sign * value)
    }
}

/// Whether a head of this effect works against the behaviour by more than a fiftieth of the whole.
fn is_against(effect: f64, full: f64, empty: f64) -> bool {
    let whole = full - empty;
    effect * whole.signum() < -0.02 * whole.abs()
}

/// Best heads that [`Choice::Knee`] ablates one by one, to tell which of them work against the behaviour: a
/// ranking by size alone does not say.
const SIGNED: usize = 24;

/// Half samples that [`Choice::Stability`] takes.
const HALF_SAMPLES: usize = 100;

/// Circuits that [`Choice::Knee`] runs, at most.
const SIZES: usize = 25;

/// Random circuits that a circuit has to beat where its scores lie within chance: to beat all of them has
/// a probability of 1 in 20 by chance.
const RANDOM: usize = 19;

/// Chooses heads by `scores`, which are those of `measured` on all examples.
///
/// [`null`](crate::null()) runs first, except before [`Choice::FalseDiscoveryRate`], which has its own. Where
/// scores lie within chance no rule is followed but that of a number of heads and that of the knee: what
/// circuits keep is another witness, and such a circuit is shown if it keeps more than each of
/// [`KneeChoice::random`].
///
/// # Errors
/// [`Error::NoNull`], [`Error::NoResamples`], [`Error::NeedsModel`] where a method or the evidence does
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
    let choice = settings.choice.or_else(|| method.choice());
    let choice = choice.unwrap_or(Choice::default_for(causal.is_ok()));
    let mut chosen = Chosen {
        selection: choice,
        circuit: Circuit::from_heads(scores.grid, []),
        verdict: Verdict::NoneStandsOut,
        cut_from: None,
        null: None,
        significance: None,
        stability: None,
        knee: None,
    };
    // What cannot be done is said before long work.
    match choice {
        Choice::Knee => drop(causal?),
        Choice::Stability(_) if method.resamples() == 0 => {
            return Err(Error::NoResamples { method: name });
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
        Choice::Rule(selection) => selection.circuit(scores).heads().collect(),
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
            let curve = curve(&runs, causal.metric(), scores, progress);
            let mut curve = causal.located(curve)?;
            let size = bend(&curve)?;
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
                    curve.random = random(&runs, size, settings.seed, progress)?;
                }
                if size.is_some() && !curve.random.is_empty() && !curve.beats_random(size) {
                    chosen.verdict = Verdict::WithinChance;
                    chosen.knee = Some(curve);
                    return Ok(chosen);
                }
                if size.is_none() {
                    chosen.verdict = if curve.faithfulness.is_empty() {
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
    progress.begin("half samples", halves.len() as u64);
    for half in &halves {
        if progress.cancelled() {
            progress.end();
            return Err(Error::Cancelled);
        }
        scores.push(measured.scores(Some(half.rows()))?.nodes);
        progress.advance(1);
    }
    progress.end();
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

/// Numbers of heads to keep: every one while they are few, then growing by the least factor that needs no
/// more than [`SIZES`] of them.
fn sizes(heads: usize) -> Vec<usize> {
    let growing = |hundredths: usize| {
        let mut sizes = vec![0];
        while let Some(&last) = sizes.last().filter(|last| **last < heads) {
            sizes.push((last + 1).max(last * hundredths / 100).min(heads));
        }
        sizes
    };
    let mut hundredths = 100;
    loop {
        let sizes = growing(hundredths);
        if sizes.len() <= SIZES {
            return sizes;
        }
        hundredths += 1;
    }
}

/// What circuits of growing size keep.
fn curve<B: Backend>(
    runs: &HeadCircuits<'_, B>,
    metric: Metric,
    scores: &Scores,
    progress: &dyn Progress,
) -> Result<KneeChoice> {
    let ranking: Vec<HeadId> = scores.ranking().into_iter().map(|(head, _)| head).collect();
    let (full, grid) = (runs.full(), scores.grid);
    let kept = |heads: &[HeadId]| Circuit::from_heads(grid, heads.iter().copied()).head_mask();
    let best = &ranking[..ranking.len().min(SIGNED)];
    progress.begin("ablating the best heads", best.len() as u64);
    let without = best.iter().map(|&head| {
        let others: Vec<HeadId> = grid.heads().filter(|other| *other != head).collect();
        kept(&others)
    });
    let values = runs.keeping_each(&without.collect::<Vec<_>>(), progress);
    progress.end();
    let effects = best.iter().zip(values?);
    let effects: Vec<(HeadId, f64)> = effects.map(|(head, value)| (*head, full - value)).collect();
    let sizes = sizes(ranking.len());
    progress.begin("circuits of growing size", sizes.len() as u64);
    let measure = || {
        let empty = runs.keeping(&kept(&[]))?;
        progress.advance(1);
        let against = |head: &HeadId| {
            let effect = effects.iter().find(|(measured, _)| measured == head);
            effect.is_some_and(|(_, effect)| is_against(*effect, full, empty))
        };
        let (last, mut order): (Vec<HeadId>, Vec<HeadId>) =
            ranking.iter().partition(|head| against(head));
        order.extend(last);
        let larger = sizes[1..].iter().map(|&size| kept(&order[..size]));
        let larger: Vec<Vec<bool>> = larger.collect();
        let mut values = vec![empty];
        values.extend(runs.keeping_each(&larger, progress)?);
        Ok((values, order))
    };
    let measured: Result<_> = measure();
    progress.end();
    let (values, order) = measured?;
    let shares = values
        .iter()
        .map(|&value| faithfulness(value, values[0], full));
    Ok(KneeChoice {
        metric,
        pairs: runs.pairs(),
        full,
        effects,
        order,
        faithfulness: shares.collect::<Result<_, _>>().unwrap_or_default(),
        sizes,
        values,
        random: Vec::new(),
    })
}

/// What random circuits of one size keep, drawn from `seed.nth("knee/random", i)`.
fn random<B: Backend>(
    runs: &HeadCircuits<'_, B>,
    size: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    progress.begin("random circuits", RANDOM as u64);
    let drawn = (0..RANDOM).map(|at| {
        let mut rng = seed.nth("knee/random", at as u64).rng();
        let mut kept = vec![false; runs.grid().len()];
        kept[..size].fill(true);
        draw::shuffle(&mut rng, &mut kept);
        kept
    });
    let values = runs.keeping_each(&drawn.collect::<Vec<_>>(), progress);
    progress.end();
    values
}

/// The number of heads at the knee; `None` where the curve has none.
fn bend(curve: &KneeChoice) -> Result<Option<usize>> {
    if curve.faithfulness.len() < 3 {
        return Ok(None);
    }
    let x: Vec<f64> = curve.sizes.iter().map(|&size| size as f64).collect();
    // To keep more than the whole model has is not to be more faithful.
    let kept: Vec<f64> = (curve.faithfulness.iter())
        .map(|kept| kept.min(1.0))
        .collect();
    let found = knee(&x, &kept, Bend::Above)?;
    Ok(found.map(|knee| curve.sizes[knee.at]))
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
                "{chosen} of {heads} heads would be chosen, more than a third of the model: these scores do not part a circuit from the rest; none is shown (--select or --max-heads shows the best)"
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
                 little; another --ablation may (heads are chosen by {})",
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
        if self.selection == Choice::Knee && self.verdict == Verdict::Chosen {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_from_none_to_all() {
        assert_eq!(sizes(3), [0, 1, 2, 3]);
        assert_eq!(sizes(24), (0..=24).collect::<Vec<_>>());
        for heads in [25, 32, 144, 270, 1024, 4096] {
            let many = sizes(heads);
            assert!(many.windows(2).all(|step| step[0] < step[1]));
            assert_eq!(many[..4], [0, 1, 2, 3]);
            assert_eq!(many.last(), Some(&heads));
            assert!((15..=SIZES).contains(&many.len()), "{heads}: {many:?}");
        }
    }

    #[test]
    fn choices_are_written_by_name() {
        let json = |choice: Choice| serde_json::to_string(&choice).unwrap();
        assert_eq!(json(Choice::Rule(Selection::Otsu)), r#""otsu""#);
        assert_eq!(json(Choice::Rule(Selection::Top(3))), r#"{"top":3}"#);
        assert_eq!(json(Choice::Knee), r#""knee""#);
        assert_eq!(json(Choice::Stability(0.9)), r#"{"stability":0.9}"#);
        for choice in [
            Choice::Rule(Selection::Otsu),
            Choice::Rule(Selection::Softmax(0.5)),
            Choice::Knee,
            Choice::FalseDiscoveryRate(0.05),
        ] {
            assert_eq!(
                serde_json::from_str::<Choice>(&json(choice)).unwrap(),
                choice
            );
        }
    }
}
