use circuitscope_core::{Polarity, Seed, draw};

use super::interval::require_finite;
use super::resample::Units;
use crate::{Error, Result};

/// `n` random relabellings of the examples under which labels mean nothing: the two labels of each
/// matched pair are swapped with probability ½, and the labels of unmatched examples are shuffled among
/// them. The size of each class stays. Relabelling `i` depends on `seed` and `i` alone.
///
/// # Shapes
/// - `labels`, each relabelling: `[examples]`
/// - `pairs`: `(positive, negative)` indices of examples, each example in at most one pair; may be empty
///
/// # Errors
/// [`Error::Pair`], [`Error::PairedTwice`], or [`Error::EmptyClass`].
pub fn relabellings(
    labels: &[Polarity],
    pairs: &[(usize, usize)],
    n: usize,
    seed: Seed,
) -> Result<Vec<Vec<Polarity>>> {
    let units = Units::new(labels, pairs)?;
    let unmatched = units.unmatched.concat();
    let relabel = |at: usize| {
        let mut rng = seed.nth("relabellings", at as u64).rng();
        let mut permuted = labels.to_vec();
        for &(positive, negative) in pairs {
            if draw::below(&mut rng, 2) == 1 {
                permuted.swap(positive, negative);
            }
        }
        let mut drawn: Vec<Polarity> = unmatched.iter().map(|&example| labels[example]).collect();
        draw::shuffle(&mut rng, &mut drawn);
        for (&example, label) in unmatched.iter().zip(drawn) {
            permuted[example] = label;
        }
        permuted
    };
    Ok((0..n).map(relabel).collect())
}

/// What scores would be if the labels meant nothing: each head's score under the true labels, and under
/// random [`relabellings`].
///
/// The null hypothesis of a head is that its codes (or vectors) do not depend on the label, within
/// pairs where examples are matched. A small p-value says that they do. It does not say that the head
/// takes part in the behaviour: in a transformer many heads read what others wrote.
///
/// Every p-value counts the true labels among the relabellings (the added 1), so it is never 0 and is
/// valid for any number of them: under the null, P(p ≤ α) ≤ α (Phipson & Smyth, Stat. Appl. Genet. Mol.
/// Biol. 9:39, 2010, arXiv 1603.05766).
#[derive(Debug, Clone, PartialEq)]
pub struct LabelNull {
    observed: Vec<f64>,
    /// `[relabellings][heads]`
    null: Vec<Vec<f64>>,
}

impl LabelNull {
    /// From scores under the true labels and under relabellings.
    ///
    /// # Shapes
    /// - `observed`: `[heads]`, under the true labels
    /// - `null`: `[relabellings][heads]`
    ///
    /// # Errors
    /// [`Error::TooFew`] without heads or relabellings; [`Error::Length`]; [`Error::Value`] for a score
    /// that is not finite.
    pub fn new(observed: Vec<f64>, null: Vec<Vec<f64>>) -> Result<Self> {
        for (what, found) in [
            ("scores under the true labels", observed.len()),
            ("relabellings", null.len()),
        ] {
            if found == 0 {
                return Err(Error::TooFew {
                    what,
                    found,
                    expected: 1,
                });
            }
        }
        require_finite("score under the true labels", &observed)?;
        for scores in &null {
            if scores.len() != observed.len() {
                return Err(Error::Length {
                    what: "scores under a relabelling",
                    found: scores.len(),
                    expected: observed.len(),
                });
            }
            require_finite("score under a relabelling", scores)?;
        }
        Ok(Self { observed, null })
    }

    /// Scores under the true labels, `[heads]`.
    pub fn observed(&self) -> &[f64] {
        &self.observed
    }

    /// Number of relabellings.
    pub fn relabellings(&self) -> usize {
        self.null.len()
    }

