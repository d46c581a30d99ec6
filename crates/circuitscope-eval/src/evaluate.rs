use std::collections::BTreeSet;
use std::time::Instant;

use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Progress, Seed};
use circuitscope_measures::{Resampled, RunKey, RunRecord, RunStore, Scores, Selection, judge};
use circuitscope_score::stats::{Resample, chance_jaccard, half_samples, mean_pairwise_jaccard};
use circuitscope_tasks::GroundTruth;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::frequencies::on_halves;
use crate::methods::BoxedMethod;
use crate::{Discover, Error, Evidence, Measured, Result, measure_faithfulness};

/// Name of the stage in which [`evaluate`] runs methods, a step for each task, method and seed.
pub const EVALUATING: &str = "evaluating";

/// A task ready to be judged: evidence, and one or more accounts of the true circuit.
#[derive(Debug, Clone)]
pub struct JudgedTask<B: Backend> {
    /// Name of the task.
    pub task: String,
    /// Head outputs on its prompts.
    pub evidence: Evidence<B>,
    /// Known circuits, the one that tables quote first.
    pub truths: Vec<GroundTruth>,
}

/// What an evaluation does besides judging scores on all prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct EvaluateSettings {
    /// Half samples of the prompts for each run, at most; methods that have to run the model
    /// again for each take none ([`About::resamples`](crate::About::resamples)). Default 100.
    pub resamples: usize,
    /// Pairs of prompts on which circuits of growing size are run, for the first seed of each method;
    /// 0 (the default) for none.
    pub faithfulness_pairs: usize,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        Self {
            resamples: 100,
            faithfulness_pairs: 0,
        }
    }
}

/// Runs one method and judges it.
///
/// # Errors
/// Those of the method and of [`judge`]; with `settings.faithfulness_pairs`, evidence without a model.
pub fn run<B: Backend>(
    method: &dyn Discover<B>,
    task: &JudgedTask<B>,
    seed: Seed,
    settings: EvaluateSettings,
    progress: &dyn Progress,
) -> Result<RunRecord> {
    let done = Done::new(method, task, seed, progress)?;
    record(method, task, &done, seed, settings, progress)
}

/// A method that has measured.
struct Done<'a> {
    measured: Box<dyn Measured + 'a>,
    scores: Scores,
    seconds: f64,
}

