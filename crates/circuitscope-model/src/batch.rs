use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_hooks::Positions;

use crate::prefix::{SharedRow, Tree};
use crate::rows::{PaddedRows, PaddingSide};
use crate::{Error, Result};

/// Prompts of one forward pass, padded to one length.
///
/// Padding never reaches a real position: no real token attends to it, positions are counted from
/// the first real token, and reductions over positions leave it out. Values at padded positions have
/// no meaning.
#[derive(Debug, Clone)]
pub struct TokenBatch<B: Backend> {
    /// `[batch, pos]`.
    pub(crate) tokens: Tensor<B, 2, Int>,
    pub(crate) positions: Positions<B>,
    /// First real position of each row.
    pub(crate) first: Vec<usize>,
    pub(crate) pos: usize,
    /// Positions of every prompt before the first one of its row.
    pub(crate) offset: usize,
    /// For each row, which token follows which, where rows hold several prompts.
    trees: Option<Vec<Tree>>,
}

impl<B: Backend> TokenBatch<B> {
    /// Pads `sequences` to the longest. Padding holds token 0.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`].
    pub fn new<S: AsRef<[u32]>>(
        sequences: &[S],
        side: PaddingSide,
        device: &B::Device,
    ) -> Result<Self> {
        let lengths: Vec<usize> = sequences
            .iter()
            .map(|tokens| tokens.as_ref().len())
            .collect();
        if let Some(prompt) = lengths.iter().position(|&length| length == 0) {
            return Err(Error::EmptyPrompt { prompt });
        }
        let pos = lengths.iter().copied().max().unwrap_or(0);
        let first = |length: usize| {
            if side == PaddingSide::Left {
                pos - length
            } else {
                0
            }
        };
        let mut tokens = vec![0; sequences.len() * pos];
        for (row, sequence) in sequences.iter().map(AsRef::as_ref).enumerate() {
            let start = row * pos + first(sequence.len());
            for (to, &token) in tokens[start..start + sequence.len()]
                .iter_mut()
                .zip(sequence)
            {
                *to = i64::from(token);
            }
        }
        let first = lengths.iter().map(|&length| first(length)).collect();
        Ok(Self::build(tokens, first, lengths, pos, device))
    }

    /// Rows of one length with an attention mask (1 real, 0 padding) of the same shape.
    ///
    /// # Errors
    /// [`Error::Mask`] unless every row is padded on one side only and has a real token.
    pub fn from_masked(tokens: &[Vec<u32>], mask: &[Vec<u8>], device: &B::Device) -> Result<Self> {
        let rows = PaddedRows::from_masked(tokens, mask)?;
        let lengths = rows.prompts.iter().map(Vec::len).collect();
        let tokens = tokens
            .iter()
            .flatten()
            .map(|&token| i64::from(token))
            .collect();
        Ok(Self::build(tokens, rows.first, lengths, rows.pos, device))
    }

    /// Rows of prompts that begin alike, padded on the right.
    pub(crate) fn shared(rows: &[&SharedRow], device: &B::Device) -> Result<Self> {
        let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
        let mut batch = Self::new(&tokens, PaddingSide::Right, device)?;
        if rows.iter().any(|row| row.ends.len() > 1) {
            batch.trees = Some(rows.iter().map(|row| row.tree.clone()).collect());
        }
        Ok(batch)
    }

    fn build(
        tokens: Vec<i64>,
        first: Vec<usize>,
        lengths: Vec<usize>,
        pos: usize,
        device: &B::Device,
    ) -> Self {
        let batch = lengths.len();
        let rows = first.iter().zip(&lengths);
        let mask: Vec<f32> = rows
            .clone()
            .flat_map(|(&first, &length)| {
                (0..pos).map(move |at| {
                    if (first..first + length).contains(&at) {
                        1.0
                    } else {
                        0.0
                    }
                })
            })
            .collect();
        let last = rows.map(|(first, length)| first + length - 1).collect();
        let positions = Positions {
            mask: Tensor::from_data(TensorData::new(mask, [batch, pos]), device),
            last,
            lengths,
        };
        Self {
            tokens: Tensor::from_data(TensorData::new(tokens, [batch, pos]), device),
            positions,
            first,
            pos,
            offset: 0,
            trees: None,
        }
    }

