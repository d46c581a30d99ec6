//! Dictionaries of one shape, trained side by side as one batched problem.

use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, Transaction};

use crate::adam::{AdamStep, Moments};
use crate::history::explained_variance;
use crate::read::{execute, floats};
use crate::{Dictionary, Error, History, Result, SparseAutoencoder, TrainConfig, dictionary};

/// What [`train`](crate::train) returns.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trained<B: Backend> {
    /// The autoencoder after the last step, its weights normalised.
    pub sae: SparseAutoencoder<B>,
    /// How it got there.
    pub history: History,
}

/// Gradients of the loss, as Adam sees them: those of the weights without their part along the
/// vectors of fixed length.
///
/// # Shapes
/// Those of the parameters of the same name in [`SparseAutoencoder`].
#[derive(Debug, Clone)]
pub struct Gradients<B: Backend> {
    /// `[d_in, d_sae]`
    pub w_enc: Tensor<B, 2>,
    /// `[d_sae, d_in]`
    pub w_dec: Tensor<B, 2>,
    /// `[d_sae]`
    pub b_enc: Tensor<B, 1>,
    /// `[d_in]`
    pub b_dec: Tensor<B, 1>,
}

/// The dictionaries, each with vectors of its own, and how far they are.
#[derive(Debug)]
pub(crate) struct Stack<B: Backend> {
    train: TrainConfig,
    dictionary: Dictionary,
    /// λ of each.
    l1_coefficients: Vec<f64>,
    /// `[s, m, d_in]`
    x: Tensor<B, 3>,
    /// Mean squared deviation from the mean vector, per entry, of each.
    variances: Vec<f64>,
    weights: Weights<B>,
    moments: [Moments<B, 3>; 4],
    records: Vec<Record<B>>,
    /// Whether features that are active nowhere are left out of products; for one dictionary alone.
    sparse: bool,
}

/// The parameters of all dictionaries, or their gradients.
#[derive(Debug, Clone)]
struct Weights<B: Backend> {
    /// `[s, d_in, d_sae]`
    w_enc: Tensor<B, 3>,
    /// `[s, d_sae, d_in]`
    w_dec: Tensor<B, 3>,
    /// `[s, 1, d_sae]`
    b_enc: Tensor<B, 3>,
    /// `[s, 1, d_in]`
    b_dec: Tensor<B, 3>,
}

/// What one step leaves on the device.
#[derive(Debug, Clone)]
struct Record<B: Backend> {
    /// `[1, s]`
    mse: Tensor<B, 2>,
    /// `[1, s]`
    l1: Tensor<B, 2>,
    /// `[1, s, d_sae]`: on how many training vectors each feature is active.
    active: Tensor<B, 3>,
}

impl<B: Backend> Weights<B> {
    /// Divided by the norms that `dictionary` fixes.
    fn normalised(self, dictionary: Dictionary) -> Self {
        let unit = |w: Tensor<B, 3>, axis: usize| {
            let norm = (w.clone() * w.clone()).sum_dim(axis).sqrt();
            w / norm
        };
        Self {
            w_enc: unit(self.w_enc, 1 + dictionary::ENCODER_AXIS),
            w_dec: unit(self.w_dec, 1 + dictionary.decoder_axis()),
            ..self
        }
    }

    /// Those of dictionary `at`.
    fn of(&self, at: usize) -> SparseAutoencoder<B> {
        let part = |x: &Tensor<B, 3>| x.clone().slice_dim(0, at..=at).squeeze_dim::<2>(0);
        SparseAutoencoder {
            w_enc: part(&self.w_enc),
            w_dec: part(&self.w_dec),
            b_enc: part(&self.b_enc).squeeze_dim(0),
            b_dec: part(&self.b_dec).squeeze_dim(0),
        }
    }
}

