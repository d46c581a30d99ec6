use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::Progress;
use circuitscope_hooks::{Capture, Site};

use crate::Result;
use crate::batch::TokenBatch;
use crate::capture::in_shared_rows;
use crate::config::Direction;
use crate::decoder::Decoder;
use crate::prefix::SharedRow;

/// Logits at one position of each prompt: `at[i]` of prompt `i`, counted from 0.
///
/// In causal models what follows that position is not run, and prompts that begin alike are run as branches
/// of one row, as in [`capture_head_means`](crate::capture_head_means). Nothing but these positions is
/// unembedded. `progress` advances by a step for each prompt; the stage is the caller's.
///
/// # Shapes
/// For each prompt `[d_vocab_out]`.
///
/// # Errors
/// A prompt that does not fit the model, or [`Error::Cancelled`](crate::Error::Cancelled).
///
/// # Panics
/// Unless there is a position for each prompt, and within it.
///
/// ```
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_model::{DecoderConfig, logits_at};
///
/// # fn main() -> Result<(), circuitscope_model::Error> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<burn_flex::Flex>(Seed::new(0), &device);
/// let prompts = [vec![1, 2, 3], vec![1, 2]];
/// let logits = logits_at(&model, &prompts, &[1, 1], 1024, &device, &NoProgress)?;
/// assert_eq!(logits[0].len(), 10);
/// assert_eq!(logits[0], logits[1], "what comes after the position changes nothing");
/// # Ok(())
/// # }
/// ```
pub fn logits_at<B: Backend, S: AsRef<[u32]>>(
    model: &Decoder<B>,
    sequences: &[S],
    at: &[usize],
    max_batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f32>>> {
    assert_eq!(sequences.len(), at.len(), "a position for each prompt");
    let config = model.config();
    config.check_tokens(sequences)?;
    let causal = config.direction == Direction::Causal;
    let read = sequences.iter().zip(at).map(|(tokens, &at)| {
        let tokens = tokens.as_ref();
        if causal { &tokens[..=at] } else { tokens }
    });
    let read: Vec<&[u32]> = read.collect();
    let last = Site::ResidPost(config.n_layers - 1);
    // `[readers, d_model]` of a batch: what is unembedded.
    let run = |model: &Decoder<B>, rows: &[&SharedRow]| {
        let batch = TokenBatch::shared(rows, device)?;
        let mut capture = Capture::new([last]);
        model.forward(&batch, &mut capture);
        let stream = capture.take(last).and_then(|stream| stream.get::<3>());
        let stream = stream.ok_or(circuitscope_hooks::Error::NeverFired { site: last })?;
        let [count, pos, d_model] = stream.dims();
        let ends = rows.iter().enumerate().flat_map(|(row, shared)| {
            let place = move |&(prompt, end): &(usize, usize)| {
                (row * pos + if causal { end } else { at[prompt] }) as i64
            };
            shared.ends.iter().map(place)
        });
        let ends: Vec<i64> = ends.collect();
        let readers = ends.len();
        let ends = Tensor::<B, 1, Int>::from_data(TensorData::new(ends, [readers]), device);
        Ok(stream.reshape([count * pos, d_model]).select(0, ends))
    };
    let (mut order, mut streams) = (Vec::new(), Vec::new());
    let take = |rows: &[&SharedRow], stream: Tensor<B, 2>| {
        let prompts = rows.iter().flat_map(|row| &row.ends);
        order.extend(prompts.map(|&(prompt, _)| prompt));
        streams.push(stream);
    };
    in_shared_rows(model, &read, max_batch_tokens, progress, run, take)?;
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); sequences.len()];
    if streams.is_empty() {
        return Ok(found);
    }
    // Together: a product with `W_U` reads all of it, however few the rows.
    let streams = Tensor::cat(streams, 0);
    for (at, prompts) in order.chunks(UNEMBEDDED).enumerate() {
        let start = at * UNEMBEDDED;
        let stream = streams.clone().slice_dim(0, start..start + prompts.len());
        let logits = model.unembed(stream.unsqueeze_dim(1)).into_data();
        let values: Vec<f32> = logits.iter().collect();
        for (&prompt, logits) in prompts.iter().zip(values.chunks_exact(config.d_vocab_out)) {
            found[prompt] = logits.to_vec();
        }
    }
    Ok(found)
}

/// Prompts that are unembedded together.
const UNEMBEDDED: usize = 256;