    /// Number of prompts.
    pub fn batch(&self) -> usize {
        self.first.len()
    }

    /// Length to which they are padded.
    pub const fn pos(&self) -> usize {
        self.pos
    }

    /// Which positions are real.
    pub const fn positions(&self) -> &Positions<B> {
        &self.positions
    }

    /// The same prompts `copies` times over: all of them, then all of them again.
    #[must_use]
    pub fn repeated(&self, copies: usize) -> Self {
        Self {
            tokens: self.tokens.clone().repeat_dim(0, copies),
            positions: Positions {
                mask: self.positions.mask.clone().repeat_dim(0, copies),
                last: self.positions.last.repeat(copies),
                lengths: self.positions.lengths.repeat(copies),
            },
            first: self.first.repeat(copies),
            pos: self.pos,
            offset: self.offset,
            trees: (self.trees.as_ref()).map(|trees| vec![trees.clone(); copies].concat()),
        }
    }

    /// The same prompts from position `start` on: what is run where the positions before are known
    /// ([`Past`](crate::Past)).
    ///
    /// # Panics
    /// If prompts are padded on the left, or one is read before `start`.
    #[must_use]
    pub fn tail(&self, start: usize) -> Self {
        let Positions {
            mask,
            last,
            lengths,
        } = &self.positions;
        assert!(
            self.trees.is_none()
                && self.first.iter().all(|first| *first == 0)
                && last.iter().all(|last| *last >= start),
            "position {start} of prompts from {:?} on, read at {last:?}",
            self.first
        );
        let less = |all: &[usize]| all.iter().map(|at| at - start).collect();
        Self {
            tokens: self.tokens.clone().slice_dim(1, start..self.pos),
            positions: Positions {
                mask: mask.clone().slice_dim(1, start..self.pos),
                last: less(last),
                lengths: less(lengths),
            },
            first: self.first.clone(),
            pos: self.pos - start,
            offset: self.offset + start,
            trees: None,
        }
    }

    /// The same prompts, read at these positions instead of the last real ones: by [`last`](Self::last)
    /// and by reductions to the last position.
    ///
    /// # Panics
    /// Unless there is one for each prompt, and it is real.
    #[must_use]
    pub fn read_at(mut self, positions: Vec<usize>) -> Self {
        let rows = self.first.iter().zip(&self.positions.lengths);
        assert!(
            positions.len() == self.batch()
                && rows
                    .zip(&positions)
                    .all(|((first, length), at)| (*first..first + length).contains(at)),
            "positions {positions:?} of prompts of {:?} tokens",
            self.positions.lengths
        );
        self.positions.last = positions;
        self
    }

    /// Vectors at the last real position of each prompt.
    ///
    /// # Shapes
    /// - `x`: `[batch, pos, ..]`
    /// - result: `[batch, width]`, the product of the remaining dimensions
    pub fn last<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, 2> {
        let (rows, pos) = (self.batch(), self.pos);
        let width = x.shape().num_elements() / (rows * pos);
        let index = self.last_rows(&x.device());
        x.reshape([rows * pos, width]).select(0, index)
    }

    /// Where the last real positions are among all `batch * pos`.
    pub(crate) fn last_rows(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        let last = self.positions.last.iter().enumerate();
        let index: Vec<i64> = last
            .map(|(row, last)| (row * self.pos + last) as i64)
            .collect();
        let index = TensorData::new(index, [self.batch()]);
        Tensor::from_data(index, device)
    }

    /// Whether each row is one prompt, as long as all others.
    pub(crate) fn is_even(&self) -> bool {
        let mut lengths = self.positions.lengths.iter();
        self.trees.is_none() && lengths.all(|&length| length == self.pos)
    }

    /// Positions that the model must know.
    pub(crate) fn span(&self) -> usize {
        let Some(trees) = &self.trees else {
            return self.offset + self.pos;
        };
        let deepest = trees.iter().flat_map(|tree| &tree.depth).max();
        deepest.map_or(0, |deepest| deepest + 1)
    }

