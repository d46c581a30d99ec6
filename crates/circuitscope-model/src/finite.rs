//! Which activation is not finite?
//!
//! Half precision overflows where f32 does not: f16 at 65,504. What comes of it (infinity, then NaN) goes
//! through all later layers, so whoever reads a value that is not finite asks here for where it began.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{Site, Tap};

use crate::batch::TokenBatch;
use crate::decoder::Decoder;
use crate::rows::PaddingSide;
use crate::{Error, Result};

/// Runs prompts one by one and fails at the first activation, in forward order, that is not finite.
///
/// Reads every activation back to the host: meant for when something is known to be wrong.
///
/// # Errors
/// [`Error::Overflow`] with the site, and those of prompts that do not fit the model.
///
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_model::{DecoderConfig, check_finite};
///
/// # fn main() -> Result<(), circuitscope_model::Error> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<burn_flex::Flex>(Seed::new(0), &device);
/// check_finite(&model, &[vec![1, 2, 3]], &device)?;
/// # Ok(())
/// # }
/// ```
pub fn check_finite<B: Backend, S: AsRef<[u32]>>(
    model: &Decoder<B>,
    sequences: &[S],
    device: &B::Device,
) -> Result<()> {
    model.config().check_tokens(sequences)?;
    for sequence in sequences {
        // Alone, so that there is no padding: what stands there may be anything.
        let batch = TokenBatch::new(&[sequence], PaddingSide::Right, device)?;
        let mut tap = FirstOverflow(None);
        model.forward(&batch, &mut tap);
        if let Some(site) = tap.0 {
            return Err(Error::Overflow {
                what: site.to_string(),
                precision: model.precision(),
            });
        }
    }
    Ok(())
}

/// Whether all of some values, read back from a site, are finite. Scores of positions that may not be
/// attended to are −∞.
pub(crate) fn is_finite(site: Site, values: impl IntoIterator<Item = f32>) -> bool {
    let masked = matches!(site, Site::AttnScores(_));
    let mut values = values.into_iter();
    values.all(|x| x.is_finite() || (masked && x == f32::NEG_INFINITY))
}

/// Remembers the first site that is not finite.
struct FirstOverflow(Option<Site>);

impl<B: Backend> Tap<B> for FirstOverflow {
    /// Everything but what no pass computes unless it is wanted: copies of the stream for each head, and
    /// what each head adds.
    fn wants(&self, site: Site) -> bool {
        !matches!(
            site,
            Site::QInput(_) | Site::KInput(_) | Site::VInput(_) | Site::Result(_)
        )
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        if self.0.is_none() && !is_finite(site, x.to_data().iter::<f32>()) {
            self.0 = Some(site);
        }
        x
    }
}