impl<B: Backend> Stack<B> {
    /// Dictionaries that agree in shape, constraint and steps, with the vectors `[m, d_in]` of each.
    ///
    /// # Errors
    /// [`Error::NonFinite`].
    pub(crate) fn new(
        train: &TrainConfig,
        dictionary: Dictionary,
        l1_coefficients: Vec<f64>,
        saes: Vec<SparseAutoencoder<B>>,
        x: Vec<Tensor<B, 2>>,
    ) -> Result<Self> {
        let x: Tensor<B, 3> = Tensor::stack(x, 0);
        let [s, m, d] = x.dims();
        let deviation = x.clone() - x.clone().mean_dim(1);
        let squares = (deviation.clone() * deviation).reshape([s, m * d]);
        let read = execute(Transaction::default().register(squares.mean_dim(1)))?;
        let variances = floats(read).remove(0);
        if variances.iter().any(|variance| !variance.is_finite()) {
            return Err(Error::NonFinite { rows: 0..m });
        }
        let (mut w_enc, mut w_dec, mut b_enc, mut b_dec) = (vec![], vec![], vec![], vec![]);
        for sae in saes {
            w_enc.push(sae.w_enc);
            w_dec.push(sae.w_dec);
            b_enc.push(sae.b_enc.unsqueeze_dim::<2>(0));
            b_dec.push(sae.b_dec.unsqueeze_dim::<2>(0));
        }
        let weights = Weights {
            w_enc: Tensor::stack(w_enc, 0),
            w_dec: Tensor::stack(w_dec, 0),
            b_enc: Tensor::stack(b_enc, 0),
            b_dec: Tensor::stack(b_dec, 0),
        };
        Ok(Self {
            train: train.clone(),
            dictionary,
            l1_coefficients,
            variances,
            weights: weights.normalised(dictionary),
            moments: core::array::from_fn(|_| Moments::new()),
            records: Vec::with_capacity(train.steps),
            // Which features are active is read in every step.
            sparse: s == 1 && train.exec.in_host_memory,
            x,
        })
    }

    /// Dictionary `at` as it stands.
    pub(crate) fn sae(&self, at: usize) -> SparseAutoencoder<B> {
        self.weights.of(at)
    }

