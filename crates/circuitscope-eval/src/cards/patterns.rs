//! Patterns of attention: where a prompt defines them, how much of a head's attention follows them, and which of that is
//! a role.

use circuitscope_core::HeadGrid;
use circuitscope_measures::cards::{Pattern, PatternOfHeads, PatternScore};

use super::PromptParts;
use super::read::OfPair;
use crate::causal::CausalEvidence;
use burn::tensor::backend::Backend;

/// Where each position of a prompt would attend to, by one pattern; empty where it is not defined.
pub(super) type Targets = Vec<Vec<usize>>;

/// The patterns that any of some pairs define, with their targets on each.
#[derive(Debug)]
pub(super) struct Patterns {
    pub(super) all: Vec<Pattern>,
    /// `[pair][pattern]`.
    pub(super) targets: Vec<Vec<Targets>>,
}

impl Patterns {
    pub(super) fn of<B: Backend>(
        causal: &CausalEvidence<B>,
        parts: &PromptParts,
        count: usize,
    ) -> Self {
        let mut all = vec![Pattern::PreviousToken, Pattern::DuplicateToken];
        all.extend((1..=Pattern::LONGEST_PREFIX).map(Pattern::Induction));
        all.extend([Pattern::FirstToken, Pattern::DifferingTokens]);
        for (name, _) in parts.slots.iter().take(count).flatten() {
            let slot = Pattern::Slot(name.clone());
            if !all.contains(&slot) {
                all.push(slot);
            }
        }
        let of_pair = |pair: usize| {
            let tokens = &causal.pairs()[pair].clean;
            let there = &causal.pairs()[pair].corrupt;
            let differs = |at: usize| there.get(causal.place(pair, at)) != Some(&tokens[at]);
            let slots = parts.slots.get(pair).map_or(&[][..], Vec::as_slice);
            let targets = all
                .iter()
                .map(|pattern| targets(pattern, tokens, &differs, slots));
            targets.collect()
        };
        let targets = (0..count).map(of_pair).collect();
        Self { all, targets }
    }
}

/// Where each position would attend to; never to itself.
fn targets(
    pattern: &Pattern,
    tokens: &[u32],
    differs: &dyn Fn(usize) -> bool,
    slots: &[(String, Vec<usize>)],
) -> Targets {
    let before = |at: usize, is: &dyn Fn(usize) -> bool| (0..at).filter(|&s| is(s)).collect();
    let alike = |here: usize, there: usize, prefix: usize| {
        there + 1 >= prefix && (0..prefix).all(|back| tokens[there - back] == tokens[here - back])
    };
    let at = |at: usize| match pattern {
        Pattern::PreviousToken => at.checked_sub(1).into_iter().collect(),
        Pattern::DuplicateToken => before(at, &|s| tokens[s] == tokens[at]),
        Pattern::Induction(prefix) => before(at, &|s| s > 0 && alike(at, s - 1, *prefix)),
        Pattern::FirstToken => before(at, &|s| s == 0),
        Pattern::DifferingTokens => before(at, differs),
        Pattern::Slot(name) => before(at, &|s| {
            slots
                .iter()
                .any(|(slot, places)| slot == name && places.contains(&s))
        }),
        // Patterns of later versions.
        _ => Vec::new(),
    };
    (0..tokens.len()).map(at).collect()
}

/// How the attention of one head on one prompt follows one pattern.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Follows {
    /// Attention that does, summed over the positions that define it.
    pub(super) attention: f32,
    /// Share of what is moved that comes from there, summed over all positions, weighted with the size of the head's effect by
    /// both references.
    pub(super) weighted: [f32; 2],
    /// What that is on average where each position attends to as many others drawn at random.
    pub(super) by_chance: [f32; 2],
    /// Its variance then.
    pub(super) variance: [f32; 2],
}

