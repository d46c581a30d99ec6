//! Which features of a row are kept, in the host's memory.

use rayon::prelude::*;

/// Rows that one task looks through.
const TASK: usize = 64;

/// Entries of a `[rows, d_sae]` matrix, row by row.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Where the entries of each row begin, and where the last ones end.
    pub(super) starts: Vec<usize>,
    /// Ascending in each row.
    pub(super) features: Vec<u32>,
    pub(super) values: Vec<f32>,
}

impl Entries {
    /// Those that `pick` finds in each row of `h`; it appends to both lists.
    fn collect(
        h: &[f32],
        d_sae: usize,
        pick: impl Fn(&[f32], &mut Vec<u64>, &mut Vec<u32>, &mut Vec<f32>) + Sync,
    ) -> Self {
        let parts: Vec<_> = h
            .par_chunks(TASK * d_sae)
            .map(|rows| {
                let (mut keys, mut features, mut values) = (Vec::new(), Vec::new(), Vec::new());
                let ends: Vec<usize> = rows
                    .chunks_exact(d_sae)
                    .map(|row| {
                        pick(row, &mut keys, &mut features, &mut values);
                        features.len()
                    })
                    .collect();
                (ends, features, values)
            })
            .collect();
        let mut entries = Self {
            starts: vec![0],
            ..Self::default()
        };
        for (ends, features, values) in parts {
            let before = entries.features.len();
            entries.starts.extend(ends.iter().map(|end| before + end));
            entries.features.extend(features);
            entries.values.extend(values);
        }
        entries
    }

    /// The positive ones among the `k` largest of each row of `h`, `[rows, d_sae]`; the first ones on ties.
    pub(super) fn largest_of_rows(h: &[f32], d_sae: usize, k: usize) -> Self {
        Self::collect(h, d_sae, |row, keys, features, values| {
            // Each of at least k groups has a largest: the k largest are none below the least of them.
            let group = d_sae / k;
            let bound = if group < 4 {
                0.0
            } else {
                let largest = |group: &[f32]| group.iter().copied().fold(0.0, f32::max);
                let largest = row.chunks(group).map(largest);
                largest.fold(f32::INFINITY, f32::min)
            };
            keys.clear();
            for (feature, &h) in row.iter().enumerate() {
                if h > 0.0 && h >= bound {
                    keys.push(key(h, feature));
                }
            }
            take(row, keys, k, features, values);
        })
    }

    /// The `k` largest of each row among `members`, which are ascending, whatever their sign.
    pub(super) fn largest_among(h: &[f32], d_sae: usize, members: &[u32], k: usize) -> Self {
        Self::collect(h, d_sae, |row, keys, features, values| {
            keys.clear();
            let members = members.iter().map(|&member| member as usize);
            keys.extend(members.map(|member| key(row[member], member)));
            take(row, keys, k, features, values);
        })
    }

    /// The positive ones among the `count` largest of all of `h`; the first ones on ties.
    pub(super) fn largest_of_all(h: &[f32], d_sae: usize, count: usize) -> Self {
        let (least, mut ties) = cut(h, count);
        let mut entries = Self::collect(h, d_sae, |row, _, features, values| {
            for (feature, &h) in row.iter().enumerate() {
                if h > 0.0 && h >= least {
                    features.push(feature as u32);
                    values.push(h);
                }
            }
        });
        let too_many = entries.features.len().saturating_sub(count);
        if too_many > 0 {
            let all = entries.values.iter().filter(|value| **value == least);
            ties = ties.min(all.count());
            entries = entries.without_last(least, ties);
        }
        entries
    }

    /// With the first `keep` of the entries of this value.
    fn without_last(self, value: f32, keep: usize) -> Self {
        let mut entries = Self {
            starts: vec![0],
            ..Self::default()
        };
        let mut seen = 0;
        for row in self.starts.windows(2) {
            for at in row[0]..row[1] {
                let tie = self.values[at] == value;
                seen += usize::from(tie);
                if !tie || seen <= keep {
                    entries.features.push(self.features[at]);
                    entries.values.push(self.values[at]);
                }
            }
            entries.starts.push(entries.features.len());
        }
        entries
    }
}

/// Keeps the `k` entries of the largest keys, in the order of features.
fn take(
    row: &[f32],
    keys: &mut Vec<u64>,
    k: usize,
    features: &mut Vec<u32>,
    values: &mut Vec<f32>,
) {
    if keys.len() > k {
        keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        keys.truncate(k);
    }
    let from = features.len();
    features.extend(keys.iter().map(|key| !(*key as u32)));
    features[from..].sort_unstable();
    values.extend(
        features[from..]
            .iter()
            .map(|&feature| row[feature as usize]),
    );
}

