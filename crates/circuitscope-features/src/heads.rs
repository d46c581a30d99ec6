//! What a feature of a dictionary on heads' `z`, side by side, owes to each head and to each token: direct feature attribution
//! (Kissane et al. 2024, arXiv 2406.17759).

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{Capture, Site};
use circuitscope_model::{Decoder, TokenBatch};

use crate::splice::numbers;
use crate::{Error, Result};

/// What attention did in one layer on one prompt.
#[derive(Debug, Clone)]
pub struct HeadPass<B: Backend> {
    /// `[pos, head, d_head]`
    pub z: Tensor<B, 3>,
    /// `[head, q_pos, k_pos]`
    pub pattern: Tensor<B, 3>,
    /// `[pos, head, d_head]`: the values that each head reads, those of a shared key/value head once for each head.
    pub v: Tensor<B, 3>,
}

impl<B: Backend> HeadPass<B> {
    /// Runs the model on one prompt as far as `z` of `layer`.
    ///
    /// # Errors
    /// A prompt that does not fit the model; a layer that it lacks.
    pub fn of(
        model: &Decoder<B>,
        prompt: &[u32],
        layer: usize,
        device: &B::Device,
    ) -> Result<Self> {
        let config = model.config();
        config.check_tokens(&[prompt])?;
        if layer >= config.n_layers {
            return Err(Error::Unfit {
                what: "the layer".to_owned(),
                found: layer.to_string(),
                expected: format!("0 to {}", config.n_layers - 1),
            });
        }
        let batch = TokenBatch::new(&[prompt], circuitscope_model::PaddingSide::Right, device)?;
        let sites = [Site::Z(layer), Site::Pattern(layer), Site::V(layer)];
        let mut capture = Capture::new(sites);
        model.forward(&batch, &mut capture);
        let mut taken = |site: Site| {
            let found = capture.take(site).and_then(|found| found.get::<4>());
            let found = found.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
            Ok::<Tensor<B, 3>, Error>(found.squeeze_dim::<3>(0))
        };
        let [z, pattern, v] = [taken(sites[0])?, taken(sites[1])?, taken(sites[2])?];
        let [pos, kv_heads, d_head] = v.dims();
        let group = config.n_heads / kv_heads;
        // [pos, kv_head, 1, d_head] -> [pos, head, d_head]
        let v = v
            .reshape([pos, kv_heads, 1, d_head])
            .expand([pos, kv_heads, group, d_head])
            .reshape([pos, config.n_heads, d_head]);
        Ok(Self { z, pattern, v })
    }

    /// What each head adds to the pre-activation of a feature at a position: `z_h[t] · w_h`, one for each head. With
    /// the feature's bias they sum to it.
    ///
    /// # Shapes
    /// - `reads`: `[heads * d_head]`, the feature's column of [`Reads::weight`](circuitscope_sae::Reads)
    ///
    /// # Errors
    /// Values that are not finite.
    ///
    /// # Panics
    /// If `reads` has another width, or there is no such position.
    pub fn by_head(&self, reads: Tensor<B, 1>, position: usize) -> Result<Vec<f64>> {
        let [_, heads, d_head] = self.z.dims();
        let z = self
            .z
            .clone()
            .slice_dim(0, position..=position)
            .squeeze_dim::<2>(0);
        numbers((z * reads.reshape([heads, d_head])).sum_dim(1))
    }

    /// The same by head and source: `A_h[t, s] v_h[s] · w_h`, `[head][source]`; sources after `position` have 0 in a causal
    /// model. Sums over sources are those of [`by_head`](Self::by_head).
    ///
    /// # Errors
    /// Values that are not finite.
    ///
    /// # Panics
    /// As [`by_head`](Self::by_head).
    pub fn by_source(&self, reads: Tensor<B, 1>, position: usize) -> Result<Vec<Vec<f64>>> {
        let [pos, heads, d_head] = self.v.dims();
        // [pos, head]
        let read = (self.v.clone() * reads.reshape([1, heads, d_head]))
            .sum_dim(2)
            .squeeze_dim::<2>(2);
        // [head, pos]
        let attended = self
            .pattern
            .clone()
            .slice_dim(1, position..=position)
            .squeeze_dim::<2>(1);
        let all = numbers(read.swap_dims(0, 1) * attended)?;
        Ok(all.chunks(pos).map(<[f64]>::to_vec).collect())
    }
}

/// Share of a feature that is a head's by what the feature writes: `|W_dec[i, h]| / Σ |W_dec[i, h']|`, one for each head.
///
/// `atom` is `[heads * d_head]`; one that is 0 gives every head the same share.
#[must_use]
pub fn weight_shares(atom: &[f64], heads: usize) -> Vec<f64> {
    let width = (atom.len() / heads.max(1)).max(1);
    let norm = |part: &[f64]| part.iter().map(|x| x * x).sum::<f64>().sqrt();
    let norms: Vec<f64> = atom.chunks(width).map(norm).collect();
    let all: f64 = norms.iter().sum();
    let share = |norm: f64| {
        if all > 0.0 {
            norm / all
        } else {
            1.0 / heads as f64
        }
    };
    norms.into_iter().map(share).collect()
}

/// Where a source stands to the token that reads it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// After an earlier token that is the same as the reading one.
    Induction,
    /// An earlier token that is the same as the reading one.
    Duplicate,
    /// The token before.
    Previous,
    /// The first token of the prompt.
    First,
    /// The reading token itself.
    Current,
    /// Anything else.
    Other,
}

impl Source {
    /// What `source` is to `position`; the first that holds in the order of the variants.
    #[must_use]
    pub fn of(tokens: &[u32], position: usize, source: usize) -> Self {
        let here = tokens[position];
        if source > 0 && source <= position && tokens[source - 1] == here && source - 1 != position
        {
            Self::Induction
        } else if source < position && tokens[source] == here {
            Self::Duplicate
        } else if source + 1 == position {
            Self::Previous
        } else if source == position {
            Self::Current
        } else if source == 0 {
            Self::First
        } else {
            Self::Other
        }
    }
}
