use crate::{Error, Result, RocPoint};

/// Entries ranked by score, with what is true of them: all that measures of a ranking need.
///
/// An entry is chosen at threshold t if its score is at least t. Only thresholds that are scores are
/// told apart, so entries of equal score are always chosen together.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// One for each distinct score, highest first.
    steps: Vec<Step>,
    positives: u64,
    negatives: u64,
}

/// What is chosen at one threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    threshold: f64,
    true_positives: u64,
    false_positives: u64,
}

impl Step {
    fn size(self) -> u64 {
        self.true_positives + self.false_positives
    }
}

/// The best F1 of all thresholds, and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BestF1 {
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Entries of at least this score are chosen.
    pub threshold: f64,
    /// Number of entries chosen.
    pub size: usize,
}

impl Ranking {
    /// Ranks entries by score.
    ///
    /// # Shapes
    /// - `truth`, `scores`: `[entries]`
    ///
    /// # Errors
    /// [`Error::Length`]; [`Error::OneClass`] if no entry is true or none is false;
    /// [`Error::NotANumber`]. Infinite scores are fine.
    pub fn new(truth: &[bool], scores: &[f64]) -> Result<Self> {
        if truth.len() != scores.len() {
            return Err(Error::Length {
                truth: truth.len(),
                scores: scores.len(),
            });
        }
        if let Some(at) = scores.iter().position(|score| score.is_nan()) {
            return Err(Error::NotANumber { at });
        }
        let entries = truth.len();
        let positives = truth.iter().filter(|truth| **truth).count();
        if positives == 0 || positives == entries {
            let value = positives > 0;
            return Err(Error::OneClass { value, entries });
        }
        let mut order: Vec<(f64, bool)> =
            scores.iter().copied().zip(truth.iter().copied()).collect();
        // Adding 0 turns −0 into +0, which ties with it.
        order.sort_by(|a, b| (b.0 + 0.0).total_cmp(&(a.0 + 0.0)));
        let mut step = Step {
            threshold: f64::INFINITY,
            true_positives: 0,
            false_positives: 0,
        };
        let steps = order.chunk_by(|a, b| a.0 == b.0).map(|ties| {
            let true_ties = ties.iter().filter(|tie| tie.1).count() as u64;
            step = Step {
                threshold: ties[0].0,
                true_positives: step.true_positives + true_ties,
                false_positives: step.false_positives + ties.len() as u64 - true_ties,
            };
            step
        });
        Ok(Self {
            steps: steps.collect(),
            positives: positives as u64,
            negatives: (entries - positives) as u64,
        })
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        (self.positives + self.negatives) as usize
    }

    /// Number of true entries.
    pub fn positives(&self) -> usize {
        self.positives as usize
    }

    /// The ROC curve: the point (0, 0) at threshold +∞, then one point for each distinct score from
    /// the highest to the lowest, which ends at (1, 1).
    ///
    /// This is scikit-learn's `roc_curve(truth, scores, drop_intermediate=False)`. Its default drops
    /// points on straight stretches, which changes no trapezoid area.
    #[must_use]
    pub fn roc(&self) -> Vec<RocPoint> {
        let start = RocPoint {
            fpr: 0.0,
            tpr: 0.0,
            threshold: f64::INFINITY,
        };
        let points = self.steps.iter().map(|step| self.point(*step));
        std::iter::once(start).chain(points).collect()
    }

    fn point(&self, step: Step) -> RocPoint {
        RocPoint {
            fpr: step.false_positives as f64 / self.negatives as f64,
            tpr: step.true_positives as f64 / self.positives as f64,
            threshold: step.threshold,
        }
    }

    /// Area under the ROC curve by the trapezoid rule: the share of pairs of a true and a false entry
    /// that are in the right order, a tie counting one half.
    ///
    /// 1 for a perfect ranking, 0.5 for a useless one. Computed from integers with one division.
    #[must_use]
    pub fn auc(&self) -> f64 {
        // Twice the number of pairs in the right order.
        let halves: u64 = self
            .moves()
            .map(|(from, to)| {
                (to.false_positives - from.false_positives)
                    * (to.true_positives + from.true_positives)
            })
            .sum();
        halves as f64 / (2 * self.positives * self.negatives) as f64
    }

