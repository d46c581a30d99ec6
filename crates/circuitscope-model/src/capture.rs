use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::{Progress, workers};
use circuitscope_hooks::{Capture, HeadMeans, Positions, Reduce, Site, Tap};

use crate::batch::TokenBatch;
use crate::config::Direction;
use crate::decoder::Decoder;
use crate::finite::{check_finite, is_finite};
use crate::prefix::{self, SharedRow};
use crate::rows::{PaddedRows, PaddingSide};
use crate::{Error, Result};

/// Prompts grouped so that padding is small: sorted by length, packed under a budget of tokens.
///
/// Returns batches of prompt indices. A prompt longer than the budget is a batch of its own.
#[must_use]
pub fn pack_by_length(lengths: &[usize], max_batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&prompt| (lengths[prompt], prompt));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for prompt in order {
        // Sorted by length: this prompt decides the padded length of its batch.
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * lengths[prompt] <= max_batch_tokens => {
                batch.push(prompt);
            }
            _ => batches.push(vec![prompt]),
        }
    }
    batches
}

/// Every head's output averaged over the positions of each prompt, BOS included: what the method
/// discretises (`hook_result` averaged over `pos`; arXiv 2405.12522, method.md §2.4).
///
/// In causal models, prompts that begin alike are run as branches of one row, so that what they have in
/// common is computed once. Rows are packed into batches of at most `max_batch_tokens` padded tokens.
/// `z` is averaged first, then multiplied by `W_O`; nothing after the last layer's `z` is computed.
///
/// # Shapes
/// `[prompts, n_layers * n_heads, d_model]`, in the order of `sequences`.
///
/// # Errors
/// A prompt that does not fit the model, [`Error::Overflow`], or [`Error::Cancelled`].
///
/// ```
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_model::{DecoderConfig, capture_head_means};
///
/// # fn main() -> Result<(), circuitscope_model::Error> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<burn_flex::Flex>(Seed::new(0), &device);
/// let prompts = [vec![1, 2, 3], vec![4, 5]];
/// let means = capture_head_means(&model, &prompts, 1024, &device, &NoProgress)?;
/// assert_eq!(means.dims(), [2, 2 * 2, 8]);
/// # Ok(())
/// # }
/// ```
pub fn capture_head_means<B: Backend, S: AsRef<[u32]>>(
    model: &Decoder<B>,
    sequences: &[S],
    max_batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Tensor<B, 3>> {
    let [mean] = capture_heads(model, sequences, max_batch_tokens, device, progress)?;
    Ok(mean)
}

/// The same, and every head's output at the last position of each prompt.
///
/// # Errors
/// As [`capture_head_means`].
pub fn capture_head_means_and_last<B: Backend, S: AsRef<[u32]>>(
    model: &Decoder<B>,
    sequences: &[S],
    max_batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<[Tensor<B, 3>; 2]> {
    capture_heads(model, sequences, max_batch_tokens, device, progress)
}

/// What is read of each prompt: its mean, and with `N` = 2 its last position, too.
fn capture_heads<B: Backend, S: AsRef<[u32]>, const N: usize>(
    model: &Decoder<B>,
    sequences: &[S],
    max_batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<[Tensor<B, 3>; N]> {
    let config = model.config();
    if sequences.is_empty() {
        let shape = [0, config.grid().len(), config.d_model];
        return Ok(core::array::from_fn(|_| Tensor::zeros(shape, device)));
    }
    config.check_tokens(sequences)?;
    let sequences: Vec<&[u32]> = sequences.iter().map(AsRef::as_ref).collect();
    let run = |model: &Decoder<B>, rows: &[&SharedRow]| {
        let mut taps = Each(core::array::from_fn::<_, N, _>(|last| {
            let weights = prefix::weights(rows, last == 1, device);
            HeadMeans::weighted(config.n_layers, weights)
        }));
        model.forward(&TokenBatch::shared(rows, device)?, &mut taps);
        let read = taps.0.into_iter().map(|tap| Ok(tap.finish()?));
        read.collect::<Result<Vec<_>>>()
    };
    // For each of `N` and each layer, z of all batches: `[rows * readers, n_heads, d_head]`.
    let mut parts: Vec<Vec<Vec<Tensor<B, 3>>>> = vec![vec![Vec::new(); config.n_layers]; N];
    // Where the next batch begins in them, and where each prompt is.
    let (mut start, mut place) = (0, vec![0i64; sequences.len()]);
    let take = |rows: &[&SharedRow], read: Vec<Vec<Tensor<B, 3>>>| {
        let readers = prefix::readers(rows);
        for (at, row) in rows.iter().enumerate() {
            for (reader, &(prompt, _)) in row.ends.iter().enumerate() {
                place[prompt] = (start + at * readers + reader) as i64;
            }
        }
        start += rows.len() * readers;
        for (parts, read) in parts.iter_mut().zip(read) {
            for (part, z) in parts.iter_mut().zip(read) {
                part.push(z);
            }
        }
    };
    let stage = progress.stage(CAPTURING, sequences.len() as u64);
    let outcome = in_shared_rows(model, &sequences, max_batch_tokens, progress, run, take);
    drop(stage);
    outcome?;
    let shape = [place.len()];
    let place = Tensor::<B, 1, Int>::from_data(TensorData::new(place, shape), device);
    let mut parts = parts.into_iter().map(|layers| {
        let z = |parts| Tensor::cat(parts, 0).select(0, place.clone());
        model.head_results(layers.into_iter().map(z).collect())
    });
    let found: [Tensor<B, 3>; N] =
        core::array::from_fn(|_| parts.next().unwrap_or_else(|| unreachable!("N of them")));
    for x in &found {
        // Every value that is not finite shows in the sum.
        let sum = x.clone().sum().into_data();
        if sum.iter::<f32>().all(f32::is_finite) {
            continue;
        }
        check_finite(model, &sequences, device)?;
        // The sum of finite values, or their product with the last weights, went too far.
        let wrong = x.to_data().iter::<f32>().position(|x| !x.is_finite());
        if let Some(at) = wrong {
            let head = config
                .grid()
                .head(at / config.d_model % config.grid().len());
            return Err(Error::Overflow {
                what: Site::Result(head.layer).to_string(),
                precision: model.precision(),
            });
        }
    }
    Ok(found)
}

/// Several taps of one kind, left to right.
struct Each<T, const N: usize>([T; N]);

impl<B: Backend, T: Tap<B>, const N: usize> Tap<B> for Each<T, N> {
    fn begin(&mut self, positions: &Positions<B>) {
        for tap in &mut self.0 {
            tap.begin(positions);
        }
    }

    fn wants(&self, site: Site) -> bool {
        self.0.iter().any(|tap| tap.wants(site))
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        self.0.iter_mut().fold(x, |x, tap| tap.tap(site, x))
    }
}

/// Runs prompts in batches of the rows that they share, where the model is causal, or of one row each:
/// `run` and `take` get the rows of a batch, as [`in_batches`] has it.
pub(crate) fn in_shared_rows<B: Backend, R: Send>(
    model: &Decoder<B>,
    sequences: &[&[u32]],
    max_batch_tokens: usize,
    progress: &dyn Progress,
    run: impl Fn(&Decoder<B>, &[&SharedRow]) -> Result<R> + Sync,
    mut take: impl FnMut(&[&SharedRow], R),
) -> Result<()> {
    let causal = model.config().direction == Direction::Causal;
    let rows = prefix::share(sequences, causal, max_batch_tokens);
    let chosen = |batch: &[usize]| batch.iter().map(|&row| &rows[row]).collect::<Vec<_>>();
    let lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
    in_batches(
        model,
        &lengths,
        max_batch_tokens,
        progress,
        |model, batch| run(model, &chosen(batch)),
        |batch, found| {
            let rows = chosen(batch);
            take(&rows, found);
            Ok(rows.iter().map(|row| row.ends.len()).sum())
        },
    )
}

/// Runs rows of these lengths in batches of similar length; `take` gets, batch by batch, the indices of
/// its rows and what `run` made of them, and returns how many prompts those were, which `progress` is told.
///
/// Where the model's [`Exec`](circuitscope_core::Exec) has several threads, some batches run side by side, each within its share of the budget and on its share of the cores:
/// what is between the matrix products keeps one core busy at most. They may then end in any order.
fn in_batches<B: Backend, R: Send>(
    model: &Decoder<B>,
    lengths: &[usize],
    max_batch_tokens: usize,
    progress: &dyn Progress,
    run: impl Fn(&Decoder<B>, &[usize]) -> Result<R> + Sync,
    mut take: impl FnMut(&[usize], R) -> Result<usize>,
) -> Result<()> {
    let exec = model.exec();
    let threads = exec.lanes(LANES);
    let all: usize = lengths.iter().sum();
    let mut budget = (max_batch_tokens / threads).min(all.div_ceil(threads));
    if threads > 1 {
        budget = budget.min(THREAD_TOKENS);
    }
    let batches = pack_by_length(lengths, budget);
    workers::run(
        exec,
        threads,
        batches.len(),
        || model.clone(),
        |model, at, _| run(model, &batches[at]),
        |at, result| {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            progress.advance(take(&batches[at], result)? as u64);
            Ok(())
        },
    )
}

/// Most batches that run side by side.
const LANES: usize = 8;

const CAPTURING: &str = "capturing";

/// Largest batch of one of several threads: more tokens gain nothing, and every one takes memory.
const THREAD_TOKENS: usize = 256;

/// One site of all prompts, on the host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SiteValues {
    /// Sizes of the axes: [`Site`]'s, without the position axis if it was reduced.
    pub shape: Vec<usize>,
    /// The values, row-major. Zero at padding.
    pub data: Vec<f32>,
}

/// The activations of `sites` on all rows, in their order, each value at its own position of its row.
///
/// Prompts are sorted by length and packed into batches of at most `max_batch_tokens` padded tokens;
/// how they are packed changes nothing but rounding.
///
/// # Errors
/// A prompt that does not fit the model, a site that it lacks, [`Error::Overflow`] with the first site that is
/// not finite, captured or not, or [`Error::Cancelled`].
///
/// ```
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_hooks::{Reduce, Site};
/// use circuitscope_model::{DecoderConfig, PaddedRows, PaddingSide, capture_sites};
///
/// # fn main() -> Result<(), circuitscope_model::Error> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<burn_flex::Flex>(Seed::new(0), &device);
/// let rows = PaddedRows::new(vec![vec![1, 2, 3], vec![4, 5]], PaddingSide::Left)?;
/// let sites = [Site::Z(1), Site::Logits];
/// let values = capture_sites(&model, &rows, &sites, Reduce::None, 1024, &device, &NoProgress)?;
/// assert_eq!(values[&Site::Z(1)].shape, [2, 3, 2, 4]);
/// assert_eq!(values[&Site::Logits].data[3 * 10..4 * 10], [0.0; 10], "padding of the second row");
/// # Ok(())
/// # }
/// ```
pub fn capture_sites<B: Backend>(
    model: &Decoder<B>,
    rows: &PaddedRows,
    sites: &[Site],
    reduce: Reduce,
    max_batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<BTreeMap<Site, SiteValues>> {
    let mut captured: BTreeMap<Site, SiteValues> = BTreeMap::new();
    capture_sites_into(
        model,
        rows,
        sites,
        reduce,
        max_batch_tokens,
        device,
        progress,
        &mut captured,
    )?;
    Ok(captured)
}

/// Takes what is captured, some rows of a site at a time, in any order.
pub trait SiteSink {
    /// Comes first: the shape of every site, all rows together.
    ///
    /// # Errors
    /// If they cannot be taken; nothing more is run then.
    fn begin(&mut self, shapes: &BTreeMap<Site, Vec<usize>>) -> Result<()>;

    /// The values of rows from `first` on, row-major, `width` a row.
    ///
    /// # Errors
    /// If they cannot be taken; nothing more is run then.
    fn rows(&mut self, site: Site, first: usize, width: usize, values: &[f32]) -> Result<()>;
}

impl SiteSink for BTreeMap<Site, SiteValues> {
    fn begin(&mut self, shapes: &BTreeMap<Site, Vec<usize>>) -> Result<()> {
        *self = shapes
            .iter()
            .map(|(&site, shape)| {
                let data = vec![0.0; shape.iter().product()];
                let shape = shape.clone();
                (site, SiteValues { shape, data })
            })
            .collect();
        Ok(())
    }

    fn rows(&mut self, site: Site, first: usize, width: usize, values: &[f32]) -> Result<()> {
        if let Some(whole) = self.get_mut(&site) {
            whole.data[first * width..][..values.len()].copy_from_slice(values);
        }
        Ok(())
    }
}

/// The same as [`capture_sites`] for what may not fit into memory: everything goes to `sink` as soon as it is
/// there.
///
/// # Errors
/// As [`capture_sites`], after everything was run, and those of `sink`.
#[expect(
    clippy::too_many_arguments,
    reason = "as `capture_sites`, and where it goes"
)]
pub fn capture_sites_into<B: Backend>(
    model: &Decoder<B>,
    rows: &PaddedRows,
    sites: &[Site],
    reduce: Reduce,
    max_batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
    sink: &mut dyn SiteSink,
) -> Result<()> {
    model.config().check_tokens(&rows.prompts)?;
    let mut shapes: BTreeMap<Site, Vec<usize>> = BTreeMap::new();
    let mut overflowing = None;
    let run = |model: &Decoder<B>, batch: &[usize]| {
        let prompts: Vec<&[u32]> = batch
            .iter()
            .map(|&row| rows.prompts[row].as_slice())
            .collect();
        let batch = TokenBatch::new(&prompts, PaddingSide::Right, device)?;
        let mut tap = Capture::<B>::new(sites.iter().copied()).with_reduce(reduce);
        model.forward(&batch, &mut tap);
        let found = tap.finish()?.into_iter();
        Ok(found
            .map(|(site, tensor)| (site, tensor.into_data().convert::<f32>()))
            .collect())
    };
    let take = |prompts: &[usize], found: Vec<(Site, TensorData)>| {
        if shapes.is_empty() {
            let whole = found.iter().map(|(site, data)| {
                let mut shape = data.shape.to_vec();
                shape[0] = rows.len();
                for &axis in position_axes(*site, reduce) {
                    shape[axis] = rows.pos;
                }
                (*site, shape)
            });
            shapes = whole.collect();
            sink.begin(&shapes)?;
        }
        for (site, data) in found {
            let values: Vec<f32> = data.iter().collect();
            if !is_finite(site, values.iter().copied()) {
                overflowing = Some(overflowing.map_or(site, |first: Site| first.min(site)));
            }
            let shape = &data.shape[1..];
            let axes = position_axes(site, reduce);
            let whole = &shapes[&site][1..];
            let (size, width) = (
                shape.iter().product::<usize>(),
                whole.iter().product::<usize>(),
            );
            let mut values = values.chunks_exact(size.max(1));
            // Rows that follow each other go together.
            for prompts in prompts.chunk_by(|a, b| a + 1 == *b) {
                let mut together = vec![0.0; prompts.len() * width];
                let to = together.chunks_exact_mut(width.max(1));
                for ((to, &prompt), values) in to.zip(prompts).zip(values.by_ref()) {
                    let (first, length) = (rows.first[prompt], rows.prompts[prompt].len());
                    place(values, shape, to, whole, axes, 1, first, length);
                }
                sink.rows(site, prompts[0], width, &together)?;
            }
        }
        Ok(prompts.len())
    };
    let lengths: Vec<usize> = rows.prompts.iter().map(Vec::len).collect();
    let stage = progress.stage(CAPTURING, rows.len() as u64);
    let outcome = in_batches(model, &lengths, max_batch_tokens, progress, run, take);
    drop(stage);
    outcome?;
    let Some(site) = overflowing else {
        return Ok(());
    };
    check_finite(model, &rows.prompts, device)?;
    Err(Error::Overflow {
        what: site.to_string(),
        precision: model.precision(),
    })
}

/// The axes of a captured tensor that run over positions.
fn position_axes(site: Site, reduce: Reduce) -> &'static [usize] {
    let square = site.head_axis() == Some(1);
    match (reduce, square) {
        (Reduce::None, true) => &[2, 3],
        (Reduce::None, false) => &[1],
        // Queries are reduced, keys stay.
        (_, true) => &[2],
        (_, false) => &[],
    }
}

