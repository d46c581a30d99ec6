//! Direct effects on many targets at once: one walk back through the layers, with patterns and scales held.

use core::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::source::Source;
use crate::frozen::floats;
use crate::{Frozen, Reader, Result};

/// What is taken apart: a linear function of what one reader reads at one position.
#[derive(Debug, Clone)]
pub(crate) enum Target<B: Backend> {
    /// Of the final norm's output: covector `[d_model]`, and what is added.
    Logits {
        position: usize,
        u: Tensor<B, 1>,
        bias: f64,
    },
    /// An active feature of a layer, by its place among those.
    Feature {
        layer: usize,
        at: usize,
        position: usize,
    },
}

impl<B: Backend> Target<B> {
    const fn reader(&self) -> Reader {
        match self {
            Self::Logits { .. } => Reader::Final,
            Self::Feature { layer, .. } => Reader::Mlp(*layer),
        }
    }

    const fn position(&self) -> usize {
        match self {
            Self::Logits { position, .. } | Self::Feature { position, .. } => *position,
        }
    }
}

/// The sources of a target: what each adds to it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// One for each column, see [`Columns`].
    pub(crate) edges: Vec<f32>,
    /// What all constants add.
    pub(crate) bias: f64,
    /// `[layers * heads]`, what goes through each head on its way.
    pub(crate) through: Vec<f32>,
    /// The same of what heads write less what they write on another prompt; empty without one.
    pub(crate) contrast: Vec<f32>,
}

/// Where sources are in a row: features layer by layer, each by position; errors of every layer at every position; tokens;
/// position vectors, in models that have them.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) features: Vec<Range<usize>>,
    pub(crate) errors: Vec<Range<usize>>,
    pub(crate) tokens: Range<usize>,
    pub(crate) positions: Range<usize>,
}

impl Columns {
    pub(crate) fn new<B: Backend>(frozen: &Frozen<'_, B>, sources: &[Option<Source<B>>]) -> Self {
        let mut next = 0;
        let mut take = |count: usize| {
            next += count;
            next - count..next
        };
        let of = |source: &Option<Source<B>>| source.as_ref().map_or(0, |s| s.active.len());
        let features = sources.iter().map(|source| take(of(source))).collect();
        let errors = sources
            .iter()
            .map(|source| take(source.as_ref().map_or(0, |_| frozen.pos)))
            .collect();
        let tokens = take(frozen.pos);
        let positions = take(frozen.positions.as_ref().map_or(0, |_| frozen.pos));
        Self {
            features,
            errors,
            tokens,
            positions,
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.positions.end
    }
}

/// Values of all targets, `[n, columns]`, and where they go.
struct Piece<B: Backend> {
    values: Tensor<B, 2>,
    to: Range<usize>,
}

/// What is gathered on the way back.
struct Gathered<B: Backend> {
    edges: Vec<Piece<B>>,
    through: Vec<Piece<B>>,
    contrast: Vec<Piece<B>>,
    /// `[n]` each
    biases: Vec<Tensor<B, 1>>,
}

/// A walk back from some targets of a prompt.
pub(crate) struct Direct<'a, 'm, B: Backend> {
    pub(crate) frozen: &'a Frozen<'m, B>,
    pub(crate) sources: &'a [Option<Source<B>>],
    pub(crate) columns: &'a Columns,
    /// Another prompt, of as many tokens.
    pub(crate) counterpart: Option<&'a Frozen<'m, B>>,
}

impl<B: Backend> Direct<'_, '_, B> {
    /// One row for each target.
    pub(crate) fn rows(&self, targets: &[Target<B>]) -> Result<Vec<Row>> {
        // Those of one reader stand together, the last reader first.
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by(|a, b| targets[*b].reader().cmp(&targets[*a].reader()));
        let sorted: Vec<&Target<B>> = order.iter().map(|at| &targets[*at]).collect();
        let gathered = self.gather(&sorted)?;
        let mut rows = read(gathered, sorted.len(), self)?;
        for (row, target) in rows.iter_mut().zip(&sorted) {
            if let Target::Logits { bias, .. } = target {
                row.bias += bias;
            }
        }
        let mut placed: Vec<(usize, Row)> = order.into_iter().zip(rows).collect();
        placed.sort_by_key(|(at, _)| *at);
        Ok(placed.into_iter().map(|(_, row)| row).collect())
    }

