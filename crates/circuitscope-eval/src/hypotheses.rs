use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Progress, Seed, draw};
use circuitscope_score::stats::{Hsic, binomial_at_least};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::ablate::HeadCircuits;
use crate::causal::{Ablation, CausalEvidence, Metric};
use crate::quality::{heads_of, indices, random_circuit};
use crate::words::{count, join, named, percent};
use crate::{Error, Result};

/// How a circuit is tested.
#[derive(Debug, Clone, Copy, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct TestSettings {
    /// Pairs of prompts that circuits are run on, at most. Default 20.
    pub pairs: usize,
    /// Random circuits, and random heads that are added to the circuit. Default 100.
    pub random: usize,
    /// Permutations of the test of independence. Default 1000.
    pub permutations: usize,
    /// The share q of random draws that a circuit, or a member of it, is to be ahead of. Default 0.9.
    pub quantile: f64,
    /// How far from ½ the share of pairs may lie on which an equivalent circuit is above the model, ε. Default 0.1.
    pub tolerance: f64,
    /// The level of the tests. Default 0.05.
    pub level: f64,
}

impl Default for TestSettings {
    fn default() -> Self {
        Self {
            pairs: 20,
            random: 100,
            permutations: 1000,
            quantile: 0.9,
            tolerance: 0.1,
            level: 0.05,
        }
    }
}

/// Five tests of a circuit (Shi et al. 2024, "Hypothesis Testing the Circuit Hypothesis in LLMs", arXiv 2410.13032),
/// for circuits of whole heads.
///
/// Two circuits differ by the mean over pairs of how far apart their metrics are. The first three tests are of what an ideal
/// circuit is: to reject one is to show that it is not ideal. The last two ask for more than random circuits: to reject
/// is to show that it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CircuitTests {
    /// What was read from the output.
    pub metric: Metric,
    /// What took the place of ablated heads.
    pub ablation: Ablation,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// Heads of the circuit.
    pub size: usize,
    /// The share q of the tests that count random draws.
    pub quantile: f64,
    /// ε of the test of equivalence.
    pub tolerance: f64,
    /// The level of the tests.
    pub level: f64,
    /// Null hypothesis: circuit and model are above each other on as many pairs, within ε.
    pub equivalence: Equivalence,
    /// Null hypothesis: what the model does without the circuit is independent of what it does whole, pair by pair.
    pub independence: Hsic,
    /// Null hypothesis, for each member: to ablate it changes the circuit more than to ablate a random head that was added to
    /// it, in a share q of draws. Absent where there is no other head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimality: Option<Vec<MemberTest>>,
    /// Null hypothesis: the circuit is nearer to the model than a random circuit of its size in no more than a share q.
    pub sufficiency: Draws,
    /// Null hypothesis: to ablate the circuit changes the model more than to ablate a random circuit of its size in no
    /// more than a share q.
    pub partial_necessity: Draws,
}

/// On how many pairs a circuit is above the whole model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Equivalence {
    /// Pairs on which the circuit's metric is above the model's.
    pub above: usize,
    /// Pairs on which they differ.
    pub of: usize,
    /// `P(|X / n − ½| ≥ |above / n − ½|)` of a binomial of the `n` pairs on which they differ, with probability ½ + ε.
    pub p_value: f64,
}

impl Equivalence {
    fn new(circuit: &[f64], full: &[f64], tolerance: f64) -> Self {
        let differ = circuit.iter().zip(full).filter(|(a, b)| a != b);
        let of = differ.clone().count();
        let above = differ.filter(|(a, b)| a > b).count();
        // As far from the middle on either side.
        let far = above.max(of - above);
        let p_value = if 2 * far == of {
            1.0
        } else {
            let p = 0.5 + tolerance;
            binomial_at_least(far, of, p) + binomial_at_least(far, of, 1.0 - p)
        };
        Self { above, of, p_value }
    }
}

/// How many random draws something is ahead of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Draws {
    /// Draws that it is ahead of.
    pub ahead: usize,
    /// Draws.
    pub of: usize,
    /// Of the null hypothesis, by a binomial of probability q.
    pub p_value: f64,
}

