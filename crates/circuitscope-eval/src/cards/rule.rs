//! Tokens that foretell a code.

use std::collections::BTreeSet;

use circuitscope_core::{Polarity, Seed, draw};
use circuitscope_measures::cards::TokenRule;
use circuitscope_score::stats::quantile;

use super::Words;
use super::codes::distinct;
use crate::causal::TokenPair;

/// Tokens of a rule, at most.
const TOKENS: usize = 5;
/// Prompts with the code and without it that each half needs.
const FEWEST: usize = 2;
/// Rules of tokens drawn at random.
const RANDOM: usize = 100;

/// The rule *the prompt holds one of these tokens* for a code, learnt on half of the pairs, token by token as long as its
/// balanced accuracy grows, and tried on the other half. Nothing where a half has not two prompts with the code and
/// two without.
pub(super) fn token_rule(
    pairs: &[TokenPair],
    has: &dyn Fn(usize, Polarity) -> bool,
    words: Words<'_>,
    seed: Seed,
) -> Option<TokenRule> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    draw::shuffle(&mut seed.stream("halves").rng(), &mut order);
    let (first, second) = order.split_at(order.len() / 2);
    let half = |pairs_of: &[usize]| Half::of(pairs, pairs_of, has);
    let (learnt, tried) = (half(first), half(second));
    if !(learnt.tells() && tried.tells()) {
        return None;
    }
    let candidates: BTreeSet<u32> = learnt
        .prompts
        .iter()
        .flat_map(|(tokens, _)| tokens.iter().copied())
        .collect();
    let candidates: Vec<u32> = candidates.into_iter().collect();
    let mut rule: Vec<u32> = Vec::new();
    let mut best = 0.5;
    let mut open: Vec<bool> = vec![true; learnt.prompts.len()];
    while rule.len() < TOKENS {
        let tried = candidates
            .iter()
            .filter(|token| !rule.contains(token))
            .map(|&token| (learnt.accuracy_with(&open, token), token));
        // Of those as good, the first.
        let found = tried.max_by(|(a, x), (b, y)| a.total_cmp(b).then(y.cmp(x)));
        let Some((accuracy, token)) = found.filter(|(accuracy, _)| *accuracy > best + 1e-9) else {
            break;
        };
        best = accuracy;
        rule.push(token);
        for (open, (tokens, _)) in open.iter_mut().zip(&learnt.prompts) {
            *open &= !tokens.contains(&token);
        }
    }
    if rule.is_empty() {
        return None;
    }
    let mut rng = seed.stream("random").rng();
    let random = (0..RANDOM).map(|_| {
        let mut drawn = candidates.clone();
        draw::choose_first(&mut rng, &mut drawn, rule.len());
        tried.accuracy(&drawn[..rule.len()])
    });
    let random: Vec<f64> = random.collect();
    Some(TokenRule {
        learnt: best,
        tried: tried.accuracy(&rule),
        random: random.iter().sum::<f64>() / RANDOM as f64,
        random_high: quantile(&random, 0.95).ok()?,
        tokens: rule.into_iter().map(words).collect(),
    })
}

/// Prompts of some pairs with their tokens, and whether they have the code.
struct Half {
    prompts: Vec<(BTreeSet<u32>, bool)>,
    with: usize,
}

impl Half {
    fn of(pairs: &[TokenPair], members: &[usize], has: &dyn Fn(usize, Polarity) -> bool) -> Self {
        let classes = [Polarity::Positive, Polarity::Negative];
        let prompts = members.iter().flat_map(|&pair| {
            classes.map(|class| (distinct(pairs[pair].get(class)), has(pair, class)))
        });
        let prompts: Vec<(BTreeSet<u32>, bool)> = prompts.collect();
        let with = prompts.iter().filter(|(_, has)| *has).count();
        Self { prompts, with }
    }

    fn tells(&self) -> bool {
        self.with >= FEWEST && self.prompts.len() - self.with >= FEWEST
    }

    /// Of a rule that says yes where `said` does.
    fn balanced(&self, said: impl Fn(usize, &BTreeSet<u32>) -> bool) -> f64 {
        let (mut hits, mut passed) = (0usize, 0usize);
        for (at, (tokens, has)) in self.prompts.iter().enumerate() {
            match (said(at, tokens), *has) {
                (true, true) => hits += 1,
                (false, false) => passed += 1,
                _ => {}
            }
        }
        let without = self.prompts.len() - self.with;
        f64::midpoint(
            hits as f64 / self.with as f64,
            passed as f64 / without as f64,
        )
    }

    fn accuracy(&self, rule: &[u32]) -> f64 {
        self.balanced(|_, tokens| rule.iter().any(|token| tokens.contains(token)))
    }

    /// Of a rule that says no on the prompts that are open, and one more token.
    fn accuracy_with(&self, open: &[bool], token: u32) -> f64 {
        self.balanced(|at, tokens| !open[at] || tokens.contains(&token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token 7 stands on every prompt with the code; of the other tokens none says anything.
    #[test]
    fn a_token_that_says_it_all_is_found() {
        let pair = |at: u32| {
            let (clean, corrupt) = (vec![1, 10 + at % 5, 7], vec![1, 10 + at % 5, 8]);
            TokenPair::new((at as usize, at as usize), clean, corrupt)
        };
        let pairs: Vec<TokenPair> = (0..20).map(pair).collect();
        let words = |token: u32| format!("t{token}");
        let has = |_: usize, class: Polarity| class == Polarity::Positive;
        let rule = token_rule(&pairs, &has, &words, Seed::new(1)).unwrap();
        assert_eq!(rule.tokens, ["t7"]);
        assert_eq!((rule.learnt, rule.tried), (1.0, 1.0));
        assert!(rule.random < 0.75, "{rule:?}");
        // What no token tells is not explained by chance.
        let parity = |pair: usize, _: Polarity| pair.is_multiple_of(2);
        let rule = token_rule(&pairs, &parity, &words, Seed::new(1));
        assert!(rule.is_none_or(|rule| rule.tried <= rule.random_high + 0.35));
        // One prompt is not enough to learn from.
        let once = |pair: usize, class: Polarity| pair == 0 && class == Polarity::Positive;
        assert!(token_rule(&pairs, &once, &words, Seed::new(1)).is_none());
    }
}
