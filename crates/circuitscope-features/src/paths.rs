//! Attribution along paths: what a feature reads, from whom, and what that was made of, as far as it matters.

use core::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::HeadId;
use circuitscope_hooks::wide;
use circuitscope_sae::Encoder;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::frozen::floats;
use crate::graph::{Source, Transcoders};
use crate::{Error, Frozen, Pull, Reader, Result, Writer};

/// How far paths are followed.
#[derive(Debug, Clone, Copy, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct PathSettings {
    /// At most so many nodes are followed to what they are made of, those of the largest size first. Default 100.
    pub expansions: usize,
    /// Nodes of less than this share of the size of what is taken apart are not followed; its size is the largest of the
    /// sizes of its own parts. Default 0.01.
    pub least: f64,
}

impl Default for PathSettings {
    fn default() -> Self {
        Self {
            expansions: 100,
            least: 0.01,
        }
    }
}

/// Who a share comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathStep {
    /// A writer to the residual stream, or a bias that is read with it.
    Wrote(Writer),
    /// An active feature of a transcoder.
    Feature {
        /// The layer.
        layer: usize,
        /// Its number in the dictionary.
        feature: usize,
        /// Where it is active.
        position: usize,
    },
    /// What an MLP wrote and its transcoder did not make.
    Error {
        /// The layer.
        layer: usize,
        /// Where.
        position: usize,
    },
    /// What a transcoder adds whatever it reads.
    TranscoderBias {
        /// The layer.
        layer: usize,
        /// Where.
        position: usize,
    },
    /// What a transcoder passes on past its features.
    PassedOn {
        /// The layer.
        layer: usize,
        /// Where.
        position: usize,
    },
}

/// A node of a [`PathTree`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathNode {
    /// What it is a part of, by its place among the nodes; `None` of the parts of what is taken apart.
    pub parent: Option<usize>,
    /// Who it comes from.
    pub step: PathStep,
    /// What it adds, along the path to the root.
    pub value: f64,
    /// Number of nodes between it and the root.
    pub depth: usize,
    /// Whether it was followed: other nodes are then its parts and sum to it.
    pub followed: bool,
}

/// What something is made of, and what that is made of: nodes that are not followed sum to the root.
#[derive(Debug, Clone, PartialEq)]
pub struct PathTree {
    /// What is taken apart.
    pub value: f64,
    /// Parents before their parts.
    pub nodes: Vec<PathNode>,
}

impl PathTree {
    /// The nodes that are not followed: what the whole is made of in the end.
    pub fn leaves(&self) -> impl Iterator<Item = &PathNode> {
        self.nodes.iter().filter(|node| !node.followed)
    }

    /// The steps from a part of the root to a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn path(&self, node: usize) -> Vec<PathStep> {
        let mut steps = vec![self.nodes[node].step];
        let mut at = self.nodes[node].parent;
        while let Some(parent) = at {
            steps.push(self.nodes[parent].step);
            at = self.nodes[parent].parent;
        }
        steps.reverse();
        steps
    }
}

/// Follows paths back through one prompt: through heads to their source positions always, through MLPs where they have a
/// transcoder (Kissane et al. 2024, arXiv 2406.17759, "recursive direct feature attribution"; Dunefsky et al. 2024, arXiv
/// 2406.11944, §4.1). Of all nodes the largest is followed first; ties go to the earlier one.
#[derive(Debug)]
pub struct Paths<'a, 'm, B: Backend> {
    frozen: &'a Frozen<'m, B>,
    sources: BTreeMap<usize, Source<B>>,
}

/// How a node is followed.
enum Open<B: Backend> {
    /// Through a head: a covector on its `z`, `[d_head]`, or on the stream that it writes to.
    HeadZ {
        head: HeadId,
        position: usize,
        source: usize,
        on_z: Tensor<B, 1>,
    },
    Head {
        head: HeadId,
        source: usize,
        pull: Pull<B>,
    },
    /// A covector on the output, `[d_model]`.
    Mlp {
        layer: usize,
        position: usize,
        stream: Tensor<B, 1>,
    },
    PassedOn {
        layer: usize,
        position: usize,
        stream: Tensor<B, 1>,
    },
    /// What counts for an activation of 1.
    Feature {
        layer: usize,
        at: usize,
        factor: f64,
    },
}

/// A part, and how to follow it.
type Piece<B> = (PathStep, f64, Option<Open<B>>);

/// The order in which nodes are followed.
#[derive(PartialEq)]
struct Size(f64);

impl Eq for Size {}

