use core::fmt::Debug;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::Result;

/// Where activations come from that are too many to be held: they are made anew whenever a method reads
/// them ([`Evidence::streamed`](crate::Evidence::streamed)).
pub trait ActivationSource<B: Backend>: Debug {
    /// `[examples, heads, d]`.
    fn shape(&self) -> [usize; 3];

    /// Where they are.
    fn device(&self) -> B::Device;

    /// All examples, in groups that are best read together.
    fn blocks(&self) -> Vec<Vec<usize>>;

    /// Those of some examples: `[examples.len(), heads, d]`.
    ///
    /// # Errors
    /// If they cannot be made.
    fn read(&self, examples: &[usize]) -> Result<Tensor<B, 3>>;
}
