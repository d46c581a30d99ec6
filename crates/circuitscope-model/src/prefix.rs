//! Prompts that begin alike share one row of a forward pass.
//!
//! A row is a tree of tokens, written one after another: each token attends to itself and to the tokens
//! before it in its own prompts, and stands at its distance from their start. For causal models this
//! gives every prompt what it would get alone, and a common beginning is computed once. Matched prompts
//! differ in few places, mostly late.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// The longest row that prompts are merged into, if no prompt is longer: attention is quadratic in it.
const ROW_TOKENS: usize = 64;

/// The tokens of some prompts, common beginnings once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedRow {
    pub(crate) tokens: Vec<u32>,
    pub(crate) tree: Tree,
    /// Which prompts these are, and where each of them ends.
    pub(crate) ends: Vec<(usize, usize)>,
}

/// Which token follows which in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tree {
    /// Tokens before it in its prompt.
    pub(crate) depth: Vec<usize>,
    /// Place of the token before it; the first one's is its own.
    parent: Vec<usize>,
}

impl Tree {
    /// The tokens of the prompt that ends at `end`, last one first.
    pub(crate) fn path(&self, end: usize) -> impl Iterator<Item = usize> {
        let before = move |&at: &usize| (self.parent[at] != at).then_some(self.parent[at]);
        core::iter::successors(Some(end), before)
    }
}

impl SharedRow {
    /// Adds a prompt that has its first tokens, at the places `path`, in common with the row.
    fn push(&mut self, prompt: usize, tokens: &[u32], path: &mut Vec<usize>) {
        for &token in &tokens[path.len()..] {
            let at = self.tokens.len();
            self.tokens.push(token);
            self.tree.depth.push(path.len());
            self.tree.parent.push(path.last().copied().unwrap_or(at));
            path.push(at);
        }
        self.ends.push((
            prompt,
            path.len().checked_sub(1).map_or(0, |last| path[last]),
        ));
    }
}

/// Merges prompts that have at least a quarter of their tokens in common with one before them in
/// alphabetical order, into rows of at most 64 tokens, or `budget` if that is less. With `causal` false every
/// prompt has its own row: what comes later changes what came before.
pub(crate) fn share(sequences: &[&[u32]], causal: bool, budget: usize) -> Vec<SharedRow> {
    let longest = sequences
        .iter()
        .map(|tokens| tokens.len())
        .max()
        .unwrap_or(0);
    let limit = ROW_TOKENS.min(budget).max(longest);
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    if causal {
        order.sort_by_key(|&prompt| (sequences[prompt], prompt));
    }
    let mut rows: Vec<SharedRow> = Vec::new();
    let (mut path, mut before): (Vec<usize>, &[u32]) = (Vec::new(), &[]);
    for prompt in order {
        let tokens = sequences[prompt];
        let common = tokens
            .iter()
            .zip(before)
            .take_while(|(a, b)| a == b)
            .count();
        before = tokens;
        match rows.last_mut() {
            Some(row)
                if causal
                    && 4 * common >= tokens.len()
                    && row.tokens.len() + tokens.len() - common <= limit =>
            {
                path.truncate(common);
                row.push(prompt, tokens, &mut path);
            }
            _ => {
                let mut row = SharedRow {
                    tokens: Vec::with_capacity(tokens.len()),
                    tree: Tree::default(),
                    ends: Vec::new(),
                };
                path.clear();
                row.push(prompt, tokens, &mut path);
                rows.push(row);
            }
        }
    }
    rows
}

/// What each prompt of some rows reads: all of its tokens alike, or the last one.
///
/// # Shapes
/// `[rows, readers, pos]`, with as many readers as the fullest row has prompts; rows with fewer are filled
/// up with zeros.
pub(crate) fn weights<B: Backend>(
    rows: &[&SharedRow],
    last: bool,
    device: &B::Device,
) -> Tensor<B, 3> {
    let pos = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
    let readers = readers(rows);
    let mut weights = vec![0.0f32; rows.len() * readers * pos];
    for (row, to) in rows
        .iter()
        .zip(weights.chunks_exact_mut((readers * pos).max(1)))
    {
        for ((_, end), to) in row.ends.iter().zip(to.chunks_exact_mut(pos)) {
            if last {
                to[*end] = 1.0;
            } else {
                let share = 1.0 / (row.tree.depth[*end] + 1) as f32;
                row.tree.path(*end).for_each(|at| to[at] = share);
            }
        }
    }
    Tensor::from_data(TensorData::new(weights, [rows.len(), readers, pos]), device)
}

/// Prompts of the fullest row.
pub(crate) fn readers(rows: &[&SharedRow]) -> usize {
    rows.iter().map(|row| row.ends.len()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(row: &SharedRow, end: usize) -> Vec<u32> {
        let mut path: Vec<usize> = row.tree.path(end).collect();
        path.reverse();
        assert!(
            path.iter()
                .enumerate()
                .all(|(depth, &at)| row.tree.depth[at] == depth)
        );
        path.into_iter().map(|at| row.tokens[at]).collect()
    }

    #[test]
    fn a_common_beginning_is_there_once() {
        let prompts: [&[u32]; 4] = [&[1, 2, 3, 4], &[9, 9], &[1, 2, 3, 5], &[1, 2]];
        let rows = share(&prompts, true, 4096);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].tokens, [1, 2, 3, 4, 5]);
        assert_eq!(rows[0].ends, [(3, 1), (0, 3), (2, 4)]);
        assert_eq!(rows[0].tree.depth, [0, 1, 2, 3, 3]);
        assert_eq!(share(&prompts, false, 4096).len(), 4);
        // The second does not fit any more.
        assert_eq!(share(&prompts, true, 4)[0].tokens, [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn every_prompt_is_read_whole(
            prompts in proptest::collection::vec(proptest::collection::vec(0u32..3, 1..9), 0..40),
            budget in 1usize..80,
        ) {
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let mut seen = vec![0; prompts.len()];
            for row in share(&prompts, true, budget) {
                for &(prompt, end) in &row.ends {
                    prop_assert_eq!(tokens(&row, end), prompts[prompt]);
                    seen[prompt] += 1;
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
        }
    }
}
