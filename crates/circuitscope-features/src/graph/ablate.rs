//! What the targets lose without a feature: as the graph says, and as the model does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Progress;
use circuitscope_hooks::{Site, wide};
use circuitscope_sae::Encoder;

use super::build::{AttributionGraph, NodeKind, Transcoders};
use crate::changed::{Change, Changed, logits_of};
use crate::frozen::floats;
use crate::{Error, Frozen, Result};

impl AttributionGraph {
    /// What each node adds to the targets along all paths, in nats, each target counting with its weight: `[nodes]`. Linear, with
    /// attention patterns, norms and which features are active held; paths through features that are no nodes are not
    /// seen. Of a target it is its weighted value. Those of errors, tokens, positions and the bias sum to that of all targets.
    pub fn attributions(&self) -> Vec<f64> {
        let weights = self.weights();
        let nodes = self.nodes();
        let values = weights.iter().zip(nodes);
        let mut total: Vec<f64> = values.map(|(weight, node)| weight * node.value).collect();
        let mut targets: Vec<usize> = self.target_nodes().collect();
        targets.reverse();
        let bias = nodes.len() - self.targets().len() - 1;
        for target in targets {
            let Some(row) = self.row(target) else {
                continue;
            };
            // Of a share of the node's value, what the targets get.
            let factor = if target > bias {
                weights[target]
            } else {
                total[target] / nodes[target].value
            };
            if factor == 0.0 || !factor.is_finite() {
                continue;
            }
            for (sum, edge) in total.iter_mut().zip(&row.edges) {
                *sum += factor * f64::from(*edge);
            }
            total[bias] += factor * row.bias;
        }
        total
    }

    /// What the targets lose, in nats and each with its weight, when one feature is taken away and the model goes on from there with
    /// nothing held: exactly what [`attributions`](Self::attributions) estimates. One forward pass for each of `nodes`, which
    /// are features by their place among [`nodes`](Self::nodes); what a transcoder does not reconstruct stays as it is.
    ///
    /// `frozen` and `transcoders` are those that the graph was made of.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a node that is no feature, [`Error::Cancelled`]. What the device cannot read back.
    pub fn ablate<B: Backend>(
        &self,
        frozen: &Frozen<'_, B>,
        transcoders: &Transcoders<'_, B>,
        nodes: &[usize],
        batch_tokens: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<f64>> {
        let model = frozen.model;
        let tokens = &frozen.ids[..=self.position];
        let mut runs = vec![Changed {
            tokens,
            change: None,
        }];
        let mut nothing: BTreeMap<usize, Tensor<B, 2>> = BTreeMap::new();
        for at in nodes {
            let Some((
                NodeKind::Feature {
                    layer,
                    feature,
                    position,
                },
                value,
            )) = self.nodes.get(*at).map(|node| (node.kind, node.value))
            else {
                return Err(Error::Unfit {
                    what: format!("node {at}"),
                    found: "no feature".to_owned(),
                    expected: "a feature of the graph".to_owned(),
                });
            };
            let (site, add) = if let Some(encoder) = transcoders.get(&layer) {
                let own = decoded(frozen, *encoder, Some((feature, value as f32)))?;
                let without = match nothing.entry(layer) {
                    Entry::Occupied(entry) => entry.get().clone(),
                    Entry::Vacant(entry) => entry.insert(decoded(frozen, *encoder, None)?).clone(),
                };
                (Site::MlpOut(layer), floats(without - own)?)
            } else {
                let width = model.config().mlp.map_or(0, |mlp| mlp.d_mlp);
                let mut add = vec![0.0; width];
                add[feature] = -value as f32;
                (Site::MlpPost(layer), add)
            };
            runs.push(Changed {
                tokens,
                change: (position <= self.position).then_some(Change {
                    site,
                    position,
                    add,
                }),
            });
        }
        let cap = model.config().output_logits_soft_cap;
        let mut values = vec![0.0; runs.len()];
        let stage = progress.stage("ablating", runs.len() as u64);
        let outcome = logits_of(
            model,
            &runs,
            batch_tokens,
            &frozen.device(),
            progress,
            |run, logits| {
                let targets = self.targets().iter();
                values[run] = targets
                    .map(|target| target.weight * target.value(logits, cap))
                    .sum();
            },
        );
        drop(stage);
        outcome?;
        Ok(values[1..].iter().map(|value| values[0] - value).collect())
    }
}

/// What a dictionary makes of one active feature, or of none, where it reads 0: `[1, d_model]`.
fn decoded<B: Backend>(
    frozen: &Frozen<'_, B>,
    encoder: &dyn Encoder<B>,
    feature: Option<(usize, f32)>,
) -> Result<Tensor<B, 2>> {
    let mut features = vec![0.0f32; encoder.n_codes()];
    if let Some((feature, value)) = feature {
        features[feature] = value;
    }
    let device = frozen.device();
    let shape = [1, encoder.n_codes()];
    let features = Tensor::from_data(TensorData::new(features, shape), &device);
    let x = Tensor::zeros([1, encoder.d_in()], &device);
    let written = encoder.decode(features, x).map(wide);
    written.ok_or_else(|| Error::Unfit {
        what: "a transcoder of the graph".to_owned(),
        found: "features that write nothing".to_owned(),
        expected: "features that write something".to_owned(),
    })
}
