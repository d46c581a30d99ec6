use burn::module::Module as _;
use burn::tensor::backend::Backend;
use circuitscope_core::{HeadGrid, HeadId, Progress, Seed, draw};
use circuitscope_measures::Baseline;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::ablate::HeadCircuits;
use crate::causal::{Ablation, CausalEvidence, Metric};
use crate::words::{count, figure, join, named, percent};
use crate::{Error, Result};

/// How a chosen circuit is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct QualitySettings {
    /// Pairs of prompts that circuits are run on, at most. Default 20.
    pub pairs: usize,
    /// Random circuits of the same size. Default: 100 where their passes take no more than 2·10¹¹ operations together
    /// (two for each parameter and token), 10 where they take more.
    #[setters(strip_option)]
    pub random: Option<usize>,
    /// Members whose absence is measured, at most, in the order given. Default 20.
    pub members: usize,
}

impl Default for QualitySettings {
    fn default() -> Self {
        Self {
            pairs: 20,
            random: None,
            members: 20,
        }
    }
}

/// What a chosen set of heads keeps, what is left without it, what random sets of the same size keep, and
/// whether each member is needed; all of it in the metric itself, the mean over pairs.
///
/// Heads that are ablated are ablated for everyone that reads them; MLPs and the input stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CircuitQuality {
    /// What was read from the output.
    pub metric: Metric,
    /// What took the place of ablated heads.
    pub ablation: Ablation,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// Heads of the circuit.
    pub size: usize,
    /// The metric of the whole model.
    pub full: f64,
    /// The metric with all heads ablated.
    pub empty: f64,
    /// The metric with all heads ablated but those of the circuit.
    pub circuit: f64,
    /// The metric with the circuit's heads ablated and all others kept: near `empty` for a complete
    /// circuit (Wang et al. 2022, arXiv 2211.00593, §4.1 with K = C).
    pub without: f64,
    /// As `circuit`, of random sets of as many heads, drawn from all heads.
    pub random: Vec<f64>,
    /// For members, in the order given, what the circuit loses without each: minimality (ibid. with the
    /// circuit itself as the set). Negative for a head that works against the behaviour.
    pub marginal: Vec<(HeadId, f64)>,
    /// The head share ([`Baseline`]): what the circuit keeps of what all heads together do, `(circuit − empty) /
    /// (full − empty)`; absent where ablating all heads changes nothing.
    #[serde(
        alias = "faithfulness",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub head_share: Option<f64>,
}

/// Effects of less than this share of the whole are not worth a word.
const NOTABLE: f64 = 0.05;

/// Where ablating all heads takes less than this share of the metric, shares of what it takes say little.
pub(crate) const LITTLE: f64 = 0.2;

