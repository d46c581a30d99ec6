use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use circuitscope_model::{PaddingSide, Past, TokenBatch};

use super::{Ablation, Alignment, CausalEvidence, Targets, TokenPair, align};

/// Bytes of a batch where the host computes.
const HOST_BATCH: u64 = 256 << 20;
/// Bytes of all batches that are differentiated at a time where the host computes.
const HOST_GRADIENTS: u64 = 256 << 20;
/// Tokens of a batch that is differentiated there: more gain nothing.
const HOST_TOKENS: usize = 512;
/// A batch of so few pairs is joined by others whatever padding that takes.
const FEW: usize = 4;

/// What is kept of every prompt of a batch that is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Outputs of all nodes, and gradients there.
    Nodes,
    /// Gradients at what readers read, too.
    Readers,
    /// What all writers add to the stream, too.
    Streams,
}

/// Some pairs as two batches of tokens, and their answers.
#[derive(Debug, Clone)]
pub struct PairBatch<B: Backend> {
    /// Which pairs.
    pub members: Vec<usize>,
    /// The positive prompts.
    pub clean: TokenBatch<B>,
    /// The negative prompts.
    pub corrupt: TokenBatch<B>,
    /// Answers of the positive prompts.
    pub targets: Targets,
    /// Where pairs are aligned: for each position of the positives, the position of the negatives, rows
    /// laid end to end.
    pub(super) places: Option<Tensor<B, 1, Int>>,
}

/// Which pairs are run together.
impl<B: Backend> CausalEvidence<B> {
    /// How many copies of a pair's prompt fit one batch of passes that read every input separately, or
    /// that keep the outputs of all writers apart.
    pub(crate) fn rows_per_batch(&self, tokens: usize) -> usize {
        let config = self.model.config();
        let heads = config.n_heads + 2 * config.n_key_value_heads;
        // Inputs of all ports, their norm and its intermediates, and the outputs of all writers: as they
        // are, ablated, and their difference.
        let floats = 6 * heads * config.d_model + 3 * self.graph.writers() * config.d_model;
        let bytes = (floats * 4 * tokens) as u64;
        // More gain nothing where the host computes.
        let most = if self.model.exec().in_host_memory {
            self.memory.min(4 * HOST_BATCH)
        } else {
            self.memory
        };
        ((most / 4 / bytes.max(1)) as usize).clamp(1, 4096 / tokens.max(1) + 1)
    }

