//! Parity with Hugging Face and TransformerLens on the committed golden models
//! (`golden/generate.py`).

use burn::tensor::activation::log_softmax;
use circuitscope_hooks::{Site, SiteCatalog};
use circuitscope_model::{Decoder, Processing, TokenBatch};
use circuitscope_testkit::{Golden, Values, assert_close_named, device};

use crate::{PARITY, check_sites, golden_folder, load, right_padded};

const BOTH: [(Processing, &str); 2] = [
    (Processing::Raw, "tl_raw."),
    (Processing::Folded, "tl_processed."),
];

/// Every site that TransformerLens computes by default: all but those that split the inputs, and what MLPs multiply.
fn check(name: &str) {
    let folder = golden_folder(name);
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let batch = right_padded(&golden.tokens("input_ids"));
    for (processing, prefix) in BOTH {
        let model = load(&folder, processing);
        let checked = check_sites(name, &model, &golden, prefix, &batch);
        let catalog: SiteCatalog = model.config().catalog();
        let all = catalog.sites();
        let inputs = all
            .iter()
            .filter(|site| {
                let site = site.to_string();
                site.ends_with("_input")
                    || site.ends_with("hook_mlp_in")
                    || site.ends_with("mlp.hook_in")
            })
            .count();
        assert_eq!(
            checked,
            all.len() - inputs,
            "{name}: sites in the reference"
        );
    }
}

#[test]
fn gpt2_matches_transformer_lens_at_every_site() {
    check("gpt2_tiny");
}

#[test]
fn shortformer_matches_transformer_lens_at_every_site() {
    check("attn_only_shortformer");
}

#[test]
fn bidirectional_relu_without_norms_matches_transformer_lens_at_every_site() {
    check("bidirectional");
}

#[test]
fn gpt2_matches_hugging_face() {
    let folder = golden_folder("gpt2_tiny");
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let model = load(&folder, Processing::Raw);
    let logits = model.logits(&right_padded(&golden.tokens("input_ids")));
    assert_close_named("logits", &logits.into(), golden.floats("hf.logits"), PARITY);
}

/// Exact GELU, unscaled scores divided by the layer's number, a narrow MLP, a large ε, an untied head.
#[test]
fn gpt2_options_match_hugging_face() {
    let folder = golden_folder("gpt2_options");
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let model = load(&folder, Processing::Raw);
    let batch = right_padded(&golden.tokens("input_ids"));
    let sites = (0..3).map(Site::ResidPre);
    let sites: Vec<Site> = sites
        .chain([Site::LnFinalNormalized, Site::Logits])
        .collect();
    let actual = crate::capture(&model, &batch, sites.iter().copied());
    let names = (0..4).map(|layer| format!("hf.hidden_states.{layer}"));
    for (site, name) in sites.iter().zip(names.chain(["hf.logits".to_owned()])) {
        assert_close_named(&name, &actual[site], golden.floats(&name), PARITY);
    }
    let folded = load(&folder, Processing::Folded);
    let said = |model: &Decoder<crate::B>| Values::from(log_softmax(model.logits(&batch), 2));
    assert_close_named("folded", &said(&folded), &said(&model), PARITY);
}

#[test]
fn left_padded_gpt2_matches_hugging_face() {
    let folder = golden_folder("gpt2_tiny");
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let model = load(&folder, Processing::Raw);
    let mask = golden.mask("leftpad.attention_mask");
    let tokens = golden.tokens("leftpad.input_ids");
    let batch = TokenBatch::from_masked(&tokens, &mask, &device()).unwrap();
    let logits = Values::from(model.logits(&batch));
    let expected = golden.floats("leftpad.logits");
    for (row, mask) in mask.iter().enumerate() {
        let first = mask.iter().position(|&real| real == 1).unwrap();
        let real = |values: &Values| values.row(row).slice(0, first, mask.len());
        let name = format!("row {row}");
        assert_close_named(&name, &real(&logits), &real(expected), PARITY);
    }
}

/// Folding moves numbers between sites and keeps what the model says.
#[test]
fn folding_keeps_log_probabilities_and_centres_the_stream() {
    let folder = golden_folder("gpt2_tiny");
    let [raw, folded] = [Processing::Raw, Processing::Folded].map(|how| load(&folder, how));
    let batch = right_padded(&[[3u32, 1, 4, 1, 5]]);
    let said = |model: &Decoder<crate::B>| Values::from(log_softmax(model.logits(&batch), 2));
    assert_close_named("log-probabilities", &said(&folded), &said(&raw), PARITY);

    let stream = |model| {
        let mut sites = crate::capture(model, &batch, [Site::ResidPost(1)]);
        let mean = sites
            .remove(&Site::ResidPost(1))
            .unwrap()
            .tensor::<3>()
            .mean_dim(2);
        mean.abs().max().into_scalar()
    };
    assert!(stream(&raw) > 0.01, "the test model must need centring");
    assert!(stream(&folded) < 1e-5);
}