/// Copies along the axes from `axis` on; of those in `axes`, `length` entries go to `first` and after.
#[expect(
    clippy::too_many_arguments,
    reason = "two tensors and a rule, in a recursion"
)]
fn place(
    from: &[f32],
    shape: &[usize],
    to: &mut [f32],
    to_shape: &[usize],
    axes: &[usize],
    axis: usize,
    first: usize,
    length: usize,
) {
    if axes.iter().all(|&other| other < axis) {
        to.copy_from_slice(from);
        return;
    }
    let (size, to_size) = (
        shape[1..].iter().product::<usize>(),
        to_shape[1..].iter().product::<usize>(),
    );
    let (count, start) = if axes.contains(&axis) {
        (length, first)
    } else {
        (shape[0], 0)
    };
    for at in 0..count {
        place(
            &from[at * size..(at + 1) * size],
            &shape[1..],
            &mut to[(start + at) * to_size..(start + at + 1) * to_size],
            &to_shape[1..],
            axes,
            axis + 1,
            first,
            length,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_keeps_every_prompt_and_the_budget(
            lengths in proptest::collection::vec(1usize..40, 0..60), budget in 1usize..200,
        ) {
            let batches = pack_by_length(&lengths, budget);
            let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for batch in batches {
                let longest = batch.iter().map(|&prompt| lengths[prompt]).max().unwrap();
                prop_assert!(batch.len() == 1 || batch.len() * longest <= budget);
            }
        }
    }
}