/// What a member of a circuit matters beside random heads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MemberTest {
    /// The member.
    pub head: HeadId,
    /// How much ablating it changes the circuit.
    pub change: f64,
    /// Draws of a random head, `p_value` not yet multiplied by the number of members.
    #[serde(flatten)]
    pub draws: Draws,
}

/// Tests `circuit`: 2 · `random` runs and one for each member and each other head drawn, besides two.
///
/// Random circuits are those of [`circuit_quality`](crate::circuit_quality) with the same seed; the heads that are added to the
/// circuit are drawn from stream `random-members`, the permutations from `independence`.
///
/// # Errors
/// [`Error::NoTests`] for a metric that compares with the whole model; [`Error::NoSuchNode`]; [`Error::Cancelled`];
/// [`Error::Score`] for fewer than 2 pairs.
pub fn test_circuit<B: Backend>(
    causal: &CausalEvidence<B>,
    circuit: &[HeadId],
    settings: TestSettings,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<CircuitTests> {
    if causal.metric() == Metric::Kl {
        return Err(Error::NoTests {
            metric: causal.metric(),
        });
    }
    let runs = HeadCircuits::new(causal, settings.pairs, progress)?;
    let grid = runs.grid();
    let members = indices(grid, circuit)?;
    let inside = heads_of(grid, |at| members.contains(&at));
    let others: Vec<usize> = (0..grid.len()).filter(|&at| !inside[at]).collect();

    let mut rng = seed.stream("random-members").rng();
    let added: Vec<usize> = if others.is_empty() {
        Vec::new()
    } else {
        (0..settings.random)
            .map(|_| others[draw::below(&mut rng, others.len())])
            .collect()
    };
    let distinct: Vec<usize> = others
        .iter()
        .copied()
        .filter(|at| added.contains(at))
        .collect();

    let random =
        (0..settings.random as u64).map(|at| random_circuit(grid, members.len(), seed, at));
    let random: Vec<Vec<bool>> = random.collect();
    let without = |set: &Vec<bool>| set.iter().map(|kept| !kept).collect::<Vec<bool>>();
    let mut sets = vec![inside.clone(), without(&inside)];
    sets.extend(random.iter().cloned());
    sets.extend(random.iter().map(without));
    let changed = |at: usize| heads_of(grid, |other| inside[other] != (other == at));
    sets.extend(members.iter().map(|&member| changed(member)));
    sets.extend(distinct.iter().map(|&other| changed(other)));

    let stage = progress.stage("testing the circuit", sets.len() as u64);
    let values = runs.of_pairs(&sets, progress);
    drop(stage);
    let values = causal.located(values)?;
    let full = runs.full_of_pairs();
    let (kept, rest) = (&values[0], &values[1]);
    let (random, values) = values[2..].split_at(settings.random);
    let (random_rest, values) = values.split_at(settings.random);
    let (less, more) = values.split_at(members.len());

    let q = settings.quantile;
    let more_than = |ahead: usize, of: usize| Draws {
        ahead,
        of,
        p_value: binomial_at_least(ahead, of, q),
    };
    let fewer_than = |ahead: usize, of: usize| Draws {
        ahead,
        of,
        p_value: binomial_at_least(of - ahead, of, 1.0 - q),
    };
    let own = distance(kept, full);
    let nearer = random.iter().filter(|random| own < distance(random, full));
    let knocked = distance(rest, full);
    let further = random_rest
        .iter()
        .filter(|random| knocked > distance(random, full));
    let of_other = |at: &usize| {
        let found = distinct.iter().position(|other| other == at);
        distance(
            &more[found.unwrap_or_else(|| unreachable!("every head drawn was run"))],
            kept,
        )
    };
    let of_others: Vec<f64> = added.iter().map(of_other).collect();
    let member = |(&head, less): (&HeadId, &Vec<f64>)| {
        let change = distance(less, kept);
        let ahead = of_others.iter().filter(|other| change > **other).count();
        MemberTest {
            head,
            change,
            draws: fewer_than(ahead, of_others.len()),
        }
    };
    Ok(CircuitTests {
        metric: causal.metric(),
        ablation: causal.ablation(),
        pairs: runs.pairs(),
        size: members.len(),
        quantile: q,
        tolerance: settings.tolerance,
        level: settings.level,
        equivalence: Equivalence::new(kept, full, settings.tolerance),
        independence: Hsic::new(
            rest,
            full,
            settings.permutations,
            seed.stream("independence"),
        )?,
        minimality: (!added.is_empty()).then(|| circuit.iter().zip(less).map(member).collect()),
        sufficiency: more_than(nearer.count(), random.len()),
        partial_necessity: more_than(further.count(), random.len()),
    })
}

/// How far apart two circuits are, on average over pairs.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
}

