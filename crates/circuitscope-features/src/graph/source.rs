//! What an MLP's output is made of: features, what they leave over, and constants.

use core::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_hooks::wide;
use circuitscope_sae::Encoder;

use crate::frozen::{FrozenNorm, floats, rows};
use crate::{Error, Frozen, Result};

/// Rows of features or of directions that are decoded at a time.
const TILE: usize = 256;

/// A feature that is active.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Active {
    pub(crate) position: usize,
    pub(crate) feature: usize,
    pub(crate) activation: f32,
    /// What the feature reads is multiplied by this: 1, except of neurons, whose gate is held.
    pub(crate) gate: f32,
}

/// The output of one MLP taken apart, at every position of a prompt:
/// `mlp_out = Σ activation · atom + constant + passed on + error`.
#[derive(Debug, Clone)]
pub(crate) struct Source<B: Backend> {
    /// In order of positions, then features.
    pub(crate) active: Vec<Active>,
    /// Where in `active` a position is, one for each.
    pub(crate) spans: Vec<Range<usize>>,
    /// For each active feature its row in `atoms`.
    rows: Vec<usize>,
    /// `[used, d_model]`, what features with any activation write for an activation of 1.
    atoms: Tensor<B, 2>,
    /// A norm between that and the residual stream, of neurons.
    post: Option<FrozenNorm<B>>,
    /// `[pos, d_model]`
    pub(crate) constant: Tensor<B, 2>,
    /// `[d_model, d_model]`, of a transcoder that passes on its input past its features.
    pub(crate) skip: Option<Tensor<B, 2>>,
    /// `[pos, d_model]`
    pub(crate) error: Tensor<B, 2>,
    /// What features read, `[d_model, n]` and `[n]`.
    reads: Option<(Tensor<B, 2>, Tensor<B, 1>)>,
}

impl<B: Backend> Source<B> {
    /// All of the output as error.
    pub(crate) fn none(frozen: &Frozen<'_, B>, layer: usize) -> Result<Self> {
        let output = frozen.check_mlp(layer)?.output.clone();
        let device = output.device();
        let [pos, d_model] = output.dims();
        Ok(Self {
            active: Vec::new(),
            spans: vec![0..0; pos],
            rows: Vec::new(),
            atoms: Tensor::zeros([0, d_model], &device),
            post: None,
            constant: output.zeros_like(),
            skip: None,
            error: output,
            reads: None,
        })
    }

    /// The features of a transcoder, those of positions before `first` left out.
    pub(crate) fn transcoder(
        frozen: &Frozen<'_, B>,
        layer: usize,
        encoder: &dyn Encoder<B>,
        first: usize,
    ) -> Result<Self> {
        let mlp = frozen.check_mlp(layer)?;
        let unfit = |found: String, expected: String| Error::Unfit {
            what: format!("transcoder of layer {layer}"),
            found,
            expected,
        };
        let (pos, d_model) = (frozen.pos, frozen.model.config().d_model);
        let widths = [encoder.d_in(), encoder.d_out()];
        if widths != [d_model; 2] {
            return Err(unfit(
                format!("widths {} to {}", widths[0], widths[1]),
                format!("the model's width {d_model} to {d_model}"),
            ));
        }
        let reads = encoder.reads().ok_or_else(|| {
            unfit(
                "one that normalises each vector by its own length".to_owned(),
                "activations that are affine in what is read".to_owned(),
            )
        })?;
        let decode = |features: Tensor<B, 2>, x: Tensor<B, 2>| {
            let decoded = encoder.decode(features, x).map(wide);
            decoded.ok_or_else(|| {
                let expected = "features that write something".to_owned();
                unfit("features that write nothing".to_owned(), expected)
            })
        };
        let device = frozen.device();
        let n_codes = encoder.n_codes();
        let zeros = |rows: usize, width: usize| Tensor::<B, 2>::zeros([rows, width], &device);
        let mut features = floats(wide(encoder.encode(mlp.input.clone())))?;
        features[..first.min(pos) * n_codes].fill(0.0);
        let (active, spans) = active(&features, n_codes, |_, _| 1.0, layer)?;
        let mut used: Vec<usize> = active.iter().map(|active| active.feature).collect();
        used.sort_unstable();
        used.dedup();
        let nothing = decode(zeros(1, n_codes), zeros(1, d_model))?;
        let mut atoms = vec![zeros(0, d_model)];
        for tile in used.chunks(TILE) {
            let mut one_hot = vec![0.0f32; tile.len() * n_codes];
            for (row, feature) in tile.iter().enumerate() {
                one_hot[row * n_codes + feature] = 1.0;
            }
            let one_hot = TensorData::new(one_hot, [tile.len(), n_codes]);
            let written = decode(
                Tensor::from_data(one_hot, &device),
                zeros(tile.len(), d_model),
            )?;
            atoms.push(written - nothing.clone());
        }
        // What passes nothing on for these inputs needs no matrix.
        let passed_on = decode(zeros(pos, n_codes), mlp.input.clone())? - nothing.clone();
        let passes = floats(passed_on.abs().max())?[0] > 0.0;
        let mut skip = Vec::new();
        for start in (0..d_model).step_by(TILE).filter(|_| passes) {
            let count = TILE.min(d_model - start);
            let mut axes = vec![0.0f32; count * d_model];
            for row in 0..count {
                axes[row * d_model + start + row] = 1.0;
            }
            let axes = Tensor::from_data(TensorData::new(axes, [count, d_model]), &device);
            skip.push(decode(zeros(count, n_codes), axes)? - nothing.clone());
        }
        let skip = passes.then(|| Tensor::cat(skip, 0));
        let rows = active
            .iter()
            .map(|active| used.partition_point(|feature| *feature < active.feature))
            .collect();
        let mut made = Self {
            active,
            spans,
            rows,
            atoms: Tensor::cat(atoms, 0),
            post: None,
            constant: nothing.expand([pos, d_model]),
            skip,
            error: mlp.output.clone(),
            reads: Some((wide(reads.weight), wide(reads.bias))),
        };
        made.leave_over(&mlp.input);
        Ok(made)
    }

