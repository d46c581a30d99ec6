//! Models with their MLPs replaced.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use circuitscope_features::{Leftover, ReplaceMlps, Transcoders};
use circuitscope_hooks::{Capture, Intervene, Intervention, Op, Site};
use circuitscope_model::{Decoder, PaddingSide, Processing, TokenBatch};
use circuitscope_sae::Encoder;

use crate::models::{B, Small, TOKENS, device, model, models};

fn batch() -> TokenBatch<B> {
    TokenBatch::new(&[&TOKENS[..], &[4, 4, 1]], PaddingSide::Right, &device()).unwrap()
}

/// Logits, outputs of the MLP of layer 1, and what was left over.
fn run(
    model: &Decoder<B>,
    coders: &Transcoders<'_, B>,
    leftover: Leftover<B>,
    changes: Vec<Intervention<B>>,
) -> (Tensor<B, 3>, Tensor<B, 3>, BTreeMap<usize, Tensor<B, 3>>) {
    let replace = ReplaceMlps::new(coders, model.config()).unwrap();
    let capture = Capture::new([Site::Logits, Site::MlpOut(1)]);
    let mut run = (
        Intervene::new(changes),
        replace.with_leftover(leftover),
        capture,
    );
    model.forward(&batch(), &mut run);
    let mut take = |site| run.2.take(site).and_then(|x| x.get::<3>()).unwrap();
    (take(Site::Logits), take(Site::MlpOut(1)), run.1.errors())
}

fn largest(x: Tensor<B, 3>) -> f32 {
    x.abs().max().into_scalar()
}

#[test]
fn with_the_error_the_model_is_itself() {
    for (name, model) in models() {
        let d = model.config().d_model;
        let coders = [Small::random(d, 12, d, 1), Small::random(d, 20, d, 2)];
        let coders: Transcoders<'_, B> = coders
            .iter()
            .enumerate()
            .map(|(layer, coder)| (layer, coder as &dyn Encoder<B>))
            .collect();
        let clean = model.logits(&batch());
        let scale = largest(clean.clone());
        let (_, _, errors) = run(&model, &Transcoders::new(), Leftover::Dropped, Vec::new());
        assert!(errors.is_empty());
        // The errors of the pass that is replaced as it goes are not those of the model: take them layer by layer.
        let mut held = BTreeMap::new();
        for layer in 0..2 {
            let one = Transcoders::from([(layer, coders[&layer])]);
            let (_, _, mut errors) = run(&model, &one, Leftover::Dropped, Vec::new());
            held.insert(layer, errors.remove(&layer).unwrap());
        }
        let (with, _, _) = run(&model, &coders, Leftover::Held(held.clone()), Vec::new());
        let (without, _, _) = run(&model, &coders, Leftover::Dropped, Vec::new());
        let off = largest(with - clean.clone()) / scale;
        assert!(off < 1e-5, "{name}: {off}");
        let off = largest(without - clean) / scale;
        assert!(
            off > 1e-2,
            "{name}: random transcoders change nothing, {off}"
        );
    }
}

/// The replaced output is what the encoder makes of the input, also of an input that was changed.
#[test]
fn the_output_is_the_transcoders() {
    let model = model("llama", Processing::Folded);
    let d = model.config().d_model;
    let coder = Small::random(d, 20, d, 2);
    let coders = Transcoders::from([(1, &coder as &dyn Encoder<B>)]);
    let zeroed = vec![Intervention::new(Site::MlpHookIn(1), Op::Zero)];
    let (_, found, _) = run(&model, &coders, Leftover::Dropped, zeroed);
    let nothing = coder.reconstruct(Tensor::zeros([1, d], &device())).unwrap();
    let expected = nothing.unsqueeze_dim::<3>(0).expand(found.dims());
    assert!(largest(found - expected) < 1e-6);
}

#[test]
fn transcoders_that_do_not_fit() {
    let model = model("llama", Processing::Folded);
    let d = model.config().d_model;
    let (fits, narrow) = (Small::random(d, 4, d, 0), Small::random(3, 4, d, 0));
    for (layer, coder) in [(9, &fits), (0, &narrow)] {
        let coders = Transcoders::from([(layer, coder as &dyn Encoder<B>)]);
        let error = ReplaceMlps::new(&coders, model.config()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("transcoder of layer {layer}"))
        );
    }
}
