use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{Capture, Error, Site};

use crate::config::{DecoderConfig, Direction};

/// Keys and values that a run left at the first positions of its prompts, layer by layer. In causal
/// models later positions change nothing there.
///
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_hooks::{Capture, NoTap, Site};
/// use circuitscope_model::{DecoderConfig, PaddingSide, Past, Resume, TokenBatch};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Default::default();
/// let config = DecoderConfig::gpt2(2, 2, 8, 16, 10);
/// let model = config.init::<burn_flex::Flex>(Seed::new(0), &device);
/// let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4, 5, 6]], PaddingSide::Right, &device)?;
/// let mut capture = Capture::new(Past::<burn_flex::Flex>::sites(&config).chain([Site::ResidPre(1)]));
/// model.forward(&batch, &mut capture);
/// let stream = capture.take(Site::ResidPre(1)).and_then(|x| x.get::<3>()).expect("captured");
///
/// // From the second block on, the last position alone.
/// let past = Past::take(&config, &mut capture, 2)?;
/// let start = Resume::Block(1, stream.slice_dim(1, 2..3));
/// let last = model.resume(&batch.tail(2), &past, start, &mut NoTap);
/// assert_eq!(last.dims(), [2, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Past<B: Backend> {
    /// For each layer keys as queries meet them and values, `[batch, kv_head, start, d_head]`; empty
    /// where no position comes before.
    layers: Vec<[Tensor<B, 4>; 2]>,
}

/// Keys after rotation, where there is one.
fn keys(config: &DecoderConfig) -> fn(usize) -> Site {
    if config.rotary(0).is_some() {
        Site::RotK
    } else {
        Site::K
    }
}

impl<B: Backend> Past<B> {
    /// Whether passes through such a model may leave out what comes before a change.
    pub fn applies(config: &DecoderConfig) -> bool {
        // Keys are shown after their norm only where they are rotated, too.
        let shown = !config.qk_norm || config.rotary(0).is_some();
        shown && config.direction == Direction::Causal
    }

    /// The sites to capture.
    pub fn sites(config: &DecoderConfig) -> impl Iterator<Item = Site> + use<B> {
        let keys = keys(config);
        (0..config.n_layers).flat_map(move |layer| [keys(layer), Site::V(layer)])
    }

    /// What a capture of [`sites`](Self::sites) holds of the positions before `start`.
    ///
    /// # Errors
    /// [`Error::NeverFired`] if one of the sites is missing.
    ///
    /// # Panics
    /// If `start` is not 0 and the model is none that [`applies`](Self::applies).
    pub fn take(
        config: &DecoderConfig,
        capture: &mut Capture<B>,
        start: usize,
    ) -> Result<Self, Error> {
        assert!(
            start == 0 || Self::applies(config),
            "later positions change earlier ones"
        );
        let keys = keys(config);
        let mut value = |site: Site| {
            let value = capture.take(site).and_then(|value| value.get::<4>());
            let value = value.ok_or(Error::NeverFired { site })?;
            Ok::<_, Error>(value.slice_dim(1, 0..start).swap_dims(1, 2))
        };
        let layers = match start {
            0 => 0..0,
            _ => 0..config.n_layers,
        };
        let layers = layers.map(|layer| Ok([value(keys(layer))?, value(Site::V(layer))?]));
        Ok(Self {
            layers: layers.collect::<Result<_, Error>>()?,
        })
    }

    /// Of the same prompts `copies` times over: all of them, then all of them again.
    #[must_use]
    pub fn repeated(&self, copies: usize) -> Self {
        let repeated = |layer: &[Tensor<B, 4>; 2]| layer.clone().map(|x| x.repeat_dim(0, copies));
        Self {
            layers: self.layers.iter().map(repeated).collect(),
        }
    }

    /// Keys and values of all positions from those of the later ones.
    pub(crate) fn before(&self, layer: usize, later: [Tensor<B, 4>; 2]) -> [Tensor<B, 4>; 2] {
        let Some(past) = self.layers.get(layer) else {
            return later;
        };
        let [k, v] = past.clone();
        let [later_k, later_v] = later;
        [
            Tensor::cat(vec![k, later_k], 2),
            Tensor::cat(vec![v, later_v], 2),
        ]
    }
}