impl Follows {
    /// `rows`: attention of each position, `[pos, pos]`; `moved`: of what is moved to it, the share that comes from each
    /// position; `weights`: `[pos]` by both references.
    pub(super) fn of(targets: &Targets, rows: &[f32], moved: &[f32], weights: [&[f32]; 2]) -> Self {
        let pos = targets.len();
        let mut found = Self::default();
        for (at, targets) in targets.iter().enumerate() {
            if targets.is_empty() {
                continue;
            }
            let row = &rows[at * pos..(at + 1) * pos];
            found.attention += targets.iter().map(|&target| row[target]).sum::<f32>();
            let moved = &moved[at * pos..(at + 1) * pos];
            let follows: f32 = targets.iter().map(|&target| moved[target]).sum();
            // As many of the other positions that may be attended to, without replacement.
            let others = (0..pos).filter(|&s| s != at && (s < at || row[s] > 0.0));
            let (mut n, mut sum, mut squares) = (0.0f32, 0.0f32, 0.0f32);
            for s in others {
                n += 1.0;
                sum += moved[s];
                squares += moved[s] * moved[s];
            }
            let m = targets.len() as f32;
            let mean = sum / n;
            let spread = (squares / n - mean * mean).max(0.0);
            let variance = if n > 1.0 {
                m * (n - m) / (n - 1.0) * spread
            } else {
                0.0
            };
            for (kind, weights) in weights.iter().enumerate() {
                let weight = weights[at];
                found.weighted[kind] += weight * follows;
                found.by_chance[kind] += weight * m * mean;
                found.variance[kind] += weight * weight * variance;
            }
        }
        found
    }
}

/// Of what a head does on one prompt, the share that follows a pattern, by the position that it is read from; empty
/// where the pattern is not defined.
pub(super) fn from_positions(targets: &Targets, moved: &[f32], weights: &[f32]) -> Vec<f32> {
    if targets.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let pos = targets.len();
    let at = targets.iter().enumerate().map(|(at, targets)| {
        let moved = targets.iter().map(|&target| moved[at * pos + target]);
        weights[at] * moved.sum::<f32>()
    });
    at.collect()
}

/// The point that a normal variable is below in 95 % of draws.
const HIGH: f64 = 1.644_853_626_951_472_2;

/// Pairs that a pattern has to be defined on to be a role, where there are more.
const FEWEST: usize = 4;

/// A pattern that less of what a head does follows is no role of it.
const NOTABLE: f64 = 0.05;

/// Heads whose exact effect is less than this share of the largest have no effect.
const IDLE: f64 = 0.07;

/// Scores of every head and pattern, `[head][pattern]`: `sizes` are the sizes of the exact effects of heads, 0 where none was
/// measured, `kinds` the references that say where they matter.
pub(super) fn scored(
    patterns: &Patterns,
    pairs: &[OfPair],
    sizes: &[f64],
    kinds: &[usize],
) -> Vec<Vec<PatternScore>> {
    let heads = sizes.len();
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let idle_heads = (0..heads).filter(|&head| sizes[head] < IDLE * largest);
    let idle_heads: Vec<usize> = idle_heads.collect();
    let mut scores: Vec<Vec<PatternScore>> = vec![Vec::new(); heads];
    for (at, pattern) in patterns.all.iter().enumerate() {
        let defined = |pair: usize| {
            let targets = &patterns.targets[pair][at];
            targets.iter().filter(|targets| !targets.is_empty()).count()
        };
        let positions: usize = (0..pairs.len()).map(defined).sum();
        let with: Vec<usize> = (0..pairs.len()).filter(|&pair| defined(pair) > 0).collect();
        let n = with.len().max(1) as f64;
        let enough = with.len() >= FEWEST.min(pairs.len());
        let of_head = |head: usize| {
            let kind = kinds[head];
            let follows = with.iter();
            let follows = follows.map(|&pair| &pairs[pair].follows[head * patterns.all.len() + at]);
            let sum = |value: &dyn Fn(&Follows) -> f32| {
                follows.clone().map(|x| f64::from(value(x))).sum::<f64>()
            };
            let weighted = sum(&|x| x.weighted[kind]) / n;
            let by_chance = sum(&|x| x.by_chance[kind]) / n;
            let deviation = sum(&|x| x.variance[kind]).sqrt() / n;
            PatternScore {
                pattern: pattern.clone(),
                attention: sum(&|x| x.attention) / positions.max(1) as f64,
                weighted,
                shuffled: by_chance + HIGH * deviation,
                joined: weighted * sizes[head],
                from: String::new(),
                idle: 0.0,
                role: false,
            }
        };
        let mut found: Vec<PatternScore> = (0..heads).map(of_head).collect();
        let idle = idle_heads.iter().map(|&head| found[head].joined);
        let idle = idle.fold(0.0, f64::max);
        for score in &mut found {
            score.idle = idle;
            let notable = score.weighted >= NOTABLE && score.weighted > score.shuffled;
            score.role = enough && notable && score.joined > idle;
        }
        if positions > 0 {
            for (scores, score) in scores.iter_mut().zip(found) {
                scores.push(score);
            }
        }
    }
    scores
}