    /// The neurons of the MLP itself, with the gate `post / pre` of each as it is: what is left of it is a linear map. Of a
    /// gated MLP, what the gate multiplies is read, and the gate is held.
    pub(crate) fn neurons(frozen: &Frozen<'_, B>, layer: usize) -> Result<Self> {
        let mlp = frozen.check_mlp(layer)?;
        let parts = frozen.model.mlp_parts(layer);
        let (Some(parts), Some(kind)) = (parts, frozen.model.config().mlp) else {
            return Self::none(frozen, layer);
        };
        let affine = |w: Tensor<B, 2>, b: Tensor<B, 1>| {
            let y = mlp.input.clone().matmul(wide(w)) + wide(b).unsqueeze();
            y.unsqueeze_dim::<3>(0)
        };
        let pre = affine(parts.w_in.clone(), parts.b_in.clone());
        let post = match parts.gate {
            Some((w, b)) => kind.activation.apply(affine(w, b)) * pre.clone(),
            None => kind.activation.apply(pre.clone()),
        };
        let [pos, d_mlp] = [frozen.pos, kind.d_mlp];
        let (pre, post) = (floats(pre)?, floats(post)?);
        let gate = |at: usize, activation: f32| activation / pre[at];
        let (active, spans) = active(&post, d_mlp, gate, layer)?;
        let b_out = wide(parts.b_out)
            .unsqueeze::<2>()
            .expand([pos, frozen.model.config().d_model]);
        let mut made = Self {
            rows: active.iter().map(|active| active.feature).collect(),
            active,
            spans,
            atoms: wide(parts.w_out),
            post: mlp.ln2_post.clone(),
            constant: match &mlp.ln2_post {
                Some(norm) => norm.apply(b_out),
                None => b_out,
            },
            skip: None,
            error: mlp.output.clone(),
            reads: Some((wide(parts.w_in), wide(parts.b_in))),
        };
        made.leave_over(&mlp.input);
        Ok(made)
    }

    /// Takes from `error`, which is the whole output, what everything else makes of it.
    fn leave_over(&mut self, input: &Tensor<B, 2>) {
        let written: Vec<Tensor<B, 2>> = (0..self.spans.len())
            .map(|position| self.written(position))
            .collect();
        let mut written = Tensor::cat(written, 0);
        if let Some(post) = &self.post {
            written = post.apply(written);
        }
        written = written + self.constant.clone();
        if let Some(skip) = &self.skip {
            written = written + input.clone().matmul(skip.clone());
        }
        self.error = self.error.clone() - written;
    }

    /// What all features write at a position, `[1, d_model]`.
    fn written(&self, position: usize) -> Tensor<B, 2> {
        let [_, d_model] = self.atoms.dims();
        let device = self.atoms.device();
        let span = self.spans[position].clone();
        if span.is_empty() {
            return Tensor::zeros([1, d_model], &device);
        }
        self.activations(span.clone())
            .transpose()
            .matmul(self.atoms_of(span))
    }

