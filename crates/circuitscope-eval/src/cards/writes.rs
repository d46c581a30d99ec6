//! What a head writes: tokens that it raises and lowers, and whether they are those that it attends to.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::HeadId;
use circuitscope_measures::cards::{Copying, Writes};
use circuitscope_model::Decoder;

use super::read::{OfPair, into_stream};
use super::{CardSettings, Words, mean_of};
use crate::Result;
use crate::causal::{CausalEvidence, host};

/// How many tokens of the vocabulary count as raised most.
const TOP: usize = 10;
/// Other tokens of a prompt that are looked at.
const OTHERS: usize = 32;
/// Outputs that are unembedded at a time.
const AT_A_TIME: usize = 64;

/// The tokens whose logits one output of a head raises most, and those that it lowers most.
#[derive(Debug, Clone, Default)]
pub(super) struct Extremes {
    pub(super) up: Vec<u32>,
    pub(super) down: Vec<u32>,
}

/// Logits of outputs of a head, `[d_head]` each: what biases promote is not the head's doing.
fn each_logits<B: Backend>(
    model: &Decoder<B>,
    head: HeadId,
    outputs: &[Vec<f32>],
    mut take: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let device = model.w_o(head.layer).device();
    for (chunk, rows) in outputs.chunks(AT_A_TIME).enumerate() {
        let data = TensorData::new(rows.concat(), [rows.len(), rows[0].len()]);
        let stream = into_stream(model, head, Tensor::from_data(data, &device));
        let stream = stream.unsqueeze_dim::<3>(1);
        let nothing = model.unembed(stream.zeros_like().slice_dim(0, 0..1));
        let logits = model.unembed(stream) - nothing;
        let vocabulary = logits.dims()[2];
        for (at, logits) in host(logits)?.chunks(vocabulary).enumerate() {
            take(chunk * AT_A_TIME + at, logits);
        }
    }
    Ok(())
}

/// What outputs of a head raise and lower most.
pub(super) fn extremes<B: Backend>(
    model: &Decoder<B>,
    head: HeadId,
    outputs: &[Vec<f32>],
    count: usize,
) -> Result<Vec<Extremes>> {
    let mut found = vec![Extremes::default(); outputs.len()];
    each_logits(model, head, outputs, |at, logits| {
        found[at] = extremes_of(logits, count);
    })?;
    Ok(found)
}

/// The same of one vector of the residual stream, `[1, d_model]`.
pub(super) fn extremes_in_stream<B: Backend>(
    model: &Decoder<B>,
    vector: Tensor<B, 2>,
    count: usize,
) -> Result<Extremes> {
    let stream = vector.unsqueeze_dim::<3>(1);
    let logits = model.unembed(stream.clone()) - model.unembed(stream.zeros_like());
    Ok(extremes_of(&host(logits)?, count))
}

fn extremes_of(logits: &[f32], count: usize) -> Extremes {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let count = count.min(order.len());
    if count == 0 {
        return Extremes::default();
    }
    // Of those alike, the first.
    let logit = |token: u32| logits[token as usize];
    let largest = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, largest);
    let mut up = order[..count].to_vec();
    up.sort_by(largest);
    let smallest = |a: &u32, b: &u32| logit(*a).total_cmp(&logit(*b)).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, smallest);
    let mut down = order[..count].to_vec();
    down.sort_by(smallest);
    Extremes { up, down }
}

/// What one head writes.
pub(super) fn writes<B: Backend>(
    causal: &CausalEvidence<B>,
    (slot, head): (usize, HeadId),
    kind: usize,
    pairs: &[OfPair],
    total: f64,
    words: Words<'_>,
    how: &CardSettings,
) -> Result<Writes> {
    let model = causal.model();
    let by = || pairs.iter().map(|pair| &pair.heads[slot].by[kind]);
    let above = mean_of(by().map(|by| &by.above));
    let written = extremes(model, head, &[above], how.promoted)?;
    let written = written.into_iter().next().unwrap_or_default();
    let mean = |value: &dyn Fn(&super::read::ByReference) -> f32| {
        by().map(|by| f64::from(value(by))).sum::<f64>() / pairs.len() as f64
    };
    let of_its_own = !model.config().norm_after;
    let answered = causal.pairs()[..pairs.len()].iter();
    let answered = answered
        .clone()
        .all(|pair| !pair.right.is_empty() && !pair.wrong.is_empty());
    Ok(Writes {
        direct: of_its_own.then(|| mean(&|by| by.direct) / total),
        direct_logits: (of_its_own && answered).then(|| mean(&|by| by.direct_logits)),
        promotes: written.up.into_iter().map(words).collect(),
        suppresses: written.down.into_iter().map(words).collect(),
        copying: copying(causal, (slot, head), kind, pairs)?,
    })
}

/// Whether what is moved from the token attended to most raises that token. The first position, where heads rest, is
/// passed over.
fn copying<B: Backend>(
    causal: &CausalEvidence<B>,
    (slot, head): (usize, HeadId),
    kind: usize,
    pairs: &[OfPair],
) -> Result<Copying> {
    let mut moved = Vec::new();
    let mut of_prompt: Vec<(u32, Vec<u32>)> = Vec::new();
    for (pair, read) in causal.pairs().iter().zip(pairs) {
        let read = &read.heads[slot];
        let Some(row) = read.positive.first(&read.by[kind].weights) else {
            continue;
        };
        let sources = read.positive.sources.iter();
        let sources = sources.filter(|(at, _)| *at > 0);
        let most = sources.max_by(|(a, _), (b, _)| row.attention[*a].total_cmp(&row.attention[*b]));
        let Some((position, value)) = most else {
            continue;
        };
        let token = pair.clean[*position];
        let mut others: Vec<u32> = super::codes::distinct(&pair.clean).into_iter().collect();
        others.retain(|other| *other != token);
        others.truncate(OTHERS);
        moved.push(value.clone());
        of_prompt.push((token, others));
    }
    let (mut copied, mut lowered, mut others, mut of_others) = (0usize, 0usize, 0usize, 0usize);
    each_logits(causal.model(), head, &moved, |at, logits| {
        let raised = |token: u32, more: fn(f32, f32) -> bool| {
            let Some(&own) = logits.get(token as usize) else {
                return false;
            };
            logits.iter().filter(|logit| more(**logit, own)).count() < TOP
        };
        let (token, rest) = &of_prompt[at];
        copied += usize::from(raised(*token, |logit, own| logit > own));
        lowered += usize::from(raised(*token, |logit, own| logit < own));
        let rest_raised = rest
            .iter()
            .filter(|token| raised(**token, |logit, own| logit > own));
        others += rest_raised.count();
        of_others += rest.len();
    })?;
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    Ok(Copying {
        copied: share(copied, moved.len()),
        others: share(others, of_others),
        lowered: share(lowered, moved.len()),
        top: TOP,
    })
}
