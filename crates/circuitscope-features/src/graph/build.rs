//! Nodes and edges.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::Progress;
use circuitscope_sae::Encoder;
use derive_setters::Setters;

use super::direct::{Columns, Direct, Row, Target};
use super::source::Source;
use super::targets::{LogitTarget, Targets, targets};
use crate::frozen::floats;
use crate::{Error, Frozen, Result};

/// A transcoder for each layer that has one: it reads [`MlpHookIn`](circuitscope_hooks::Site::MlpHookIn) and writes what
/// [`MlpOut`](circuitscope_hooks::Site::MlpOut) shows.
pub type Transcoders<'a, B> = BTreeMap<usize, &'a dyn Encoder<B>>;

/// How a graph is made.
#[derive(Debug, Clone, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct GraphSettings {
    /// Which logits. Default: the 10 most likely.
    pub targets: Targets,
    /// The position whose logits are explained. Default: the last.
    pub position: Option<usize>,
    /// At most so many features become nodes: those of the largest influence, as far as it is known while nodes are added
    /// in batches. What the others write counts as error of their layer and position, and paths end there. Default 5,000.
    /// While the graph is made, memory holds a number for each of these and each active feature.
    pub max_features: usize,
    /// Targets that are walked back from at a time. Default 64. It bounds memory and changes results by rounding only, and by
    /// the order in which features become nodes where there are more than [`max_features`](Self::max_features).
    pub batch: usize,
    /// Whether layers without a transcoder have the neurons of their MLP for features, each with its gate `post / pre` held
    /// as it is: a control that needs no training. Default: no, their whole output is error.
    pub neurons: bool,
    /// Positions from the first on at which no feature of a transcoder is active and what it leaves over is error: 1 for transcoders
    /// that were trained without the first position of texts, which is unlike all others where it serves as an attention sink.
    /// Default 0.
    pub first_position: usize,
}

impl Default for GraphSettings {
    fn default() -> Self {
        Self {
            targets: Targets::Top(10),
            position: None,
            max_features: 5_000,
            batch: 64,
            neurons: false,
            first_position: 0,
        }
    }
}

impl GraphSettings {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        let fields = [("batch", self.batch), ("max_features", self.max_features)];
        match fields.into_iter().find(|(_, value)| *value == 0) {
            Some((field, found)) => Err(Error::Unfit {
                what: format!("settings of a graph, `{field}`"),
                found: found.to_string(),
                expected: "at least 1".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// An active feature of the transcoder of a layer.
    Feature {
        /// The layer.
        layer: usize,
        /// Its number in the dictionary.
        feature: usize,
        /// Of the token, from 0.
        position: usize,
    },
    /// What an MLP wrote that no feature of the graph, constant or pass-through accounts for.
    Error {
        /// The layer.
        layer: usize,
        /// Of the token, from 0.
        position: usize,
    },
    /// The embedding of a token.
    Token {
        /// From 0.
        position: usize,
        /// Its number in the vocabulary.
        token: u32,
    },
    /// The position vector at a token, in models that add one to the stream.
    Position {
        /// From 0.
        position: usize,
    },
    /// All constants: biases of the model and of transcoders.
    Bias,
    /// One of the [targets](AttributionGraph::targets).
    Logit {
        /// Its number among them.
        target: usize,
    },
}

/// A node of an [`AttributionGraph`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GraphNode {
    /// What it stands for.
    pub kind: NodeKind,
    /// The activation of a feature and the value of a target, as the model computed them; the L2 norm of what an error, a
    /// token or a position writes; of the bias 1.
    pub value: f64,
}

/// Direct effects between the features of one prompt.
///
/// Nodes are active features of transcoders, what transcoders leave over (errors), token embeddings, position vectors, one node
/// for all biases, and target logits. The edge from a source to a target is what the source adds to the target's
/// pre-activation over every path through the residual stream and attention heads, with attention patterns and norm scales held as
/// they were and no MLP on the way (Dunefsky et al. 2024, arXiv 2406.11944; Ameisen et al. 2025, "Circuit Tracing", whose
/// local replacement model this is for transcoders of single layers). So the edges into a node sum to its pre-activation, which is the
/// activation of a feature, and the value of a logit target, with nothing left out. Where the model caps its logits, targets
/// are what goes into the cap. All of this is exact up to the rounding of the model's precision.
///
/// # Determinism
/// Nodes are in the order of their kinds as above, features by layer, position and number. Nothing depends on timing.
///
/// # Examples
/// Neurons as features: nothing is left over, and edges sum to activations.
///
/// ```
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_features::{AttributionGraph, Frozen, GraphSettings, Transcoders};
/// use circuitscope_model::DecoderConfig;
///
/// type B = burn_flex::Flex;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<B>(Seed::new(0), &device);
/// let frozen = Frozen::new(&model, &[3, 1, 4], &device)?;
/// let settings = GraphSettings::new().with_neurons(true);
/// let graph = AttributionGraph::new(&frozen, &Transcoders::new(), &settings, &NoProgress)?;
/// for target in graph.target_nodes() {
///     let sum: f64 = graph.edges_into(target).expect("a target").sum();
///     assert!((sum - graph.nodes()[target].value).abs() < 1e-5);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AttributionGraph {
    pub(crate) nodes: Vec<GraphNode>,
    /// Of features, which are the first nodes, and of targets, which are the last; one edge for each node but the bias and the targets.
    pub(crate) rows: Vec<Row>,
    pub(crate) n_features: usize,
    /// Layers and heads of the model.
    pub(crate) heads: [usize; 2],
    pub(crate) pos: usize,
    /// Where the logits are.
    pub(crate) position: usize,
    targets: Vec<LogitTarget>,
    active: usize,
}

impl AttributionGraph {
    /// Makes the graph of a prompt.
    ///
    /// # Errors
    /// [`Error::Unfit`] if a transcoder is not of the model's width, writes nothing or normalises its input by its own length
    /// (its activations are then not affine in what it reads); if there is no such layer, position or token; if a setting is out
    /// of range. [`Error::Cancelled`]. What the device cannot read back.
    pub fn new<B: Backend>(
        frozen: &Frozen<'_, B>,
        transcoders: &Transcoders<'_, B>,
        settings: &GraphSettings,
        progress: &dyn Progress,
    ) -> Result<Self> {
        Self::made(frozen, None, transcoders, settings, progress)
    }

