use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::{AnyTensor, Site, Tap};

/// What an [`Intervention`] does to an activation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op<B: Backend> {
    /// Set it to zero.
    Zero,
    /// Multiply it.
    Scale(f64),
    /// Add this; axes of size 1 are expanded.
    Add(AnyTensor<B>),
    /// Put this in its place; axes of size 1 are expanded, so that a mean over a reference set
    /// (mean ablation) is a replacement by a tensor with batch size 1.
    Replace(AnyTensor<B>),
    /// Give row `b` the activation of row `sources[b]` of the same batch (resample ablation,
    /// interchange intervention).
    Resample(Vec<usize>),
}

/// A change at one site, to some heads, positions and rows of the batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Intervention<B: Backend> {
    /// Where.
    pub site: Site,
    /// Which heads; `None` is all, and the only choice where the site has no head axis.
    pub heads: Option<Vec<usize>>,
    /// Which positions, counted from the start of the padded row; `None` is all. Where the site has
    /// queries and keys, positions are those of the queries.
    pub positions: Option<Vec<usize>>,
    /// For each row of the batch, whether it is changed; `None` is all rows.
    pub rows: Option<Vec<bool>>,
    /// What is done.
    pub op: Op<B>,
}

impl<B: Backend> Intervention<B> {
    /// A change of all heads, positions and rows.
    #[must_use]
    pub fn new(site: Site, op: Op<B>) -> Self {
        Self {
            site,
            heads: None,
            positions: None,
            rows: None,
            op,
        }
    }

    /// Only these heads.
    ///
    /// # Panics
    /// If the site has no head axis.
    #[must_use]
    pub fn with_heads(mut self, heads: impl IntoIterator<Item = usize>) -> Self {
        assert!(
            self.site.head_axis().is_some(),
            "{} has no head axis",
            self.site
        );
        self.heads = Some(heads.into_iter().collect());
        self
    }

    /// Only these positions.
    #[must_use]
    pub fn with_positions(mut self, positions: impl IntoIterator<Item = usize>) -> Self {
        self.positions = Some(positions.into_iter().collect());
        self
    }

    /// Only the rows of the batch that are marked.
    #[must_use]
    pub fn with_rows(mut self, rows: Vec<bool>) -> Self {
        self.rows = Some(rows);
        self
    }

    fn apply<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let expanded = |value: &AnyTensor<B>| -> Tensor<B, D> {
            let Some(value) = value.get::<D>() else {
                panic!(
                    "{}: the value has {:?}, the site {D} axes",
                    self.site,
                    value.dims()
                )
            };
            value.cast(x.dtype()).expand(x.dims())
        };
        let changed = match &self.op {
            Op::Zero => x.zeros_like(),
            Op::Scale(factor) => x.clone().mul_scalar(*factor),
            Op::Add(value) => x.clone().add(expanded(value)),
            Op::Replace(value) => expanded(value),
            Op::Resample(sources) => {
                let index: Vec<i64> = sources.iter().map(|&row| row as i64).collect();
                let index = TensorData::new(index, [sources.len()]);
                x.clone()
                    .select(0, Tensor::<B, 1, Int>::from_data(index, &x.device()))
            }
        };
        match self.mask(&x) {
            Some(mask) => x.mask_where(mask, changed),
            None => changed,
        }
    }

    /// Where to change, expanded to the shape of `x`; `None` is everywhere.
    fn mask<const D: usize>(&self, x: &Tensor<B, D>) -> Option<Tensor<B, D, Bool>> {
        if self.heads.is_none() && self.positions.is_none() && self.rows.is_none() {
            return None;
        }
        let dims = x.dims();
        // The mask runs over the axes that something is chosen on.
        let mut shape = [1; D];
        shape[0] = dims[0];
        let chosen = |axis: Option<usize>, members: &Option<Vec<usize>>, what| {
            let Some(members) = members else {
                return vec![true];
            };
            let size = axis.map_or(1, |axis| dims[axis]);
            let last = members.iter().max().copied().unwrap_or_default();
            assert!(
                last < size,
                "{} has {size} {what}s, not a {what} {last}",
                self.site
            );
            (0..size).map(|at| members.contains(&at)).collect()
        };
        let (head_axis, pos_axis) = (self.site.head_axis(), self.site.position_axis());
        let heads = chosen(head_axis, &self.heads, "head");
        let positions = chosen(Some(pos_axis), &self.positions, "position");
        if let Some(axis) = head_axis {
            shape[axis] = heads.len();
        }
        shape[pos_axis] = positions.len();
        let row = |b: usize| self.rows.as_ref().is_none_or(|rows| rows[b]);
        // Row-major in the order of the axes.
        let (outer, inner) = if head_axis == Some(1) {
            (&heads, &positions)
        } else {
            (&positions, &heads)
        };
        let flags: Vec<bool> = (0..dims[0])
            .flat_map(|b| {
                outer
                    .iter()
                    .flat_map(move |&x| inner.iter().map(move |&y| row(b) && x && y))
            })
            .collect();
        let flags = TensorData::new(flags, [dims[0] * heads.len() * positions.len()]);
        let mask = Tensor::<B, 1, Bool>::from_data(flags, &x.device());
        Some(mask.reshape(shape).expand(dims))
    }
}

/// Applies a list of interventions in order.
///
/// To see their effect, compose with a [`crate::Capture`] to the right; to see what they found, to
/// the left.
#[derive(Debug, Clone, Default)]
pub struct Intervene<B: Backend> {
    list: Vec<Intervention<B>>,
}

impl<B: Backend> Intervene<B> {
    /// These interventions, applied in this order at each site.
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = Intervention<B>>) -> Self {
        Self {
            list: list.into_iter().collect(),
        }
    }
}

impl<B: Backend> Tap<B> for Intervene<B> {
    fn wants(&self, site: Site) -> bool {
        self.list
            .iter()
            .any(|intervention| intervention.site == site)
    }

    fn tap<const D: usize>(&mut self, site: Site, mut x: Tensor<B, D>) -> Tensor<B, D> {
        for intervention in self
            .list
            .iter()
            .filter(|intervention| intervention.site == site)
        {
            x = intervention.apply(x);
        }
        x
    }
}
