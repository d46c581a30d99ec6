use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};

use crate::stack::Stack;
use crate::{Error, Gradients, Result, SaeConfig, SparseAutoencoder, TrainConfig, Trained};

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
    progress.begin(circuitscope_core::TRAINING, train.steps as u64);
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
/// On GPUs a step only queues work, and nothing is read back before [`finish`](Self::finish). On CPUs each
/// step reads which features are active ([`step`](Self::step)).
#[derive(Debug)]
pub struct Trainer<B: Backend>(Stack<B>);

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
        check(config, train, &x)?;
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
        let (dictionary, l1) = (config.dictionary, config.l1_coefficient);
        let stack = Stack::new(train, dictionary, vec![l1], vec![sae], vec![x])?;
        Ok(Self(stack))
    }

    /// The autoencoder as it stands, its weights normalised.
    pub fn sae(&self) -> SparseAutoencoder<B> {
        self.0.sae(0)
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
        self.0.step()
    }

    /// The gradients at the present weights, as Adam would see them.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn gradients(&self) -> Result<Gradients<B>> {
        self.0.gradients(0)
    }

    /// The autoencoder and the history of all steps, which are read back now.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or a weight is not finite, [`Error::Device`] if results
    /// cannot be read.
    pub fn finish(self) -> Result<Trained<B>> {
        Ok(self.0.finish()?.swap_remove(0))
    }
}

/// Whether the settings are in range and suit the vectors.
pub(crate) fn check<B: Backend>(
    config: &SaeConfig,
    train: &TrainConfig,
    x: &Tensor<B, 2>,
) -> Result<()> {
    config.validate()?;
    train.validate()?;
    let [m, d] = x.dims();
    if d != config.d_in {
        return Err(Error::Width {
            expected: config.d_in,
            found: d,
        });
    }
    if m == 0 {
        return Err(Error::Empty);
    }
    Ok(())
}
