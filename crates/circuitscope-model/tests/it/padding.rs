//! Batched equals one by one: at every site, for both sides of padding, for every kind of model.

use std::sync::LazyLock;

use circuitscope_core::{Exec, NoProgress, Seed};
use circuitscope_hooks::{Capture, Reduce, Site};
use circuitscope_model::{
    Activation, Decoder, DecoderConfig, Error, Mlp, Norm, PaddedRows, PaddingSide, Positions,
    Processing, RopeScaling, Rotary, RotaryPairs, TokenBatch, capture_head_means,
    capture_head_means_and_last, capture_sites, logits_at,
};
use circuitscope_testkit::{Values, assert_close_named, device};
use proptest::prelude::*;

use crate::{B, PADDING, capture, golden_folder, load, right_padded};

static MODELS: LazyLock<Vec<(&str, Decoder<B>)>> = LazyLock::new(|| {
    ["gpt2_tiny", "attn_only_shortformer", "bidirectional"]
        .into_iter()
        .flat_map(|name| {
            let load = move |processing| (name, load(&golden_folder(name), processing));
            [Processing::Raw, Processing::Folded].map(load)
        })
        .chain(drawn())
        .collect()
});

/// Models of random weights with what the golden ones lack: rotated queries and keys in both pairings,
/// shared key/value heads, RMS norms before and after, gates, windows, soft caps, parallel blocks.
fn drawn() -> [(&'static str, Decoder<B>); 2] {
    let gpt2 = DecoderConfig::gpt2(2, 4, 16, 12, 11);
    let rotary = |dim, pairs| {
        Positions::Rotary(
            Rotary::new(dim, 100.0, pairs).with_scaling(RopeScaling::Linear { factor: 2.0 }),
        )
    };
    let parallel = gpt2
        .clone()
        .with_positions(rotary(2, RotaryPairs::Adjacent))
        .with_parallel_attn_mlp(true);
    let grouped = gpt2
        .with_n_key_value_heads(2)
        .with_d_head(6)
        .with_embed_scale(4.0)
        .with_mlp(Some(Mlp::new(20, Activation::Silu).with_gated(true)))
        .with_norm(Norm::Rms)
        .with_norm_after(true)
        .with_qk_norm(true)
        .with_positions(rotary(6, RotaryPairs::Halves))
        .with_windows(vec![Some(3), None])
        .with_attn_scores_soft_cap(Some(2.0))
        .with_output_logits_soft_cap(Some(3.0));
    let init = |config: DecoderConfig| {
        config
            .init::<B>(Seed::new(3), &device())
            .with_exec(Exec::all_cores())
    };
    [("parallel", init(parallel)), ("grouped", init(grouped))]
}

/// Entries of one row that belong to real positions.
fn real(site: Site, values: &Values, row: usize, from: usize, to: usize) -> Values {
    let row = values.row(row);
    match site {
        // [head, q_pos, k_pos]
        Site::AttnScores(_) | Site::Pattern(_) => row.slice(1, from, to).slice(2, from, to),
        _ => row.slice(0, from, to),
    }
}

fn prompts() -> impl Strategy<Value = (usize, Vec<Vec<u32>>)> {
    prompts_of(usize::MAX, 5)
}

/// Fewer than `many` prompts of at most `words` different tokens, for one of the models.
fn prompts_of(words: usize, many: usize) -> impl Strategy<Value = (usize, Vec<Vec<u32>>)> {
    (0..MODELS.len()).prop_flat_map(move |at| {
        let config = MODELS[at].1.config();
        let token = 0..config.d_vocab.min(words) as u32;
        let prompt = proptest::collection::vec(token, 1..=config.n_ctx);
        (Just(at), proptest::collection::vec(prompt, 1..many))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However prompts are packed and on whichever side they were padded, every value comes back at
    /// its own row and position.
    #[test]
    fn captures_do_not_depend_on_packing(
        (at, prompts) in prompts(), budget in 1usize..60, left in any::<bool>(),
    ) {
        let (name, model) = &MODELS[at];
        let side = if left { PaddingSide::Left } else { PaddingSide::Right };
        let rows = PaddedRows::new(prompts.clone(), side).unwrap();
        let sites = model.config().catalog().sites();
        for reduce in [Reduce::None, Reduce::Mean, Reduce::Last] {
            let run = |rows: &PaddedRows, budget| {
                capture_sites(model, rows, &sites, reduce, budget, &device(), &NoProgress).unwrap()
            };
            let together = run(&rows, budget);
            for (row, prompt) in prompts.iter().enumerate() {
                let from = if left { rows.pos() - prompt.len() } else { 0 };
                let to = from + prompt.len();
                let alone = run(&PaddedRows::new(vec![prompt.clone()], side).unwrap(), 1);
                for (site, alone) in alone {
                    let alone = Values::new(alone.shape, alone.data);
                    let all = &together[&site];
                    let all = Values::new(all.shape.clone(), all.data.clone());
                    let found = match (reduce, site) {
                        (Reduce::None, _) => real(site, &all, row, from, to),
                        // [head, k_pos]: queries are reduced, keys stay.
                        (_, Site::AttnScores(_) | Site::Pattern(_)) => all.row(row).slice(1, from, to),
                        _ => all.row(row),
                    };
                    let label = format!("{name} {reduce:?} {site} row {row}");
                    assert_close_named(&label, &found, &alone.row(0), PADDING);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn batched_equals_one_by_one((at, prompts) in prompts()) {
        let (name, model) = &MODELS[at];
        let sites = model.config().catalog().sites();
        // With the inputs of heads split, and without: two ways through the block.
        let joint = sites.iter().copied().filter(|site| !site.to_string().ends_with("_input"));
        let longest = prompts.iter().map(Vec::len).max().unwrap();
        for wanted in [sites.clone(), joint.collect()] {
            let alone: Vec<_> = prompts
                .iter()
                .map(|prompt| capture(model, &right_padded(&[prompt]), wanted.iter().copied()))
                .collect();
            for side in [PaddingSide::Left, PaddingSide::Right] {
                let batch = TokenBatch::new(&prompts, side, &device()).unwrap();
                let together = capture(model, &batch, wanted.iter().copied());
                for (row, prompt) in prompts.iter().enumerate() {
                    let from = if side == PaddingSide::Left { longest - prompt.len() } else { 0 };
                    for site in &wanted {
                        let together = real(*site, &together[site], row, from, from + prompt.len());
                        let name = format!("{name} {site} row {row} {side:?}");
                        assert_close_named(&name, &together, &alone[row][site].row(0), PADDING);
                    }
                }
            }
        }
    }

    #[test]
    fn padding_gets_no_attention((at, prompts) in prompts()) {
        let (name, model) = &MODELS[at];
        let longest = prompts.iter().map(Vec::len).max().unwrap();
        let heads = model.config().n_heads;
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let batch = TokenBatch::new(&prompts, side, &device()).unwrap();
            let mut patterns = capture(model, &batch, [Site::Pattern(0)]);
            let pattern = patterns.remove(&Site::Pattern(0)).unwrap();
            for (row, prompt) in prompts.iter().enumerate() {
                let from = if side == PaddingSide::Left { longest - prompt.len() } else { 0 };
                let real = from..from + prompt.len();
                let pattern = pattern.row(row);
                for (at, &weight) in pattern.data.iter().enumerate() {
                    let (q, k) = (at / longest % longest, at % longest);
                    if real.contains(&q) && !real.contains(&k) {
                        prop_assert_eq!(weight, 0.0, "{} row {} {:?}", name, row, side);
                    }
                }
                prop_assert_eq!(pattern.shape, vec![heads, longest, longest]);
            }
        }
    }

    #[test]
    fn reductions_leave_padding_out((at, prompts) in prompts()) {
        let (name, model) = &MODELS[at];
        let sites = [Site::Z(1), Site::ResidPre(1), Site::AttnScores(0)];
        let longest = prompts.iter().map(Vec::len).max().unwrap();
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let batch = TokenBatch::new(&prompts, side, &device()).unwrap();
            for reduce in [Reduce::Mean, Reduce::Last] {
                let mut tap = Capture::new(sites).with_reduce(reduce);
                model.forward(&batch, &mut tap);
                let together = tap.finish().unwrap();
                for (row, prompt) in prompts.iter().enumerate() {
                    let mut tap = Capture::new(sites).with_reduce(reduce);
                    model.forward(&right_padded(&[prompt]), &mut tap);
                    for (site, alone) in tap.finish().unwrap() {
                        let from = if side == PaddingSide::Left { longest - prompt.len() } else { 0 };
                        let mut together = Values::from(together[&site].clone().into_data()).row(row);
                        if let Site::AttnScores(_) = site {
                            // [head, k_pos]: keys keep their axis.
                            together = together.slice(1, from, from + prompt.len());
                        }
                        let alone = Values::from(alone.into_data()).row(0);
                        let name = format!("{name} {site} {reduce:?} row {row} {side:?}");
                        assert_close_named(&name, &together, &alone, PADDING);
                    }
                }
            }
        }
    }

    /// Of two words only: most prompts begin like another one.
    #[test]
    fn common_beginnings_change_nothing((at, prompts) in prompts_of(2, 12), budget in 1usize..200) {
        let (name, model) = &MODELS[at];
        let read = |prompts: &[Vec<u32>], budget| {
            let read = capture_head_means_and_last(model, prompts, budget, &device(), &NoProgress);
            read.unwrap().map(Values::from)
        };
        let together = read(&prompts, budget);
        for (row, prompt) in prompts.iter().enumerate() {
            let alone = read(std::slice::from_ref(prompt), 1);
            for (together, alone) in together.iter().zip(alone) {
                assert_close_named(name, &together.row(row), &alone.row(0), PADDING);
            }
        }
    }

    #[test]
    fn head_means_do_not_depend_on_batches((at, prompts) in prompts(), budget in 1usize..40) {
        let (name, model) = &MODELS[at];
        let means = |prompts: &[Vec<u32>], budget| -> Values {
            capture_head_means(model, prompts, budget, &device(), &NoProgress).unwrap().into()
        };
        let together = means(&prompts, budget);
        for (row, prompt) in prompts.iter().enumerate() {
            let alone = means(std::slice::from_ref(prompt), 1).row(0);
            assert_close_named(name, &together.row(row), &alone, PADDING);
        }
    }
}

#[test]
fn masks_that_are_no_padding_are_refused() {
    let tokens = vec![vec![1, 2, 3], vec![4, 5, 6]];
    let rows = |mask: &[&[u8]]| mask.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
    for (mask, row, found) in [
        (
            rows(&[&[1, 1, 1], &[1, 0, 1]]),
            1,
            "padding between real tokens",
        ),
        (rows(&[&[0, 0, 0], &[1, 1, 1]]), 0, "no real token"),
        (rows(&[&[1, 1, 1], &[1, 1, 2]]), 1, "2"),
        (
            rows(&[&[1, 1, 1], &[1, 1]]),
            1,
            "3 tokens and 2 mask entries",
        ),
        (rows(&[&[1, 1, 1]]), 1, "1 rows for 2 of tokens"),
    ] {
        match TokenBatch::<B>::from_masked(&tokens, &mask, &device()) {
            Err(Error::Mask {
                row: at,
                found: what,
                ..
            }) => {
                assert_eq!((at, what.as_str()), (row, found));
            }
            other => panic!("{mask:?}: {:?}", other.map(|batch| batch.batch())),
        }
    }
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let config = MODELS[0].1.config();
    let check = |prompts: &[Vec<u32>]| config.check_tokens(prompts);
    assert!(check(&[vec![0; 9], vec![28]]).is_ok());
    let empty = check(&[vec![1], vec![]]);
    assert!(matches!(empty, Err(Error::EmptyPrompt { prompt: 1 })));
    let long = check(&[vec![0; 10]]);
    assert!(matches!(
        long,
        Err(Error::PromptTooLong {
            prompt: 0,
            length: 10,
            n_ctx: 9
        })
    ));
    let unknown = check(&[vec![1], vec![2, 29]]);
    assert!(matches!(
        unknown,
        Err(Error::TokenOutOfRange {
            prompt: 1,
            token: 29,
            d_vocab: 29
        })
    ));
    let batch = TokenBatch::<B>::new(&[vec![1], vec![]], PaddingSide::Left, &device());
    assert!(matches!(batch, Err(Error::EmptyPrompt { prompt: 1 })));
}

/// Shared beginnings, tokens after the position that is read and batches of any size change nothing.
#[test]
fn logits_at_a_position_are_those_of_the_whole_prompt() {
    let prompts: [Vec<u32>; 5] = [
        vec![1, 2, 3, 4, 5, 6],
        vec![1, 2, 3, 7],
        vec![1, 2, 3, 4, 0, 0],
        vec![7],
        vec![5, 6, 7, 0, 1],
    ];
    let at = [5, 3, 4, 0, 2];
    for (name, model) in MODELS.iter() {
        let whole = Values::from(model.logits(&right_padded(&prompts)));
        let [_, pos, vocabulary] = whole.shape[..] else {
            panic!("{:?}", whole.shape);
        };
        for budget in [1, 7, 4096] {
            let device = device();
            let found = logits_at(model, &prompts, &at, budget, &device, &NoProgress).unwrap();
            for (prompt, logits) in found.into_iter().enumerate() {
                let start = (prompt * pos + at[prompt]) * vocabulary;
                let expected = Values {
                    shape: vec![vocabulary],
                    data: whole.data[start..start + vocabulary].to_vec(),
                };
                let found = Values {
                    shape: vec![vocabulary],
                    data: logits,
                };
                assert_close_named(name, &found, &expected, PADDING);
            }
        }
    }
}
