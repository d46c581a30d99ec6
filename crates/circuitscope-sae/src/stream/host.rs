//! A step in the host's memory. With k features of a row, one of the five dense products is left: the one that
//! finds them. The others add k rows.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use pulp::Arch;
use rayon::prelude::*;

use super::params::Params;
use super::select::Entries;
use super::vector::{add, dot, scale};
use super::{Batch, Objective, Outcome, StreamConfig};
use crate::adam::AdamStep;
use crate::autoencoder::uploaded;

/// Rows of one task.
const TASK: usize = 64;

/// Weights and Adam's sums.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) weights: Params,
    pub(super) first: Params,
    pub(super) second: Params,
}

/// One reconstruction `Σ f_i W_dec,i + …`, and how the loss changes with it.
struct Term {
    entries: Entries,
    /// What is squared, `[rows, d_out]`: of it, the loss has `scale / 2` of the squares.
    error: Vec<f32>,
    scale: f32,
    /// ∂/∂h of each entry.
    slopes: Vec<f32>,
    squares: f64,
}

/// The entries of a term, feature by feature.
struct ByFeature {
    /// Where those of each feature begin, and where the last ones end.
    starts: Vec<usize>,
    rows: Vec<u32>,
    /// Activations times the scale of the term.
    values: Vec<f32>,
    slopes: Vec<f32>,
}

/// What a step leaves for the update.
pub(super) struct Backward {
    terms: Vec<(Term, ByFeature)>,
    /// `[d_sae]`
    b_enc: Vec<f32>,
    /// `[d_out]`
    b_dec: Vec<f32>,
    /// `[d_out, d_in]`, or empty.
    w_skip: Vec<f32>,
}

impl Host {
    pub(super) fn forward<B: Backend>(
        &self,
        config: &StreamConfig,
        batch: Batch<'_>,
        dead: &[u32],
        device: &B::Device,
    ) -> (Backward, Outcome) {
        let StreamConfig {
            d_in, d_out, d_sae, ..
        } = *config;
        let Batch { x, y, rows } = batch;
        let weights = &self.weights;
        let x_tensor = uploaded::<B, 2>(x, [rows, d_in], device);
        let h = self.pre_activations(config, x_tensor.clone());
        let entries = match config.objective {
            Objective::BatchTopK { k } => Entries::largest_of_all(&h, d_sae, k * rows),
            Objective::TopK { k } => Entries::largest_of_rows(&h, d_sae, k),
            _ => unreachable!("`on_host` lets only k features in"),
        };
        let skip = config.skip.then(|| {
            // [rows, d_in] x [d_in, d_out] -> [rows, d_out]
            let w_skip = uploaded::<B, 2>(&weights.w_skip, [d_out, d_in], device);
            floats(x_tensor.clone().matmul(w_skip.transpose()))
        });
        let main = self.term(entries, d_out, 2.0 / rows as f64, |row, error| {
            let y = &y[row * d_out..(row + 1) * d_out];
            for ((error, bias), y) in error.iter_mut().zip(&weights.b_dec).zip(y) {
                *error = bias - y;
            }
            if let Some(skip) = &skip {
                add(error, 1.0, &skip[row * d_out..(row + 1) * d_out]);
            }
        });
        let mut outcome = Outcome {
            squared_error: main.squares,
            fired: vec![0; d_sae],
            least_kept: main.entries.values.iter().copied().reduce(f32::min),
            ..Outcome::of_targets(y, d_out)
        };
        for &feature in &main.entries.features {
            outcome.fired[feature as usize] += 1;
        }
        let aux = config.aux_weight(dead.len()).map(|weight| {
            let k = config.k_aux.min(dead.len());
            let entries = Entries::largest_among(&h, d_sae, dead, k);
            // ê − (y − ŷ), where ŷ is a constant.
            let term = self.term(entries, d_out, 2.0 * weight / rows as f64, |row, error| {
                error.copy_from_slice(&main.error[row * d_out..(row + 1) * d_out]);
            });
            outcome.aux = weight * term.squares / rows as f64;
            term
        });
        drop(h);
        let terms = [Some(main), aux].into_iter().flatten();
        let terms: Vec<_> = terms
            .map(|term| {
                let by_feature = ByFeature::of(&term, d_sae);
                (term, by_feature)
            })
            .collect();
        let backward = self.backward::<B>(config, terms, x_tensor, device);
        (backward, outcome)
    }