impl<'a> Done<'a> {
    fn new<B: Backend>(
        method: &'a dyn Discover<B>,
        task: &'a JudgedTask<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let start = Instant::now();
        let measured = method.measure(&task.evidence, seed, progress)?;
        let scores = measured.scores(None)?;
        Ok(Self {
            measured,
            scores,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

fn record<B: Backend>(
    method: &dyn Discover<B>,
    task: &JudgedTask<B>,
    done: &Done<'_>,
    seed: Seed,
    settings: EvaluateSettings,
    progress: &dyn Progress,
) -> Result<RunRecord> {
    let Done {
        measured,
        scores,
        seconds,
    } = done;
    let mut judgements = task
        .truths
        .iter()
        .map(|truth| judge(scores, truth))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(truth) = task.truths.first() else {
        return Err(Error::Shape {
            what: "known circuits",
            found: 0,
            expected: 1,
        });
    };
    let judgement = judgements.remove(0);
    let count = settings.resamples.min(method.about().resamples);
    let resampled = if count > 0 {
        let measured = measured.as_ref();
        resample(task, truth, measured, count, seed, progress)?
    } else {
        None
    };
    let faithfulness = if settings.faithfulness_pairs > 0 {
        let causal = task.evidence.causal(method.name())?;
        let pairs = settings.faithfulness_pairs;
        Some(measure_faithfulness(causal, scores, pairs, progress)?)
    } else {
        None
    };
    Ok(RunRecord {
        task: task.task.clone(),
        method: method.name().to_owned(),
        control: method.about().control,
        seed: seed.value(),
        judgement,
        other_truths: judgements,
        seconds: *seconds,
        resampled,
        faithfulness,
        scores: scores.clone(),
    })
}

fn resample<B: Backend>(
    task: &JudgedTask<B>,
    truth: &GroundTruth,
    measured: &dyn Measured,
    count: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<Resampled>> {
    let start = Instant::now();
    let (labels, pairs) = (task.evidence.labels(), task.evidence.pairs());
    let halves = match half_samples(labels, pairs, count, seed) {
        // A single pair says nothing of how much pairs vary.
        Err(circuitscope_score::Error::TooFewToHalve { .. }) => return Ok(None),
        halves => halves?,
    };
    let Some(scale) = halves.first().map(Resample::scale) else {
        return Ok(None);
    };
    let (mut node_auc, mut edge_auc, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
    let outcome = on_halves(&halves, measured, progress, |scores| {
        let judgement = judge(&scores, truth)?;
        node_auc.push(judgement.node_auc);
        edge_auc.extend(judgement.edge_auc);
        let circuit = Selection::Otsu.circuit(&scores);
        chosen.push(circuit.heads().collect::<BTreeSet<_>>());
        Ok(())
    });
    match outcome {
        // Enough for a score, but not when halved.
        Err(Error::TooFew { .. }) => return Ok(None),
        outcome => outcome?,
    }
    let heads = task.evidence.grid().len();
    let by_chance = (1..chosen.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    let by_chance = by_chance.map(|(a, b)| chance_jaccard(chosen[a].len(), chosen[b].len(), heads));
    let pairs = (chosen.len() * chosen.len().saturating_sub(1) / 2).max(1);
    Ok(Some(Resampled {
        jaccard_by_chance: by_chance.fold(0.0, |sum, chance| sum + chance) / pairs as f64,
        node_auc,
        edge_auc,
        scale,
        jaccard: mean_pairwise_jaccard(&chosen).unwrap_or(1.0),
        seconds: start.elapsed().as_secs_f64(),
    }))
}

/// Runs every method on every task with every seed, in that order of nesting, and keeps each result
/// in `store` as soon as it is there. What the store already has is not run again.
///
/// # Errors
/// The first error of a run or of the store; [`Error::Cancelled`] if `progress` asks to stop. Runs
/// finished before stay in the store.
pub fn evaluate<B: AutodiffBackend>(
    tasks: &[JudgedTask<B::InnerBackend>],
    methods: &[BoxedMethod<B>],
    seeds: &[Seed],
    settings: EvaluateSettings,
    store: &mut dyn RunStore,
    progress: &dyn Progress,
) -> Result<Vec<RunRecord>> {
    let total = tasks.len() * methods.len() * seeds.len();
    let mut records = Vec::with_capacity(total);
    progress.begin(EVALUATING, total as u64);
    for task in tasks {
        for method in methods {
            let mut done: Option<Done<'_>> = None;
            for (at, &seed) in seeds.iter().enumerate() {
                let key = RunKey {
                    task: task.task.clone(),
                    method: method.name().to_owned(),
                    seed: seed.value(),
                };
                let record = if let Some(record) = store.load(&key)? {
                    record
                } else {
                    if progress.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    progress.at(&format!("{} · {}, seed {}", key.task, key.method, key.seed));
                    // Curves are slow to measure and differ little between seeds.
                    let settings = EvaluateSettings {
                        faithfulness_pairs: if at == 0 {
                            settings.faithfulness_pairs
                        } else {
                            0
                        },
                        ..settings
                    };
                    let again = match done.take().filter(|_| !method.about().uses_seed) {
                        Some(done) => done,
                        None => Done::new(method.as_ref(), task, seed, progress)
                            .map_err(|error| error.of_task(&task.task))?,
                    };
                    let record = record(method.as_ref(), task, &again, seed, settings, progress)
                        .map_err(|error| error.of_task(&task.task))?;
                    done = Some(again);
                    store.save(&key, &record)?;
                    record
                };
                records.push(record);
                progress.advance(1);
            }
        }
    }
    progress.end();
    Ok(records)
}