    /// For each entry of `[batch, pos]`, its place counted from the first token of its prompt; 0 at
    /// padding.
    pub(crate) fn position_ids(&self) -> Vec<i64> {
        if let Some(trees) = &self.trees {
            let row = |tree: &Tree| {
                let mut ids = vec![0; self.pos];
                for (id, &depth) in ids.iter_mut().zip(&tree.depth) {
                    *id = depth as i64;
                }
                ids
            };
            return trees.iter().flat_map(row).collect();
        }
        let rows = self.first.iter().zip(&self.positions.lengths);
        rows.flat_map(|(&first, &length)| {
            (0..self.pos).map(move |at| {
                if (first..first + length).contains(&at) {
                    (self.offset + at - first) as i64
                } else {
                    0
                }
            })
        })
        .collect()
    }

    /// For each prompt the place of its last real position, counted from its first token.
    pub(crate) fn last_ids(&self) -> Vec<usize> {
        let rows = self.first.iter().zip(&self.positions.last);
        rows.map(|(first, last)| self.offset + last - first)
            .collect()
    }

    /// `[batch or 1, 1, q_pos, k_pos]`, true where a query may not attend: at padding, at later
    /// positions if `causal`, and `window` or more positions back. Every query may attend to itself,
    /// so that padded rows stay finite. Keys run over the positions before the row, too. `None` if
    /// nothing is blocked.
    pub(crate) fn blocked(
        &self,
        causal: bool,
        window: Option<usize>,
    ) -> Option<(Vec<bool>, [usize; 4])> {
        let pos = self.pos;
        if let Some(trees) = &self.trees {
            let mut flags = vec![true; self.batch() * pos * pos];
            for (tree, flags) in trees.iter().zip(flags.chunks_exact_mut(pos * pos)) {
                for (q, flags) in flags.chunks_exact_mut(pos).enumerate() {
                    flags[q] = false;
                    if q < tree.depth.len() {
                        let path = tree.path(q).take(window.unwrap_or(pos));
                        path.for_each(|k| flags[k] = false);
                    }
                }
            }
            return Some((flags, [self.batch(), 1, pos, pos]));
        }
        let keys = self.offset + pos;
        if self.is_even() {
            if !causal && window.is_none() {
                return None;
            }
            let queries = self.offset..keys;
            let flags =
                queries.flat_map(|q| (0..keys).map(move |k| !is_near(q, k, causal, window)));
            return Some((flags.collect(), [1, 1, pos, keys]));
        }
        let mut flags = Vec::with_capacity(self.batch() * pos * keys);
        for (&first, &length) in self.first.iter().zip(&self.positions.lengths) {
            let real = first..self.offset + first + length;
            for q in self.offset..keys {
                let open = |k: usize| real.contains(&k) && is_near(q, k, causal, window);
                flags.extend((0..keys).map(|k| k != q && !open(k)));
            }
        }
        Some((flags, [self.batch(), 1, pos, keys]))
    }

    /// The same for the last real position of each prompt alone: `[batch, 1, 1, k_pos]`.
    pub(crate) fn blocked_at_last(
        &self,
        causal: bool,
        window: Option<usize>,
    ) -> (Vec<bool>, [usize; 4]) {
        let keys = self.offset + self.pos;
        let Positions { last, lengths, .. } = &self.positions;
        let rows = self.first.iter().zip(lengths).zip(last);
        let flags = rows.flat_map(|((&first, &length), &last)| {
            let (real, q) = (first..self.offset + first + length, self.offset + last);
            (0..keys).map(move |k| !(real.contains(&k) && is_near(q, k, causal, window)))
        });
        (flags.collect(), [self.batch(), 1, 1, keys])
    }
}

/// Whether a query at position `q` may attend to position `k`.
fn is_near(q: usize, k: usize, causal: bool, window: Option<usize>) -> bool {
    !(causal && k > q) && window.is_none_or(|window| q.saturating_sub(k) < window)
}
