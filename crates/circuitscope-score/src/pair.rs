use circuitscope_core::{HeadGrid, HeadId};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::columns::{Column, Columns};
use crate::{CodeTable, Result};

/// How many pairs of codes each pair of heads keeps for positive examples.
///
/// Counts are symmetric in the two heads; the diagonal is 0, because a head has no pair with itself.
///
/// # Shapes
/// - every matrix: `[heads, heads]`, row-major, heads in layer-major order
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PairScores {
    grid: HeadGrid,
    unique: Vec<u32>,
    positive: Vec<u32>,
    negative: Vec<u32>,
}

/// The score of a true edge: a head that writes, and a head of a later layer that can read it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EdgeScore {
    /// The writer.
    pub source: HeadId,
    /// The reader, in a later layer.
    pub destination: HeadId,
    /// Code pairs seen on positives and never on negatives.
    pub unique: u32,
    /// Code pairs seen at all. At least 1.
    pub union: u32,
    /// `unique / union`, between 0 and 1.
    pub normalised: f64,
}

impl PairScores {
    /// Shape of the model.
    pub const fn grid(&self) -> HeadGrid {
        self.grid
    }

    /// `U[h1, h2]`: the number of code pairs `(z[e, h1], z[e, h2])` that occur on some positive and
    /// on no negative example.
    pub fn unique(&self) -> &[u32] {
        &self.unique
    }

    /// The number of code pairs that occur on some positive example.
    pub fn positive(&self) -> &[u32] {
        &self.positive
    }

    /// The number of code pairs that occur on some negative example.
    pub fn negative(&self) -> &[u32] {
        &self.negative
    }

    /// The number of code pairs that occur at all; 0 on the diagonal.
    #[must_use]
    pub fn union(&self) -> Vec<u32> {
        self.unique
            .iter()
            .zip(&self.negative)
            .map(|(unique, negative)| unique + negative)
            .collect()
    }

    /// `unique / union`, between 0 and 1; 0 on the diagonal.
    #[must_use]
    pub fn normalised(&self) -> Vec<f64> {
        self.unique
            .iter()
            .zip(self.union())
            .map(|(&unique, union)| f64::from(unique) / f64::from(union.max(1)))
            .collect()
    }

    /// The authors' normalisation: `unique / (positive + negative)`, which counts code pairs seen on
    /// both sides twice; 0 on the diagonal.
    #[must_use]
    pub fn paper_normalised(&self) -> Vec<f64> {
        self.unique
            .iter()
            .zip(self.positive.iter().zip(&self.negative))
            .map(|(&unique, (&positive, &negative))| {
                f64::from(unique) / f64::from((positive + negative).max(1))
            })
            .collect()
    }

    /// The scores of true edges: from each head to each head of a later layer, by writer, then
    /// reader, in layer-major order.
    #[must_use]
    pub fn directed(&self) -> Vec<EdgeScore> {
        let heads = self.grid.len();
        let edge = |(source, destination): (usize, usize)| {
            let at = source * heads + destination;
            let (unique, union) = (self.unique[at], self.unique[at] + self.negative[at]);
            EdgeScore {
                source: self.grid.head(source),
                destination: self.grid.head(destination),
                unique,
                union,
                normalised: f64::from(unique) / f64::from(union),
            }
        };
        (0..heads)
            .flat_map(|source| {
                let next_layer = (source / self.grid.n_heads + 1) * self.grid.n_heads;
                (next_layer..heads).map(move |destination| (source, destination))
            })
            .map(edge)
            .collect()
    }
}

/// Scores every pair of heads by the code pairs that are unique to positive examples (arXiv
/// 2405.12522, edge level): `|{(c1, c2) : C⁺ > 0 and C⁻ = 0}|`, where `C±[h1, h2, c1, c2]` counts the
/// positive or negative examples on which head `h1` has code `c1` and head `h2` code `c2`.
///
/// # Errors
/// [`Error::EmptyClass`](crate::Error::EmptyClass).
///
/// # Memory
/// `C` is never built. Each thread holds two bit sets over the code pairs that the two heads at hand
/// can form, or, where these would pass 1 MiB, the sorted list of those that they do form. The result
/// takes 12 bytes for each entry of the matrix.
///
/// # Complexity
/// `O(heads² · examples)` bit operations, spread over rayon's threads.
///
/// # Determinism
/// Counts of sets: the same on any number of threads.
///
/// # Examples
/// ```
/// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
/// use circuitscope_score::{CodeTable, pair_scores};
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// let labels = vec![Positive, Positive, Negative];
/// let table = CodeTable::new(HeadGrid::new(1, 2), labels, vec![0, 5, 1, 5, 1, 5])?;
/// let pairs = pair_scores(&table)?;
/// assert_eq!(pairs.unique(), [0, 1, 1, 0]); // (0, 5) is unique to positives, (1, 5) is not
/// assert!(pairs.directed().is_empty()); // both heads are in one layer
/// # Ok(())
/// # }
/// ```
pub fn pair_scores(table: &CodeTable) -> Result<PairScores> {
    table.require_both_classes()?;
    let Columns { columns, negatives } = Columns::of(table);
    let heads = columns.len();
    let upper: Vec<Vec<Counts>> = (0..heads)
        .into_par_iter()
        .map_init(Scratch::default, |scratch, first| {
            columns[first + 1..]
                .iter()
                .map(|second| scratch.count(&columns[first], second, negatives))
                .collect()
        })
        .collect();
    let mut scores = PairScores {
        grid: table.grid(),
        unique: vec![0; heads * heads],
        positive: vec![0; heads * heads],
        negative: vec![0; heads * heads],
    };
    for (first, row) in upper.into_iter().enumerate() {
        for (second, counts) in (first + 1..).zip(row) {
            for at in [first * heads + second, second * heads + first] {
                scores.unique[at] = counts.unique;
                scores.positive[at] = counts.positive;
                scores.negative[at] = counts.negative;
            }
        }
    }
    Ok(scores)
}