/// Orders as the number does, and of equal ones the first feature is the largest.
fn key(h: f32, feature: usize) -> u64 {
    // −0 equals 0.
    let bits = (h + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    u64::from(ordered) << 32 | u64::from(!(feature as u32))
}

/// The least of the `count` largest positive numbers, and how many of those equal it; 0 and 0 if there are not so many.
fn cut(h: &[f32], count: usize) -> (f32, usize) {
    /// Numbers that agree in so many of their first bits are counted together.
    const SHIFT: u32 = 16;
    const BINS: usize = 1 << (31 - SHIFT);
    let positive = |h: &&f32| **h > 0.0;
    let bins = h
        .par_chunks((h.len() / 8).max(1 << 16))
        .map(|h| {
            let mut bins = vec![0usize; BINS];
            for h in h.iter().filter(positive) {
                bins[(h.to_bits() >> SHIFT) as usize] += 1;
            }
            bins
        })
        .reduce(
            || vec![0; BINS],
            |mut sum, bins| {
                sum.iter_mut().zip(bins).for_each(|(sum, bin)| *sum += bin);
                sum
            },
        );
    let mut above = 0;
    for (bin, members) in bins.iter().enumerate().rev() {
        if above + members < count {
            above += members;
            continue;
        }
        let mut members: Vec<u32> = h
            .par_iter()
            .filter(positive)
            .map(|h| h.to_bits())
            .filter(|bits| (bits >> SHIFT) as usize == bin)
            .collect();
        members.sort_unstable_by(|a, b| b.cmp(a));
        let least = members[count - above - 1];
        let ties = members[..count - above]
            .iter()
            .filter(|bits| **bits == least);
        return (f32::from_bits(least), ties.count());
    }
    (0.0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(entries: &Entries) -> Vec<Vec<(u32, f32)>> {
        let of = |row: &[usize]| {
            let own = row[0]..row[1];
            let entry = |at: usize| (entries.features[at], entries.values[at]);
            own.map(entry).collect()
        };
        entries.starts.windows(2).map(of).collect()
    }

    #[test]
    fn the_first_of_equal_values_are_kept() {
        let h = [3.0, 1.0, 3.0, 3.0, -1.0, -2.0, 0.5, 0.0];
        let kept = rows(&Entries::largest_of_rows(&h, 4, 2));
        assert_eq!(kept, [vec![(0, 3.0), (2, 3.0)], vec![(2, 0.5)]]);
        let kept = rows(&Entries::largest_of_all(&h, 4, 2));
        assert_eq!(kept, [vec![(0, 3.0), (2, 3.0)], vec![]]);
        let kept = rows(&Entries::largest_of_all(&h, 4, 7));
        let all = vec![(0, 3.0), (1, 1.0), (2, 3.0), (3, 3.0)];
        assert_eq!(kept, [all, vec![(2, 0.5)]]);
        let kept = rows(&Entries::largest_among(&h, 4, &[0, 1, 3], 2));
        assert_eq!(kept, [vec![(0, 3.0), (3, 3.0)], vec![(0, -1.0), (3, 0.0)]]);
    }

    /// Against sorting: groups, more rows than a task has, values that share their first bits.
    #[test]
    fn equals_sorting() {
        let (d_sae, k) = (40, 5);
        let mut state = 1u32;
        let h: Vec<f32> = (0..150 * d_sae)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 12) as f32 / 1e6 - 0.4) * 1e-2
            })
            .collect();
        let least_of = |mut values: Vec<f32>, count: usize| {
            values.sort_by(|a, b| b.total_cmp(a));
            values[count - 1]
        };
        let found = rows(&Entries::largest_of_rows(&h, d_sae, k));
        for (row, found) in h.chunks(d_sae).zip(found) {
            let least = least_of(row.to_vec(), k);
            let expected = row.iter().enumerate().filter(|(_, h)| **h >= least);
            let expected: Vec<_> = expected.map(|(at, h)| (at as u32, *h)).collect();
            assert_eq!(found, expected);
        }
        let found = Entries::largest_of_all(&h, d_sae, 150 * k);
        let least = least_of(h.clone(), 150 * k);
        let expected: Vec<f32> = h.iter().copied().filter(|h| *h >= least).collect();
        assert!(expected.len() >= 150 * k && found.values.len() == 150 * k);
        assert_eq!(found.values[..100], expected[..100]);
    }
}
