use core::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Port};

use crate::{Site, StreamOutputs, Tap, wide};

/// The edge-patched forward: every head's q, k and v input, every MLP's input and the logits read
/// their own masked sum of what all earlier writers put out in this run and in another one.
///
/// Reader `r` reads `Σ_w m[r, w] · here_w + (1 − m[r, w]) · other_w`, and the biases that no writer
/// carries. With all masks 1 this is the model as it is, with all masks 0 the reader sees the other
/// run; any set of edges can be on in one pass (ACDC, arXiv 2304.14997; edge masks as in Edge Pruning,
/// arXiv 2406.16778). The pass is differentiable in the masks.
///
/// Computed as `other_stream_r + m[r, :] · (here − other)`: one matrix product for each layer and
/// port, so time is linear in writers × readers, and the outputs of the writers are kept once.
///
/// Where a model normalises what its heads write, a head's output is what comes out of that norm with the
/// scale that the norm has in the run at hand ([`Site::HeadOut`]): all edges on and all off are exact, and
/// so is what reaches a reader by every edge that is on; a removed edge leaves the norm's scale as it is.
///
/// The residual stream of the pass itself goes on unpatched and is read by nobody: to see what a
/// layer reads, capture [`Site::QInput`] and so on *after* this tap.
///
/// # Groups
/// The batch may hold the same prompts several times over, `groups` copies one after another, each
/// with its own mask: many sets of edges in one pass.
#[derive(Debug, Clone)]
pub struct EdgePatch<B: Backend> {
    graph: Graph,
    other: StreamOutputs<B>,
    /// `[groups, readers, writers]`.
    mask: Tensor<B, 3>,
    /// Writers' outputs here less those in the other run, `[groups, writers, prompts * pos * d_model]`.
    written: Vec<(Range<usize>, Tensor<B, 3>)>,
}

impl<B: Backend> EdgePatch<B> {
    /// Reads from this run where `mask` is 1 and from `other` where it is 0.
    ///
    /// # Shapes
    /// - `mask`: `[groups, readers, writers]`, in the order of [`Graph::reader`] and
    ///   [`Graph::writer`]; entries whose reader does not see the writer are not read.
    ///
    /// # Panics
    /// If the mask has another shape.
    pub fn new(graph: Graph, other: StreamOutputs<B>, mask: Tensor<B, 3>) -> Self {
        let patch = Self {
            graph,
            other,
            mask: mask.clone(),
            written: Vec::new(),
        };
        patch.with_mask(mask)
    }