    /// The same graph, with what heads move because of what tells the prompt from another one
    /// ([`HeadInfluence::contrast`](crate::HeadInfluence::contrast)).
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Unfit`] unless `counterpart` is of the same model and has as many tokens.
    pub fn against<B: Backend>(
        frozen: &Frozen<'_, B>,
        counterpart: &Frozen<'_, B>,
        transcoders: &Transcoders<'_, B>,
        settings: &GraphSettings,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if counterpart.pos != frozen.pos {
            return Err(Error::Unfit {
                what: "counterpart of a prompt".to_owned(),
                found: format!("{} tokens", counterpart.pos),
                expected: format!("{} tokens", frozen.pos),
            });
        }
        if counterpart.model.config() != frozen.model.config() {
            return Err(Error::Unfit {
                what: "counterpart of a prompt".to_owned(),
                found: "another model".to_owned(),
                expected: "the same model".to_owned(),
            });
        }
        Self::made(frozen, Some(counterpart), transcoders, settings, progress)
    }

    fn made<B: Backend>(
        frozen: &Frozen<'_, B>,
        counterpart: Option<&Frozen<'_, B>>,
        transcoders: &Transcoders<'_, B>,
        settings: &GraphSettings,
        progress: &dyn Progress,
    ) -> Result<Self> {
        settings.check()?;
        let sources = sources(frozen, transcoders, settings)?;
        let columns = Columns::new(frozen, &sources);
        let direct = Direct {
            frozen,
            sources: &sources,
            columns: &columns,
            counterpart,
        };
        let targets = targets(frozen, settings)?;
        let layers = sources.iter().enumerate();
        let layers = layers.filter_map(|(layer, source)| Some((layer, source.as_ref()?)));
        let active = layers.flat_map(|(layer, source)| {
            let active = source.active.iter().enumerate();
            active.map(move |(at, active)| (layer, at, active))
        });
        let features: Vec<(Target<B>, GraphNode)> = active
            .map(|(layer, at, active)| {
                let position = active.position;
                let node = GraphNode {
                    kind: NodeKind::Feature {
                        layer,
                        feature: active.feature,
                        position,
                    },
                    value: active.activation.into(),
                };
                (
                    Target::Feature {
                        layer,
                        at,
                        position,
                    },
                    node,
                )
            })
            .collect();
        let total = features.len().min(settings.max_features);
        let _stage = progress.stage("attribution", total as u64);
        let logits: Vec<Target<B>> = targets.iter().map(|target| target.0.clone()).collect();
        let mut logit_rows = Vec::new();
        for batch in logits.chunks(settings.batch) {
            logit_rows.extend(direct.rows(batch)?);
        }
        let weights: Vec<f64> = targets.iter().map(|(_, target, _)| target.weight).collect();
        let mut rows: Vec<Option<Row>> = vec![None; features.len()];
        let mut done = 0;
        while done < total {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let count = settings.batch.min(total - done);
            let next = if total == features.len() {
                (done..done + count).collect()
            } else {
                most_influential(&rows, &logit_rows, &weights, count)
            };
            let batch: Vec<Target<B>> = next.iter().map(|at| features[*at].0.clone()).collect();
            for (at, row) in next.iter().zip(direct.rows(&batch)?) {
                rows[*at] = Some(row);
            }
            done += count;
            progress.advance(count as u64);
        }
        let nodes = features.into_iter().map(|(_, node)| node).collect();
        let made = Parts {
            nodes,
            rows,
            logit_rows,
        };
        let position = settings.position.unwrap_or(frozen.pos - 1);
        made.finish(frozen, (&sources, &columns), (position, targets))
    }

    /// All nodes.
    pub fn nodes(&self) -> &[GraphNode] {
        &self.nodes
    }

    /// The targets, in the order of [`NodeKind::Logit`].
    pub fn targets(&self) -> &[LogitTarget] {
        &self.targets
    }

    /// Number of features that are active, whether they are nodes or not.
    pub const fn active_features(&self) -> usize {
        self.active
    }

    /// Nodes that edges lead to: features and targets, by their place among [`nodes`](Self::nodes).
    pub fn target_nodes(&self) -> impl Iterator<Item = usize> + use<> {
        let first_logit = self.nodes.len() - self.targets.len();
        (0..self.n_features).chain(first_logit..self.nodes.len())
    }

    /// The edges into a node, one for each source: all nodes before the targets, the bias last. `None` of nodes that nothing
    /// leads to.
    pub fn edges_into(&self, target: usize) -> Option<impl Iterator<Item = f64> + '_> {
        let row = self.row(target)?;
        let edges = row.edges.iter().map(|edge| f64::from(*edge));
        Some(edges.chain([row.bias]))
    }

    /// The edge between two nodes; 0 where there is none.
    pub fn edge(&self, source: usize, target: usize) -> f64 {
        let edge = |row: &Row| match row.edges.get(source) {
            Some(edge) => f64::from(*edge),
            None if source == row.edges.len() => row.bias,
            None => 0.0,
        };
        self.row(target).map_or(0.0, edge)
    }

    /// What passes through each head on its way to a target: `[layers * heads]` in index order. A path through two heads counts in
    /// both, so these do not sum to anything; `None` of nodes that nothing leads to.
    pub fn through_heads(&self, target: usize) -> Option<&[f32]> {
        Some(&self.row(target)?.through)
    }

    pub(crate) fn row(&self, target: usize) -> Option<&Row> {
        let at = if target < self.n_features {
            target
        } else {
            let first_logit = self.nodes.len() - self.targets.len();
            self.n_features + target.checked_sub(first_logit)?
        };
        self.rows.get(at)
    }
}

/// What is known before features that did not become nodes are counted as error.
struct Parts {
    nodes: Vec<GraphNode>,
    rows: Vec<Option<Row>>,
    logit_rows: Vec<Row>,
}

impl Parts {
    fn finish<B: Backend>(
        self,
        frozen: &Frozen<'_, B>,
        (sources, columns): (&[Option<Source<B>>], &Columns),
        (position, targets): (usize, Vec<(Target<B>, LogitTarget, f64)>),
    ) -> Result<AttributionGraph> {
        let config = frozen.model.config();
        let kept: Vec<bool> = self.rows.iter().map(Option::is_some).collect();
        let n_all = kept.len();
        // Where the error is that a feature without a node counts as.
        let error_of: Vec<usize> = self
            .nodes
            .iter()
            .map(|node| match node.kind {
                NodeKind::Feature {
                    layer, position, ..
                } => columns.errors[layer].start + position,
                _ => unreachable!("features only"),
            })
            .collect();
        let rows = self.rows.into_iter().flatten().chain(self.logit_rows);
        let rows: Vec<Row> = rows
            .map(|mut row| {
                for at in (0..n_all).filter(|at| !kept[*at]) {
                    row.edges[error_of[at]] += row.edges[at];
                }
                let mut at = 0;
                row.edges.retain(|_| {
                    at += 1;
                    kept.get(at - 1).copied().unwrap_or(true)
                });
                row
            })
            .collect();
        let mut nodes: Vec<GraphNode> = self
            .nodes
            .into_iter()
            .zip(&kept)
            .filter_map(|(node, kept)| kept.then_some(node))
            .collect();
        let n_features = nodes.len();
        let norms = |x: &Tensor<B, 2>| -> Result<Vec<f32>> {
            floats((x.clone() * x.clone()).sum_dim(1).sqrt())
        };
        let mut unkept: Vec<Vec<usize>> = vec![Vec::new(); sources.len()];
        for (layer, range) in columns.features.iter().enumerate() {
            unkept[layer] = range
                .clone()
                .filter(|at| !kept[*at])
                .map(|at| at - range.start)
                .collect();
        }
        for (layer, source) in sources.iter().enumerate() {
            let Some(source) = source else { continue };
            let error = source.error_with(&unkept[layer]);
            for (position, value) in norms(&error)?.into_iter().enumerate() {
                nodes.push(GraphNode {
                    kind: NodeKind::Error { layer, position },
                    value: value.into(),
                });
            }
        }
        for (position, value) in norms(&frozen.tokens)?.into_iter().enumerate() {
            let token = frozen.ids[position];
            nodes.push(GraphNode {
                kind: NodeKind::Token { position, token },
                value: value.into(),
            });
        }
        if let Some(positions) = &frozen.positions {
            for (position, value) in norms(positions)?.into_iter().enumerate() {
                nodes.push(GraphNode {
                    kind: NodeKind::Position { position },
                    value: value.into(),
                });
            }
        }
        nodes.push(GraphNode {
            kind: NodeKind::Bias,
            value: 1.0,
        });
        let mut of = Vec::new();
        for (target, (_, logit, value)) in targets.into_iter().enumerate() {
            nodes.push(GraphNode {
                kind: NodeKind::Logit { target },
                value,
            });
            of.push(logit);
        }
        Ok(AttributionGraph {
            nodes,
            rows,
            n_features,
            heads: [config.n_layers, config.n_heads],
            pos: frozen.pos,
            position,
            targets: of,
            active: n_all,
        })
    }
}

/// What the MLP of each layer is made of; `None` in models without.
fn sources<B: Backend>(
    frozen: &Frozen<'_, B>,
    transcoders: &Transcoders<'_, B>,
    settings: &GraphSettings,
) -> Result<Vec<Option<Source<B>>>> {
    for layer in transcoders.keys() {
        frozen.check_mlp(*layer)?;
    }
    let layers = frozen.layers.iter().enumerate();
    let sources = layers.map(|(layer, frozen_layer)| {
        if frozen_layer.mlp.is_none() {
            return Ok(None);
        }
        Ok(Some(match transcoders.get(&layer) {
            Some(encoder) => Source::transcoder(frozen, layer, *encoder, settings.first_position)?,
            None if settings.neurons => Source::neurons(frozen, layer)?,
            None => Source::none(frozen, layer)?,
        }))
    });
    sources.collect()
}

/// The features without a row that have the largest influence on the targets through those with one; ties go to the first.
fn most_influential(
    rows: &[Option<Row>],
    logit_rows: &[Row],
    weights: &[f64],
    count: usize,
) -> Vec<usize> {
    let mut influence = vec![0.0f64; rows.len()];
    let spread = |row: &Row, weight: f64, influence: &mut Vec<f64>| {
        let total: f64 = row.edges.iter().map(|edge| f64::from(edge.abs())).sum();
        if total > 0.0 {
            for (into, edge) in influence.iter_mut().zip(&row.edges) {
                *into += weight * f64::from(edge.abs()) / total;
            }
        }
    };
    for (row, weight) in logit_rows.iter().zip(weights) {
        spread(row, *weight, &mut influence);
    }
    // Sources come before what they have an edge to.
    for (at, row) in rows.iter().enumerate().rev() {
        if let Some(row) = row {
            let weight = influence[at];
            spread(row, weight, &mut influence);
        }
    }
    let mut left: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].is_none()).collect();
    left.sort_by(|a, b| influence[*b].total_cmp(&influence[*a]));
    left.truncate(count);
    left
}