impl Ord for Size {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Size {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A tree, and what of it can be followed.
struct Growing<B: Backend> {
    /// Smaller nodes are not followed.
    least: f64,
    tree: PathTree,
    /// One for each node.
    open: Vec<Option<Open<B>>>,
    /// The largest first, of equals the earliest.
    next: BinaryHeap<(Size, Reverse<usize>)>,
}

impl<B: Backend> Growing<B> {
    fn add(&mut self, parts: Vec<Piece<B>>, parent: Option<usize>) {
        let nodes = &mut self.tree.nodes;
        let depth = parent.map_or(0, |parent| nodes[parent].depth + 1);
        for (step, value, how) in parts {
            if how.is_some() && value.abs() >= self.least {
                self.next.push((Size(value.abs()), Reverse(nodes.len())));
            }
            nodes.push(PathNode {
                parent,
                step,
                value,
                depth,
                followed: false,
            });
            self.open.push(how);
        }
    }
}

impl<'a, 'm, B: Backend> Paths<'a, 'm, B> {
    /// Paths of a prompt.
    ///
    /// # Errors
    /// As [`AttributionGraph::new`](crate::AttributionGraph::new) of transcoders.
    pub fn new(frozen: &'a Frozen<'m, B>, transcoders: &Transcoders<'_, B>) -> Result<Self> {
        let sources = transcoders.iter().map(|(layer, encoder)| {
            let source = Source::transcoder(frozen, *layer, *encoder, 0)?;
            Ok((*layer, source))
        });
        Ok(Self {
            frozen,
            sources: sources.collect::<Result<_>>()?,
        })
    }

    /// What a linear function of the residual stream is made of.
    ///
    /// # Errors
    /// What the device cannot read back.
    pub fn of_pull(&self, pull: &Pull<B>, settings: &PathSettings) -> Result<PathTree> {
        self.follow(self.parts(pull)?, settings)
    }

    /// What an active feature of a transcoder is made of: the root is its activation.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the layer has no transcoder or the feature is not active there.
    pub fn of_feature(
        &self,
        layer: usize,
        feature: usize,
        position: usize,
        settings: &PathSettings,
    ) -> Result<PathTree> {
        self.frozen.check_position(position)?;
        let unfit = |what: String, found: &str, expected: &str| Error::Unfit {
            what,
            found: found.to_owned(),
            expected: expected.to_owned(),
        };
        let source = self
            .sources
            .get(&layer)
            .ok_or_else(|| unfit(format!("transcoder of layer {layer}"), "none", "one"))?;
        let at = source.spans[position]
            .clone()
            .find(|at| source.active[*at].feature == feature)
            .ok_or_else(|| {
                let what = format!("feature {feature} of layer {layer} at position {position}");
                unfit(what, "not active", "an active feature")
            })?;
        self.follow(self.of_active(layer, at, 1.0)?, settings)
    }

    /// What a feature of a dictionary of `z` is made of: the root is its pre-activation, and its parts are heads and sources
    /// ([`Frozen::attribute_z`]).
    ///
    /// # Errors
    /// As [`Frozen::attribute_z`].
    pub fn of_z_feature(
        &self,
        layer: usize,
        encoder: &dyn Encoder<B>,
        feature: usize,
        position: usize,
        settings: &PathSettings,
    ) -> Result<PathTree> {
        let found = self.frozen.attribute_z(layer, encoder, feature, position)?;
        let (reads, _) = self.frozen.z_reads(layer, encoder, feature)?;
        let pos = self.frozen.pos;
        let sources = found.by_source.iter().enumerate();
        let heads = sources
            .filter(|(_, value)| **value != 0.0)
            .map(|(at, value)| {
                let (head, source) = (HeadId::new(layer, at / pos), at % pos);
                let writer = Writer::Head {
                    head,
                    position,
                    source,
                };
                let on_z = reads.clone().slice_dim(0, head.head..head.head + 1);
                let open = Open::HeadZ {
                    head,
                    position,
                    source,
                    on_z: on_z.squeeze_dim(0),
                };
                (PathStep::Wrote(writer), *value, Some(open))
            });
        let mut parts: Vec<Piece<B>> = heads.collect();
        parts.push((PathStep::Wrote(Writer::Constant), found.bias, None));
        self.follow(parts, settings)
    }

    fn follow(&self, parts: Vec<Piece<B>>, settings: &PathSettings) -> Result<PathTree> {
        let sizes = parts.iter().map(|part| part.1.abs());
        let mut growing = Growing {
            least: settings.least * sizes.fold(0.0, f64::max),
            tree: PathTree {
                value: parts.iter().map(|part| part.1).sum(),
                nodes: Vec::new(),
            },
            open: Vec::new(),
            next: BinaryHeap::new(),
        };
        growing.add(parts, None);
        for _ in 0..settings.expansions {
            let Some((_, Reverse(at))) = growing.next.pop() else {
                break;
            };
            if let Some(how) = growing.open[at].take() {
                let parts = self.followed(how)?;
                growing.tree.nodes[at].followed = true;
                growing.add(parts, Some(at));
            }
        }
        Ok(growing.tree)
    }