    fn gather(&self, targets: &[&Target<B>]) -> Result<Gathered<B>> {
        let Self {
            frozen,
            sources,
            columns,
            ..
        } = *self;
        let parallel = frozen.model.config().parallel_attn_mlp;
        let mut all = Gathered {
            edges: Vec::new(),
            through: Vec::new(),
            contrast: Vec::new(),
            biases: Vec::new(),
        };
        let mut g = self.inject(Reader::Final, targets, &mut all)?;
        for (layer, source) in sources.iter().enumerate().rev() {
            let mut passed_on = None;
            if let (Some(g), Some(source)) = (&g, source) {
                all.edges.extend(source.effects(g).map(|values| Piece {
                    values,
                    to: columns.features[layer].clone(),
                }));
                all.edges.push(Piece {
                    values: by_position(g, &source.error),
                    to: columns.errors[layer].clone(),
                });
                let constant = by_position(g, &source.constant);
                all.biases.push(constant.sum_dim(1).squeeze_dim(1));
                if let Some(skip) = &source.skip {
                    let mlp = frozen.check_mlp(layer)?;
                    let [pos, n, d_model] = g.dims();
                    let u = g
                        .clone()
                        .reshape([pos * n, d_model])
                        .matmul(skip.clone().transpose());
                    let constant = mlp.ln2.constant(&u).reshape([pos, n]);
                    all.biases.push(constant.sum_dim(0).squeeze_dim(0));
                    passed_on = Some(mlp.ln2.pull(u.reshape([pos, n, d_model])));
                }
            }
            let own = match source {
                Some(_) => self.inject(Reader::Mlp(layer), targets, &mut all)?,
                None => None,
            };
            let read_by_mlp = plus(passed_on, own);
            g = if parallel {
                let moved = g.as_ref().map(|g| self.attention(layer, g, &mut all));
                plus(plus(g, moved), read_by_mlp)
            } else {
                let g = plus(g, read_by_mlp);
                let moved = g.as_ref().map(|g| self.attention(layer, g, &mut all));
                plus(g, moved)
            };
        }
        if let Some(g) = &g {
            all.edges.push(Piece {
                values: by_position(g, &frozen.tokens),
                to: columns.tokens.clone(),
            });
            if let Some(positions) = &frozen.positions {
                all.edges.push(Piece {
                    values: by_position(g, positions),
                    to: columns.positions.clone(),
                });
            }
        }
        Ok(all)
    }

    /// The covectors of the targets that read through `reader`, on the residual stream, `[pos, n, d_model]`; `None` if there are
    /// none.
    fn inject(
        &self,
        reader: Reader,
        targets: &[&Target<B>],
        all: &mut Gathered<B>,
    ) -> Result<Option<Tensor<B, 3>>> {
        let n = targets.len();
        let start = targets.partition_point(|target| target.reader() > reader);
        let end = targets.partition_point(|target| target.reader() >= reader);
        if start == end {
            return Ok(None);
        }
        let device = self.frozen.device();
        let positions: Vec<usize> = targets[start..end].iter().map(|t| t.position()).collect();
        let (u, bias, norm) = if let Reader::Mlp(layer) = reader {
            let at = targets[start..end]
                .iter()
                .filter_map(|target| match target {
                    Target::Feature { at, .. } => Some(*at),
                    Target::Logits { .. } => None,
                });
            let at: Vec<usize> = at.collect();
            let source = self.sources[layer].as_ref();
            let Some((u, bias)) = source.and_then(|source| source.reads(&at)) else {
                return Ok(None);
            };
            (u, Some(bias), &self.frozen.check_mlp(layer)?.ln2)
        } else {
            let us = targets[start..end]
                .iter()
                .filter_map(|target| match target {
                    Target::Logits { u, .. } => Some(u.clone().unsqueeze_dim::<2>(0)),
                    Target::Feature { .. } => None,
                });
            (Tensor::cat(us.collect(), 0), None, &self.frozen.ln_final)
        };
        let [_, d_model] = u.dims();
        let around = |x: Tensor<B, 2>| {
            let [_, width] = x.dims();
            let zeros = |rows: usize| Tensor::<B, 2>::zeros([rows, width], &device);
            Tensor::cat(vec![zeros(start), x, zeros(n - end)], 0)
        };
        let mut constant = norm.constant(&u);
        if let Some(bias) = bias {
            constant = constant + bias;
        }
        let constant = around(constant.unsqueeze_dim(1));
        all.biases.push(constant.squeeze_dim(1));
        let covectors = around(norm.pull_at(u, &positions));
        let mut where_read = vec![0.0f32; self.frozen.pos * n];
        for (row, position) in positions.iter().enumerate() {
            where_read[position * n + start + row] = 1.0;
        }
        let where_read = TensorData::new(where_read, [self.frozen.pos, n, 1]);
        let where_read = Tensor::<B, 3>::from_data(where_read, &device);
        let covectors = covectors.reshape([1, n, d_model]);
        Ok(Some(where_read * covectors))
    }