    /// Area under the lower staircase of the ROC curve, `Σ (1 − fprᵢ₊₁)(tprᵢ₊₁ − tprᵢ)`: the share of
    /// pairs of a true and a false entry that are strictly in the right order. The rule of the
    /// figures of ACDC (arXiv 2304.14997). At most [`auc`](Self::auc), and equal to it where no true
    /// entry ties with a false one.
    #[must_use]
    pub fn auc_pessimistic(&self) -> f64 {
        let pairs: u64 = self
            .moves()
            .map(|(from, to)| {
                (self.negatives - to.false_positives) * (to.true_positives - from.true_positives)
            })
            .sum();
        pairs as f64 / (self.positives * self.negatives) as f64
    }

    /// Each step with the one before it; the first starts from nothing chosen.
    fn moves(&self) -> impl Iterator<Item = (Step, Step)> {
        let start = Step {
            threshold: f64::INFINITY,
            true_positives: 0,
            false_positives: 0,
        };
        let before = std::iter::once(start).chain(self.steps.iter().copied());
        before.zip(self.steps.iter().copied())
    }

    /// Average precision, `Σ (recallᵢ₊₁ − recallᵢ) · precisionᵢ₊₁`: scikit-learn's
    /// `average_precision_score`. A useless ranking gets about the share of true entries.
    #[must_use]
    pub fn average_precision(&self) -> f64 {
        self.moves()
            .map(|(from, to)| {
                let recall = (to.true_positives - from.true_positives) as f64;
                recall / self.positives as f64 * to.true_positives as f64 / to.size() as f64
            })
            .sum()
    }

    fn f1(&self, step: Step) -> f64 {
        (2 * step.true_positives) as f64 / (step.size() + self.positives) as f64
    }

    /// The highest F1 over all thresholds; of equal ones the smallest choice.
    ///
    /// The threshold is picked with the answer at hand, so this is an upper bound of what the scores
    /// can do as a classifier, as every "best F1" is.
    #[must_use]
    pub fn best_f1(&self) -> BestF1 {
        let mut best = BestF1 {
            f1: 0.0,
            threshold: f64::INFINITY,
            size: 0,
        };
        for step in &self.steps {
            let f1 = self.f1(*step);
            if f1 > best.f1 {
                best = BestF1 {
                    f1,
                    threshold: step.threshold,
                    size: step.size() as usize,
                };
            }
        }
        best
    }

    /// Precision of the top k entries, k the number of true ones. Where the cut falls among entries
    /// of equal score, the expected precision over all their orders, so that the order in which
    /// entries are listed never matters.
    #[must_use]
    pub fn precision_at_size(&self) -> f64 {
        let mut hits = 0.0;
        for (from, to) in self.moves() {
            let room = self.positives - from.size();
            let ties = to.size() - from.size();
            let true_ties = (to.true_positives - from.true_positives) as f64;
            if ties >= room {
                hits += true_ties * room as f64 / ties as f64;
                break;
            }
            hits += true_ties;
        }
        hits / self.positives as f64
    }

