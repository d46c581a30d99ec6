use std::collections::BTreeMap;
use std::collections::BTreeSet;

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::{AnyTensor, Error, Result, Site, Tap, wide};

/// Gradients with respect to activations.
///
/// Adds a tracked zero at every wanted site; the gradient of what is computed later with respect to
/// that zero is its gradient with respect to the activation, with everything downstream following. The
/// zero, and so the gradient, of half precision is widened to f32.
///
/// # Examples
/// ```
/// use burn::backend::Autodiff;
/// use burn::tensor::Tensor;
/// use circuitscope_hooks::{Gradients, Site, Tap};
///
/// type B = Autodiff<burn_flex::Flex>;
/// let mut gradients = Gradients::<B>::new([Site::ResidPre(0)]);
/// let x = Tensor::<B, 3>::from_data([[[1.0, 2.0]]], &Default::default());
/// let y = gradients.tap(Site::ResidPre(0), x).powi_scalar(2).sum();
/// let found = gradients.finish(&mut y.backward())?;
/// let at_x = found[&Site::ResidPre(0)].get::<3>().unwrap();
/// assert_eq!(at_x.into_data().to_vec::<f32>().unwrap(), [2.0, 4.0]);
/// # Ok::<(), circuitscope_hooks::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gradients<B: AutodiffBackend> {
    wanted: BTreeSet<Site>,
    zeros: BTreeMap<Site, AnyTensor<B>>,
}

impl<B: AutodiffBackend> Gradients<B> {
    /// At these sites.
    #[must_use]
    pub fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        Self {
            wanted: sites.into_iter().collect(),
            zeros: BTreeMap::new(),
        }
    }

    /// The gradients, after a backward pass: each of the shape of its site.
    ///
    /// # Errors
    /// [`Error::NeverFired`] for a site that no pass reached, or that what was differentiated does not
    /// depend on.
    pub fn finish(
        self,
        gradients: &mut B::Gradients,
    ) -> Result<BTreeMap<Site, AnyTensor<B::InnerBackend>>> {
        let mut found = BTreeMap::new();
        for site in self.wanted {
            let gradient = match self.zeros.get(&site) {
                Some(AnyTensor::D2(zero)) => zero.grad_remove(gradients).map(AnyTensor::D2),
                Some(AnyTensor::D3(zero)) => zero.grad_remove(gradients).map(AnyTensor::D3),
                Some(AnyTensor::D4(zero)) => zero.grad_remove(gradients).map(AnyTensor::D4),
                None => None,
            };
            found.insert(site, gradient.ok_or(Error::NeverFired { site })?);
        }
        Ok(found)
    }
}

impl<B: AutodiffBackend> Tap<B> for Gradients<B> {
    fn wants(&self, site: Site) -> bool {
        self.wanted.contains(&site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let x = wide(x);
        let zero = x.zeros_like().detach().require_grad();
        self.zeros.insert(site, AnyTensor::new(zero.clone()));
        x + zero
    }
}