    /// One step of the optimiser for each.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn step(&mut self) -> Result<()> {
        let (gradients, record) = self.forward_backward()?;
        self.records.push(record);
        let time = i32::try_from(self.records.len()).unwrap_or(i32::MAX);
        let adam = AdamStep::new(&self.train, time);
        let weights = self.weights.clone();
        let [w_enc, w_dec, b_enc, b_dec] = &mut self.moments;
        self.weights = Weights {
            w_enc: w_enc.step(&adam, weights.w_enc, gradients.w_enc),
            w_dec: w_dec.step(&adam, weights.w_dec, gradients.w_dec),
            b_enc: b_enc.step(&adam, weights.b_enc, gradients.b_enc),
            b_dec: b_dec.step(&adam, weights.b_dec, gradients.b_dec),
        }
        .normalised(self.dictionary);
        Ok(())
    }

    /// The gradients of dictionary `at`, as Adam would see them.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn gradients(&self, at: usize) -> Result<Gradients<B>> {
        let (gradients, _) = self.forward_backward()?;
        let SparseAutoencoder {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        } = gradients.of(at);
        Ok(Gradients {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        })
    }

    /// The gradient of the two-layer network by hand: five matrix products for each dictionary, where
    /// automatic differentiation makes six.
    ///
    /// With `e = f W_dec + b_dec − x` the error, `∂/∂e` is `2e / (m d)`; with `g` the gradient at the
    /// pre-activations and `s` its sum over vectors, `∂/∂W_enc = xᵀg − b_dec sᵀ`, `∂/∂b_enc = s` and
    /// `∂/∂b_dec = Σ ∂/∂e − W_enc s`: the tied bias needs no product of its own with `x`.
    fn forward_backward(&self) -> Result<(Weights<B>, Record<B>)> {
        let Weights {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        } = &self.weights;
        let x = &self.x;
        let [s, m, d] = x.dims();
        let vectors = m as f64;
        // Shapes are those of one dictionary. (x − b_dec) W_enc + b_enc, multiplied out.
        let offset = b_enc.clone() - b_dec.clone().matmul(w_enc.clone());
        // [m, d_in] x [d_in, d_sae] -> [m, d_sae]
        let features = relu(x.clone().matmul(w_enc.clone()) + offset);
        let active = features.clone().greater_elem(0.0).float().sum_dim(1);
        let some = if self.sparse {
            Subset::of(&active)?
        } else {
            None
        };
        // Of the features that are left: f [m, n], W_enc [d_in, n], W_dec [n, d_in].
        let (f, enc, dec) = match &some {
            None => (features, w_enc.clone(), w_dec.clone()),
            Some(Subset { index }) => (
                features.select(2, index.clone()),
                w_enc.clone().select(2, index.clone()),
                w_dec.clone().select(1, index.clone()),
            ),
        };
        let [_, n, _] = dec.dims();
        // A column of ones and the bias as a row: one product adds the bias, and another one, later,
        // sums the error over vectors.
        let ones = Tensor::ones([s, m, 1], &x.device());
        let f_and_one = Tensor::cat(vec![f.clone(), ones], 2);
        let dec_and_bias = Tensor::cat(vec![dec.clone(), b_dec.clone()], 1);
        // [m, n + 1] x [n + 1, d_in] -> [m, d_in]
        let error = f_and_one.clone().matmul(dec_and_bias) - x.clone();
        let mse = (error.clone() * error.clone()).reshape([s, m * d]);
        let mse = mse.mean_dim(1).reshape([1, s]);
        // Features are not negative: their sum is the sum of their L1 norms.
        let l1 = f.clone().reshape([s, m * n]).sum_dim(1);
        let l1 = l1.div_scalar(vectors).reshape([1, s]);

        let scale = 2.0 / (vectors * d as f64);
        // [n + 1, m] x [m, d_in] -> [n + 1, d_in]
        let products = f_and_one
            .swap_dims(1, 2)
            .matmul(error.clone())
            .mul_scalar(scale);
        let (to_dec, error_sums) = (products.clone().narrow(1, 0, n), products.narrow(1, n, 1));
        // [m, d_in] x [d_in, n] -> [m, n], and nothing where a feature is not active.
        let at_features = error.matmul(dec.swap_dims(1, 2)).mul_scalar(scale);
        let at_features = (at_features + self.penalties()).mask_fill(f.lower_equal_elem(0.0), 0.0);
        let sums = at_features.clone().sum_dim(1); // [1, n]
        // [d_in, m] x [m, n] -> [d_in, n]
        let to_enc = x.clone().swap_dims(1, 2).matmul(at_features)
            - b_dec.clone().swap_dims(1, 2).matmul(sums.clone());
        let to_b_dec = error_sums - sums.clone().matmul(enc.swap_dims(1, 2));

        let (to_enc, to_dec, to_b_enc) = match some {
            None => (to_enc, to_dec, sums),
            Some(subset) => (
                subset.spread(to_enc, 2, w_enc.dims()),
                subset.spread(to_dec, 1, w_dec.dims()),
                subset.spread(sums, 2, b_enc.dims()),
            ),
        };
        let gradients = Weights {
            w_enc: tangent(to_enc, w_enc, 1 + dictionary::ENCODER_AXIS),
            w_dec: tangent(to_dec, w_dec, 1 + self.dictionary.decoder_axis()),
            b_enc: to_b_enc,
            b_dec: to_b_dec,
        };
        let active = active.swap_dims(0, 1);
        Ok((gradients, Record { mse, l1, active }))
    }

    /// λ over the number of vectors, `[s, 1, 1]`.
    fn penalties(&self) -> Tensor<B, 3> {
        let [s, m, _] = self.x.dims();
        let share = |l1: &f64| (l1 / m as f64) as f32;
        let penalties: Vec<f32> = self.l1_coefficients.iter().map(share).collect();
        Tensor::from_data(TensorData::new(penalties, [s, 1, 1]), &self.x.device())
    }

    /// The dictionaries with the histories of all steps, which are read back now.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or a weight is not finite, [`Error::Device`] if results
    /// cannot be read.
    pub(crate) fn finish(self) -> Result<Vec<Trained<B>>> {
        let count = self.l1_coefficients.len();
        let saes: Vec<_> = (0..count).map(|at| self.weights.of(at)).collect();
        // Not finite if any weight is not.
        let checksum = |sae: &SparseAutoencoder<B>| {
            sae.w_enc.clone().sum()
                + sae.w_dec.clone().sum()
                + sae.b_enc.clone().sum()
                + sae.b_dec.clone().sum()
        };
        let checksums = Tensor::cat(saes.iter().map(checksum).collect(), 0);
        let steps = self.records.len();
        let (histories, checksums) = self.histories(checksums)?;
        let trained = saes.into_iter().zip(histories).zip(checksums);
        trained
            .map(|((sae, history), checksum)| {
                if let Some(step) = history.loss.iter().position(|loss| !loss.is_finite()) {
                    return Err(Error::Diverged { step });
                }
                if !checksum.is_finite() {
                    return Err(Error::Diverged { step: steps });
                }
                Ok(Trained { sae, history })
            })
            .collect()
    }

    /// Reads all records back in one go, and a checksum for each dictionary with them.
    fn histories(self, checksums: Tensor<B, 1>) -> Result<(Vec<History>, Vec<f64>)> {
        let [count, m, _] = self.x.dims();
        let steps = self.records.len();
        if steps == 0 {
            let mut read = floats(execute(Transaction::default().register(checksums))?);
            return Ok((vec![History::default(); count], read.remove(0)));
        }
        let (mut mse, mut l1, mut active) = (Vec::new(), Vec::new(), Vec::new());
        for record in self.records {
            mse.push(record.mse);
            l1.push(record.l1);
            active.push(record.active);
        }
        let read = floats(execute(
            Transaction::default()
                .register(Tensor::cat(mse, 0))
                .register(Tensor::cat(l1, 0))
                .register(Tensor::cat(active, 0))
                .register(checksums),
        )?);
        let [mse, l1, active, checksums] = &read[..] else {
            return Err(Error::Device {
                message: format!("asked for 4 tensors, got {}", read.len()),
            });
        };
        let d_sae = active.len() / (steps * count);
        let history = |at: usize| {
            let mut history = History::default();
            for step in 0..steps {
                let entry = step * count + at;
                let (mse, l1) = (mse[entry], l1[entry]);
                let active = &active[entry * d_sae..(entry + 1) * d_sae];
                history.mse.push(mse);
                history.l1.push(l1);
                history.loss.push(mse + self.l1_coefficients[at] * l1);
                let explained = explained_variance(mse, self.variances[at]);
                history.explained_variance.push(explained);
                history.l0.push(active.iter().sum::<f64>() / m as f64);
                let dead = active.iter().filter(|count| **count == 0.0).count();
                history.dead.push(dead);
            }
            history
        };
        Ok(((0..count).map(history).collect(), checksums.clone()))
    }
}