    /// The error and what these active features write, `[pos, d_model]`.
    pub(crate) fn error_with(&self, left_out: &[usize]) -> Tensor<B, 2> {
        let mut error = self.error.clone();
        for (position, span) in self.spans.iter().enumerate() {
            let here: Vec<usize> = left_out
                .iter()
                .copied()
                .filter(|at| span.contains(at))
                .collect();
            if here.is_empty() {
                continue;
            }
            let device = self.atoms.device();
            let atoms: Vec<usize> = here.iter().map(|at| self.rows[*at]).collect();
            let values: Vec<f32> = here.iter().map(|at| self.active[*at].activation).collect();
            let values =
                Tensor::<B, 2>::from_data(TensorData::new(values, [1, here.len()]), &device);
            let mut written = values.matmul(self.atoms.clone().select(0, rows(&atoms, &device)));
            if let Some(post) = &self.post {
                written = post.apply_at(written, position);
            }
            let at = position..position + 1;
            let sum = error.clone().slice_dim(0, at.clone()) + written;
            let [_, d_model] = error.dims();
            error = error.slice_assign([at, 0..d_model], sum);
        }
        error
    }

    /// `[features, 1]`
    fn activations(&self, span: Range<usize>) -> Tensor<B, 2> {
        let values: Vec<f32> = self.active[span]
            .iter()
            .map(|active| active.activation)
            .collect();
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count, 1]), &self.atoms.device())
    }

    /// `[features, d_model]`
    fn atoms_of(&self, span: Range<usize>) -> Tensor<B, 2> {
        let rows = rows(&self.rows[span], &self.atoms.device());
        self.atoms.clone().select(0, rows)
    }

    /// What all active features add to `n` linear functions of the residual stream, `[n, active]`.
    ///
    /// # Shapes
    /// - `g`: `[pos, n, d_model]`
    pub(crate) fn effects(&self, g: &Tensor<B, 3>) -> Option<Tensor<B, 2>> {
        let g = match &self.post {
            Some(norm) => norm.pull(g.clone()),
            None => g.clone(),
        };
        let spans = self.spans.iter().enumerate();
        let effects = spans
            .filter(|(_, span)| !span.is_empty())
            .map(|(position, _)| {
                let g = g.clone().slice_dim(0, position..position + 1);
                self.effects_at(position, g.squeeze_dim(0))
            });
        let effects: Vec<Tensor<B, 2>> = effects.collect();
        (!effects.is_empty()).then(|| Tensor::cat(effects, 1))
    }

    /// What the features that are active at one position add, `[n, features]`, to functions of what features write there.
    ///
    /// # Shapes
    /// - `g`: `[n, d_model]`
    pub(crate) fn effects_at(&self, position: usize, g: Tensor<B, 2>) -> Tensor<B, 2> {
        let span = self.spans[position].clone();
        // [features, d_model] x [d_model, n]
        let read = self.atoms_of(span.clone()).matmul(g.transpose());
        (read * self.activations(span)).transpose()
    }

    /// What active features read, `[features, d_model]`, and their constants, `[features]`; `None` where nothing reads.
    pub(crate) fn reads(&self, active: &[usize]) -> Option<(Tensor<B, 2>, Tensor<B, 1>)> {
        let (weight, bias) = self.reads.as_ref()?;
        let device = weight.device();
        let features: Vec<usize> = active.iter().map(|at| self.active[*at].feature).collect();
        let gates: Vec<f32> = active.iter().map(|at| self.active[*at].gate).collect();
        let gates = Tensor::<B, 1>::from_data(TensorData::new(gates, [active.len()]), &device);
        let at = rows(&features, &device);
        let weight = weight.clone().select(1, at.clone()).transpose();
        Some((
            weight * gates.clone().unsqueeze_dim(1),
            bias.clone().select(0, at) * gates,
        ))
    }
}

/// The entries of `[pos, n_codes]` that are not 0, and which of them are at each position.
fn active(
    values: &[f32],
    n_codes: usize,
    gate: impl Fn(usize, f32) -> f32,
    layer: usize,
) -> Result<(Vec<Active>, Vec<Range<usize>>)> {
    let mut active = Vec::new();
    let mut spans = Vec::new();
    for (position, values) in values.chunks_exact(n_codes).enumerate() {
        let start = active.len();
        for (feature, &activation) in values.iter().enumerate() {
            if !activation.is_finite() {
                return Err(Error::Unfit {
                    what: format!("feature {feature} of layer {layer} at position {position}"),
                    found: activation.to_string(),
                    expected: "a finite activation".to_owned(),
                });
            }
            if activation != 0.0 {
                active.push(Active {
                    position,
                    feature,
                    activation,
                    gate: gate(position * n_codes + feature, activation),
                });
            }
        }
        spans.push(start..active.len());
    }
    Ok((active, spans))
}