    /// The highest [`RocPoint::paper_f1`] over all thresholds: what the authors' code prints as
    /// "Best F1".
    #[must_use]
    pub fn best_paper_f1(&self) -> f64 {
        self.steps
            .iter()
            .map(|step| self.point(*step).paper_f1())
            .fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranking(truth: &[u8], scores: &[f64]) -> Ranking {
        let truth: Vec<bool> = truth.iter().map(|&bit| bit == 1).collect();
        Ranking::new(&truth, scores).unwrap()
    }

    /// Ranks, from the best: true, false, {true, false}, false.
    fn example() -> Ranking {
        ranking(&[1, 0, 1, 0, 0], &[5.0, 4.0, 3.0, 3.0, 1.0])
    }

    #[test]
    fn closed_forms() {
        let ranking = example();
        let points: Vec<_> = ranking
            .roc()
            .iter()
            .map(|p| (p.fpr * 3.0, p.tpr * 2.0))
            .collect();
        assert_eq!(
            points,
            [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 2.0), (3.0, 2.0)]
        );
        // Pairs in order: the first true entry beats 3; the second beats 1, ties with 1.
        assert_eq!(ranking.auc(), 4.5 / 6.0);
        assert_eq!(ranking.auc_pessimistic(), 4.0 / 6.0);
        // Half the recall at precision 1, half at 2 of 4.
        assert_eq!(ranking.average_precision(), 0.75);
        // 1 of 1: 2/3; 1 of 2: 2/4; 2 of 4: 4/6. The smallest best one.
        let best = BestF1 {
            f1: 2.0 / 3.0,
            threshold: 5.0,
            size: 1,
        };
        assert_eq!(ranking.best_f1(), best);
        assert_eq!(ranking.precision_at_size(), 0.5);
        // tpr 1/2, fpr 0 gives 2/3; tpr 1, fpr 2/3 gives 1/2; tpr 1/2, fpr 1/3 gives 4/7.
        assert!((ranking.best_paper_f1() - 2.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn perfect_and_reversed() {
        let perfect = ranking(&[1, 1, 0, 0, 0], &[9.0, 8.0, 3.0, 2.0, 1.0]);
        assert_eq!(perfect.auc(), 1.0);
        assert_eq!(perfect.auc_pessimistic(), 1.0);
        assert_eq!(perfect.average_precision(), 1.0);
        assert_eq!(
            perfect.best_f1(),
            BestF1 {
                f1: 1.0,
                threshold: 8.0,
                size: 2
            }
        );
        assert_eq!(perfect.precision_at_size(), 1.0);
        assert_eq!(perfect.best_paper_f1(), 1.0);
        let reversed = ranking(&[0, 0, 0, 1, 1], &[9.0, 8.0, 3.0, 2.0, 1.0]);
        assert_eq!(reversed.auc(), 0.0);
        assert_eq!(reversed.auc_pessimistic(), 0.0);
        assert_eq!(reversed.precision_at_size(), 0.0);
        assert_eq!(reversed.best_paper_f1(), 0.0);
    }

    /// F1 and the authors' number under that name disagree on the same ranking.
    #[test]
    fn paper_f1_is_not_f1() {
        // One true entry of 101, ranked eleventh.
        let truth: Vec<bool> = (0..101).map(|at| at == 10).collect();
        let scores: Vec<f64> = (0..101).map(|at| -f64::from(at)).collect();
        let ranking = Ranking::new(&truth, &scores).unwrap();
        assert_eq!(ranking.best_f1().f1, 2.0 / 12.0);
        assert!((ranking.best_paper_f1() - 1.8 / 1.9).abs() < 1e-15);
    }

    #[test]
    fn ties_at_the_cut_count_by_expectation() {
        // Room for one of three ties, one of which is true.
        let ranking = ranking(&[1, 1, 0, 0], &[2.0, 1.0, 1.0, 1.0]);
        assert_eq!(ranking.precision_at_size(), f64::midpoint(1.0, 1.0 / 3.0));
    }

    #[test]
    fn zero_and_minus_zero_tie() {
        assert_eq!(ranking(&[1, 0], &[-0.0, 0.0]).auc(), 0.5);
        assert_eq!(ranking(&[0, 1], &[-0.0, 0.0]).auc(), 0.5);
    }

    #[test]
    fn refuses_what_it_cannot_judge() {
        let error =
            |truth: &[bool], scores: &[f64]| Ranking::new(truth, scores).unwrap_err().to_string();
        let one_class = |entries: usize, value: &str| {
            format!(
                "all {entries} entries of the known answer are {value}: a ranking cannot be judged"
            )
        };
        assert_eq!(
            error(&[true], &[]),
            "found 0 scores, expected 1, one for each entry of the known answer"
        );
        assert_eq!(error(&[], &[]), one_class(0, "false"));
        assert_eq!(error(&[false; 3], &[0.0; 3]), one_class(3, "false"));
        assert_eq!(error(&[true; 3], &[0.0; 3]), one_class(3, "true"));
        assert_eq!(error(&[true, false], &[0.0, f64::NAN]), "score 1 is NaN");
    }

    /// Both classes, and scores with many ties.
    fn entries() -> impl Strategy<Value = Vec<(bool, i32)>> {
        prop::collection::vec((any::<bool>(), -6i32..6), 2..40)
            .prop_filter("both classes", |entries| {
                entries.iter().any(|entry| entry.0) && entries.iter().any(|entry| !entry.0)
            })
    }

    fn of(entries: &[(bool, i32)], score: impl Fn(f64) -> f64) -> Ranking {
        let (truth, scores): (Vec<bool>, Vec<f64>) = entries
            .iter()
            .map(|&(truth, value)| (truth, score(f64::from(value))))
            .unzip();
        Ranking::new(&truth, &scores).unwrap()
    }

    proptest! {
        #[test]
        fn auc_counts_pairs_in_order(entries in entries()) {
            let (mut halves, mut strict, mut pairs) = (0, 0, 0);
            for a in entries.iter().filter(|entry| entry.0) {
                for b in entries.iter().filter(|entry| !entry.0) {
                    pairs += 1;
                    strict += i32::from(a.1 > b.1);
                    halves += i32::from(a.1 > b.1) + i32::from(a.1 >= b.1);
                }
            }
            let ranking = of(&entries, |x| x);
            prop_assert_eq!(ranking.auc(), f64::from(halves) / f64::from(2 * pairs));
            prop_assert_eq!(ranking.auc_pessimistic(), f64::from(strict) / f64::from(pairs));
            prop_assert!(ranking.auc_pessimistic() <= ranking.auc());
        }

        #[test]
        fn increasing_maps_change_nothing(entries in entries()) {
            let (before, after) = (of(&entries, |x| x), of(&entries, |x| (x / 3.0).exp() - 7.0));
            prop_assert_eq!(before.auc(), after.auc());
            prop_assert_eq!(before.auc_pessimistic(), after.auc_pessimistic());
            prop_assert_eq!(before.average_precision(), after.average_precision());
            prop_assert_eq!(before.best_f1().f1, after.best_f1().f1);
            prop_assert_eq!(before.best_f1().size, after.best_f1().size);
            prop_assert_eq!(before.precision_at_size(), after.precision_at_size());
            prop_assert_eq!(before.best_paper_f1(), after.best_paper_f1());
        }

        #[test]
        fn negated_scores_mirror_the_area(entries in entries()) {
            let (plain, negated) = (of(&entries, |x| x), of(&entries, |x| -x));
            prop_assert!((plain.auc() + negated.auc() - 1.0).abs() < 1e-15);
        }

        #[test]
        fn all_ties_are_worth_nothing(entries in entries()) {
            let ranking = of(&entries, |_| 3.0);
            let positives = entries.iter().filter(|entry| entry.0).count() as f64;
            let share = positives / entries.len() as f64;
            prop_assert_eq!(ranking.auc(), 0.5);
            prop_assert_eq!(ranking.auc_pessimistic(), 0.0);
            prop_assert!((ranking.average_precision() - share).abs() < 1e-15);
            prop_assert!((ranking.precision_at_size() - share).abs() < 1e-15);
        }

        #[test]
        fn order_of_entries_does_not_matter(entries in entries(), turn in 0usize..40) {
            let mut turned = entries.clone();
            turned.rotate_left(turn % entries.len());
            prop_assert_eq!(of(&entries, |x| x), of(&turned, |x| x));
        }

        #[test]
        fn best_f1_is_reached_at_its_threshold(entries in entries()) {
            let ranking = of(&entries, |x| x);
            let best = ranking.best_f1();
            let f1 = |threshold: f64| {
                let is_chosen = |entry: &&(bool, _)| f64::from(entry.1) >= threshold;
                let chosen = entries.iter().filter(is_chosen).count();
                let right = entries.iter().filter(is_chosen).filter(|entry| entry.0).count();
                let all = entries.iter().filter(|entry| entry.0).count();
                (2 * right) as f64 / (chosen + all) as f64
            };
            prop_assert_eq!(f1(best.threshold), best.f1);
            for (_, score) in &entries {
                prop_assert!(f1(f64::from(*score)) <= best.f1);
            }
            let chosen = entries.iter().filter(|entry| f64::from(entry.1) >= best.threshold);
            prop_assert_eq!(chosen.count(), best.size);
        }
    }
}
