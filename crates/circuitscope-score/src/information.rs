//! Which variable a code carries: normalised mutual information, what chance gives, and what a table learnt on one half is
//! worth on the other.

use std::collections::BTreeMap;

use circuitscope_core::{Seed, draw};

use crate::mutual::entropy;
use crate::stats::quantile;
use crate::{Error, Result};

/// What a code says of a variable.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Carried {
    /// `I(Z; S) / H(S)`, with Miller's correction of the information; may be a little below 0, and a little above 1.
    pub information: f64,
    /// The 95 % point of that where values are dealt out anew.
    pub null: f64,
    /// Share of such deals with as much, the observed one counted.
    pub p: f64,
    /// Of the values that a guess of the most frequent one gets wrong, the share that a table from code to value, learnt on
    /// one half of the groups, gets right on the other half; below 0 where it does worse, 0 where the guess is never
    /// wrong.
    pub held_out: f64,
}

/// How much the codes of some prompts say of a variable of theirs.
///
/// `I(Z; S) = H(Z) + H(S) − H(Z, S)` of the observed shares with the correction of Miller (1955), as in
/// [`mutual_information`](crate::mutual_information), over `H(S)`: after `InfoMEC` (Hsu et al. 2023, arXiv 2305.18378), for one source and one
/// latent. Where nearly every prompt has a code of its own the plain figure is near 1 whatever the codes mean: [`Carried::null`]
/// and [`Carried::held_out`] say so.
///
/// `codes`, `values` and `groups` have an entry for each prompt; prompts of one group, such as a pair, are dealt out
/// and held out together with their order within the group. Draws are from stream `information` of `seed`.
///
/// # Errors
/// [`Error::Length`] for lists of different lengths, [`Error::NoVariation`] where all values are the same.
///
/// # Examples
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_score::carried;
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// let values: Vec<u32> = (0..60).map(|prompt| prompt % 3).collect();
/// let groups: Vec<usize> = (0..60).collect();
/// // A code that is the value, and one that is not.
/// let codes: Vec<i32> = values.iter().map(|value| *value as i32 + 7).collect();
/// let told = carried(&codes, &values, &groups, 200, Seed::new(0))?;
/// assert!((told.information - 1.0).abs() < 0.1 && told.held_out == 1.0 && told.p < 0.01);
/// let codes: Vec<i32> = (0..60).map(|prompt| prompt / 3 % 3).collect();
/// let told = carried(&codes, &values, &groups, 200, Seed::new(0))?;
/// assert!(told.information < told.null && told.p > 0.05);
/// # Ok(())
/// # }
/// ```
pub fn carried(
    codes: &[i32],
    values: &[u32],
    groups: &[usize],
    deals: usize,
    seed: Seed,
) -> Result<Carried> {
    let n = codes.len();
    for (what, found) in [("values", values.len()), ("groups", groups.len())] {
        if found != n {
            return Err(Error::Length {
                what,
                found,
                expected: n,
            });
        }
    }
    let codes = numbered(codes);
    let values = numbered(values);
    let of_values = counted(values.iter().copied());
    let entropy_of_values = entropy(of_values.iter().map(|count| f64::from(*count)), n as f64);
    if of_values.len() < 2 {
        return Err(Error::NoVariation);
    }
    let normalised = |values: &[u32]| information(&codes, values) / entropy_of_values;
    let observed = normalised(&values);
    let seed = seed.stream("information");
    let members = members(groups);
    let mut dealt = vec![0; n];
    let mut null = Vec::with_capacity(deals);
    for deal in 0..deals {
        let mut rng = seed.nth("deal", deal as u64).rng();
        // Groups of one size exchange their values.
        let mut of_size: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (group, members) in members.iter().enumerate() {
            of_size.entry(members.len()).or_default().push(group);
        }
        for of_size in of_size.values() {
            let mut order = of_size.clone();
            draw::shuffle(&mut rng, &mut order);
            for (&to, &from) in of_size.iter().zip(&order) {
                for (&to, &from) in members[to].iter().zip(&members[from]) {
                    dealt[to] = values[from];
                }
            }
        }
        null.push(normalised(&dealt));
    }
    let reached = null
        .iter()
        .filter(|found| **found >= observed - 1e-12)
        .count();
    Ok(Carried {
        information: observed,
        null: if null.is_empty() {
            f64::INFINITY
        } else {
            quantile(&null, 0.95)?
        },
        p: (reached + 1) as f64 / (deals + 1) as f64,
        held_out: held_out(&codes, &values, &members, seed),
    })
}

/// Values as numbers from 0, in their order.
fn numbered<T: Ord + Copy>(values: &[T]) -> Vec<u32> {
    let mut distinct = values.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let place = |value: &T| distinct.partition_point(|other| other < value) as u32;
    values.iter().map(place).collect()
}

fn counted(values: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut counts = Vec::new();
    for value in values {
        if counts.len() <= value as usize {
            counts.resize(value as usize + 1, 0);
        }
        counts[value as usize] += 1;
    }
    counts
}

