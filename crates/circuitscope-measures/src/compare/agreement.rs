use std::collections::BTreeSet;

use circuitscope_core::HeadId;
use circuitscope_score::stats::{chance_jaccard, jaccard};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Side;
use crate::spearman;

/// Down to this many heads the tops of both rankings are compared.
const TOPS: usize = 50;

/// How alike two circuits, and two orders of the same heads, are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Agreement {
    /// Heads in both circuits.
    pub both: usize,
    /// Heads only in A's.
    pub only_a: usize,
    /// Heads only in B's.
    pub only_b: usize,
    /// Heads that two random circuits of these sizes have in common on average.
    pub both_by_chance: f64,
    /// How often two random circuits of these sizes have as many in common, or more (hypergeometric).
    pub as_many_by_chance: f64,
    /// Heads in both over heads in either; 1 for two empty circuits.
    pub jaccard: f64,
    /// What two random circuits of these sizes have on average.
    pub jaccard_by_chance: f64,
    /// Spearman's ρ of the scores of all heads; absent where those of one are all equal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spearman: Option<f64>,
    /// Spearman's ρ of the effects of all heads, with their signs; absent where one has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spearman_effects: Option<f64>,
    /// What the k heads ranked first have in common, for k from 1 to 50 or all heads.
    pub top: Vec<TopOverlap>,
}

/// What the first heads of both rankings have in common.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopOverlap {
    /// How many heads are the first.
    pub k: usize,
    /// Heads among the first of both; where equal scores lie on the border, the mean over all ways to break both ties.
    pub both: f64,
    /// What two random orders have on average: k² over the number of heads.
    pub by_chance: f64,
}

impl Agreement {
    pub(super) fn of(a: &Side, b: &Side) -> Self {
        let members = |side: &Side| -> BTreeSet<HeadId> {
            side.circuit.iter().map(|member| member.head).collect()
        };
        let (first, second) = (members(a), members(b));
        let all = a.scores.len();
        let both = first.intersection(&second).count();
        let effects = a.effects.as_ref().zip(b.effects.as_ref());
        Self {
            both,
            only_a: first.len() - both,
            only_b: second.len() - both,
            both_by_chance: if all == 0 {
                0.0
            } else {
                (first.len() * second.len()) as f64 / all as f64
            },
            as_many_by_chance: as_many_by_chance(both, first.len(), second.len(), all),
            jaccard: jaccard(&first, &second),
            jaccard_by_chance: chance_jaccard(first.len(), second.len(), all),
            spearman: spearman(&a.scores, &b.scores),
            spearman_effects: effects.and_then(|(a, b)| spearman(a, b)),
            top: (1..=all.min(TOPS))
                .map(|k| TopOverlap {
                    k,
                    both: top_overlap(&a.scores, &b.scores, k),
                    by_chance: (k * k) as f64 / all as f64,
                })
                .collect(),
        }
    }
}

/// Heads that the first `k` of both orders have in common on average, ties broken at random.
fn top_overlap(a: &[f64], b: &[f64], k: usize) -> f64 {
    let (a, b) = (shares_of_top(a, k), shares_of_top(b, k));
    a.iter().zip(&b).map(|(a, b)| a * b).sum()
}

/// How likely each is among the first `k` where ties are broken at random; `k` from 1 to their number.
fn shares_of_top(scores: &[f64], k: usize) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let border = sorted[k - 1];
    let above = scores.iter().filter(|score| **score > border).count();
    let tied = scores.iter().filter(|score| **score == border).count();
    let share = |score: &f64| {
        if *score > border {
            1.0
        } else if *score == border {
            (k - above) as f64 / tied as f64
        } else {
            0.0
        }
    };
    scores.iter().map(share).collect()
}

/// How often random sets of `a` and `b` members `among` have `common` or more in common.
fn as_many_by_chance(common: usize, a: usize, b: usize, among: usize) -> f64 {
    let ln_choose = |n: usize, k: usize| -> f64 {
        let terms = (0..k.min(n - k)).map(|i| ((n - i) as f64 / (i + 1) as f64).ln());
        terms.sum()
    };
    let least = (a + b).saturating_sub(among);
    if common <= least {
        return 1.0;
    }
    let all = ln_choose(among, a);
    let terms = (common..=a.min(b)).map(|both| {
        let ways = ln_choose(b, both) + ln_choose(among - b, a - both);
        (ways - all).exp()
    });
    terms.sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of 4, sets of 2 and 2 have 2 in common in 1 of 6 draws, 1 in 4 of 6.
    #[test]
    fn tails_by_hand() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12);
        close(as_many_by_chance(2, 2, 2, 4), 1.0 / 6.0);
        close(as_many_by_chance(1, 2, 2, 4), 5.0 / 6.0);
        close(as_many_by_chance(0, 2, 2, 4), 1.0);
        // Sets that must have something in common.
        close(as_many_by_chance(2, 3, 3, 4), 1.0);
        close(as_many_by_chance(3, 3, 3, 4), 0.25);
        close(as_many_by_chance(0, 0, 0, 0), 1.0);
    }

    #[test]
    fn ties_on_the_border_count_by_expectation() {
        let (a, b) = ([3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0]);
        let tops = |a: &[f64], b: &[f64]| (1..=4).map(|k| top_overlap(a, b, k)).collect::<Vec<_>>();
        assert_eq!(tops(&a, &b), [1.0, 1.0, 3.0, 4.0]);
        // The second and third tie on one side: each is among the first two half of the time.
        assert_eq!(tops(&a, &[3.0, 1.0, 1.0, 0.0]), [1.0, 1.5, 3.0, 4.0]);
        // All tie: what chance gives.
        assert_eq!(tops(&[0.0; 4], &[0.0; 4]), [0.25, 1.0, 2.25, 4.0]);
    }
}