impl CircuitTests {
    /// Random draws with fewer of which nothing can be shown to be ahead of a share `quantile` of them at a level, were it ahead of all.
    ///
    /// ```
    /// use circuitscope_eval::CircuitTests;
    /// assert_eq!(CircuitTests::fewest_draws(0.9, 0.05), 29);
    /// ```
    #[must_use]
    pub fn fewest_draws(quantile: f64, level: f64) -> usize {
        (level.ln() / quantile.ln()).ceil() as usize
    }

    /// Members of which it is shown that a random head would matter as much: each p-value times the number of
    /// members (Bonferroni) is at most the level.
    pub fn superfluous(&self) -> Vec<HeadId> {
        let members = self.minimality.as_deref().unwrap_or_default();
        let shown = members
            .iter()
            .filter(|member| self.corrected(member) <= self.level);
        shown.map(|member| member.head).collect()
    }

    fn corrected(&self, member: &MemberTest) -> f64 {
        (member.draws.p_value * self.size as f64).min(1.0)
    }

    /// The results in sentences, without full stops: of each test what was seen, its p-value, and what that says and
    /// does not say.
    pub fn sentences(&self) -> Vec<String> {
        let level = self.level;
        let q = percent(self.quantile);
        let metric = named(self.metric.name());
        let Equivalence { above, of, p_value } = self.equivalence;
        let mut sentences = vec![format!(
            "equivalence {}: the {metric} of the circuit is {}",
            verdict(p_value, level, ["refuted", "not refuted"]),
            match of {
                0 => "that of the whole model on every pair".to_owned(),
                _ => format!(
                    "above the whole model's on {above} of {} that it differs on{}",
                    count(of, "pair"),
                    if p_value <= level {
                        ": they do not do equally well"
                    } else {
                        ", which shows no difference, and does not show that there is none"
                    }
                ),
            }
        )];
        if self.minimality.is_none() {
            sentences.push(
                "the circuit is all heads: nothing is left without it, and every random circuit of its size is the same, so that \
                 the other tests say nothing"
                    .to_owned(),
            );
            return sentences;
        }
        let Hsic { statistic, p_value } = self.independence;
        sentences.push(format!(
            "independence {}: without the circuit the {metric} {} (HSIC {statistic:.2})",
            verdict(p_value, level, ["refuted", "not refuted"]),
            if p_value <= level {
                "still goes with the whole model's from pair to pair: something of the behaviour is left"
            } else {
                "does not go with the whole model's from pair to pair as far as these pairs show; it may still be there on all alike"
            }
        ));
        sentences.push(self.minimality_sentence());
        let shown = |draws: Draws| verdict(draws.p_value, level, ["shown", "not shown"]);
        let of_random = |draws: Draws| {
            format!(
                "{} of {} of {}",
                draws.ahead,
                count(draws.of, "random circuit"),
                count(self.size, "head")
            )
        };
        let expected = |draws: Draws| {
            if draws.p_value <= level {
                String::new()
            } else {
                format!("; expected clearly more than {q}")
            }
        };
        sentences.push(format!(
            "sufficiency {}: pair by pair it is nearer to the whole model than {}{}; nearer, not near",
            shown(self.sufficiency),
            of_random(self.sufficiency),
            expected(self.sufficiency)
        ));
        sentences.push(format!(
            "partial necessity {}: ablating it changes the model more than ablating {}{}; other heads may be needed, too",
            shown(self.partial_necessity),
            of_random(self.partial_necessity),
            expected(self.partial_necessity)
        ));
        sentences
    }