/// The prompts of each group, groups in the order of their numbers.
fn members(groups: &[usize]) -> Vec<Vec<usize>> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (prompt, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(prompt);
    }
    members.into_values().collect()
}

/// `I(Z; S)` with Miller's correction, in nats.
fn information(codes: &[u32], values: &[u32]) -> f64 {
    let n = codes.len() as f64;
    let mut joint: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for (&code, &value) in codes.iter().zip(values) {
        *joint.entry((code, value)).or_default() += 1;
    }
    let [of_codes, of_values] = [codes, values].map(|all| counted(all.iter().copied()));
    let of = |counts: &[u32]| entropy(counts.iter().map(|count| f64::from(*count)), n);
    let of_joint = entropy(joint.values().map(|count| f64::from(*count)), n);
    let used = |counts: &[u32]| counts.iter().filter(|count| **count > 0).count() as f64;
    let correction = used(&of_codes) + used(&of_values) - joint.len() as f64 - 1.0;
    of(&of_codes) + of(&of_values) - of_joint + correction / (2.0 * n)
}

/// See [`Carried::held_out`].
fn held_out(codes: &[u32], values: &[u32], members: &[Vec<usize>], seed: Seed) -> f64 {
    let mut order: Vec<usize> = (0..members.len()).collect();
    draw::shuffle(&mut seed.stream("halves").rng(), &mut order);
    let (first, second) = order.split_at(order.len() / 2);
    let prompts = |groups: &[usize]| -> Vec<usize> {
        let groups = groups.iter();
        groups.flat_map(|group| members[*group].clone()).collect()
    };
    let (learnt, tried) = (prompts(first), prompts(second));
    let most = |counts: &BTreeMap<u32, u32>| {
        // Of those as frequent, the first.
        let best = counts.values().copied().max()?;
        counts
            .iter()
            .find(|(_, count)| **count == best)
            .map(|(value, _)| *value)
    };
    let mut all: BTreeMap<u32, u32> = BTreeMap::new();
    let mut of_code: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
    for &prompt in &learnt {
        *all.entry(values[prompt]).or_default() += 1;
        let of_code = of_code.entry(codes[prompt]).or_default();
        *of_code.entry(values[prompt]).or_default() += 1;
    }
    let Some(guess) = most(&all) else { return 0.0 };
    let right = |told: &dyn Fn(usize) -> u32| {
        let right = tried
            .iter()
            .filter(|&&prompt| told(prompt) == values[prompt]);
        right.count() as f64
    };
    let by_guess = right(&|_| guess);
    let by_table = right(&|prompt| of_code.get(&codes[prompt]).and_then(most).unwrap_or(guess));
    let wrong = tried.len() as f64 - by_guess;
    if wrong == 0.0 {
        0.0
    } else {
        (by_table - by_guess) / wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four prompts, by hand: I = ln 2 / 2 of H(S) = ln 2, and the correction (2 + 2 − 3 − 1) / 8 = 0 … worked out.
    #[test]
    fn by_hand() {
        let (codes, values) = ([0, 0, 1, 0], [0, 0, 1, 1]);
        let groups = [0, 1, 2, 3];
        let found = carried(&codes, &values, &groups, 0, Seed::new(0)).unwrap();
        let h = |p: f64| if p == 0.0 { 0.0 } else { -p * p.ln() };
        let plain = h(0.75) + h(0.25) + 2f64.ln() - (h(0.5) + 2.0 * h(0.25));
        assert!((found.information - plain / 2f64.ln()).abs() < 1e-12);
        assert_eq!(found.p, 1.0);
    }

    /// A code of its own for each prompt tells nothing, whatever the plain figure.
    #[test]
    fn codes_of_their_own_are_within_the_null() {
        let values: Vec<u32> = (0..40).map(|prompt| prompt % 4).collect();
        let groups: Vec<usize> = (0..40).collect();
        let codes: Vec<i32> = (0..40).collect();
        let found = carried(&codes, &values, &groups, 100, Seed::new(1)).unwrap();
        assert!(found.p > 0.9, "{found:?}");
        assert!(found.held_out <= 0.0, "{found:?}");
    }

    /// Values that go with the pair and not with the prompt are dealt out by pairs.
    #[test]
    fn groups_stay_together() {
        // Two prompts a pair; the code is the place in the pair, and so is the value: no deal changes that.
        let codes: Vec<i32> = (0..40).map(|prompt| prompt % 2).collect();
        let values: Vec<u32> = (0..40).map(|prompt| prompt % 2).collect();
        let groups: Vec<usize> = (0..40).map(|prompt| prompt as usize / 2).collect();
        let found = carried(&codes, &values, &groups, 50, Seed::new(2)).unwrap();
        assert_eq!(found.p, 1.0);
        assert_eq!(found.held_out, 1.0);
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let seed = Seed::new(0);
        let same = carried(&[1, 2], &[3, 3], &[0, 1], 10, seed).unwrap_err();
        assert!(same.to_string().contains("the same"), "{same}");
        assert!(carried(&[1, 2], &[3], &[0, 1], 10, seed).is_err());
    }
}