    /// `h`, `[rows, d_sae]`.
    fn pre_activations<B: Backend>(&self, config: &StreamConfig, x: Tensor<B, 2>) -> Vec<f32> {
        let (d_in, d_sae) = (config.d_in, config.d_sae);
        let weights = &self.weights;
        // [rows, d_in] x [d_in, d_sae] -> [rows, d_sae]
        let w_enc = uploaded::<B, 2>(&weights.w_enc, [d_sae, d_in], &x.device());
        let mut h = floats(x.matmul(w_enc.transpose()));
        // (x − s b_dec) W_enc + b_enc, multiplied out.
        let arch = Arch::new();
        let mut offset = weights.b_enc.clone();
        if config.centred {
            let rows = weights.w_enc.par_chunks_exact(d_in);
            offset.par_iter_mut().zip(rows).for_each(|(offset, w_enc)| {
                *offset -= arch.dispatch(|| dot(&weights.b_dec, w_enc));
            });
        }
        h.par_chunks_mut(TASK * d_sae).for_each(|rows| {
            arch.dispatch(|| {
                for row in rows.chunks_exact_mut(d_sae) {
                    add(row, 1.0, &offset);
                }
            });
        });
        h
    }

    /// `begin` writes what an error is without features.
    fn term(
        &self,
        entries: Entries,
        d_out: usize,
        scale: f64,
        begin: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Term {
        let rows = entries.starts.len() - 1;
        let atom = |at: usize| {
            let feature = entries.features[at] as usize;
            &self.weights.w_dec[feature * d_out..(feature + 1) * d_out]
        };
        let mut error = vec![0.0; rows * d_out];
        let scale = scale as f32;
        let arch = Arch::new();
        let parts: Vec<(Vec<f32>, f64)> = error
            .par_chunks_mut(TASK * d_out)
            .enumerate()
            .map(|(task, errors)| {
                arch.dispatch(|| {
                    let (mut slopes, mut squares) = (Vec::new(), 0.0);
                    for (row, error) in errors.chunks_exact_mut(d_out).enumerate() {
                        let row = task * TASK + row;
                        begin(row, error);
                        let own = entries.starts[row]..entries.starts[row + 1];
                        for at in own.clone() {
                            add(error, entries.values[at], atom(at));
                        }
                        for at in own {
                            slopes.push(scale * dot(error, atom(at)));
                        }
                        squares += f64::from(dot(error, error));
                    }
                    (slopes, squares)
                })
            })
            .collect();
        let squares = parts.iter().map(|(_, squares)| squares).sum();
        let slopes = parts.into_iter().flat_map(|(slopes, _)| slopes).collect();
        Term {
            entries,
            error,
            scale,
            slopes,
            squares,
        }
    }

    fn backward<B: Backend>(
        &self,
        config: &StreamConfig,
        terms: Vec<(Term, ByFeature)>,
        x: Tensor<B, 2>,
        device: &B::Device,
    ) -> Backward {
        let StreamConfig {
            d_in, d_out, d_sae, ..
        } = *config;
        let mut b_enc = vec![0.0; d_sae];
        for (_, features) in &terms {
            for (sum, own) in b_enc.iter_mut().zip(features.starts.windows(2)) {
                *sum += features.slopes[own[0]..own[1]].iter().sum::<f32>();
            }
        }
        // The auxiliary reconstruction has no bias.
        let (main, _) = &terms[0];
        let mut b_dec = sum_of_rows(&main.error, d_out, None);
        scale(&mut b_dec, main.scale);
        if config.centred {
            let through = sum_of_rows(&self.weights.w_enc, d_in, Some(&b_enc));
            add(&mut b_dec, -1.0, &through);
        }
        let w_skip = if config.skip {
            let [rows, _] = x.dims();
            // [d_out, rows] x [rows, d_in] -> [d_out, d_in]
            let error = uploaded::<B, 2>(&main.error, [rows, d_out], device);
            floats(error.transpose().matmul(x).mul_scalar(main.scale))
        } else {
            Vec::new()
        };
        Backward {
            terms,
            b_enc,
            b_dec,
            w_skip,
        }
    }

    /// Gradients by feature, and Adam's step with them at once: each row of weights passes through the caches once.
    pub(super) fn update(
        &mut self,
        config: &StreamConfig,
        x: &[f32],
        backward: &Backward,
        adam: &AdamStep,
    ) {
        let (d_in, d_out, unit_norm) = (config.d_in, config.d_out, config.unit_norm);
        let Self {
            weights,
            first,
            second,
        } = self;
        let centre = config.centred.then(|| weights.b_dec.clone());
        let arch = Arch::new();
        let rows = (
            weights.w_enc.par_chunks_mut(d_in),
            first.w_enc.par_chunks_mut(d_in),
            second.w_enc.par_chunks_mut(d_in),
            weights.w_dec.par_chunks_mut(d_out),
            first.w_dec.par_chunks_mut(d_out),
            second.w_dec.par_chunks_mut(d_out),
        );
        let scratch = || (vec![0.0; d_in], vec![0.0; d_out]);
        rows.into_par_iter().enumerate().for_each_init(
            scratch,
            |(to_enc, to_dec), (feature, (w_enc, m_enc, v_enc, w_dec, m_dec, v_dec))| {
                arch.dispatch(|| {
                    backward.of_feature(feature, x, centre.as_deref(), to_enc, to_dec);
                    if unit_norm {
                        let radial = dot(to_dec, w_dec);
                        add(to_dec, -radial, w_dec);
                    }
                    adam.apply(w_enc, m_enc, v_enc, to_enc);
                    adam.apply(w_dec, m_dec, v_dec, to_dec);
                    if unit_norm {
                        let norm = dot(w_dec, w_dec).sqrt();
                        scale(w_dec, 1.0 / norm);
                    }
                });
            },
        );
        for (w, m, v, gradient) in [
            (
                &mut weights.b_enc,
                &mut first.b_enc,
                &mut second.b_enc,
                &backward.b_enc,
            ),
            (
                &mut weights.b_dec,
                &mut first.b_dec,
                &mut second.b_dec,
                &backward.b_dec,
            ),
            (
                &mut weights.w_skip,
                &mut first.w_skip,
                &mut second.w_skip,
                &backward.w_skip,
            ),
        ] {
            adam.apply(w, m, v, gradient);
        }
    }

    /// All gradients at once, as they are before anything is made tangent.
    pub(super) fn gradients(
        &self,
        config: &StreamConfig,
        x: &[f32],
        backward: &Backward,
    ) -> Params {
        let (d_in, d_out) = (config.d_in, config.d_out);
        let centre = config.centred.then_some(&self.weights.b_dec[..]);
        let mut gradients = Params::zeros(config);
        gradients.b_enc.clone_from(&backward.b_enc);
        gradients.b_dec.clone_from(&backward.b_dec);
        gradients.w_skip.clone_from(&backward.w_skip);
        let to_enc = gradients.w_enc.chunks_exact_mut(d_in);
        let to_dec = gradients.w_dec.chunks_exact_mut(d_out);
        for (feature, (to_enc, to_dec)) in to_enc.zip(to_dec).enumerate() {
            backward.of_feature(feature, x, centre, to_enc, to_dec);
        }
        gradients
    }
}

impl Backward {
    /// The gradients of a feature's rows of both weights.
    #[expect(
        clippy::inline_always,
        reason = "what is not inlined is not compiled for the vector instructions of its caller"
    )]
    #[inline(always)]
    fn of_feature(
        &self,
        feature: usize,
        x: &[f32],
        centre: Option<&[f32]>,
        to_enc: &mut [f32],
        to_dec: &mut [f32],
    ) {
        let (d_in, d_out) = (to_enc.len(), to_dec.len());
        to_enc.fill(0.0);
        to_dec.fill(0.0);
        for (term, features) in &self.terms {
            for at in features.starts[feature]..features.starts[feature + 1] {
                let row = features.rows[at] as usize;
                add(
                    to_dec,
                    features.values[at],
                    &term.error[row * d_out..(row + 1) * d_out],
                );
                add(
                    to_enc,
                    features.slopes[at],
                    &x[row * d_in..(row + 1) * d_in],
                );
            }
        }
        if let Some(centre) = centre {
            add(to_enc, -self.b_enc[feature], centre);
        }
    }
}

