//! A dictionary in the place of an activation: what the model loses by it.

use std::collections::BTreeSet;

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::Progress;
use circuitscope_hooks::{AnyTensor, Positions, Site, Tap};
use circuitscope_model::{Decoder, PaddingSide, TokenBatch, pack_by_length};
use circuitscope_sae::Encoder;
use serde::{Deserialize, Serialize};

use crate::frozen::floats;
use crate::{Error, Result};

/// What takes the place of an activation.
#[derive(Debug, Clone)]
pub enum Replacement<'a, B: Backend> {
    /// What a dictionary makes of what it reads.
    Dictionary {
        /// The dictionary.
        encoder: &'a dyn Encoder<B>,
        /// Keep what the dictionary does not reconstruct: then nothing changes but what [`without`](Self::Dictionary::without)
        /// takes away.
        keep_error: bool,
        /// Features that write nothing.
        without: &'a [usize],
    },
    /// One vector `[d_out]`: a mean, or 0.
    Vector(&'a Tensor<B, 1>),
}

/// Puts something in the place of one activation of a pass: heads side by side are one vector.
#[derive(Debug)]
pub struct Splice<'a, B: Backend> {
    read: Site,
    write: Site,
    replacement: Replacement<'a, B>,
    skip_first: bool,
    /// What was read, `[batch * pos, d_in]`.
    seen: Option<Tensor<B, 2>>,
    /// 1 where it is replaced, `[batch * pos, 1]`.
    replaced: Option<Tensor<B, 2>>,
}

impl<'a, B: Backend> Splice<'a, B> {
    /// In the place of `write`; `read` is what a dictionary reads: the same site, or an earlier one of a transcoder.
    ///
    /// With `skip_first` the first position of every prompt stays as it is.
    #[must_use]
    pub const fn new(
        read: Site,
        write: Site,
        replacement: Replacement<'a, B>,
        skip_first: bool,
    ) -> Self {
        Self {
            read,
            write,
            replacement,
            skip_first,
            seen: None,
            replaced: None,
        }
    }
}

impl<B: Backend> Tap<B> for Splice<'_, B> {
    fn begin(&mut self, positions: &Positions<B>) {
        self.replaced = Some(counted(positions, self.skip_first));
        self.seen = None;
    }

    fn wants(&self, site: Site) -> bool {
        site == self.read || site == self.write
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        if site == self.read {
            self.seen = Some(rows(x.clone()));
        }
        if site != self.write {
            return x;
        }
        let dims = x.dims();
        let old = rows(x);
        let new = match &self.replacement {
            Replacement::Vector(vector) => {
                (*vector).clone().unsqueeze_dim::<2>(0).expand(old.dims())
            }
            Replacement::Dictionary {
                encoder,
                keep_error,
                without,
            } => {
                let read = self.seen.take().unwrap_or_else(|| old.clone());
                let features = encoder.encode(read.clone());
                let kept = ablated(features.clone(), without);
                let written = |features| {
                    encoder
                        .decode(features, read.clone())
                        .unwrap_or_else(|| old.zeros_like())
                };
                let new = written(kept);
                if *keep_error {
                    old.clone() + new - written(features)
                } else {
                    new
                }
            }
        };
        let new = match &self.replaced {
            Some(replaced) => old.clone() + (new - old) * replaced.clone(),
            None => new,
        };
        new.reshape(dims)
    }
}

/// Every position as one vector, `[batch * pos, width]`.
fn rows<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 2> {
    let dims = x.dims();
    let rows = dims[0] * dims[1];
    let width = dims[2..].iter().product::<usize>();
    x.reshape([rows, width])
}

/// Features with those at some places set to 0.
fn ablated<B: Backend>(features: Tensor<B, 2>, without: &[usize]) -> Tensor<B, 2> {
    let [rows, n] = features.dims();
    without.iter().fold(features, |features, &at| {
        let nothing = Tensor::zeros([rows, 1], &features.device());
        features.slice_assign([0..rows, at..(at + 1).min(n)], nothing)
    })
}

