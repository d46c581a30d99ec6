//! Direct feature attribution: which heads, and which source positions, a feature of an attention layer is made of.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::HeadId;
use circuitscope_hooks::wide;
use circuitscope_sae::{Encoder, Reads};

use crate::frozen::floats;
use crate::{Error, Frozen, Result};

/// A feature of a dictionary of the `z` of all heads of a layer, taken apart at one position: made by
/// [`Frozen::attribute_z`].
#[derive(Debug, Clone, PartialEq)]
pub struct ZAttribution {
    /// The layer.
    pub layer: usize,
    /// The feature.
    pub feature: usize,
    /// Where it is active.
    pub position: usize,
    /// For each head `z_h[t] · W_enc[h, i]`.
    pub by_head: Vec<f64>,
    /// `[heads, pos]`: for each head and source `A_h[t, s] v_g(h)[s] · W_enc[h, i]`, with the values of the key/value head that
    /// the head reads. Sums over sources are `by_head`.
    pub by_source: Vec<f64>,
    /// What is added: `b_enc`, less `b_dec · W_enc` where the dictionary centres its input.
    pub bias: f64,
}

impl ZAttribution {
    /// The pre-activation: the sum over heads, and the bias.
    pub fn pre_activation(&self) -> f64 {
        self.by_head.iter().sum::<f64>() + self.bias
    }

    /// The head and source of the largest share; the first on ties.
    pub fn largest(&self) -> (HeadId, usize) {
        let pos = self.by_source.len() / self.by_head.len();
        let mut best = 0;
        for (at, value) in self.by_source.iter().enumerate() {
            if *value > self.by_source[best] {
                best = at;
            }
        }
        (HeadId::new(self.layer, best / pos), best % pos)
    }
}

impl<B: Backend> Frozen<'_, B> {
    /// What a feature of a dictionary reads of the `z` of each head of a layer, `[heads, d_head]`, and its bias.
    pub(crate) fn z_reads(
        &self,
        layer: usize,
        encoder: &dyn Encoder<B>,
        feature: usize,
    ) -> Result<(Tensor<B, 2>, f64)> {
        self.check_layer(layer)?;
        let config = self.model.config();
        let (heads, d_head) = (config.n_heads, config.d_head);
        let unfit = |what: &str, found: String, expected: String| Error::Unfit {
            what: format!("{what} of z of layer {layer}"),
            found,
            expected,
        };
        if encoder.d_in() != heads * d_head {
            return Err(unfit(
                "dictionary",
                format!("width {}", encoder.d_in()),
                format!("{heads} heads of {d_head}"),
            ));
        }
        if feature >= encoder.n_codes() {
            return Err(unfit(
                "feature",
                feature.to_string(),
                format!("less than the {} features", encoder.n_codes()),
            ));
        }
        let Reads { weight, bias } = encoder.reads().ok_or_else(|| {
            unfit(
                "dictionary",
                "one that normalises each vector by its own length".to_owned(),
                "activations that are affine in what is read".to_owned(),
            )
        })?;
        let at = feature..feature + 1;
        let bias = floats(bias.slice_dim(0, at.clone()))?[0];
        let weight = wide(weight.slice_dim(1, at)).reshape([heads, d_head]);
        Ok((weight, bias.into()))
    }

    /// Direct feature attribution (Kissane et al. 2024, arXiv 2406.17759): takes the pre-activation of a feature of a dictionary of
    /// `z`, heads one after another, apart by head, and by head and source position.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the dictionary is not as wide as `z`, has no such feature or normalises its input by its own
    /// length; if there is no such layer or position. What the device cannot read back.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_features::Frozen;
    /// use circuitscope_model::DecoderConfig;
    /// use circuitscope_sae::SaeConfig;
    ///
    /// type B = burn_flex::Flex;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let device = Default::default();
    /// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<B>(Seed::new(0), &device);
    /// let sae = SaeConfig::new(8).with_d_sae(16).init::<B>(Seed::new(1), &device)?;
    /// let frozen = Frozen::new(&model, &[3, 1, 4], &device)?;
    /// let found = frozen.attribute_z(1, &sae, 5, 2)?;
    /// assert_eq!((found.by_head.len(), found.by_source.len()), (2, 2 * 3));
    /// let of_head_0: f64 = found.by_source[..3].iter().sum();
    /// assert!((of_head_0 - found.by_head[0]).abs() < 1e-6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn attribute_z(
        &self,
        layer: usize,
        encoder: &dyn Encoder<B>,
        feature: usize,
        position: usize,
    ) -> Result<ZAttribution> {
        self.check_position(position)?;
        let (reads, bias) = self.z_reads(layer, encoder, feature)?;
        let z = self.layers[layer].z.clone();
        let z = z.slice_dim(1, position..position + 1).squeeze_dim::<2>(1);
        let by_head = floats((z * reads.clone()).sum_dim(1))?;
        let by_source = floats(self.by_source(layer, position, reads))?;
        Ok(ZAttribution {
            layer,
            feature,
            position,
            by_head: by_head.into_iter().map(f64::from).collect(),
            by_source: by_source.into_iter().map(f64::from).collect(),
            bias,
        })
    }

    /// What an activation of 1 of a feature of `z` adds to the logits directly, head by head: its atom through `W_O`, the norm
    /// after attention in models that have one, the final norm and `W_U`, with norms scaling as they do at `position`. Before a soft
    /// cap.
    ///
    /// # Shapes
    /// - `atom`: `[heads * d_head]`
    /// - result: `[heads, d_vocab_out]`, of which the sum over heads is the effect of the feature
    ///
    /// # Errors
    /// [`Error::Unfit`] if the atom is not as wide as `z`, or there is no such layer or position.
    pub fn z_atom_logits(
        &self,
        layer: usize,
        atom: Tensor<B, 1>,
        position: usize,
    ) -> Result<Tensor<B, 2>> {
        self.check_position(position)?;
        let frozen = self.check_layer(layer)?;
        let [heads, d_head, _] = frozen.w_o.dims();
        if atom.dims() != [heads * d_head] {
            return Err(Error::Unfit {
                what: format!("atom of z of layer {layer}"),
                found: format!("width {}", atom.dims()[0]),
                expected: format!("{heads} heads of {d_head}"),
            });
        }
        // [heads, 1, d_head] x [heads, d_head, d_model]
        let written = wide(atom)
            .reshape([heads, 1, d_head])
            .matmul(frozen.w_o.clone());
        let mut written = written.squeeze_dim::<2>(1);
        if let Some(norm) = &frozen.ln1_post {
            written = norm.apply_at(written, position);
        }
        let read = self.ln_final.apply_at(written, position);
        Ok(read.matmul(wide(self.model.w_u())))
    }
}