impl ByFeature {
    fn of(term: &Term, d_sae: usize) -> Self {
        let entries = &term.entries;
        let mut starts = vec![0; d_sae + 1];
        for &feature in &entries.features {
            starts[feature as usize + 1] += 1;
        }
        for feature in 0..d_sae {
            starts[feature + 1] += starts[feature];
        }
        let mut next = starts.clone();
        let count = entries.features.len();
        let (mut rows, mut values, mut slopes) =
            (vec![0; count], vec![0.0; count], vec![0.0; count]);
        for (row, own) in entries.starts.windows(2).enumerate() {
            for at in own[0]..own[1] {
                let place = &mut next[entries.features[at] as usize];
                rows[*place] = row as u32;
                values[*place] = term.scale * entries.values[at];
                slopes[*place] = term.slopes[at];
                *place += 1;
            }
        }
        Self {
            starts,
            rows,
            values,
            slopes,
        }
    }
}

/// The sum of the rows of a matrix, each times its factor.
fn sum_of_rows(matrix: &[f32], width: usize, factors: Option<&[f32]>) -> Vec<f32> {
    let arch = Arch::new();
    let parts: Vec<Vec<f32>> = matrix
        .par_chunks(TASK * width)
        .enumerate()
        .map(|(task, rows)| {
            arch.dispatch(|| {
                let mut sum = vec![0.0; width];
                for (row, values) in rows.chunks_exact(width).enumerate() {
                    let factor = factors.map_or(1.0, |factors| factors[task * TASK + row]);
                    add(&mut sum, factor, values);
                }
                sum
            })
        })
        .collect();
    let mut sum = vec![0.0; width];
    for part in parts {
        add(&mut sum, 1.0, &part);
    }
    sum
}

/// The values of a tensor of a backend that computes in f32.
fn floats<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    let data: TensorData = tensor.into_data();
    data.convert::<f32>().into_vec().unwrap_or_default()
}