    /// Covectors on what attention adds to the stream, `[pos, n, d_model]`, on the stream that it reads.
    fn attention(&self, layer: usize, g: &Tensor<B, 3>, all: &mut Gathered<B>) -> Tensor<B, 3> {
        let frozen = &self.frozen.layers[layer];
        let [pos, n, d_model] = g.dims();
        let [heads, d_head, _] = frozen.w_o.dims();
        let [kv_heads, _, _] = frozen.w_v.dims();
        let g = frozen.before_post(g.clone());
        let flat = g.clone().reshape([1, pos * n, d_model]);
        let b_o = flat.clone().squeeze_dim::<2>(0) * frozen.b_o.clone().unsqueeze();
        let b_o = b_o.sum_dim(1).reshape([pos, n]);
        all.biases.push(b_o.sum_dim(0).squeeze_dim(0));
        // [heads, pos * n, d_model] x [heads, d_model, d_head]
        let on_z = flat
            .expand([heads, pos * n, d_model])
            .matmul(frozen.w_o.clone().swap_dims(1, 2));
        let carried = |z: Tensor<B, 3>| {
            let on_z = on_z.clone().reshape([heads, pos, n, d_head]);
            let carried = (on_z * z.unsqueeze_dim::<4>(2)).sum_dim(3).sum_dim(1);
            Piece {
                values: carried.reshape([heads, n]).transpose(),
                to: layer * heads..(layer + 1) * heads,
            }
        };
        all.through.push(carried(frozen.z.clone()));
        if let Some(other) = self.counterpart {
            let difference = frozen.z.clone() - other.layers[layer].z.clone();
            all.contrast.push(carried(difference));
        }
        // [heads, k_pos, q_pos] x [heads, q_pos, n * d_head]
        let on_v =
            frozen
                .pattern
                .clone()
                .swap_dims(1, 2)
                .matmul(on_z.reshape([heads, pos, n * d_head]));
        let on_v = on_v
            .reshape([kv_heads, heads / kv_heads, pos * n, d_head])
            .sum_dim(1)
            .squeeze_dim::<3>(1);
        let b_v = on_v.clone() * frozen.b_v.clone().unsqueeze_dim(1);
        let b_v = b_v.sum_dim(2).sum_dim(0).reshape([pos, n]);
        all.biases.push(b_v.sum_dim(0).squeeze_dim(0));
        // [kv_heads, pos * n, d_head] x [kv_heads, d_head, d_model]
        let u = on_v.matmul(frozen.w_v.clone().swap_dims(1, 2));
        let u = u.sum_dim(0).squeeze_dim::<2>(0);
        let constant = frozen.ln1.constant(&u).reshape([pos, n]);
        all.biases.push(constant.sum_dim(0).squeeze_dim(0));
        frozen.ln1.pull(u.reshape([pos, n, d_model]))
    }
}

fn plus<B: Backend>(a: Option<Tensor<B, 3>>, b: Option<Tensor<B, 3>>) -> Option<Tensor<B, 3>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// What vectors at each position, `[pos, d_model]`, add to `n` functions, `[pos, n, d_model]`: `[n, pos]`.
fn by_position<B: Backend>(g: &Tensor<B, 3>, x: &Tensor<B, 2>) -> Tensor<B, 2> {
    // [pos, n, d_model] x [pos, d_model, 1]
    let read = g.clone().matmul(x.clone().unsqueeze_dim(2));
    read.squeeze_dim::<2>(2).transpose()
}

/// What was gathered, on the host, in one transfer.
fn read<B: Backend>(all: Gathered<B>, n: usize, direct: &Direct<'_, '_, B>) -> Result<Vec<Row>> {
    let config = direct.frozen.model.config();
    let count = direct.columns.count();
    let empty = Row {
        edges: vec![0.0; count],
        bias: 0.0,
        through: vec![0.0; config.grid().len()],
        contrast: vec![0.0; direct.counterpart.map_or(0, |_| config.grid().len())],
    };
    let mut rows = vec![empty; n];
    let n_edges = all.edges.len();
    let n_through = n_edges + all.through.len();
    let pieces = all.edges.into_iter().chain(all.through);
    let pieces = pieces.chain(all.contrast);
    let (values, places): (Vec<_>, Vec<_>) = pieces.map(|piece| (piece.values, piece.to)).unzip();
    let biases = all.biases.into_iter().map(|bias| bias.unsqueeze_dim(1));
    let n_biases = biases.len();
    let all: Vec<Tensor<B, 2>> = values.into_iter().chain(biases).collect();
    let all = Tensor::cat(all, 1);
    let [_, width] = all.dims();
    let all = floats(all)?;
    for (row, values) in rows.iter_mut().zip(all.chunks_exact(width)) {
        let mut next = 0;
        for (piece, to) in places.iter().enumerate() {
            let values = &values[next..next + to.len()];
            next += to.len();
            let into = if piece < n_edges {
                &mut row.edges
            } else if piece < n_through {
                &mut row.through
            } else {
                &mut row.contrast
            };
            into[to.clone()].copy_from_slice(values);
        }
        row.bias = values[width - n_biases..]
            .iter()
            .map(|x| f64::from(*x))
            .sum();
    }
    Ok(rows)
}
