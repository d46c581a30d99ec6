//! Resumed passes against whole ones.

use burn::tensor::Tensor;
use circuitscope_core::{Exec, Seed};
use circuitscope_hooks::{Capture, NoTap, Site};
use circuitscope_model::{
    Activation, Decoder, DecoderConfig, Direction, Mlp, Norm, Past, Positions, Resume, Rotary,
    RotaryPairs, TokenBatch,
};
use circuitscope_testkit::{device, worst_difference};

use crate::{B, right_padded};

fn rotary(pairs: RotaryPairs) -> Positions {
    Positions::Rotary(Rotary::new(2, 100.0, pairs))
}

/// Every way of positions, of sharing keys, and of laying out a block; a window shorter than the
/// prompts, and norms of queries and keys, which leave the fused steps out.
fn configs() -> Vec<DecoderConfig> {
    let gpt2 = DecoderConfig::gpt2(3, 4, 16, 12, 11);
    let llama = gpt2
        .clone()
        .with_positions(rotary(RotaryPairs::Halves))
        .with_norm(Norm::Rms)
        .with_n_key_value_heads(2)
        .with_mlp(Some(Mlp::new(24, Activation::Silu).with_gated(true)));
    vec![
        gpt2.clone(),
        llama.clone(),
        llama.clone().with_qk_norm(true),
        gpt2.clone()
            .with_positions(rotary(RotaryPairs::Adjacent))
            .with_parallel_attn_mlp(true),
        gpt2.clone()
            .with_positions(Positions::Shortformer)
            .with_mlp(None),
        llama.with_direction(Direction::Bidirectional),
    ]
}

type Streams = Vec<Tensor<B, 3>>;

/// The run on `batch`, its streams and what its first positions left.
fn run(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    start: usize,
) -> (Streams, Option<Streams>, Past<B>) {
    let config = model.config();
    let layers = config.n_layers;
    let mids = config.mlp.is_some() && !config.parallel_attn_mlp;
    let mut streams = Capture::new((0..layers).map(Site::ResidPre));
    let mut end = Capture::new([Site::ResidPost(layers - 1)]);
    let mut mid = Capture::new((0..layers).filter(|_| mids).map(Site::ResidMid));
    let mut past = Capture::new(Past::<B>::sites(config));
    let mut taps = (&mut streams, &mut end, &mut mid, &mut past);
    model.forward(batch, &mut taps);
    let stream = |capture: &mut Capture<B>, site| capture.take(site).unwrap().get::<3>().unwrap();
    let mut all: Vec<_> = (0..layers)
        .map(|layer| stream(&mut streams, Site::ResidPre(layer)))
        .collect();
    all.push(stream(&mut end, Site::ResidPost(layers - 1)));
    let mid = mids.then(|| {
        (0..layers)
            .map(|layer| stream(&mut mid, Site::ResidMid(layer)))
            .collect()
    });
    (all, mid, Past::take(config, &mut past, start).unwrap())
}

fn close(what: &str, found: Tensor<B, 2>, expected: Tensor<B, 2>) {
    let size: f32 = expected.clone().abs().max().into_scalar();
    let (worst, _) = worst_difference(&found.into_data().into(), &expected.into_data().into());
    assert!(worst <= 2e-5 * size, "{what}: {worst} of {size}");
}

#[test]
fn a_resumed_pass_ends_as_a_whole_one() {
    let prompts = [
        vec![1, 2, 3, 4, 5, 6],
        vec![1, 2, 7, 8],
        vec![1, 9, 3, 10, 2],
    ];
    for (at, config) in configs().into_iter().enumerate() {
        let model: Decoder<B> = config
            .init(Seed::new(at as u64), &device())
            .with_exec(Exec::all_cores());
        let whole = right_padded(&prompts).read_at(vec![5, 2, 4]);
        let starts = if Past::<B>::applies(&config) {
            0..3
        } else {
            0..1
        };
        for start in starts {
            let (streams, mids, past) = run(&model, &whole, start);
            let expected = whole.last(streams[config.n_layers].clone());
            let tail = whole.tail(start);
            let cut = |x: &Tensor<B, 3>| x.clone().slice_dim(1, start..6);
            for (layer, stream) in streams.iter().enumerate() {
                let resumed = Resume::Block(layer, cut(stream));
                let found = model.resume(&tail, &past, resumed, &mut NoTap);
                close(
                    &format!("{at}, {start}, block {layer}"),
                    found,
                    expected.clone(),
                );
            }
            for (layer, mid) in mids.iter().flatten().enumerate() {
                let mid = if layer + 1 == config.n_layers {
                    whole.last(mid.clone()).unsqueeze_dim(1)
                } else {
                    cut(mid)
                };
                let found = model.resume(&tail, &past, Resume::Mid(layer, mid), &mut NoTap);
                close(
                    &format!("{at}, {start}, mid {layer}"),
                    found,
                    expected.clone(),
                );
            }
            // Two copies side by side.
            let twice = Resume::Block(1, cut(&streams[1]).repeat_dim(0, 2));
            let found = model.resume(&tail.repeated(2), &past.repeated(2), twice, &mut NoTap);
            close("copies", found, expected.repeat_dim(0, 2));
        }
    }
}

/// The pass is run again: another stream is another result.
#[test]
fn what_a_pass_begins_with_counts() {
    let model: Decoder<B> = configs()[1]
        .init(Seed::new(1), &device())
        .with_exec(Exec::all_cores());
    let whole = right_padded(&[vec![1, 2, 3, 4], vec![1, 2, 5, 6]]);
    let (streams, _, past) = run(&model, &whole, 2);
    let tail = whole.tail(2);
    let end = |stream: Tensor<B, 3>| {
        let stream = stream.slice_dim(1, 2..4);
        model.resume(&tail, &past, Resume::Block(1, stream), &mut NoTap)
    };
    let swapped = Tensor::cat(
        vec![
            streams[1].clone().slice_dim(0, 1..2),
            streams[1].clone().slice_dim(0, 0..1),
        ],
        0,
    );
    let (same, other) = (end(streams[1].clone()), end(swapped));
    let difference: f32 = (same - other).abs().max().into_scalar();
    assert!(difference > 1e-2, "{difference}");
}

#[test]
fn logits_of_some_tokens_are_among_all() {
    for config in configs() {
        let model: Decoder<B> = config
            .init(Seed::new(3), &device())
            .with_exec(Exec::all_cores());
        let stream = Tensor::<B, 2>::from_data([[0.3f32; 16], [-0.7; 16]], &device());
        let ramp = Tensor::<B, 2>::from_data(
            [core::array::from_fn::<f32, 16, _>(|at| at as f32)],
            &device(),
        );
        let stream = stream * ramp;
        let all = model
            .unembed(stream.clone().unsqueeze_dim(1))
            .squeeze_dim::<2>(1);
        let some = model.unembed_some(stream, &model.unembedding_of(&[7, 0, 10]));
        let expected = [7usize, 0, 10].map(|at| all.clone().slice_dim(1, at..at + 1));
        close("logits", some, Tensor::cat(expected.to_vec(), 1));
    }
}