/// 1 at real tokens, from the second one on where the first is skipped, `[batch * pos, 1]`.
fn counted<B: Backend>(positions: &Positions<B>, skip_first: bool) -> Tensor<B, 2> {
    let [batch, pos] = positions.mask.dims();
    let flag = |at: usize| {
        let (row, at) = (at / pos, at % pos);
        let first = positions.last[row] + 1 - positions.lengths[row];
        f32::from(at >= first + usize::from(skip_first) && at <= positions.last[row])
    };
    let flags: Vec<f32> = (0..batch * pos).map(flag).collect();
    Tensor::from_data(
        TensorData::new(flags, [batch * pos, 1]),
        &positions.mask.device(),
    )
}

/// How well a dictionary stands in for an activation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fidelity {
    /// Vectors that were encoded.
    pub rows: usize,
    /// Share of variance that is not explained: `Σ|y − ŷ|² / Σ|y − ȳ|²`, over all vectors together.
    pub fvu: f64,
    /// Mean number of features that are active on a vector.
    pub l0: f64,
    /// Features that were active on none.
    pub never: usize,
    /// Mean loss of the next token in nats with the dictionary in the activation's place.
    pub loss: f64,
    /// Share of the loss between the activation and 0 in its place that the dictionary recovers; nothing where 0 costs less than a
    /// thousandth of a nat.
    pub recovered_of_zero: Option<f64>,
    /// The same with the activation's mean in its place, which is harder.
    pub recovered_of_mean: Option<f64>,
}

/// What dictionaries are measured against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FidelityTable {
    /// Tokens that are predicted.
    pub predicted: usize,
    /// Mean loss of the model as it is, in nats a token.
    pub clean: f64,
    /// With 0 in the activation's place.
    pub zero: f64,
    /// With the activation's mean in its place.
    pub mean: f64,
    /// One for each dictionary, in order.
    pub dictionaries: Vec<Fidelity>,
}

