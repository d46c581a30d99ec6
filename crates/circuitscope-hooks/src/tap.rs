use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::Site;

/// Which positions of a batch hold real tokens.
#[derive(Debug, Clone)]
pub struct Positions<B: Backend> {
    /// `[batch, pos]`: 1 at real tokens, 0 at padding.
    pub mask: Tensor<B, 2>,
    /// For each row, the index of its last real token.
    pub last: Vec<usize>,
    /// For each row, its number of real tokens.
    pub lengths: Vec<usize>,
}

/// Something that watches or changes the activations of one forward pass.
///
/// Implementations are called with static dispatch, in forward order, for wanted sites only. They
/// return what the pass goes on with: the tensor itself to watch, another of the same shape to
/// intervene.
pub trait Tap<B: Backend> {
    /// A pass over a batch begins.
    fn begin(&mut self, positions: &Positions<B>) {
        let _ = positions;
    }

    /// Whether this tap is to be called at `site`. Must not change during a pass. The pass ends
    /// after the last wanted site.
    fn wants(&self, site: Site) -> bool;

    /// Called at each wanted site with its activation (shapes: [`Site`]).
    ///
    /// The activation has the precision that the model computes this site in. What is returned may have
    /// another one: the pass casts it back.
    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D>;
}

/// Wants nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTap;

impl<B: Backend> Tap<B> for NoTap {
    fn wants(&self, _: Site) -> bool {
        false
    }

    fn tap<const D: usize>(&mut self, _: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        x
    }
}

impl<B: Backend, T: Tap<B>> Tap<B> for &mut T {
    fn begin(&mut self, positions: &Positions<B>) {
        T::begin(self, positions);
    }

    fn wants(&self, site: Site) -> bool {
        T::wants(self, site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        T::tap(self, site, x)
    }
}

macro_rules! compose {
    ($($name:ident),+) => {
        /// Taps of a tuple act one after another, left to right, each on what the one before left.
        impl<B: Backend, $($name: Tap<B>),+> Tap<B> for ($($name,)+) {
            fn begin(&mut self, positions: &Positions<B>) {
                #[expect(non_snake_case, reason = "the variable is named after its type")]
                let ($($name,)+) = self;
                $($name.begin(positions);)+
            }

            fn wants(&self, site: Site) -> bool {
                #[expect(non_snake_case, reason = "the variable is named after its type")]
                let ($($name,)+) = self;
                false $(|| $name.wants(site))+
            }

            fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
                #[expect(non_snake_case, reason = "the variable is named after its type")]
                let ($($name,)+) = self;
                $(let x = if $name.wants(site) { $name.tap(site, x) } else { x };)+
                x
            }
        }
    };
}
compose!(T0, T1);
compose!(T0, T1, T2);
compose!(T0, T1, T2, T3);
