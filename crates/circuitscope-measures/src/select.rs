use core::fmt;

use circuitscope_core::{Circuit, HeadId};
use circuitscope_score::softmax;
use serde::{Deserialize, Serialize};

use crate::Scores;

/// How heads are chosen from scores where no circuit is known.
///
/// None of these is calibrated: the choice says which heads stand out, not how sure one may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Selection {
    /// Split the scores in two where the variance between the groups is largest (Otsu 1979, IEEE
    /// Trans. SMC 9:62) and take the upper group. No parameter; the default.
    Otsu,
    /// The same of the square roots of scores: more heads, some of them false. Scores are sizes of effects, and
    /// the largest few are often far above the next, which [`Otsu`](Self::Otsu) then leaves out. Scores below 0 count as 0.
    OtsuSqrt,
    /// The k heads with the highest scores.
    Top(usize),
    /// Heads whose softmax over all heads exceeds θ, as in the paper, where θ of the order of
    /// 1e-11 to 1e-10 was chosen on the ground truth.
    Softmax(f64),
}

impl fmt::Display for Selection {
    /// The rule and its parameter: `otsu`, `top:10`, `softmax:1e-11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otsu => f.write_str("otsu"),
            Self::OtsuSqrt => f.write_str("otsu-sqrt"),
            Self::Top(heads) => write!(f, "top:{heads}"),
            Self::Softmax(theta) => write!(f, "softmax:{theta:e}"),
        }
    }
}

impl Selection {
    /// The chosen heads, as a circuit without edges.
    pub fn circuit(self, scores: &Scores) -> Circuit {
        let ranking = scores.ranking();
        let chosen: Vec<HeadId> = match self {
            Self::Top(k) => ranking.iter().take(k).map(|(head, _)| *head).collect(),
            Self::Softmax(theta) => {
                let shares = softmax(&scores.nodes);
                scores
                    .grid
                    .heads()
                    .zip(shares)
                    .filter(|(_, share)| *share > theta)
                    .map(|(head, _)| head)
                    .collect()
            }
            Self::Otsu => upper(&ranking, &ranking),
            Self::OtsuSqrt => {
                let roots = ranking.iter();
                let roots: Vec<(HeadId, f64)> = roots
                    .map(|&(head, score)| (head, score.max(0.0).sqrt()))
                    .collect();
                upper(&ranking, &roots)
            }
        };
        Circuit::from_heads(scores.grid, chosen)
    }
}

/// The heads of `ranking` in the upper group of `by`, the same heads in the same order.
fn upper(ranking: &[(HeadId, f64)], by: &[(HeadId, f64)]) -> Vec<HeadId> {
    let upper = ranking[..otsu(by)].iter();
    upper.map(|(head, _)| *head).collect()
}

/// Scores that differ by no more than this share of the largest are alike.
const ROUNDING: f64 = 1e-6;

/// How many of the highest scores form the upper group. Scores that are alike but for rounding are never
/// split; if all are, none stands out.
fn otsu(ranking: &[(HeadId, f64)]) -> usize {
    let total: f64 = ranking.iter().map(|(_, score)| score).sum();
    let n = ranking.len() as f64;
    let largest = ranking.iter().map(|(_, score)| score.abs());
    let alike = ROUNDING * largest.fold(0.0, f64::max);
    let mut best = (0, 0.0);
    let mut upper = 0.0;
    for (k, pair) in ranking.windows(2).enumerate() {
        upper += pair[0].1;
        if pair[0].1 - pair[1].1 <= alike {
            continue;
        }
        let k = (k + 1) as f64;
        let gap = upper / k - (total - upper) / (n - k);
        let between = k * (n - k) * gap * gap;
        if between > best.1 {
            best = (k as usize, between);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::HeadGrid;

    fn chosen(selection: Selection, nodes: &[f64]) -> Vec<usize> {
        let scores = Scores::of_nodes(HeadGrid::new(1, nodes.len()), nodes.to_vec());
        selection
            .circuit(&scores)
            .heads()
            .map(|head| head.head)
            .collect()
    }

    #[test]
    fn otsu_separates_two_groups() {
        assert_eq!(chosen(Selection::Otsu, &[0.0, 9.0, 1.0, 10.0, 0.5]), [1, 3]);
        assert!(chosen(Selection::Otsu, &[2.0; 5]).is_empty());
        assert_eq!(chosen(Selection::Otsu, &[2.0, 2.0, 7.0]), [2]);
        let rounded: Vec<f64> = (0..30).map(|at| 2.0 + 1e-9 * f64::from(at % 7)).collect();
        assert!(chosen(Selection::Otsu, &rounded).is_empty());
    }

    #[test]
    fn otsu_equals_a_search_over_all_splits() {
        let nodes: [f64; 8] = [3.0, 8.0, 1.0, 6.0, 6.5, 0.0, 2.0, 9.0];
        let mut sorted = nodes;
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let spread = |x: &[f64]| x.iter().map(|v| (v - mean(x)).powi(2)).sum::<f64>();
        let within = |k: usize| spread(&sorted[..k]) + spread(&sorted[k..]);
        let best = (1..sorted.len())
            .min_by(|a, b| within(*a).total_cmp(&within(*b)))
            .unwrap();
        assert_eq!(chosen(Selection::Otsu, &nodes).len(), best);
    }

    #[test]
    fn roots_take_in_more() {
        let nodes = [100.0, 36.0, 25.0, 0.1, 0.0, 0.2, -1.0];
        assert_eq!(chosen(Selection::Otsu, &nodes), [0]);
        assert_eq!(chosen(Selection::OtsuSqrt, &nodes), [0, 1, 2]);
        assert!(chosen(Selection::OtsuSqrt, &[-1.0, -2.0, -3.0]).is_empty());
    }

    #[test]
    fn top_and_softmax() {
        assert_eq!(chosen(Selection::Top(2), &[1.0, 3.0, 2.0]), [1, 2]);
        assert_eq!(chosen(Selection::Softmax(0.2), &[0.0, 10.0, 10.0]), [1, 2]);
    }
}
