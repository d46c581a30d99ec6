//! Scores taken apart into writers, against the scores of a pass, on models of every family.

use burn::tensor::Tensor;
use circuitscope_core::HeadId;
use circuitscope_hooks::{AnyTensor, Capture, Site, StreamOutputs};
use circuitscope_model::{DecoderConfig, Norm, PaddingSide, Positions, Processing, TokenBatch};
use circuitscope_testkit::{Values, device};

use crate::{B, golden_folder, load};

type Model = circuitscope_model::Decoder<B>;

const TOKENS: [u32; 7] = [1, 5, 2, 9, 2, 7, 3];

/// For every head of a layer the largest difference from the scores of the pass, relative to the largest score, and the
/// largest share that is no writer's.
fn apart(name: &str, model: &Model, layer: usize) -> (f32, f32) {
    let config = model.config();
    let graph = config.graph();
    let batch = TokenBatch::new(&[TOKENS], PaddingSide::Right, &device()).unwrap();
    let mut sites = StreamOutputs::<B>::sites(&graph);
    sites.push(Site::AttnScores(layer));
    let mut capture = Capture::new(sites);
    model.forward(&batch, &mut capture);
    let scores = capture.take(Site::AttnScores(layer));
    let scores = Values::from(scores.unwrap().into_data()).data;
    let outputs = StreamOutputs::take(&graph, capture).unwrap();
    let pos = TOKENS.len();
    let writers = graph.head_writers(layer).start;
    let parts = outputs.writers().slice_dim(1, 0..writers);
    let parts: Tensor<B, 3> = parts.reshape([writers, pos, config.d_model]);
    let (mut worst, mut largest, mut rest) = (0f32, 0f32, 0f32);
    for head in 0..config.n_heads {
        let found = model.score_parts(
            &batch,
            HeadId::new(layer, head),
            &outputs.attn_in[layer],
            parts.clone(),
        );
        // Σ over parts of the queries times Σ over parts of the keys, and without what is nobody's.
        let sum = |x: &Tensor<B, 3>, count: usize| {
            let sum = x.clone().slice_dim(1, 0..count).sum_dim(1);
            Values::from(AnyTensor::<B>::from(sum).into_data()).data
        };
        let dot = |q: &[f32], k: &[f32]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>();
        let d = config.d_head;
        let all = [
            sum(&found.queries, writers + 1),
            sum(&found.keys, writers + 1),
        ];
        let named = [sum(&found.queries, writers), sum(&found.keys, writers)];
        for t in 0..pos {
            for s in 0..=t {
                let expected = scores[(head * pos + t) * pos + s];
                if !expected.is_finite() {
                    continue;
                }
                let at =
                    |[q, k]: &[Vec<f32>; 2]| dot(&q[t * d..(t + 1) * d], &k[s * d..(s + 1) * d]);
                largest = largest.max(expected.abs());
                worst = worst.max((at(&all) - expected).abs());
                rest = rest.max((at(&named) - expected).abs());
            }
        }
    }
    assert!(largest > 1e-3, "{name}: nothing to compare");
    (worst / largest, rest / largest)
}

#[test]
fn parts_add_up_to_the_scores_of_every_family() {
    let families = golden_folder("families");
    // Scores of gemma2 are capped after what is taken apart.
    let names = [
        "gemma",
        "gemma3_text",
        "gpt_neox",
        "gpt_neox_sequential",
        "gptj",
        "llama",
        "llama_biases",
        "llama_rope_linear",
        "llama_rope_llama3",
        "mistral",
        "opt",
        "phi3",
        "qwen2",
        "qwen3",
    ];
    for name in names {
        for processing in [Processing::Raw, Processing::Folded] {
            let Ok(loaded) = crate::try_load(&families.join(name), processing) else {
                continue;
            };
            let model = loaded.model;
            for layer in 0..model.config().n_layers {
                let (worst, rest) = apart(name, &model, layer);
                assert!(worst < 2e-5, "{name}, layer {layer}: {worst}");
                // Without biases, writers are all there is.
                if ["llama", "gemma", "mistral", "phi3", "qwen3"].contains(&name) {
                    assert!(rest < 2e-5, "{name}, layer {layer}: {rest}");
                }
            }
        }
    }
    let (_, rest) = apart("qwen2", &load(&families.join("qwen2"), Processing::Raw), 0);
    assert!(rest > 1e-3, "qwen2 has biases of queries and keys: {rest}");
}

/// Positions that only queries and keys read, and a norm after attention.
#[test]
fn parts_add_up_in_other_wirings() {
    let gpt2 = DecoderConfig::gpt2(2, 2, 8, 8, 11);
    let configs = [
        (
            "shortformer",
            gpt2.clone().with_positions(Positions::Shortformer),
        ),
        (
            "norm after",
            gpt2.clone().with_norm(Norm::Rms).with_norm_after(true),
        ),
        ("parallel", gpt2.with_parallel_attn_mlp(true)),
    ];
    for (name, config) in configs {
        let model: Model = config.init(circuitscope_core::Seed::new(3), &device());
        for layer in 0..2 {
            let (worst, _) = apart(name, &model, layer);
            assert!(worst < 2e-5, "{name}, layer {layer}: {worst}");
        }
    }
}