    /// Pairs `0..count` in batches of prompts of like length that are differentiated, `lanes` of them at
    /// a time.
    pub(crate) fn differentiated(&self, count: usize, lanes: usize, held: Held) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..count.min(self.pairs.len())).collect();
        order.sort_by_key(|&pair| self.pairs[pair].clean.len());
        self.in_lanes(&order, lanes, held)
    }

    /// The pairs of each length of their positive prompts, in such batches.
    pub(crate) fn of_one_length(
        &self,
        count: usize,
        lanes: usize,
        held: Held,
    ) -> Vec<Vec<Vec<usize>>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for pair in 0..count.min(self.pairs.len()) {
            let tokens = self.pairs[pair].clean.len();
            groups.entry(tokens).or_default().push(pair);
        }
        let groups = groups.into_values();
        groups
            .map(|group| self.in_lanes(&group, lanes, held))
            .collect()
    }

    /// Pairs, the longest last, in batches that are differentiated, `lanes` of them at a time.
    fn in_lanes(&self, order: &[usize], lanes: usize, held: Held) -> Vec<Vec<usize>> {
        let tokens = order.last().map_or(1, |&pair| self.pairs[pair].clean.len());
        let config = self.model.config();
        let mlp = config.mlp.map_or(0, |mlp| 5 * mlp.d_mlp);
        let qkv = (config.n_heads + 2 * config.n_key_value_heads) * config.d_head;
        // Floats of a token: the graph of one block; of every layer the stream, and up to four runs' outputs
        // and gradients of its nodes.
        let block = 12 * config.d_model + 3 * qkv + 4 * config.n_heads * tokens + mlp;
        let nodes = config.n_heads * config.d_head + config.d_model;
        let readers = if held == Held::Nodes {
            0
        } else {
            qkv + config.d_model
        };
        let layers = config.n_layers * (config.d_model + 4 * nodes + readers);
        let writers = if held == Held::Streams {
            4 * self.graph.writers() * config.d_model
        } else {
            0
        };
        let bytes = (4 * tokens * (block + layers + writers)) as u64;
        let (most, longest) = if self.model.exec().in_host_memory {
            let most = (self.memory / 8).min(HOST_GRADIENTS) / lanes as u64;
            (most, (HOST_TOKENS / tokens.max(1)).max(1))
        } else {
            (self.memory / 8, usize::MAX)
        };
        let largest = longest.min(order.len().max(1)) as u64;
        let rows = (most / bytes.max(1)).clamp(1, largest) as usize;
        // As many as keep all lanes busy.
        let batches = order.len().div_ceil(rows).next_multiple_of(lanes);
        let rows = order.len().div_ceil(batches.max(1)).max(1);
        order.chunks(rows).map(<[_]>::to_vec).collect()
    }

    /// Pairs `0..count` in batches of prompts of like length of which little is padding, and in which
    /// anything changes from about the same position on; none of more than `largest` pairs.
    pub(crate) fn alike(&self, count: usize, largest: usize) -> Vec<Vec<usize>> {
        let key = |pair: usize| {
            (
                self.first_change(&[pair]),
                self.pairs[pair].clean.len(),
                pair,
            )
        };
        let mut order: Vec<_> = (0..count.min(self.pairs.len())).map(key).collect();
        order.sort_unstable();
        let mut batches: Vec<Vec<usize>> = Vec::new();
        // First position and longest prompt of the last batch, and its tokens without any padding.
        let (mut first, mut longest, mut own) = (0, 0, 0);
        for (start, length, pair) in order {
            let joined = batches.last_mut().filter(|batch| {
                let rows = batch.len() + 1;
                let padded = rows * (longest.max(length) - first);
                let most = largest.min(self.rows_per_batch(longest.max(length)));
                rows <= most && (rows <= FEW || 4 * padded <= 5 * (own + length - start))
            });
            if let Some(batch) = joined {
                batch.push(pair);
                (longest, own) = (longest.max(length), own + length - start);
            } else {
                batches.push(vec![pair]);
                (first, longest, own) = (start, length, length - start);
            }
        }
        batches
    }

    /// The first position at which some pairs' runs may differ from those on their positive prompts;
    /// no later than any of them is read.
    pub(crate) fn first_change(&self, members: &[usize]) -> usize {
        if self.ablation != Ablation::Negative || !Past::<B>::applies(self.model.config()) {
            return 0;
        }
        let first = members.iter().map(|&pair| {
            let TokenPair {
                clean,
                corrupt,
                position,
                ..
            } = &self.pairs[pair];
            let same = clean.iter().zip(corrupt).take_while(|(a, b)| a == b);
            let places = self.aligned[pair].as_ref().map(Alignment::places);
            let moved = places.and_then(|places| (0..places.len()).find(|&at| places[at] != at));
            let read = position.unwrap_or(clean.len() - 1);
            same.count().min(moved.unwrap_or(read)).min(read)
        });
        first.min().unwrap_or(0)
    }

    /// Pairs `0..count` in batches of prompts of like length, on the device of `C`.
    ///
    /// `share` is the part of a batch that one pass may fill: gradients keep every layer's
    /// intermediates, so they ask for less.
    pub fn batches<'a, C: Backend>(
        &'a self,
        count: usize,
        share: f64,
        device: &'a C::Device,
    ) -> impl Iterator<Item = PairBatch<C>> + 'a {
        let mut order: Vec<usize> = (0..count.min(self.pairs.len())).collect();
        order.sort_by_key(|&pair| self.pairs[pair].clean.len());
        let longest = order.last().map_or(1, |&pair| self.pairs[pair].clean.len());
        let rows = (self.rows_per_batch(longest) as f64 * share).max(1.0) as usize;
        let chunks: Vec<Vec<usize>> = order.chunks(rows).map(<[_]>::to_vec).collect();
        chunks
            .into_iter()
            .map(move |members| self.batch::<C>(members, device))
    }

    /// Where the two prompts of a pair are read: the position of its answer, and what corresponds to it.
    pub(crate) fn read_at(&self, pair: usize) -> [usize; 2] {
        let TokenPair {
            position, clean, ..
        } = &self.pairs[pair];
        let at = position.unwrap_or(clean.len() - 1);
        let aligned = self.aligned.get(pair).and_then(Option::as_ref);
        [at, aligned.map_or(at, |aligned| aligned.places()[at])]
    }

    /// The position of the negative prompt that corresponds to one of the positive prompt.
    pub(crate) fn place(&self, pair: usize, at: usize) -> usize {
        let aligned = self.aligned.get(pair).and_then(Option::as_ref);
        aligned.map_or(at, |aligned| aligned.places()[at])
    }

    /// Some pairs as one batch.
    pub fn batch<C: Backend>(&self, members: Vec<usize>, device: &C::Device) -> PairBatch<C> {
        let side = |prompt: fn(&TokenPair) -> &Vec<u32>| {
            let prompts = members.iter().map(|&pair| prompt(&self.pairs[pair]));
            TokenBatch::new(&prompts.collect::<Vec<_>>(), PaddingSide::Right, device)
        };
        let (Ok(clean), Ok(corrupt)) = (side(|pair| &pair.clean), side(|pair| &pair.corrupt))
        else {
            unreachable!("prompts were checked to be no shorter than one token")
        };
        let [positions, counterparts] = [0, 1].map(|side| {
            members
                .iter()
                .map(|&pair| self.read_at(pair)[side])
                .collect()
        });
        let answers = members.iter().map(|&pair| {
            let TokenPair { right, wrong, .. } = &self.pairs[pair];
            (right.as_slice(), wrong.as_slice())
        });
        let vocabulary = self.model.config().d_vocab_out;
        let aligned = members.iter().map(|&pair| self.aligned.get(pair)?.as_ref());
        let aligned: Vec<Option<&Alignment>> = aligned.collect();
        let (pos, of_corrupt) = (clean.pos(), corrupt.pos());
        PairBatch {
            targets: Targets::new(answers, vocabulary),
            corrupt: corrupt.read_at(counterparts),
            places: align::places(&aligned, pos, of_corrupt, device),
            members,
            clean: clean.read_at(positions),
        }
    }
}