/// Sizes of the sets of code pairs of two heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    unique: u32,
    positive: u32,
    negative: u32,
}

/// Bit sets of up to this many bits (two of 512 KiB) are faster than sorting.
const MAX_BITS: usize = 1 << 22;

/// Memory that a thread uses again and again.
#[derive(Debug, Default)]
struct Scratch {
    /// A word of positive bits beside a word of negative ones.
    bits: Vec<[u64; 2]>,
    pairs: Vec<u64>,
}

impl Scratch {
    fn count(&mut self, first: &Column, second: &Column, negatives: usize) -> Counts {
        match first.distinct.checked_mul(second.distinct) {
            Some(bits) if bits <= MAX_BITS => self.by_bits(first, second, negatives, bits),
            _ => self.by_sorting(first, second, negatives),
        }
    }

    fn by_bits(
        &mut self,
        first: &Column,
        second: &Column,
        negatives: usize,
        bits: usize,
    ) -> Counts {
        let words = bits.div_ceil(64);
        if self.bits.len() < words {
            self.bits.resize(words, [0; 2]);
        }
        let sets = &mut self.bits[..words];
        sets.fill([0; 2]);
        let width = second.distinct as u32;
        let (first_negative, first_positive) = first.codes.split_at(negatives);
        let (second_negative, second_positive) = second.codes.split_at(negatives);
        let mut counts = Counts {
            unique: 0,
            positive: 0,
            negative: 0,
        };
        // Counting as bits are set spares a pass over all words, most of which stay empty.
        for (a, b) in first_negative.iter().zip(second_negative) {
            let pair = a * width + b;
            let [_, negative] = &mut sets[(pair / 64) as usize];
            counts.negative += 1 & !(*negative >> (pair % 64)) as u32;
            *negative |= 1 << (pair % 64);
        }
        for (a, b) in first_positive.iter().zip(second_positive) {
            let pair = a * width + b;
            let [positive, negative] = &mut sets[(pair / 64) as usize];
            let new = 1 & !(*positive >> (pair % 64)) as u32;
            counts.positive += new;
            counts.unique += new & !(*negative >> (pair % 64)) as u32;
            *positive |= 1 << (pair % 64);
        }
        counts
    }

    fn by_sorting(&mut self, first: &Column, second: &Column, negatives: usize) -> Counts {
        self.pairs.clear();
        let pairs = first.codes.iter().zip(&second.codes);
        self.pairs
            .extend(pairs.map(|(&a, &b)| u64::from(a) << 32 | u64::from(b)));
        let (negative, positive) = self.pairs.split_at_mut(negatives);
        negative.sort_unstable();
        positive.sort_unstable();
        let mut counts = Counts {
            unique: 0,
            positive: 0,
            negative: 0,
        };
        counts.negative = negative.chunk_by(|a, b| a == b).count() as u32;
        let mut rest = &*negative;
        for run in positive.chunk_by(|a, b| a == b) {
            rest = &rest[rest.partition_point(|pair| *pair < run[0])..];
            counts.positive += 1;
            counts.unique += u32::from(rest.first() != Some(&run[0]));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(codes: &[u32]) -> Column {
        let distinct = codes.iter().max().map_or(0, |most| *most as usize + 1);
        Column {
            codes: codes.to_vec(),
            distinct,
        }
    }

    proptest! {
        #[test]
        fn sorting_and_bit_sets_agree(
            examples in prop::collection::vec((0u32..12, 0u32..12), 2..60),
            share in 0usize..60,
        ) {
            let (first, second): (Vec<_>, Vec<_>) = examples.into_iter().unzip();
            let negatives = share % first.len();
            let (first, second) = (column(&first), column(&second));
            let mut scratch = Scratch::default();
            let bits = first.distinct * second.distinct;
            prop_assert_eq!(
                scratch.by_bits(&first, &second, negatives, bits),
                scratch.by_sorting(&first, &second, negatives)
            );
        }
    }
}
