use crate::columns::Columns;
use crate::{CodeTable, Result};

/// Mutual information between each head's code and the label, in nats: how much one learns of the
/// class of a prompt from the head's code.
///
/// `I(Z; Y) = H(Z) + H(Y) − H(Z, Y)` of the observed shares, with the correction of Miller (1955) for
/// the upward bias of few observations, `(|Z| + |Y| − |ZY| − 1) / 2n`, where `|·|` counts the values
/// that occur. Unlike the count of unique codes it weighs a code by how often it occurs, and a code that
/// is merely more frequent on one side counts, too. At most ln 2 plus the correction; may be a little
/// below 0 where code and label are independent.
///
/// One entry for each head, in layer-major order.
///
/// # Errors
/// [`Error::EmptyClass`](crate::Error::EmptyClass).
///
/// # Examples
/// ```
/// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
/// use circuitscope_score::{CodeTable, mutual_information};
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// // The first head tells the classes apart, the second says the same of all.
/// let labels = vec![Positive, Positive, Negative, Negative];
/// let codes = vec![
///     1, 7, //
///     1, 7, //
///     2, 7, //
///     2, 7,
/// ];
/// let table = CodeTable::new(HeadGrid::new(1, 2), labels, codes)?;
/// let information = mutual_information(&table)?;
/// assert!((information[0] - (2f64.ln() + 1.0 / 8.0)).abs() < 1e-12);
/// assert_eq!(information[1], 0.0);
/// # Ok(())
/// # }
/// ```
pub fn mutual_information(table: &CodeTable) -> Result<Vec<f64>> {
    table.require_both_classes()?;
    let columns = Columns::of(table);
    let n = table.examples() as f64;
    let negatives = columns.negatives as f64;
    let of_labels = entropy([negatives, n - negatives].into_iter(), n);
    let heads = columns.columns.iter().map(|column| {
        let mut counts = vec![[0u32; 2]; column.distinct];
        for (at, &code) in column.codes.iter().enumerate() {
            counts[code as usize][usize::from(at >= columns.negatives)] += 1;
        }
        let joint = counts.iter().flatten().map(|&count| f64::from(count));
        let codes = counts.iter().map(|[a, b]| f64::from(a + b));
        let information = entropy(codes, n) + of_labels - entropy(joint.clone(), n);
        let cells = joint.filter(|count| *count > 0.0).count() as f64;
        information + (column.distinct as f64 + 2.0 - cells - 1.0) / (2.0 * n)
    });
    Ok(heads.collect())
}

/// Entropy of counts that sum to `n`, in nats.
pub(crate) fn entropy(counts: impl Iterator<Item = f64>, n: f64) -> f64 {
    let terms = counts.filter(|count| *count > 0.0).map(|count| {
        let share = count / n;
        -share * share.ln()
    });
    terms.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::{HeadGrid, Polarity, Seed, draw};

    fn table(codes: Vec<i32>, positives: usize) -> CodeTable {
        let n = codes.len();
        let mut labels = vec![Polarity::Positive; positives];
        labels.resize(n, Polarity::Negative);
        CodeTable::new(HeadGrid::new(1, 1), labels, codes).unwrap()
    }

    #[test]
    fn by_hand() {
        // Joint shares 2/4, 0, 1/4, 1/4 of (code, label): H(Z) = H(Y) = ln 2 · … worked out below.
        let found = mutual_information(&table(vec![0, 0, 1, 0], 2)).unwrap()[0];
        let h = |p: f64| if p == 0.0 { 0.0 } else { -p * p.ln() };
        let plain = h(0.75) + h(0.25) + 2.0 * h(0.5) - (h(0.5) + 2.0 * h(0.25));
        assert!((found - (plain + (2.0 + 2.0 - 3.0 - 1.0) / 8.0)).abs() < 1e-12);
    }

    /// Of 20 codes on 100 examples the plain estimate sees a tenth of a nat that is not there.
    #[test]
    fn independent_codes_tell_little() {
        let mut rng = Seed::new(0).stream("test/mutual").rng();
        let (mut corrected, mut plain) = (0.0, 0.0);
        for _ in 0..200 {
            let codes: Vec<i32> = (0..100).map(|_| draw::index(&mut rng, 20) as i32).collect();
            let distinct = |values: &mut Vec<(i32, bool)>| {
                values.sort_unstable();
                values.dedup();
                values.len() as f64
            };
            let joint = codes.iter().enumerate().map(|(at, &code)| (code, at < 50));
            let cells = distinct(&mut joint.collect());
            let used = distinct(&mut codes.iter().map(|&code| (code, false)).collect());
            let found = mutual_information(&table(codes, 50)).unwrap()[0];
            corrected += found / 200.0;
            plain += (found + (cells + 1.0 - used - 2.0) / 200.0) / 200.0;
        }
        assert!(plain > 0.08, "{plain}");
        assert!(corrected.abs() < 0.4 * plain, "{corrected} of {plain}");
    }
}