    /// `p_h = (1 + #{i : null_ih ≥ observed_h}) / (1 + n)` for each head h: its own score against its
    /// own null.
    ///
    /// No p-value is below 1/(1 + n), so with m heads [`benjamini_hochberg`](super::benjamini_hochberg)
    /// at α can select a single head only if n + 1 ≥ m/α (2880 for 144 heads at 0.05). Nor does it help to
    /// draw more than there are: k pairs have 2ᵏ relabellings.
    #[must_use]
    pub fn p_values(&self) -> Vec<f64> {
        self.observed
            .iter()
            .enumerate()
            .map(|(head, &observed)| {
                let extreme = self.null.iter().filter(|null| null[head] >= observed);
                (1 + extreme.count()) as f64 / (1 + self.null.len()) as f64
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::benjamini_hochberg;
    use super::*;
    use crate::{CodeTable, node_scores};
    use Polarity::{Negative, Positive};
    use circuitscope_core::HeadGrid;
    use proptest::prelude::*;

    #[test]
    fn closed_forms() {
        let null = LabelNull::new(
            vec![3.0, 1.0],
            vec![vec![0.0, 1.0], vec![3.0, 0.0], vec![2.0, 2.0]],
        )
        .unwrap();
        // Head 0: one of three reaches 3. Head 1: two of three reach 1.
        assert_eq!(null.p_values(), [2.0 / 4.0, 3.0 / 4.0]);
        assert_eq!(null.relabellings(), 3);
    }

    #[test]
    fn refuses_what_is_no_null() {
        let error = |observed: &[f64], null: &[&[f64]]| {
            let null = null.iter().map(|scores| scores.to_vec()).collect();
            LabelNull::new(observed.to_vec(), null).unwrap_err()
        };
        assert!(matches!(error(&[], &[&[]]), Error::TooFew { .. }));
        assert!(matches!(error(&[1.0], &[]), Error::TooFew { .. }));
        assert!(matches!(
            error(&[1.0], &[&[1.0, 2.0]]),
            Error::Length { .. }
        ));
        assert!(matches!(error(&[1.0], &[&[f64::NAN]]), Error::Value { .. }));
    }

    proptest! {
        #[test]
        fn relabellings_keep_pairs_and_classes(k in 0usize..5, p in 1usize..5, n in 1usize..5) {
            let mut labels = [Positive, Negative].repeat(k);
            labels.extend([vec![Positive; p], vec![Negative; n]].concat());
            let pairs: Vec<_> = (0..k).map(|at| (2 * at, 2 * at + 1)).collect();
            for other in relabellings(&labels, &pairs, 20, Seed::new(4)).unwrap() {
                prop_assert!(pairs.iter().all(|&(a, b)| other[a] != other[b]));
                let positives = other.iter().filter(|&&label| label == Positive).count();
                prop_assert_eq!(positives, k + p);
            }
        }
    }

    /// Each swap is a fair coin: five standard deviations.
    #[test]
    fn pairs_swap_half_of_the_time() {
        let n = 4000;
        let swapped = relabellings(&[Positive, Negative], &[(0, 1)], n, Seed::new(1))
            .unwrap()
            .iter()
            .filter(|labels| labels[0] == Negative)
            .count();
        assert!((swapped as f64 - n as f64 / 2.0).abs() < 5.0 * (n as f64 / 4.0).sqrt());
    }

    /// The null of codes, as their relabellings score.
    fn null_of(
        table: &CodeTable,
        pairs: &[(usize, usize)],
        n: usize,
        seed: Seed,
        score: fn(&crate::NodeScore) -> f64,
    ) -> LabelNull {
        let scores = |table: &CodeTable| node_scores(table).unwrap().iter().map(score).collect();
        let others = relabellings(table.labels(), pairs, n, seed).unwrap();
        let others = others
            .into_iter()
            .map(|labels| scores(&table.with_labels(labels).unwrap()));
        LabelNull::new(scores(table), others.collect()).unwrap()
    }

    /// Three pairs have eight relabellings, all equally likely: the p-value of a head whose codes
    /// follow the label is that of the one relabelling in eight that scores as high.
    #[test]
    fn p_value_of_a_perfect_head_is_the_share_of_relabellings_as_good() {
        let table = CodeTable::new(
            HeadGrid::new(1, 1),
            vec![Positive, Positive, Positive, Negative, Negative, Negative],
            vec![1, 2, 3, 0, 0, 0],
        )
        .unwrap();
        let n = 4000;
        let pairs = [(0, 3), (1, 4), (2, 5)];
        let null = null_of(&table, &pairs, n, Seed::new(3), |score| {
            f64::from(score.unique)
        });
        let error = (1.0 / 8.0 * 7.0 / 8.0 / n as f64).sqrt();
        assert!((null.p_values()[0] - 1.0 / 8.0).abs() < 5.0 * error);
    }

    /// Codes that do not depend on the label: the share of tables on which Benjamini-Hochberg at 0.2
    /// selects any head is the false discovery rate, and at most 0.2. Bound: three standard errors.
    #[test]
    fn realised_rate_is_at_most_the_stated_one() {
        let (tables, alpha, heads, k) = (200, 0.2, 6, 8);
        let labels = [Positive, Negative].repeat(k);
        let pairs: Vec<_> = (0..k).map(|at| (2 * at, 2 * at + 1)).collect();
        let mut any = 0;
        for at in 0..tables {
            let mut rng = Seed::new(7).nth("table", at).rng();
            // Few codes for the first heads, many for the last: unlike nulls.
            let codes = (0..2 * k * heads)
                .map(|cell| draw::below(&mut rng, 2 + 3 * (cell % heads)) as i32)
                .collect();
            let table = CodeTable::new(HeadGrid::new(1, heads), labels.clone(), codes).unwrap();
            let null = null_of(&table, &pairs, 99, Seed::new(at), |score| score.normalised);
            let q = benjamini_hochberg(&null.p_values()).unwrap();
            any += usize::from(q.iter().any(|&q| q <= alpha));
        }
        let rate = any as f64 / tables as f64;
        let error = (alpha * (1.0 - alpha) / tables as f64).sqrt();
        assert!(rate <= alpha + 3.0 * error, "{rate}");
        assert!(any > 0, "a test that never rejects");
    }
}
