//! Writers that put out at the same time.

use core::ops::Range;

use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Port};
use circuitscope_hooks::{AnyTensor, Site, StreamOutputs};

use super::path::between;

/// Writers that put out at the same time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Input,
    Heads(usize),
    Mlp(usize),
}

pub(super) fn stages(graph: &Graph) -> Vec<Stage> {
    let mut stages = vec![Stage::Input];
    for layer in 0..graph.n_layers {
        stages.push(Stage::Heads(layer));
        if graph.mlps {
            stages.push(Stage::Mlp(layer));
        }
    }
    stages
}

impl Stage {
    /// The stage's outputs on the way from ablated to clean.
    pub(super) fn replaced<B: Backend>(
        self,
        here: &StreamOutputs<B>,
        other: &StreamOutputs<B>,
        share: f64,
    ) -> (Site, AnyTensor<B>) {
        match self {
            Self::Input => {
                let value = between(&other.input, &here.input, share);
                (Site::ResidPre(0), value.into())
            }
            Self::Heads(layer) => {
                let value = between(&other.heads[layer], &here.heads[layer], share);
                (Site::HeadOut(layer), value.into())
            }
            Self::Mlp(layer) => {
                let value = between(&other.mlps[layer], &here.mlps[layer], share);
                (Site::MlpOut(layer), value.into())
            }
        }
    }

    /// The first reader that sees the stage's outputs.
    pub(super) fn first_reader(self, graph: &Graph) -> usize {
        let next_layer = |layer: usize| match layer + 1 {
            next if next < graph.n_layers => graph.port_readers(next, Port::Q).start,
            _ => graph.logits(),
        };
        match self {
            Self::Input => 0,
            Self::Heads(layer) if graph.mlps => graph.mlp_reader(layer),
            Self::Heads(layer) | Self::Mlp(layer) => next_layer(layer),
        }
    }

    /// The stage among the writers.
    pub(super) const fn members(self, graph: &Graph) -> Range<usize> {
        match self {
            Self::Input => 0..1,
            Self::Heads(layer) => graph.head_writers(layer),
            Self::Mlp(layer) => graph.mlp_writer(layer)..graph.mlp_writer(layer) + 1,
        }
    }
}