    fn minimality_sentence(&self) -> String {
        let members = self.minimality.as_deref().unwrap_or_default();
        let least = members
            .iter()
            .map(|member| self.corrected(member))
            .fold(1.0, f64::min);
        let superfluous = self.superfluous();
        let said = if superfluous.is_empty() {
            format!(
                "no member is shown to matter less than {} of heads added at random; that none could be left out is not shown",
                percent(self.quantile)
            )
        } else {
            format!(
                "these do not matter more than {} of heads added to the circuit at random: {}",
                percent(self.quantile),
                join(&superfluous)
            )
        };
        format!(
            "minimality {}: {said}",
            verdict(least, self.level, ["refuted", "not refuted"])
        )
    }
}

/// The word for a p-value at most the level or above it, and the p-value.
fn verdict(p: f64, level: f64, words: [&str; 2]) -> String {
    let word = words[usize::from(p > level)];
    if p < 0.001 {
        format!("{word} (p < 0.001)")
    } else {
        format!("{word} (p = {p:.3})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 pairs, ε = 0.1, by hand: all on one side, `0.6²⁰ + 0.4²⁰`; equal numbers say nothing; pairs that do not differ are
    /// not counted.
    #[test]
    fn equivalence() {
        let full = vec![1.0; 20];
        let test = |above: usize, same: usize| {
            let value = |at: usize| match at {
                at if at < above => 2.0,
                at if at < above + same => 1.0,
                _ => 0.0,
            };
            Equivalence::new(&(0..20).map(value).collect::<Vec<f64>>(), &full, 0.1)
        };
        let far = 0.6f64.powi(20) + 0.4f64.powi(20);
        for all in [test(20, 0), test(0, 0)] {
            assert!((all.p_value - far).abs() < 1e-15, "{all:?}");
        }
        assert_eq!(test(10, 0).p_value, 1.0);
        let same = test(0, 20);
        assert_eq!((same.of, same.p_value), (0, 1.0));
        let some = test(5, 10);
        assert_eq!((some.above, some.of, some.p_value), (5, 10, 1.0));
    }

    fn tests() -> CircuitTests {
        let draws = |ahead, p_value| Draws {
            ahead,
            of: 100,
            p_value,
        };
        let member = |head, ahead, p_value| MemberTest {
            head,
            change: 1.0,
            draws: draws(ahead, p_value),
        };
        CircuitTests {
            metric: Metric::LogitDifference,
            ablation: Ablation::Negative,
            pairs: 20,
            size: 2,
            quantile: 0.9,
            tolerance: 0.1,
            level: 0.05,
            equivalence: Equivalence {
                above: 2,
                of: 20,
                p_value: 0.0036,
            },
            independence: Hsic {
                statistic: 0.012,
                p_value: 0.31,
            },
            minimality: Some(vec![
                member(HeadId::new(3, 1), 100, 1.0),
                member(HeadId::new(2, 0), 50, 1e-20),
            ]),
            sufficiency: draws(100, 2.7e-5),
            partial_necessity: draws(91, 0.45),
        }
    }

    #[test]
    fn results_say_what_they_mean() {
        assert_eq!(
            tests().sentences(),
            [
                "equivalence refuted (p = 0.004): the logit difference of the circuit is above the whole model's on 2 of 20 \
                 pairs that it differs on: they do not do equally well",
                "independence not refuted (p = 0.310): without the circuit the logit difference does not go with the whole \
                 model's from pair to pair as far as these pairs show; it may still be there on all alike (HSIC 0.01)",
                "minimality refuted (p < 0.001): these do not matter more than 90 % of heads added to the circuit at random: \
                 L2H0",
                "sufficiency shown (p < 0.001): pair by pair it is nearer to the whole model than 100 of 100 random circuits of 2 heads; \
                 nearer, not near",
                "partial necessity not shown (p = 0.450): ablating it changes the model more than ablating 91 of 100 random \
                 circuits of 2 heads; expected clearly more than 90 %; other heads may be needed, too",
            ]
        );
    }

    /// Many members: one in twenty would be called superfluous without a correction.
    #[test]
    fn members_are_many() {
        let mut tests = tests();
        let Some(members) = &mut tests.minimality else {
            panic!("there are members")
        };
        members[1].draws.p_value = 0.04;
        assert!(tests.superfluous().is_empty());
        assert!(tests.sentences()[2].starts_with("minimality not refuted (p = 0.080)"));
    }
}
