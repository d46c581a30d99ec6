use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::Graph;

use crate::{AnyTensor, Capture, Error, Result, Site, wide};

/// What every writer of a [`Graph`] put into the residual stream in one run, and the stream itself
/// where it is read.
///
/// Capture [`StreamOutputs::sites`] in a run and make it of the result. Half precision is widened:
/// runs are compared, and parts of them are summed, in f32.
#[derive(Debug, Clone)]
pub struct StreamOutputs<B: Backend> {
    /// `[batch, pos, d_model]`: token plus position embedding.
    pub input: Tensor<B, 3>,
    /// For each layer `[batch, pos, n_heads, d_model]`: the outputs of its heads, without `b_O`. Where
    /// the layer's output is normalised, through that norm ([`Site::HeadOut`]).
    pub heads: Vec<Tensor<B, 4>>,
    /// For each layer `[batch, pos, d_model]`: the output of its MLP; empty without MLPs.
    pub mlps: Vec<Tensor<B, 3>>,
    /// For each layer `[batch, pos, d_model]`: the stream that its attention reads.
    pub attn_in: Vec<Tensor<B, 3>>,
    /// For each layer `[batch, pos, d_model]`: the stream that its MLP reads; empty without MLPs.
    pub mlp_in: Vec<Tensor<B, 3>>,
    /// `[batch, pos, d_model]`: the stream that the logits are read from.
    pub last: Tensor<B, 3>,
}

impl<B: Backend> StreamOutputs<B> {
    /// The sites to capture.
    #[must_use]
    pub fn sites(graph: &Graph) -> Vec<Site> {
        let layers = 0..graph.n_layers;
        let attention = layers.flat_map(|layer| [Site::ResidPre(layer), Site::HeadOut(layer)]);
        let mlps = (0..graph.n_layers).filter(|_| graph.mlps);
        let mlps = mlps.flat_map(|layer| [Site::MlpIn(layer), Site::MlpOut(layer)]);
        let last = graph.n_layers.checked_sub(1).map(Site::ResidPost);
        attention.chain(mlps).chain(last).collect()
    }

    /// Takes them out of a capture.
    ///
    /// # Errors
    /// [`Error::NeverFired`] if one of the sites is missing.
    pub fn take(graph: &Graph, mut capture: Capture<B>) -> Result<Self> {
        Self::of(graph, |site| capture.take(site))
    }

    /// Of a value for each site.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn of(graph: &Graph, mut value: impl FnMut(Site) -> Option<AnyTensor<B>>) -> Result<Self> {
        let mut stream = |site: Site| {
            let value = value(site).and_then(|value| value.get::<3>());
            value.map(wide).ok_or(Error::NeverFired { site })
        };
        let all = |site: fn(usize) -> Site,
                   stream: &mut dyn FnMut(Site) -> Result<Tensor<B, 3>>| {
            let layers = (0..graph.n_layers).map(site);
            layers.map(stream).collect::<Result<Vec<_>>>()
        };
        let attn_in = all(Site::ResidPre, &mut stream)?;
        let (mlps, mlp_in) = if graph.mlps {
            let mlps = all(Site::MlpOut, &mut stream)?;
            (mlps, all(Site::MlpIn, &mut stream)?)
        } else {
            (Vec::new(), Vec::new())
        };
        let last = stream(Site::ResidPost(graph.n_layers - 1))?;
        let heads = (0..graph.n_layers)
            .map(|layer| {
                let site = Site::HeadOut(layer);
                let value = value(site).and_then(|value| value.get::<4>());
                value.map(wide).ok_or(Error::NeverFired { site })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            input: attn_in[0].clone(),
            heads,
            mlps,
            attn_in,
            mlp_in,
            last,
        })
    }

    /// Another run in which every writer's output is what `change` makes of it. Biases that no writer
    /// carries (`b_O`) stay.
    ///
    /// `change` takes the index of a writer and its output `[batch, pos, d_model]`; it is called in
    /// forward order.
    #[must_use]
    pub fn map_writers(
        &self,
        graph: &Graph,
        mut change: impl FnMut(usize, Tensor<B, 3>) -> Tensor<B, 3>,
    ) -> Self {
        let mut changed = self.clone();
        changed.input = change(0, self.input.clone());
        changed.attn_in[0] = changed.input.clone();
        // The stream moves by the sum of all changes before it.
        let mut moved = changed.input.clone() - self.input.clone();
        for layer in 0..graph.n_layers {
            changed.attn_in[layer] = self.attn_in[layer].clone() + moved.clone();
            let before = moved.clone();
            let writers = graph.head_writers(layer);
            let heads = writers.clone().enumerate().map(|(head, writer)| {
                let one = self.heads[layer].clone().narrow(2, head, 1);
                change(writer, one.squeeze_dim(2)).unsqueeze_dim::<4>(2)
            });
            changed.heads[layer] = Tensor::cat(heads.collect(), 2);
            let heads = changed.heads[layer].clone() - self.heads[layer].clone();
            moved = moved + heads.sum_dim(2).squeeze_dim(2);
            if graph.mlps {
                let read = if graph.parallel {
                    before
                } else {
                    moved.clone()
                };
                changed.mlp_in[layer] = self.mlp_in[layer].clone() + read;
                changed.mlps[layer] = change(writers.end, self.mlps[layer].clone());
                moved = moved + changed.mlps[layer].clone() - self.mlps[layer].clone();
            }
        }
        changed.last = self.last.clone() + moved;
        changed
    }

    /// The run in which all writers put out nothing (zero ablation).
    #[must_use]
    pub fn zeroed(&self, graph: &Graph) -> Self {
        self.map_writers(graph, |_, x| x.zeros_like())
    }

    /// The outputs of all writers, in the order of [`Graph::writer`]: `[batch, writers, pos * d_model]`.
    pub fn writers(&self) -> Tensor<B, 3> {
        let [batch, pos, d_model] = self.input.dims();
        let flat = |x: &Tensor<B, 3>| x.clone().reshape([batch, 1, pos * d_model]);
        let mut rows = vec![flat(&self.input)];
        for (layer, heads) in self.heads.iter().enumerate() {
            let n_heads = heads.dims()[2];
            let by_head = heads.clone().swap_dims(1, 2);
            rows.push(by_head.reshape([batch, n_heads, pos * d_model]));
            rows.extend(self.mlps.get(layer).map(flat));
        }
        Tensor::cat(rows, 1)
    }
}