    fn followed(&self, how: Open<B>) -> Result<Vec<Piece<B>>> {
        match how {
            Open::HeadZ {
                head,
                position,
                source,
                on_z,
            } => self.parts(&self.frozen.through_z(head, position, source, on_z)?),
            Open::Head { head, source, pull } => {
                self.parts(&self.frozen.through(&pull, head, source)?)
            }
            Open::Mlp {
                layer,
                position,
                stream,
            } => self.of_mlp(layer, position, stream),
            Open::PassedOn {
                layer,
                position,
                stream,
            } => {
                let skip = self
                    .sources
                    .get(&layer)
                    .and_then(|source| source.skip.clone());
                match skip {
                    Some(skip) => {
                        let u = skip.matmul(stream.unsqueeze_dim(1)).squeeze_dim(1);
                        self.parts(&self.frozen.pull(Reader::Mlp(layer), position, u)?)
                    }
                    None => Ok(Vec::new()),
                }
            }
            Open::Feature { layer, at, factor } => self.of_active(layer, at, factor),
        }
    }

    /// The parts of a covector on the stream.
    fn parts(&self, pull: &Pull<B>) -> Result<Vec<Piece<B>>> {
        let parts = self.frozen.parts(pull)?.into_iter().map(|part| {
            let how = match part.writer {
                Writer::Head { head, source, .. } => Some(Open::Head {
                    head,
                    source,
                    pull: pull.clone(),
                }),
                Writer::Mlp { layer, position } if self.sources.contains_key(&layer) => {
                    Some(Open::Mlp {
                        layer,
                        position,
                        stream: pull.stream.clone(),
                    })
                }
                _ => None,
            };
            (PathStep::Wrote(part.writer), part.value, how)
        });
        Ok(parts.collect())
    }

    /// The parts of what an MLP writes.
    fn of_mlp(&self, layer: usize, position: usize, stream: Tensor<B, 1>) -> Result<Vec<Piece<B>>> {
        let Some(source) = self.sources.get(&layer) else {
            return Ok(Vec::new());
        };
        let mlp = self.frozen.check_mlp(layer)?;
        let r = stream.clone().unsqueeze_dim::<2>(0);
        let at = |x: &Tensor<B, 2>| x.clone().slice_dim(0, position..position + 1);
        let read = |x: Tensor<B, 2>| (x * r.clone()).sum().unsqueeze::<2>();
        let mut values = vec![read(at(&source.error)), read(at(&source.constant))];
        if let Some(skip) = &source.skip {
            values.push(read(at(&mlp.input).matmul(skip.clone())));
        }
        let named = values.len();
        let span = source.spans[position].clone();
        if !span.is_empty() {
            values.push(source.effects_at(position, r.clone()));
        }
        let values = floats(Tensor::cat(values, 1))?;
        let mut parts: Vec<Piece<B>> = vec![
            (PathStep::Error { layer, position }, values[0].into(), None),
            (
                PathStep::TranscoderBias { layer, position },
                values[1].into(),
                None,
            ),
        ];
        if source.skip.is_some() {
            let open = Open::PassedOn {
                layer,
                position,
                stream,
            };
            let step = PathStep::PassedOn { layer, position };
            parts.push((step, values[2].into(), Some(open)));
        }
        parts.extend(span.zip(&values[named..]).map(|(at, value)| {
            let active = source.active[at];
            let step = PathStep::Feature {
                layer,
                feature: active.feature,
                position,
            };
            let value = f64::from(*value);
            let factor = value / f64::from(active.activation);
            (step, value, Some(Open::Feature { layer, at, factor }))
        }));
        Ok(parts)
    }

    /// The parts of an active feature, times a factor.
    fn of_active(&self, layer: usize, at: usize, factor: f64) -> Result<Vec<Piece<B>>> {
        let source = self.sources.get(&layer);
        let Some((source, (u, bias))) = source.and_then(|s| Some((s, s.reads(&[at])?))) else {
            return Ok(Vec::new());
        };
        let u = wide(u).squeeze_dim::<1>(0).mul_scalar(factor);
        let position = source.active[at].position;
        let mut pull = self.frozen.pull(Reader::Mlp(layer), position, u)?;
        pull.constant += factor * f64::from(floats(bias)?[0]);
        self.parts(&pull)
    }
}