    /// The same with another mask.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_mask(mut self, mask: Tensor<B, 3>) -> Self {
        let [_, readers, writers] = mask.dims();
        assert_eq!(
            (readers, writers),
            (self.graph.readers(), self.graph.writers()),
            "mask of readers and writers"
        );
        self.mask = mask;
        self
    }

    /// Starts at block `layer`: the writers before it put out what they did in the run `here`.
    ///
    /// # Shapes
    /// `here`: one copy of the prompts.
    #[must_use]
    pub fn from_layer(mut self, layer: usize, here: &StreamOutputs<B>) -> Self {
        let one_copy = |x: Tensor<B, 3>| x.unsqueeze_dim::<4>(2);
        if layer > 0 {
            self.put(0, one_copy(here.input.clone() - self.other.input.clone()));
        }
        for before in 0..layer {
            let heads = here.heads[before].clone() - self.other.heads[before].clone();
            self.put(self.graph.head_writers(before).start, heads);
            if self.graph.mlps {
                let mlp = here.mlps[before].clone() - self.other.mlps[before].clone();
                self.put(self.graph.mlp_writer(before), one_copy(mlp));
            }
        }
        self
    }

    /// Keeps a difference `[rows, pos, writers, d_model]`, its writers from index `first` on.
    fn put(&mut self, first: usize, difference: Tensor<B, 4>) {
        let [_, pos, count, d_model] = difference.dims();
        let prompts = self.other.input.dims()[0];
        let groups = difference.dims()[0] / prompts;
        // [groups * prompts, pos, writers, d_model] -> [groups, writers, prompts * pos * d_model]
        let flat = difference
            .reshape([groups, prompts * pos, count, d_model])
            .swap_dims(1, 2)
            .reshape([groups, count, prompts * pos * d_model]);
        self.written.push((first..first + count, flat));
    }

    /// Writers put out `x`, `[groups * prompts, pos, writers, d_model]`, and `other` in the other run.
    fn write<const D: usize>(&mut self, first: usize, x: Tensor<B, D>, other: Tensor<B, 4>) {
        let [prompts, pos, count, d_model] = other.dims();
        let groups = x.dims()[0] / prompts;
        let here = wide(x).reshape([groups, prompts, pos, count * d_model]);
        let other = other.reshape([1, prompts, pos, count * d_model]);
        let difference = here - other;
        self.put(
            first,
            difference.reshape([groups * prompts, pos, count, d_model]),
        );
    }

    /// What readers read: `[groups * prompts, pos, readers, d_model]`.
    fn read(&self, readers: Range<usize>, stream: &Tensor<B, 3>) -> Tensor<B, 4> {
        let [prompts, pos, d_model] = stream.dims();
        let [groups, _, _] = self.mask.dims();
        let visible = self.graph.visible(readers.start);
        let count = readers.len();
        let mask = self.mask.clone().slice_dim(1, readers);
        let mut sum: Option<Tensor<B, 3>> = None;
        for (writers, difference) in &self.written {
            if writers.start >= visible {
                continue;
            }
            let mask = mask.clone().slice_dim(2, writers.clone());
            let [copies, width, length] = difference.dims();
            let part = if copies == 1 && groups > 1 {
                // All copies wrote alike: one product serves them all.
                let mask = mask.reshape([1, groups * count, width]);
                mask.matmul(difference.clone())
                    .reshape([groups, count, length])
            } else {
                mask.matmul(difference.clone())
            };
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        let base = stream.clone().reshape([1, prompts * pos, 1, d_model]);
        let read = match sum {
            Some(sum) => {
                let sum = sum.reshape([groups, count, prompts * pos, d_model]);
                sum.swap_dims(1, 2) + base
            }
            None => base.expand([groups, prompts * pos, count, d_model]),
        };
        read.reshape([groups * prompts, pos, count, d_model])
    }
}

impl<B: Backend> Tap<B> for EdgePatch<B> {
    fn wants(&self, site: Site) -> bool {
        match site {
            Site::QInput(_) | Site::KInput(_) | Site::VInput(_) | Site::HeadOut(_) => true,
            Site::MlpIn(_) | Site::MlpOut(_) => self.graph.mlps,
            Site::ResidPre(layer) => layer == 0,
            Site::ResidPost(layer) => layer + 1 == self.graph.n_layers,
            _ => false,
        }
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let port = |layer, port| self.graph.port_readers(layer, port);
        let dims = x.dims();
        match site {
            Site::ResidPre(_) => {
                let other = self.other.input.clone().unsqueeze_dim(2);
                self.write(0, x.clone(), other);
                x
            }
            Site::QInput(layer) => self
                .read(port(layer, Port::Q), &self.other.attn_in[layer])
                .reshape(dims),
            Site::KInput(layer) => self
                .read(port(layer, Port::K), &self.other.attn_in[layer])
                .reshape(dims),
            Site::VInput(layer) => self
                .read(port(layer, Port::V), &self.other.attn_in[layer])
                .reshape(dims),
            Site::HeadOut(layer) => {
                let (first, other) = (
                    self.graph.head_writers(layer).start,
                    self.other.heads[layer].clone(),
                );
                self.write(first, x.clone(), other);
                x
            }
            Site::MlpIn(layer) => {
                let reader = self.graph.mlp_reader(layer);
                self.read(reader..reader + 1, &self.other.mlp_in[layer])
                    .reshape(dims)
            }
            Site::MlpOut(layer) => {
                let other = self.other.mlps[layer].clone().unsqueeze_dim(2);
                self.write(self.graph.mlp_writer(layer), x.clone(), other);
                x
            }
            Site::ResidPost(_) => {
                let reader = self.graph.logits();
                self.read(reader..reader + 1, &self.other.last)
                    .reshape(dims)
            }
            _ => x,
        }
    }
}
