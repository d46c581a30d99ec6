use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, Transaction};
use circuitscope_core::{Progress, Seed};

use crate::adam::{AdamStep, Moments};
use crate::history::explained_variance;
use crate::read::{execute, floats};
use crate::{Error, History, Result, SaeConfig, SparseAutoencoder, TrainConfig, dictionary};

/// What [`train`] returns.
#[derive(Debug, Clone)]
pub struct Trained<B: Backend> {
    /// The autoencoder after the last step, its weights normalised.
    pub sae: SparseAutoencoder<B>,
    /// How it got there.
    pub history: History,
}

/// Trains a new autoencoder on all rows of `x` at once.
///
/// Minimises, over `m` vectors of width `d`,
/// `Σ‖x̂ − x‖² / (m d) + λ Σ‖f(x)‖₁ / m` with Adam. In every step, as the hooks of the authors'
/// code do it: the gradient of each weight loses its part along the constrained vectors, *then*
/// Adam moves the weights, *then* the vectors are scaled back to unit length.
///
/// # Shapes
/// - `x`: `[m, d_in]`: the outputs of all heads on all training examples, in any order.
///
/// # Errors
/// - [`Error::Config`], [`Error::Width`], [`Error::Empty`], [`Error::NonFinite`] before training;
/// - [`Error::Diverged`] after it;
/// - [`Error::Cancelled`] as soon as `progress` asks for it;
/// - [`Error::Device`] if a result cannot be read back.
///
/// # Determinism
/// Starts from [`SaeConfig::init`] with `seed`, and draws nothing else: the same seed, data,
/// backend and machine give the same weights, as far as the backend's own kernels are
/// reproducible.
///
/// # Memory
/// About three `[m, d_in]` and four `[m, d_sae]` matrices, besides the weights, their moments and
/// `d_sae` numbers for each step. The host waits for the device before the first step and after the
/// last, and on CPUs in every step, to leave out features that are active on no vector
/// ([`Trainer::step`]).
///
/// # Examples
/// ```
/// use burn::tensor::{Distribution, Tensor};
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_sae::{SaeConfig, TrainConfig, train};
///
/// type B = burn_flex::Flex;
/// let device = Default::default();
/// let x = Tensor::<B, 2>::random([32, 8], Distribution::Default, &device);
/// let config = SaeConfig::new(8).with_d_sae(16);
/// let steps = TrainConfig::new().with_steps(50);
/// let trained = train(&config, &steps, x, Seed::new(0), &NoProgress)?;
/// let loss = &trained.history.loss;
/// assert!(loss[49] < loss[0]);
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
pub fn train<B: Backend>(
    config: &SaeConfig,
    train: &TrainConfig,
    x: Tensor<B, 2>,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Trained<B>> {
    let sae = config.init(seed, &x.device())?;
    let mut trainer = Trainer::<B>::new(config, train, sae, x)?;
    progress.begin("training the dictionary", train.steps as u64);
    for step in 0..train.steps {
        if progress.cancelled() {
            progress.end();
            return Err(Error::Cancelled { step });
        }
        let stepped = trainer.step();
        if stepped.is_err() {
            progress.end();
        }
        stepped?;
        progress.advance(1);
    }
    let trained = trainer.finish();
    progress.end();
    trained
}

/// Training one step at a time, from given weights: what [`train`] runs.
///
/// A step only queues work on the device; nothing is read back before [`finish`](Self::finish).
#[derive(Debug)]
pub struct Trainer<B: Backend> {
    config: SaeConfig,
    train: TrainConfig,
    x: Tensor<B, 2>,
    /// Mean squared deviation from the mean vector, per entry.
    variance: f64,
    sae: SparseAutoencoder<B>,
    moments: AllMoments<B>,
    records: Vec<Record<B>>,
    /// Whether features that are active nowhere are left out of products.
    sparse: bool,
}

#[derive(Debug)]
struct AllMoments<B: Backend> {
    w_enc: Moments<B, 2>,
    w_dec: Moments<B, 2>,
    b_enc: Moments<B, 1>,
    b_dec: Moments<B, 1>,
}

/// What one step leaves on the device.
#[derive(Debug, Clone)]
struct Record<B: Backend> {
    /// `[1]`
    mse: Tensor<B, 1>,
    /// `[1]`
    l1: Tensor<B, 1>,
    /// `[1, d_sae]`: on how many training vectors each feature is active.
    active: Tensor<B, 2>,
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

impl<B: Backend> Trainer<B> {
    /// Starts from `sae`, whose weights are normalised first.
    ///
    /// # Shapes
    /// - `x`: `[m, d_in]`, on the device of `sae`
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Width`], [`Error::Empty`] or [`Error::NonFinite`].
    pub fn new(
        config: &SaeConfig,
        train: &TrainConfig,
        sae: SparseAutoencoder<B>,
        x: Tensor<B, 2>,
    ) -> Result<Self> {
        config.validate()?;
        train.validate()?;
        let [m, d] = x.dims();
        for (field, configured, found) in [
            ("d_in", config.d_in, sae.d_in()),
            ("d_sae", config.d_sae, sae.d_sae()),
        ] {
            if configured != found {
                return Err(Error::Config {
                    field,
                    found: configured.to_string(),
                    expected: "the size of the autoencoder to be trained",
                });
            }
        }
        if d != config.d_in {
            return Err(Error::Width {
                expected: config.d_in,
                found: d,
            });
        }
        if m == 0 {
            return Err(Error::Empty);
        }
        let deviation = x.clone() - x.clone().mean_dim(0);
        let variance = floats(execute(
            Transaction::default().register((deviation.clone() * deviation).mean()),
        )?)[0][0];
        if !variance.is_finite() {
            return Err(Error::NonFinite { rows: 0..m });
        }
        Ok(Self {
            config: config.clone(),
            train: train.clone(),
            variance,
            sae: sae.normalised(config.dictionary),
            moments: AllMoments {
                w_enc: Moments::new(),
                w_dec: Moments::new(),
                b_enc: Moments::new(),
                b_dec: Moments::new(),
            },
            records: Vec::with_capacity(train.steps),
            sparse: waits_cheaply(&x),
            x,
        })
    }

    /// Whether features that are active on no training vector are left out of the products
    /// ([`step`](Self::step)). Default: on CPUs. Changes results by no more than rounding.
    #[must_use]
    pub const fn with_sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// The autoencoder as it stands, its weights normalised.
    pub const fn sae(&self) -> &SparseAutoencoder<B> {
        &self.sae
    }

    /// One step of the optimiser.
    ///
    /// After the first steps most features are active on no training vector at all. Where the host may
    /// look at the device cheaply, it reads which ones are, and four of the five matrix products of the
    /// step run over those alone; the fifth finds out which features are active.
    ///
    /// # Errors
    /// [`Error::Device`] if that cannot be read.
    pub fn step(&mut self) -> Result<()> {
        let (gradients, record) = self.forward_backward()?;
        self.records.push(record);
        let adam = AdamStep::new(
            &self.train,
            i32::try_from(self.records.len()).unwrap_or(i32::MAX),
        );
        let SparseAutoencoder {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        } = self.sae.clone();
        let moments = &mut self.moments;
        self.sae = SparseAutoencoder {
            w_enc: moments.w_enc.step(&adam, w_enc, gradients.w_enc),
            w_dec: moments.w_dec.step(&adam, w_dec, gradients.w_dec),
            b_enc: moments.b_enc.step(&adam, b_enc, gradients.b_enc),
            b_dec: moments.b_dec.step(&adam, b_dec, gradients.b_dec),
        }
        .normalised(self.config.dictionary);
        Ok(())
    }

    /// The gradients at the present weights, as Adam would see them.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn gradients(&self) -> Result<Gradients<B>> {
        Ok(self.forward_backward()?.0)
    }

    /// The autoencoder and the history of all steps, which are read back now.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or a weight is not finite, [`Error::Device`] if results
    /// cannot be read.
    pub fn finish(self) -> Result<Trained<B>> {
        let Self {
            config,
            x,
            variance,
            sae,
            records,
            ..
        } = self;
        let steps = records.len();
        // Not finite if any weight is not.
        let checksum = sae.w_enc.clone().sum()
            + sae.w_dec.clone().sum()
            + sae.b_enc.clone().sum()
            + sae.b_dec.clone().sum();
        let (history, checksum) = read_history(
            records,
            checksum,
            x.dims()[0],
            config.l1_coefficient,
            variance,
        )?;
        if let Some(step) = history.loss.iter().position(|loss| !loss.is_finite()) {
            return Err(Error::Diverged { step });
        }
        if !checksum.is_finite() {
            return Err(Error::Diverged { step: steps });
        }
        Ok(Trained { sae, history })
    }

    /// The gradient of the two-layer network by hand: five matrix products, where automatic
    /// differentiation makes six.
    ///
    /// With `e = f W_dec + b_dec − x` the error, `∂/∂e` is `2e / (m d)`; with `g` the gradient at the
    /// pre-activations and `s` its sum over vectors, `∂/∂W_enc = xᵀg − b_dec sᵀ`, `∂/∂b_enc = s` and
    /// `∂/∂b_dec = Σ ∂/∂e − W_enc s`: the tied bias needs no product of its own with `x`.
    fn forward_backward(&self) -> Result<(Gradients<B>, Record<B>)> {
        let SparseAutoencoder {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        } = &self.sae;
        let x = &self.x;
        let [m, d] = x.dims();
        let vectors = m as f64;
        let shared = b_dec.clone().unsqueeze_dim::<2>(0); // [1, d_in]
        // (x − b_dec) W_enc + b_enc, multiplied out.
        let offset = b_enc.clone().unsqueeze_dim(0) - shared.clone().matmul(w_enc.clone());
        // [m, d_in] x [d_in, d_sae] -> [m, d_sae]
        let features = relu(x.clone().matmul(w_enc.clone()) + offset);
        let active = features.clone().greater_elem(0.0).float().sum_dim(0);
        let some = if self.sparse {
            Subset::of(&active)?
        } else {
            None
        };
        // Of the features that are left: f [m, n], W_enc [d_in, n], W_dec [n, d_in].
        let (f, enc, dec) = match &some {
            None => (features, w_enc.clone(), w_dec.clone()),
            Some(Subset { index }) => (
                features.select(1, index.clone()),
                w_enc.clone().select(1, index.clone()),
                w_dec.clone().select(0, index.clone()),
            ),
        };
        // A column of ones and the bias as a row: one product adds the bias, and another one, later,
        // sums the error over vectors.
        let ones = Tensor::ones([m, 1], &x.device());
        let f_and_one = Tensor::cat(vec![f.clone(), ones], 1);
        let dec_and_bias = Tensor::cat(vec![dec.clone(), shared.clone()], 0);
        // [m, n + 1] x [n + 1, d_in] -> [m, d_in]
        let error = f_and_one.clone().matmul(dec_and_bias) - x.clone();
        let mse = (error.clone() * error.clone()).mean();
        // Features are not negative: their sum is the sum of their L1 norms.
        let l1 = f.clone().sum().div_scalar(vectors);

        let scale = 2.0 / (vectors * d as f64);
        // [n + 1, m] x [m, d_in] -> [n + 1, d_in]
        let products = f_and_one
            .transpose()
            .matmul(error.clone())
            .mul_scalar(scale);
        let [n, _] = dec.dims();
        let (to_dec, error_sums) = (products.clone().narrow(0, 0, n), products.narrow(0, n, 1));
        // [m, d_in] x [d_in, n] -> [m, n], and nothing where a feature is not active.
        let penalty = self.config.l1_coefficient / vectors;
        let at_features = error.matmul(dec.transpose()).mul_scalar(scale) + penalty;
        let at_features = at_features.mask_fill(f.lower_equal_elem(0.0), 0.0);
        let sums = at_features.clone().sum_dim(0); // [1, n]
        // [d_in, m] x [m, n] -> [d_in, n]
        let to_enc =
            x.clone().transpose().matmul(at_features) - shared.transpose().matmul(sums.clone());
        let to_b_dec = error_sums - sums.clone().matmul(enc.transpose());

        let (to_enc, to_dec, to_b_enc) = match some {
            None => (to_enc, to_dec, sums),
            Some(subset) => (
                subset.spread(to_enc, 1, w_enc.dims()),
                subset.spread(to_dec, 0, w_dec.dims()),
                subset.spread(sums, 1, [1, w_enc.dims()[1]]),
            ),
        };
        let gradients = Gradients {
            w_enc: tangent(to_enc, w_enc, dictionary::ENCODER_AXIS),
            w_dec: tangent(to_dec, w_dec, self.config.dictionary.decoder_axis()),
            b_enc: to_b_enc.squeeze_dim(0),
            b_dec: to_b_dec.squeeze_dim(0),
        };
        Ok((gradients, Record { mse, l1, active }))
    }
}

/// Features that are active on some training vector.
struct Subset<B: Backend> {
    /// Their indices, ascending.
    index: Tensor<B, 1, Int>,
}

impl<B: Backend> Subset<B> {
    /// `None` where products over all features cost hardly more, or no feature is active.
    fn of(active: &Tensor<B, 2>) -> Result<Option<Self>> {
        let counts = floats(execute(Transaction::default().register(active.clone()))?);
        let counts = counts.into_iter().flatten();
        let members: Vec<i64> = counts
            .enumerate()
            .filter(|(_, count)| *count > 0.0)
            .map(|(feature, _)| feature as i64)
            .collect();
        let [_, all] = active.dims();
        if members.is_empty() || 4 * members.len() > 3 * all {
            return Ok(None);
        }
        let size = [members.len()];
        let index = Tensor::from_data(TensorData::new(members, size), &active.device());
        Ok(Some(Self { index }))
    }

    /// Zeros of shape `dims` with `values` at the places of these features along `axis`.
    fn spread(&self, values: Tensor<B, 2>, axis: usize, dims: [usize; 2]) -> Tensor<B, 2> {
        let zeros = Tensor::zeros(dims, &values.device());
        zeros.select_assign(axis, self.index.clone(), values, IndexingUpdateOp::Add)
    }
}

/// Whether reading a few numbers in every step costs nothing to speak of: on backends whose device is
/// the host.
fn waits_cheaply<B: Backend>(x: &Tensor<B, 2>) -> bool {
    let name = B::name(&x.device());
    ["flex", "ndarray"].iter().any(|host| name.contains(host))
}

/// `g − (g · w) w` along `axis`, where `w` has unit length: what is left moves along the sphere.
fn tangent<B: Backend>(g: Tensor<B, 2>, w: &Tensor<B, 2>, axis: usize) -> Tensor<B, 2> {
    let radial = (g.clone() * w.clone()).sum_dim(axis);
    g - w.clone() * radial
}

/// Reads all records back in one go, and `checksum` with them.
fn read_history<B: Backend>(
    records: Vec<Record<B>>,
    checksum: Tensor<B, 1>,
    m: usize,
    l1_coefficient: f64,
    variance: f64,
) -> Result<(History, f64)> {
    let steps = records.len();
    if steps == 0 {
        let read = floats(execute(Transaction::default().register(checksum))?);
        return Ok((History::default(), read[0][0]));
    }
    let (mut mse, mut l1, mut active) = (Vec::new(), Vec::new(), Vec::new());
    for record in records {
        mse.push(record.mse);
        l1.push(record.l1);
        active.push(record.active);
    }
    let read = floats(execute(
        Transaction::default()
            .register(Tensor::cat(mse, 0))
            .register(Tensor::cat(l1, 0))
            .register(Tensor::cat(active, 0))
            .register(checksum),
    )?);
    let [mse, l1, active, checksum] = &read[..] else {
        return Err(Error::Device {
            message: format!("asked for 4 tensors, got {}", read.len()),
        });
    };
    let d_sae = active.len() / steps;
    let mut history = History {
        mse: mse.clone(),
        l1: l1.clone(),
        ..History::default()
    };
    for ((mse, l1), active) in mse.iter().zip(l1).zip(active.chunks_exact(d_sae)) {
        history.loss.push(mse + l1_coefficient * l1);
        history
            .explained_variance
            .push(explained_variance(*mse, variance));
        history.l0.push(active.iter().sum::<f64>() / m as f64);
        history
            .dead
            .push(active.iter().filter(|count| **count == 0.0).count());
    }
    Ok((history, checksum[0]))
}