/// The same, pattern by pattern.
pub(super) fn of_heads(
    patterns: &Patterns,
    scores: &[Vec<PatternScore>],
    grid: HeadGrid,
) -> Vec<PatternOfHeads> {
    let first = scores.first().map_or(&[][..], Vec::as_slice);
    let all = first.iter().enumerate().map(|(at, score)| {
        let of = |value: fn(&PatternScore) -> f64| {
            scores.iter().map(|scores| value(&scores[at])).collect()
        };
        let roles = grid.heads().zip(scores);
        let roles = roles.filter(|(_, scores)| scores[at].role);
        let place = patterns
            .all
            .iter()
            .position(|pattern| *pattern == score.pattern);
        let defined = |targets: &&Vec<Targets>| {
            place.is_some_and(|place| targets[place].iter().any(|targets| !targets.is_empty()))
        };
        PatternOfHeads {
            pattern: score.pattern.clone(),
            pairs: patterns.targets.iter().filter(defined).count(),
            attention: of(|score| score.attention),
            joined: of(|score| score.joined),
            roles: roles.map(|(head, _)| head).collect(),
        }
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &Pattern, tokens: &[u32]) -> Targets {
        let slots = [("NAME".to_owned(), vec![1, 2])];
        targets(pattern, tokens, &|at| at == 2, &slots)
    }

    #[test]
    fn targets_by_hand() {
        let tokens = [9, 5, 6, 5, 6];
        assert_eq!(of(&Pattern::PreviousToken, &tokens)[3], [2]);
        assert!(of(&Pattern::PreviousToken, &tokens)[0].is_empty());
        assert_eq!(of(&Pattern::DuplicateToken, &tokens)[4], [2]);
        assert_eq!(of(&Pattern::Induction(1), &tokens)[3], [2]);
        assert_eq!(of(&Pattern::Induction(1), &tokens)[4], [3]);
        assert!(of(&Pattern::Induction(2), &tokens)[3].is_empty());
        assert_eq!(of(&Pattern::Induction(2), &tokens)[4], [3]);
        assert_eq!(of(&Pattern::FirstToken, &tokens)[4], [0]);
        assert!(of(&Pattern::FirstToken, &tokens)[0].is_empty());
        assert_eq!(of(&Pattern::DifferingTokens, &tokens)[4], [2]);
        assert!(of(&Pattern::DifferingTokens, &tokens)[2].is_empty());
        assert_eq!(of(&Pattern::Slot("NAME".to_owned()), &tokens)[4], [1, 2]);
        assert!(of(&Pattern::Slot("OTHER".to_owned()), &tokens)[4].is_empty());
    }

    /// What a draw of other targets gives on average and how it varies, against all draws there are.
    #[test]
    fn chance_is_that_of_all_draws() {
        let rows = [
            1.0, 0.0, 0.0, 0.0, //
            0.5, 0.5, 0.0, 0.0, //
            0.2, 0.3, 0.5, 0.0, //
            0.1, 0.2, 0.3, 0.4,
        ];
        let targets = vec![vec![], vec![], vec![], vec![0, 2]];
        let weights = [0.0, 0.0, 0.0, 0.5];
        let mut attention = rows;
        attention[12] = 0.3;
        let found = Follows::of(&targets, &attention, &rows, [&weights, &weights]);
        assert!((found.attention - 0.6).abs() < 1e-6);
        assert!((found.weighted[0] - 0.2).abs() < 1e-6);
        let draws = [0.1 + 0.2, 0.1 + 0.3, 0.2 + 0.3].map(|x| 0.5 * x);
        let mean = draws.iter().sum::<f32>() / 3.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 3.0;
        assert!((found.by_chance[1] - mean).abs() < 1e-6);
        assert!((found.variance[1] - variance).abs() < 1e-6);
    }
}