/// Runs a model on contexts with dictionaries, 0 and the mean in the place of the activation `write`, of which dictionaries make
/// what they read at `read`.
///
/// With `skip_first` the first position stays as it is, of 0 and the mean, too. `batch_tokens` bounds padded tokens of a batch.
///
/// # Errors
/// Contexts that do not fit the model; a site that it lacks; dictionaries of another width; [`Error::Cancelled`].
#[expect(
    clippy::too_many_arguments,
    reason = "a measurement of a model, dictionaries, text and a place"
)]
pub fn fidelity<B: Backend>(
    model: &Decoder<B>,
    contexts: &[Vec<u32>],
    dictionaries: &[&dyn Encoder<B>],
    [read, write]: [Site; 2],
    skip_first: bool,
    batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<FidelityTable> {
    model.config().check_tokens(contexts)?;
    check_site(model, read)?;
    check_site(model, write)?;
    let lengths: Vec<usize> = contexts.iter().map(Vec::len).collect();
    let packed = pack_by_length(&lengths, batch_tokens);
    let mut batches = Vec::with_capacity(packed.len());
    for of in packed {
        let prompts: Vec<&[u32]> = of.iter().map(|&at| contexts[at].as_slice()).collect();
        batches.push((
            TokenBatch::new(&prompts, PaddingSide::Right, device)?,
            targets(&prompts, device),
        ));
    }
    let passes = 3 + dictionaries.len() as u64;
    let stage = progress.stage("splicing", passes * batches.len() as u64);
    let outcome = run(
        model,
        &batches,
        dictionaries,
        [read, write],
        skip_first,
        progress,
    );
    drop(stage);
    outcome
}

/// Fails unless the model has a site with a vector at every position.
pub(crate) fn check_site<B: Backend>(model: &Decoder<B>, site: Site) -> Result<()> {
    let config = model.config();
    if config.catalog().contains(site) && site.head_axis() != Some(1) {
        return Ok(());
    }
    Err(Error::Unfit {
        what: "the site of a dictionary".to_owned(),
        found: site.to_string(),
        expected: format!(
            "a site with a vector at every position, of this model of {} layers",
            config.n_layers
        ),
    })
}

/// A batch, and what is predicted in it.
type Batched<B> = (TokenBatch<B>, Targets<B>);

/// The next token at every position, and whether there is one.
struct Targets<B: Backend> {
    /// `[batch, pos, 1]`
    tokens: Tensor<B, 3, Int>,
    /// `[batch, pos, 1]`
    there: Tensor<B, 3>,
    count: usize,
}

fn targets<B: Backend>(prompts: &[&[u32]], device: &B::Device) -> Targets<B> {
    let pos = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let next = |prompt: &&[u32], at: usize| prompt.get(at + 1).copied();
    let all = prompts
        .iter()
        .flat_map(|prompt| (0..pos).map(move |at| next(prompt, at)));
    let all: Vec<Option<u32>> = all.collect();
    let shape = [prompts.len(), pos, 1];
    let tokens: Vec<i64> = all
        .iter()
        .map(|token| i64::from(token.unwrap_or(0)))
        .collect();
    let there: Vec<f32> = all.iter().map(|token| f32::from(token.is_some())).collect();
    Targets {
        count: all.iter().flatten().count(),
        tokens: Tensor::from_data(TensorData::new(tokens, shape), device),
        there: Tensor::from_data(TensorData::new(there, shape), device),
    }
}

/// Sum of the losses of a batch, in nats.
fn loss<B: Backend, T: Tap<B>>(
    model: &Decoder<B>,
    (batch, targets): &Batched<B>,
    tap: &mut T,
) -> Result<f64> {
    let mut last = Last { logits: None };
    let mut both = (tap, &mut last);
    model.forward(batch, &mut both);
    let logits = last
        .logits
        .ok_or(circuitscope_hooks::Error::NeverFired { site: Site::Logits })?;
    let said = log_softmax(logits, 2).gather(2, targets.tokens.clone());
    Ok(-number((said * targets.there.clone()).sum())?)
}

/// Keeps the logits.
struct Last<B: Backend> {
    logits: Option<Tensor<B, 3>>,
}

impl<B: Backend> Tap<B> for Last<B> {
    fn wants(&self, site: Site) -> bool {
        site == Site::Logits
    }

    fn tap<const D: usize>(&mut self, _: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        self.logits = AnyTensor::new(x.clone()).get::<3>();
        x
    }
}

/// A number on the host.
fn number<B: Backend>(x: Tensor<B, 1>) -> Result<f64> {
    Ok(numbers(x)?.first().copied().unwrap_or(0.0))
}

/// Numbers on the host.
pub(crate) fn numbers<B: Backend, const D: usize>(x: Tensor<B, D>) -> Result<Vec<f64>> {
    let values = floats(x)?;
    if values.iter().all(|value| value.is_finite()) {
        Ok(values.into_iter().map(f64::from).collect())
    } else {
        Err(Error::NotFinite)
    }
}

/// Sums over vectors.
struct Moments<B: Backend> {
    rows: f64,
    /// `[d_out]`
    sum: Tensor<B, 1>,
    squares: f64,
}

/// What dictionaries do on vectors, summed.
#[derive(Default, Clone)]
struct Sums {
    errors: f64,
    active: f64,
    fired: BTreeSet<usize>,
}

/// Keeps what a dictionary reads and what it should write, `[rows, width]` of real tokens.
struct Pairs<B: Backend> {
    sites: [Site; 2],
    skip_first: bool,
    mask: Option<Tensor<B, 2>>,
    seen: [Option<Tensor<B, 2>>; 2],
}

impl<B: Backend> Tap<B> for Pairs<B> {
    fn begin(&mut self, positions: &Positions<B>) {
        self.mask = Some(counted(positions, self.skip_first));
    }

    fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        for (at, own) in self.sites.iter().enumerate() {
            if *own == site {
                self.seen[at] = Some(rows(x.clone()));
            }
        }
        x
    }
}

