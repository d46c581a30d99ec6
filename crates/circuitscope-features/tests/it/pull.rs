//! What is read against the sum of what was written.

use std::path::Path;

use burn::tensor::Tensor;
use circuitscope_features::{Error, Frozen, Part, Reader, Writer};
use circuitscope_hooks::Site;
use circuitscope_model::{Decoder, Processing};

use crate::models::{B, TOKENS, captured, device, load, model, models, normal};

/// The sum of the sizes of parts.
fn size(parts: &[Part]) -> f64 {
    parts.iter().map(|part| part.value.abs()).sum()
}

/// Fails unless the parts sum to `expected` within 1e-5 of `size`.
#[track_caller]
fn sums(name: &str, parts: &[Part], expected: f64, size: f64) {
    let sum: f64 = parts.iter().map(|part| part.value).sum();
    assert!(size > 1e-4, "{name}: nothing to compare");
    let off = (sum - expected).abs() / size;
    assert!(off < 1e-5, "{name}: {sum} is {expected}, off by {off}");
}

fn column(matrix: Tensor<B, 2>, at: usize) -> Tensor<B, 1> {
    matrix.slice_dim(1, at..at + 1).squeeze_dim(1)
}

/// Values, inputs of MLPs and logits, each as the pass shows it at the last and at a middle position.
fn check(name: &str, model: &Decoder<B>) {
    let config = model.config();
    let frozen = Frozen::new(model, &TOKENS, &device()).unwrap();
    let parts = |reader, position, u| {
        let pull = frozen.pull(reader, position, u).unwrap();
        frozen.parts(&pull).unwrap()
    };
    let d = config.d_head;
    for position in [6, 3] {
        for layer in 0..config.n_layers {
            let v = captured(model, &TOKENS, Site::V(layer));
            let b_v: Vec<f32> = model.b_v(layer).into_data().iter::<f32>().collect();
            let group = config.n_key_value_heads - 1;
            let w_v = model.w_v(layer).slice_dim(0, group..group + 1);
            let found = parts(
                Reader::Value(layer),
                position,
                column(w_v.squeeze_dim(0), 1),
            );
            let at = (position * config.n_key_value_heads + group) * d + 1;
            let expected = f64::from(v[at]) - f64::from(b_v[group * d + 1]);
            sums(
                &format!("{name}, v of layer {layer}"),
                &found,
                expected,
                size(&found),
            );
            if config.mlp.is_some() {
                let x = captured(model, &TOKENS, Site::MlpHookIn(layer));
                let x = &x[position * config.d_model..(position + 1) * config.d_model];
                let u = normal([config.d_model], 1.0, 7);
                let weights: Vec<f32> = u.clone().into_data().iter::<f32>().collect();
                let expected = x.iter().zip(&weights).map(|(x, u)| f64::from(x * u)).sum();
                let found = parts(Reader::Mlp(layer), position, u);
                sums(
                    &format!("{name}, MLP of layer {layer}"),
                    &found,
                    expected,
                    size(&found),
                );
            }
        }
        let token = 4;
        let found = parts(Reader::Final, position, column(model.w_u(), token));
        let logits = frozen.logits(position).unwrap();
        let logit = f64::from(logits[token]);
        let before_cap = match config.output_logits_soft_cap {
            Some(cap) => cap * (logit / cap).atanh(),
            None => logit,
        };
        let bias = model.b_u().map_or(0.0, |b| {
            let b: Vec<f32> = b.into_data().iter::<f32>().collect();
            f64::from(b[token])
        });
        sums(
            &format!("{name}, logit"),
            &found,
            before_cap - bias,
            size(&found),
        );
    }
}

#[test]
fn parts_sum_to_what_is_read_in_every_family() {
    for (name, model) in models() {
        check(&name, &model);
    }
}

/// The larger models, whose activations are recorded from other programs.
#[test]
#[ignore = "needs ../shared/fixtures"]
fn parts_sum_in_the_large_fixtures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/models");
    for name in [
        "attn_only_ln",
        "attn_only_lnpre",
        "gemma2",
        "gpt2",
        "gpt_neox_parallel",
        "gpt_neox_sequential",
        "llama",
        "opt",
        "qwen2",
    ] {
        for processing in [Processing::Raw, Processing::Folded] {
            let model = load(&folder.join(name), processing);
            check(&format!("{name}, {processing}"), &model);
        }
    }
}

/// A head's part is what goes on through it to its source: within 1e-5 of the sizes of what it is a part of, as rounding is
/// that of the whole.
#[test]
fn going_through_a_head_keeps_its_part() {
    for (name, model) in models() {
        let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
        let pull = frozen
            .pull(Reader::Final, 6, column(model.w_u(), 2))
            .unwrap();
        let parts = frozen.parts(&pull).unwrap();
        let whole = size(&parts);
        let mut heads = 0;
        for part in parts {
            let Writer::Head { head, source, .. } = part.writer else {
                continue;
            };
            let on = frozen.through(&pull, head, source).unwrap();
            assert_eq!(
                (on.position, on.reader),
                (source, Reader::Value(head.layer))
            );
            sums(
                &format!("{name}, {head} from {source}"),
                &frozen.parts(&on).unwrap(),
                part.value,
                whole,
            );
            heads += 1;
        }
        // Windows of layers hide some sources.
        let all = model.config().grid().len() * TOKENS.len();
        assert!(heads > all / 2 && heads <= all, "{name}: {heads} of {all}");
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let model = model("gpt2", Processing::Raw);
    let frozen = Frozen::new(&model, &TOKENS, &device()).unwrap();
    let u = || column(model.w_u(), 0);
    let found = [
        frozen.pull(Reader::Final, 7, u()),
        frozen.pull(Reader::Mlp(99), 0, u()),
        frozen.pull(Reader::Value(0), 0, normal([3], 1.0, 0)),
    ];
    for (found, named) in found.into_iter().zip(["position", "layer", "covector"]) {
        let error = found.unwrap_err();
        assert!(
            matches!(&error, Error::Unfit { what, .. } if what.starts_with(named)),
            "{error}"
        );
    }
    assert!(Frozen::new(&model, &[], &device()).is_err());
}
