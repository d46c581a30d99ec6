use std::any::Any;

use burn::module::{Module as _, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::decoder::Decoder;

/// A matrix that activations are multiplied by: `[pos, inner] × [inner, outer]`.
#[derive(Debug, Clone)]
pub struct Product<B: Backend> {
    /// Where it is in the model, such as `blocks.0.w_qkv`.
    pub name: String,
    /// `[inner, outer]`, laid out as the model multiplies by it.
    pub weight: Tensor<B, 2>,
}

impl<B: Backend> Decoder<B> {
    /// One weight of each size that a forward pass multiplies by, in the order of the pass: queries, keys and
    /// values together, the outputs of attention, the MLP with its gate, the unembedding. They are found by walking the
    /// model's weights, of which only the embeddings are looked up instead.
    ///
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_model::DecoderConfig;
    ///
    /// let config = DecoderConfig::gpt2(2, 2, 8, 16, 10);
    /// let model = config.init::<burn_flex::Flex>(Seed::new(0), &Default::default());
    /// let sizes: Vec<_> = model.products().iter().map(|of| of.weight.dims()).collect();
    /// assert_eq!(sizes, [[8, 24], [8, 8], [8, 32], [32, 8], [8, 10]]);
    /// ```
    #[must_use]
    pub fn products(&self) -> Vec<Product<B>> {
        let tables = [Some(self.w_e.id), self.w_pos.as_ref().map(|w_pos| w_pos.id)];
        let mut matrices = Matrices {
            tables,
            path: Vec::new(),
            found: Vec::new(),
        };
        self.visit(&mut matrices);
        matrices.found
    }
}

/// Takes the first matrix of each size.
struct Matrices<B: Backend> {
    /// Looked up, not multiplied by.
    tables: [Option<ParamId>; 2],
    path: Vec<String>,
    found: Vec<Product<B>>,
}

impl<B: Backend> ModuleVisitor<B> for Matrices<B> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.val();
        let Some(weight) = (&value as &dyn Any).downcast_ref::<Tensor<B, 2>>() else {
            return;
        };
        let known = |product: &Product<B>| product.weight.dims() == weight.dims();
        if !self.tables.contains(&Some(param.id)) && !self.found.iter().any(known) {
            self.found.push(Product {
                name: self.path.join("."),
                weight: weight.clone(),
            });
        }
    }
}