fn run<B: Backend>(
    model: &Decoder<B>,
    batches: &[Batched<B>],
    dictionaries: &[&dyn Encoder<B>],
    sites: [Site; 2],
    skip_first: bool,
    progress: &dyn Progress,
) -> Result<FidelityTable> {
    let step = || {
        progress.advance(1);
        if progress.cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    };
    let predicted: usize = batches.iter().map(|(_, targets)| targets.count).sum();
    let mut clean = 0.0;
    let mut moments: Option<Moments<B>> = None;
    let mut sums = vec![Sums::default(); dictionaries.len()];
    for batch in batches {
        let mut pairs = Pairs {
            sites,
            skip_first,
            mask: None,
            seen: [None, None],
        };
        clean += loss(model, batch, &mut pairs)?;
        let [Some(x), Some(y)] = pairs.seen else {
            return Err(circuitscope_hooks::Error::NeverFired { site: sites[1] }.into());
        };
        let Some(mask) = pairs.mask else { continue };
        let kept = y.clone() * mask.clone();
        let part = Moments {
            rows: number(mask.clone().sum())?,
            sum: kept.clone().sum_dim(0).squeeze_dim(0),
            squares: number(kept.powi_scalar(2).sum())?,
        };
        moments = Some(match moments.take() {
            None => part,
            Some(all) => Moments {
                rows: all.rows + part.rows,
                sum: all.sum + part.sum,
                squares: all.squares + part.squares,
            },
        });
        for (dictionary, sums) in dictionaries.iter().zip(&mut sums) {
            check_widths(*dictionary, [x.dims()[1], y.dims()[1]])?;
            let features = dictionary.encode(x.clone());
            let active = features.clone().greater_elem(0.0).float() * mask.clone();
            let made = dictionary
                .decode(features, x.clone())
                .unwrap_or_else(|| y.zeros_like());
            let errors = (made - y.clone()) * mask.clone();
            sums.errors += number(errors.powi_scalar(2).sum())?;
            let counts = numbers(active.sum_dim(0))?;
            sums.active += counts.iter().sum::<f64>();
            let fired = counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
            sums.fired.extend(fired.map(|(at, _)| at));
        }
        step()?;
    }
    let Some(Moments { rows, sum, squares }) = moments else {
        return Err(Error::Unfit {
            what: "contexts".to_owned(),
            found: "none".to_owned(),
            expected: "at least one".to_owned(),
        });
    };
    let mean_vector = sum.clone().div_scalar(rows);
    let variance = squares - number(sum.powi_scalar(2).sum())? / rows;
    let with = |replacement: &Replacement<'_, B>| {
        let mut total = 0.0;
        for batch in batches {
            let mut splice = Splice::new(sites[0], sites[1], replacement.clone(), skip_first);
            total += loss(model, batch, &mut splice)?;
            step()?;
        }
        Ok::<f64, Error>(total / predicted as f64)
    };
    let clean = clean / predicted as f64;
    let zero = with(&Replacement::Vector(&mean_vector.zeros_like()))?;
    let mean = with(&Replacement::Vector(&mean_vector))?;
    let mut measured = Vec::with_capacity(dictionaries.len());
    for (dictionary, sums) in dictionaries.iter().zip(sums) {
        let loss = with(&Replacement::Dictionary {
            encoder: *dictionary,
            keep_error: false,
            without: &[],
        })?;
        measured.push(Fidelity {
            rows: rows as usize,
            fvu: sums.errors / variance,
            l0: sums.active / rows,
            never: dictionary.n_codes() - sums.fired.len(),
            loss,
            recovered_of_zero: recovered(zero, loss, clean),
            recovered_of_mean: recovered(mean, loss, clean),
        });
    }
    Ok(FidelityTable {
        predicted,
        clean,
        zero,
        mean,
        dictionaries: measured,
    })
}

/// What is lost at least where shares of it mean something, in nats.
const COSTS: f64 = 1e-3;

fn recovered(without: f64, with: f64, clean: f64) -> Option<f64> {
    (without - clean >= COSTS).then(|| (without - with) / (without - clean))
}

/// Fails unless a dictionary has these widths.
pub(crate) fn check_widths<B: Backend>(
    dictionary: &dyn Encoder<B>,
    [d_in, d_out]: [usize; 2],
) -> Result<()> {
    let found = [dictionary.d_in(), dictionary.d_out()];
    if found == [d_in, d_out] {
        return Ok(());
    }
    Err(Error::Unfit {
        what: "the dictionary".to_owned(),
        found: format!("vectors of width {} in and {} out", found[0], found[1]),
        expected: format!("{d_in} in and {d_out} out, as its sites have in this model"),
    })
}

/// Mean loss of the next token, in nats, with some tap.
///
/// # Errors
/// Contexts that do not fit the model.
pub fn next_token_loss<B: Backend, T: Tap<B>>(
    model: &Decoder<B>,
    contexts: &[Vec<u32>],
    tap: &mut T,
    device: &B::Device,
) -> Result<f64> {
    model.config().check_tokens(contexts)?;
    let prompts: Vec<&[u32]> = contexts.iter().map(Vec::as_slice).collect();
    let batch = (
        TokenBatch::new(&prompts, PaddingSide::Right, device)?,
        targets(&prompts, device),
    );
    Ok(loss(model, &batch, tap)? / batch.1.count.max(1) as f64)
}