/// Features that are active on some training vector.
struct Subset<B: Backend> {
    /// Their indices, ascending.
    index: Tensor<B, 1, Int>,
}

impl<B: Backend> Subset<B> {
    /// `None` where products over all features cost hardly more, or no feature is active.
    fn of(active: &Tensor<B, 3>) -> Result<Option<Self>> {
        let counts = floats(execute(Transaction::default().register(active.clone()))?);
        let counts = counts.into_iter().flatten();
        let members: Vec<i64> = counts
            .enumerate()
            .filter(|(_, count)| *count > 0.0)
            .map(|(feature, _)| feature as i64)
            .collect();
        let [.., all] = active.dims();
        if members.is_empty() || 4 * members.len() > 3 * all {
            return Ok(None);
        }
        let size = [members.len()];
        let index = Tensor::from_data(TensorData::new(members, size), &active.device());
        Ok(Some(Self { index }))
    }

    /// Zeros of shape `dims` with `values` at the places of these features along `axis`.
    fn spread(&self, values: Tensor<B, 3>, axis: usize, dims: [usize; 3]) -> Tensor<B, 3> {
        let zeros = Tensor::zeros(dims, &values.device());
        zeros.select_assign(axis, self.index.clone(), values, IndexingUpdateOp::Add)
    }
}

/// `g − (g · w) w` along `axis`, where `w` has unit length: what is left moves along the sphere.
fn tangent<B: Backend>(g: Tensor<B, 3>, w: &Tensor<B, 3>, axis: usize) -> Tensor<B, 3> {
    let radial = (g.clone() * w.clone()).sum_dim(axis);
    g - w.clone() * radial
}
