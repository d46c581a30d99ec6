//! A model whose MLPs are replaced by transcoders.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{AnyTensor, Site, Tap, wide};
use circuitscope_model::DecoderConfig;

use crate::graph::Transcoders;
use crate::{Error, Result};

/// What becomes of the part of an MLP's output that its transcoder does not make.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Leftover<B: Backend> {
    /// Left out: the transcoder stands for the MLP.
    #[default]
    Dropped,
    /// As it was in another pass over prompts of the same shape, `[batch, pos, d_model]` for each layer
    /// ([`ReplaceMlps::errors`]): the model itself as long as nothing is changed, and under an intervention a model whose
    /// MLPs answer by their transcoders alone.
    Held(BTreeMap<usize, Tensor<B, 3>>),
}

/// Runs a model with the outputs of MLPs replaced by what transcoders make of the MLPs' inputs ([`Site::MlpHookIn`] to
/// [`Site::MlpOut`]).
///
/// # Examples
/// ```
/// use burn::tensor::Tensor;
/// use circuitscope_core::Seed;
/// use circuitscope_features::{Leftover, ReplaceMlps, Transcoders};
/// use circuitscope_hooks::{Capture, Site};
/// use circuitscope_model::{DecoderConfig, PaddingSide, TokenBatch};
/// use circuitscope_sae::{Encoder, SaeConfig};
///
/// type B = burn_flex::Flex;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<B>(Seed::new(0), &device);
/// let coder = SaeConfig::new(8).with_d_sae(16).init::<B>(Seed::new(1), &device)?;
/// let coders = Transcoders::from([(1, &coder as &dyn Encoder<B>)]);
/// let batch = TokenBatch::new(&[[3, 1, 4]], PaddingSide::Right, &device)?;
///
/// let mut run = (ReplaceMlps::new(&coders, model.config())?, Capture::new([Site::Logits]));
/// model.forward(&batch, &mut run);
/// let replaced = run.1.take(Site::Logits).and_then(|x| x.get::<3>()).expect("captured");
/// let errors = run.0.errors();
/// let held = ReplaceMlps::new(&coders, model.config())?.with_leftover(Leftover::Held(errors));
/// let mut run = (held, Capture::new([Site::Logits]));
/// model.forward(&batch, &mut run);
/// let whole = run.1.take(Site::Logits).and_then(|x| x.get::<3>()).expect("captured");
/// let off = |x: Tensor<B, 3>| (x - model.logits(&batch)).abs().max().into_scalar();
/// assert!(off(whole) < 1e-5 && off(replaced) > 1e-2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReplaceMlps<'a, B: Backend> {
    transcoders: &'a Transcoders<'a, B>,
    leftover: Leftover<B>,
    /// `[batch, pos, d_model]`, from an MLP's input to its output.
    input: Option<Tensor<B, 3>>,
    errors: BTreeMap<usize, Tensor<B, 3>>,
}

impl<'a, B: Backend> ReplaceMlps<'a, B> {
    /// Replaces the MLPs of all layers that have a transcoder.
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is no such layer, a transcoder is not of the model's width or writes nothing, or the model has no MLPs.
    pub fn new(transcoders: &'a Transcoders<'a, B>, config: &DecoderConfig) -> Result<Self> {
        for (layer, encoder) in transcoders {
            let unfit = |found: String, expected: String| {
                Err(Error::Unfit {
                    what: format!("transcoder of layer {layer}"),
                    found,
                    expected,
                })
            };
            if *layer >= config.n_layers || config.mlp.is_none() {
                let layers = config.mlp.map_or(0, |_| config.n_layers);
                return unfit(
                    format!("layer {layer}"),
                    format!("one of the model's {layers} layers with an MLP"),
                );
            }
            let widths = [encoder.d_in(), encoder.d_out()];
            if widths != [config.d_model; 2] {
                return unfit(
                    format!("widths {} to {}", widths[0], widths[1]),
                    format!("the model's width {0} to {0}", config.d_model),
                );
            }
            if encoder.atoms().is_none() {
                let found = "features that write nothing".to_owned();
                return unfit(found, "features with atoms".to_owned());
            }
        }
        Ok(Self {
            transcoders,
            leftover: Leftover::default(),
            input: None,
            errors: BTreeMap::new(),
        })
    }

    /// With what transcoders do not make dropped or held.
    #[must_use]
    pub fn with_leftover(mut self, leftover: Leftover<B>) -> Self {
        self.leftover = leftover;
        self
    }

    /// What the MLPs of the last pass wrote less what their transcoders made, `[batch, pos, d_model]` for each layer, at the
    /// inputs that they had in that pass.
    pub fn errors(self) -> BTreeMap<usize, Tensor<B, 3>> {
        self.errors
    }

    /// What stands for the output of a layer.
    fn replaced(&mut self, layer: usize, output: Tensor<B, 3>) -> Tensor<B, 3> {
        let (Some(encoder), Some(input)) = (self.transcoders.get(&layer), self.input.take()) else {
            return output;
        };
        let [rows, pos, width] = input.dims();
        let made = encoder.reconstruct(wide(input).reshape([rows * pos, width]));
        let made = made.unwrap_or_else(|| panic!("the transcoder of layer {layer} writes nothing"));
        let made = made.reshape([rows, pos, width]);
        self.errors.insert(layer, wide(output) - made.clone());
        match &self.leftover {
            Leftover::Dropped => made,
            Leftover::Held(errors) => match errors.get(&layer) {
                Some(error) => made + error.clone(),
                None => made,
            },
        }
    }
}

impl<B: Backend> Tap<B> for ReplaceMlps<'_, B> {
    fn wants(&self, site: Site) -> bool {
        match site {
            Site::MlpHookIn(layer) | Site::MlpOut(layer) => self.transcoders.contains_key(&layer),
            _ => false,
        }
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let Some(whole) = AnyTensor::new(x.clone()).get::<3>() else {
            return x;
        };
        match site {
            Site::MlpHookIn(_) => {
                self.input = Some(whole);
                x
            }
            Site::MlpOut(layer) => {
                let replaced = AnyTensor::new(self.replaced(layer, whole)).get::<D>();
                replaced.unwrap_or(x)
            }
            _ => x,
        }
    }
}