/// Runs a chosen circuit with all other heads ablated, the model without it, random circuits of its size
/// (`seed.nth("random-circuits", i)`), and the circuit without each member.
///
/// `circuit` is in the order of rank, so that the members that matter are measured where not all are.
///
/// # Errors
/// [`Error::Cancelled`]; [`Error::NoSuchNode`] for a head that the model does not have.
pub fn circuit_quality<B: Backend>(
    causal: &CausalEvidence<B>,
    circuit: &[HeadId],
    settings: QualitySettings,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<CircuitQuality> {
    let runs = HeadCircuits::new(causal, settings.pairs, progress)?;
    let grid = runs.grid();
    let members = indices(grid, circuit)?;
    let random = settings
        .random
        .unwrap_or_else(|| affordable(causal, runs.pairs()));
    let measured = members.len().min(settings.members);
    let stage = progress.stage("judging the circuit", (3 + random + measured) as u64);
    let mut sets = vec![
        heads_of(grid, |_| false),
        heads_of(grid, |at| members.contains(&at)),
        heads_of(grid, |at| !members.contains(&at)),
    ];
    sets.extend((0..random as u64).map(|at| random_circuit(grid, members.len(), seed, at)));
    let measured_members = &members[..measured];
    sets.extend(
        measured_members
            .iter()
            .map(|&member| heads_of(grid, |at| at != member && members.contains(&at))),
    );
    let judge = || {
        let full = runs.full();
        let values = runs.keeping_each(&sets, progress)?;
        let (empty, kept, without) = (values[0], values[1], values[2]);
        let (by_chance, less) = values[3..].split_at(random);
        let marginal = measured_members.iter().zip(less);
        let marginal = marginal.map(|(&member, less)| (grid.head(member), kept - less));
        Ok(CircuitQuality {
            metric: causal.metric(),
            ablation: causal.ablation(),
            pairs: runs.pairs(),
            size: members.len(),
            full,
            empty,
            circuit: kept,
            without,
            random: by_chance.to_vec(),
            marginal: marginal.collect(),
            head_share: Baseline { full, empty }.share(kept).ok(),
        })
    };
    let quality = judge();
    drop(stage);
    causal.located(quality)
}

/// Operations that random circuits may take together where nobody says how many there are.
const AFFORDABLE: f64 = 2e11;

/// How many random circuits are run where nobody says.
fn affordable<B: Backend>(causal: &CausalEvidence<B>, pairs: usize) -> usize {
    let tokens: usize = (causal.pairs()[..pairs].iter())
        .map(|pair| pair.clean.len())
        .sum();
    let each = 2.0 * causal.model().num_params() as f64 * tokens as f64;
    if 100.0 * each <= AFFORDABLE { 100 } else { 10 }
}

/// The heads of a model for which `kept` holds, `[heads]`.
pub(crate) fn heads_of(grid: HeadGrid, kept: impl Fn(usize) -> bool) -> Vec<bool> {
    (0..grid.len()).map(kept).collect()
}

/// Indices of heads.
///
/// # Errors
/// [`Error::NoSuchNode`].
pub(crate) fn indices(grid: HeadGrid, heads: &[HeadId]) -> Result<Vec<usize>> {
    let index = |&head: &HeadId| {
        let at = grid.index(head);
        at.ok_or(Error::NoSuchNode { node: head.into() })
    };
    heads.iter().map(index).collect()
}

/// The `at`-th random circuit of `size` heads, `[heads]`.
pub(crate) fn random_circuit(grid: HeadGrid, size: usize, seed: Seed, at: u64) -> Vec<bool> {
    let mut rng = seed.nth("random-circuits", at).rng();
    let mut heads: Vec<usize> = (0..grid.len()).collect();
    draw::choose_first(&mut rng, &mut heads, size);
    heads_of(grid, |head| heads[..size].contains(&head))
}

impl CircuitQuality {
    /// Random circuits that keep at least as much.
    pub fn random_as_good(&self) -> usize {
        let sign = if self.full < self.empty { -1.0 } else { 1.0 };
        let random = self.random.iter();
        random
            .filter(|value| sign * **value >= sign * self.circuit)
            .count()
    }

    /// The head share of random circuits, on average; absent where there are none, or ablating all heads changes nothing.
    pub fn random_share(&self) -> Option<f64> {
        let Self { full, empty, .. } = *self;
        let share = Baseline { full, empty }.share(self.random_mean()?);
        share.ok().filter(|_| self.head_share.is_some())
    }

    /// Whether ablating all heads lowers the metric by less than a fifth, or raises it: shares of the change say
    /// little then.
    pub fn is_weak(&self) -> bool {
        self.full - self.empty < LITTLE * self.full.abs()
    }

    /// The metric of random circuits, on average.
    fn random_mean(&self) -> Option<f64> {
        let count = self.random.len();
        (count > 0).then(|| self.random.iter().sum::<f64>() / count as f64)
    }

    /// Members that the circuit does better without.
    pub fn against(&self) -> Vec<HeadId> {
        let whole = (self.full - self.empty).abs();
        let sign = if self.full < self.empty { -1.0 } else { 1.0 };
        let against = self.marginal.iter();
        let against = against.filter(|(_, lost)| sign * lost < -NOTABLE * whole);
        against.map(|(head, _)| *head).collect()
    }

    /// The result in sentences, without full stops: first what is kept, then what random circuits keep,
    /// then what to be wary of.
    pub fn sentences(&self) -> Vec<String> {
        // A divergence is said as such, not as the negative number that it is maximised as.
        let divergence = self.metric == Metric::Kl;
        let value = |value: f64| figure(if divergence { -value } else { value });
        let share = match self.head_share {
            Some(_) if self.is_weak() => String::new(),
            Some(share) if share < 0.0 => " (less than with all heads ablated)".to_owned(),
            Some(share) if (0.0..=1.5).contains(&share) => {
                let chance = self.random_share();
                let chance = chance.map(|share| format!("; random {}", percent(share)));
                format!(" ({}{})", percent(share), chance.unwrap_or_default())
            }
            _ => String::new(),
        };
        let what = if divergence {
            "divergence from the whole model's prediction".to_owned()
        } else {
            named(self.metric.name())
        };
        let whole = if divergence {
            String::new()
        } else {
            format!("{} whole model, ", value(self.full))
        };
        let nats = if divergence { " nats" } else { "" };
        let mut sentences = vec![format!(
            "{what}: {whole}{}{nats} this circuit{share}, {} without it, {} with all heads ablated ({}, \
             reference {})",
            value(self.circuit),
            value(self.without),
            value(self.empty),
            count(self.pairs, "pair"),
            self.ablation
        )];
        if let Some(mean) = self.random_mean() {
            let (low, high) = self
                .random
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
                    (low.min(value), high.max(value))
                });
            let (low, high) = if divergence { (high, low) } else { (low, high) };
            sentences.push(format!(
                "{} of {}: {} on average ({} to {})",
                count(self.random.len(), "random circuit"),
                count(self.size, "head"),
                value(mean),
                value(low),
                value(high)
            ));
        }
        if self.head_share.is_none() {
            sentences.push(
                match self.ablation {
                    Ablation::Negative => {
                        "ablating all heads changes nothing: heads do not carry the difference between the prompts"
                    }
                    _ => "ablating all heads changes nothing",
                }
                .to_owned(),
            );
            return sentences;
        }
        if self.is_weak() {
            sentences.push(format!(
                "warning: ablating all heads {} the {} ({} from {}), so that what circuits keep says little; another reference, or \
                 the metric contrast, may say more",
                if self.full < self.empty { "raises" } else { "hardly lowers" },
                named(self.metric.name()),
                value(self.empty),
                value(self.full)
            ));
        }
        let as_good = self.random_as_good();
        if as_good * 10 >= self.random.len().max(1) {
            sentences.push(format!(
                "warning: {as_good} of {} keep at least as much: this circuit is not shown to be \
                 better than heads drawn at random",
                count(self.random.len(), "random circuit")
            ));
        }
        let against = self.against();
        if !against.is_empty() {
            sentences.push(format!(
                "without these the circuit does better in the {}: {}",
                named(self.metric.name()),
                join(&against)
            ));
        }
        sentences
    }

    /// What the circuit loses without each member that was measured, in a line.
    pub fn members(&self) -> Option<String> {
        if self.marginal.is_empty() {
            return None;
        }
        let sign = if self.metric == Metric::Kl { -1.0 } else { 1.0 };
        let members = self
            .marginal
            .iter()
            .map(|(head, lost)| format!("{head} {}", figure(sign * -lost)));
        let rest = self.size - self.marginal.len();
        let rest = if rest > 0 {
            format!("; {rest} more not measured")
        } else {
            String::new()
        };
        Some(format!(
            "change of the metric when one member is ablated, too: {}{rest}",
            members.collect::<Vec<_>>().join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality() -> CircuitQuality {
        CircuitQuality {
            metric: Metric::LogitDifference,
            ablation: Ablation::Negative,
            pairs: 20,
            size: 2,
            full: 11.7,
            empty: -0.3,
            circuit: 10.2,
            without: 0.1,
            random: vec![-0.3, 0.4],
            marginal: vec![(HeadId::new(3, 1), 9.5), (HeadId::new(4, 0), -1.25)],
            head_share: Some(0.875),
        }
    }

    #[test]
    fn what_is_kept_is_said_in_the_metric() {
        let quality = quality();
        let sentences = quality.sentences();
        assert_eq!(
            sentences[0],
            "logit difference: 11.7 whole model, 10.2 this circuit (88 %; random 3 %), 0.10 without it, -0.30 with \
             all heads ablated (20 pairs, reference negative)"
        );
        assert_eq!(
            sentences[1],
            "2 random circuits of 2 heads: 0.05 on average (-0.30 to 0.40)"
        );
        assert_eq!(
            sentences[2],
            "without these the circuit does better in the logit difference: L4H0"
        );
        assert_eq!(
            quality.members().unwrap(),
            "change of the metric when one member is ablated, too: L3H1 -9.50, L4H0 1.25"
        );
    }

    /// Shares that are none are not said; values are.
    #[test]
    fn no_share_below_nothing_or_far_above_everything() {
        let mut quality = quality();
        for (circuit, share) in [(-33.0, -2.74), (40.0, 3.4)] {
            quality.circuit = circuit;
            quality.head_share = Some(share);
            assert!(!quality.sentences()[0].contains('%'), "{quality:?}");
        }
    }

    #[test]
    fn a_circuit_that_chance_equals_is_warned_of() {
        let mut quality = quality();
        quality.random = vec![11.0, 0.0, 0.0];
        assert_eq!(quality.random_as_good(), 1);
        assert!(quality.sentences()[2].starts_with("warning: 1 of 3 random circuits"));
        // Where ablating raises the metric, less is more, and shares say little.
        quality.full = -5.0;
        quality.circuit = -4.0;
        assert_eq!(quality.random_as_good(), 0);
        let said = quality.sentences();
        assert!(said[2].starts_with(
            "warning: ablating all heads raises the logit difference (-0.30 from -5.00)"
        ));
        assert!(!said[0].contains('%'), "{said:?}");
    }

    #[test]
    fn shares_of_little_are_not_said() {
        let mut quality = quality();
        quality.empty = 10.0;
        let said = quality.sentences();
        assert!(!said[0].contains('%'), "{said:?}");
        assert!(
            said[2].starts_with("warning: ablating all heads hardly lowers"),
            "{said:?}"
        );
    }

    #[test]
    fn a_divergence_is_positive() {
        let mut quality = quality();
        (quality.metric, quality.full) = (Metric::Kl, 0.0);
        (quality.circuit, quality.without, quality.empty) = (-0.25, -2.0, -2.5);
        quality.random = vec![-2.4, -2.2];
        quality.head_share = Some(0.9);
        let sentences = quality.sentences();
        assert!(
            sentences[0].starts_with(
                "divergence from the whole model's prediction: 0.25 nats this circuit (90 %; random 8 \
                 %), 2.00 without it, 2.50 with all heads ablated"
            ),
            "{sentences:?}"
        );
        assert!(sentences[1].contains("2.30 on average (2.20 to 2.40)"));
    }
}
