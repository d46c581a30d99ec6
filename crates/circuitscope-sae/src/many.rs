//! Many dictionaries in one call.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed, workers};

use crate::stack::Stack;
use crate::train::check;
use crate::{Error, Result, SaeConfig, TrainConfig, Trained};

/// One dictionary of [`train_many`].
#[derive(Debug, Clone)]
pub struct TrainJob<B: Backend> {
    /// Its size, λ and constraint.
    pub config: SaeConfig,
    /// The vectors that it is trained on, `[m, d_in]`.
    pub x: Tensor<B, 2>,
    /// Where its weights are drawn from.
    pub seed: Seed,
}

/// Largest number of dictionaries in one problem.
const STACKED: usize = 32;

/// Trains many dictionaries, each as [`train`](crate::train) would, up to rounding: several seeds, values of
/// λ or samples of the examples.
///
/// Where the device computes in the host's memory ([`TrainConfig::exec`]) as many as there are threads are trained at
/// a time: the steps are too small to keep several cores busy. Elsewhere dictionaries of one shape are one batched problem ([`train_stacked`]).
///
/// # Errors
/// As [`train`](crate::train); the first one ends the others.
///
/// # Memory
/// That of [`train`](crate::train) for each dictionary that is being trained.
///
/// # Examples
/// ```
/// use burn::tensor::{Distribution, Tensor};
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_sae::{SaeConfig, TrainConfig, TrainJob, train_many};
///
/// type B = burn_flex::Flex;
/// let device = Default::default();
/// let x = Tensor::<B, 2>::random([32, 8], Distribution::Default, &device);
/// let jobs = (0..3).map(|seed| TrainJob {
///     config: SaeConfig::new(8).with_d_sae(16),
///     x: x.clone(),
///     seed: Seed::new(seed),
/// });
/// let steps = TrainConfig::new().with_steps(50);
/// let trained = train_many(&jobs.collect::<Vec<_>>(), &steps, &NoProgress)?;
/// assert_eq!(trained.len(), 3);
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
pub fn train_many<B: Backend>(
    jobs: &[TrainJob<B>],
    steps: &TrainConfig,
    progress: &dyn Progress,
) -> Result<Vec<Trained<B>>> {
    let stacked = if steps.exec.in_host_memory {
        1
    } else {
        STACKED
    };
    run(jobs, steps, stacked, steps.exec.host_threads, progress)
}

/// The same, with dictionaries of one shape and constraint as one batched problem, 32 at a time: a step of
/// all of them takes as many kernels as a step of one.
///
/// # Errors
/// As [`train`](crate::train).
///
/// # Memory
/// That of [`train`](crate::train) for each dictionary of a batch.
pub fn train_stacked<B: Backend>(
    jobs: &[TrainJob<B>],
    steps: &TrainConfig,
    progress: &dyn Progress,
) -> Result<Vec<Trained<B>>> {
    run(jobs, steps, STACKED, 1, progress)
}

fn run<B: Backend>(
    jobs: &[TrainJob<B>],
    steps: &TrainConfig,
    stacked: usize,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Trained<B>>> {
    for job in jobs {
        check(&job.config, steps, &job.x)?;
    }
    let stacks = alike(jobs, stacked);
    let total = steps.steps * jobs.len();
    progress.begin(circuitscope_core::TRAINING, total as u64);
    let mut trained: Vec<Option<Trained<B>>> = vec![None; jobs.len()];
    let outcome = workers::run(
        steps.exec,
        threads,
        stacks.len(),
        || (),
        |(), at, stop| {
            let jobs: Vec<_> = stacks[at].iter().map(|&job| &jobs[job]).collect();
            stack(&jobs, steps, stop, progress)
        },
        |at, results| {
            for (&job, result) in stacks[at].iter().zip(results) {
                trained[job] = Some(result);
            }
            Ok(())
        },
    );
    progress.end();
    outcome?;
    Ok(trained.into_iter().flatten().collect())
}

/// Jobs that can be one problem, by their indices.
fn alike<B: Backend>(jobs: &[TrainJob<B>], most: usize) -> Vec<Vec<usize>> {
    let shape = |job: usize| {
        let TrainJob { config, x, .. } = &jobs[job];
        (x.dims(), config.d_sae, config.dictionary)
    };
    let mut stacks: Vec<Vec<usize>> = Vec::new();
    for job in 0..jobs.len() {
        let fits = |stack: &&mut Vec<usize>| stack.len() < most && shape(stack[0]) == shape(job);
        match stacks.iter_mut().find(fits) {
            Some(stack) => stack.push(job),
            None => stacks.push(vec![job]),
        }
    }
    stacks
}

/// Trains jobs of one shape as one problem.
fn stack<B: Backend>(
    jobs: &[&TrainJob<B>],
    steps: &TrainConfig,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Vec<Trained<B>>> {
    let saes = jobs
        .iter()
        .map(|job| job.config.init(job.seed, &job.x.device()));
    let mut stack = Stack::new(
        steps,
        jobs[0].config.dictionary,
        jobs.iter().map(|job| job.config.l1_coefficient).collect(),
        saes.collect::<Result<_>>()?,
        jobs.iter().map(|job| job.x.clone()).collect(),
    )?;
    for step in 0..steps.steps {
        if progress.cancelled() || stop.load(Ordering::Relaxed) {
            return Err(Error::Cancelled { step });
        }
        stack.step()?;
        progress.advance(jobs.len() as u64);
    }
    stack.finish()
}
