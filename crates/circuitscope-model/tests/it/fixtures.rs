//! Parity on the large fixtures beside the repository. Not run unless asked for:
//! `cargo test -- --ignored`.

use std::collections::BTreeMap;
use std::path::Path;

use circuitscope_core::NoProgress;
use circuitscope_hooks::Site;
use circuitscope_model::{Norm, Processing, TokenBatch, load_dir};
use circuitscope_testkit::{Flex, Golden, Values, assert_close_named, device, fixture};

use crate::folder::ModelFolder;
use crate::{PARITY, capture, check_sites, load, right_padded};

/// Hugging Face's logits and hidden states; the last of these is after the final norm, and after its
/// gain too, so that there is no site for it where the norm is an RMS norm.
fn check_hugging_face(name: &str, folder: &Path, golden: &Golden) {
    let model = load(folder, Processing::Raw);
    let layers = model.config().n_layers;
    let batch = right_padded(&golden.tokens("input_ids"));
    let site = |layer| {
        if layer == layers {
            Site::LnFinalNormalized
        } else {
            Site::ResidPre(layer)
        }
    };
    let sites = (0..=layers).map(site).chain([Site::Logits]);
    let actual = capture(&model, &batch, sites);
    let recorded = match model.config().norm {
        Norm::Rms => layers,
        _ => layers + 1,
    };
    for layer in 0..recorded {
        let key = format!("hf.hidden_states.{layer}");
        let name = format!("{name} {key}");
        assert_close_named(&name, &actual[&site(layer)], golden.floats(&key), PARITY);
    }
    let name = format!("{name} hf.logits");
    assert_close_named(
        &name,
        &actual[&Site::Logits],
        golden.floats("hf.logits"),
        PARITY,
    );
}

/// Both processings, with the number of sites recorded for each.
const fn both(raw: usize, folded: usize) -> [(Processing, &'static str, usize); 2] {
    [
        (Processing::Raw, "tl_raw.", raw),
        (Processing::Folded, "tl_processed.", folded),
    ]
}

#[track_caller]
fn check(name: &str, hugging_face: bool, references: &[(Processing, &str, usize)]) {
    let folder = fixture("models").join(name);
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let mut folders = vec![(name.to_owned(), folder.clone())];
    let v5 = folder.join("config.v5.json");
    let copy = v5.exists().then(|| {
        let copy = ModelFolder::copy_of(&folder);
        copy.write("config.json", &fs_err::read(v5).unwrap());
        copy
    });
    folders.extend(
        copy.iter()
            .map(|copy| (format!("{name} v5"), copy.path().to_owned())),
    );
    assert_eq!(folders.len() == 2, hugging_face, "{name}: config.v5.json");
    for (name, folder) in folders {
        if hugging_face {
            check_hugging_face(&name, &folder, &golden);
        }
        for &(processing, prefix, sites) in references {
            let model = load(&folder, processing);
            let batch = right_padded(&golden.tokens("input_ids"));
            let checked = check_sites(&name, &model, &golden, prefix, &batch);
            assert_eq!(checked, sites, "{name} {prefix}");
        }
    }
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt2() {
    // 2 embeddings, 17 sites in each of 3 blocks, 3 after them (`ln2.hook_scale` is not recorded).
    let sites = 2 + 3 * 17 + 3;
    check("gpt2", true, &both(sites, sites));
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt2_sharded() {
    check("gpt2_sharded", true, &[]);
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt2_bare() {
    check("gpt2_bare", true, &[]);
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn attn_only_ln() {
    let sites = 2 + 2 * 12 + 3;
    check("attn_only_ln", false, &both(sites, sites));
}

/// Stored after processing, so folding it again must change nothing.
#[test]
#[ignore = "needs ../shared/fixtures"]
fn attn_only_lnpre() {
    let stored =
        [Processing::Raw, Processing::Folded].map(|how| (how, "tl_processed.", 2 + 2 * 12 + 3));
    check("attn_only_lnpre", false, &stored);
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt_neox_parallel() {
    check("gpt_neox_parallel", true, &both(58, 58));
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt_neox_sequential() {
    check("gpt_neox_sequential", true, &both(61, 19));
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn llama() {
    check("llama", true, &both(64, 64));
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn qwen2() {
    check("qwen2", true, &both(64, 64));
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gemma2() {
    check("gemma2", true, &both(70, 70));
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn opt() {
    check("opt", true, &both(56, 20));
}

/// Positions count from the first real token, as in `leftpad.position_ids`.
#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt2_left_padded() {
    let folder = fixture("models/gpt2");
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let mask = golden.mask("leftpad.attention_mask");
    let firsts: Vec<usize> = mask
        .iter()
        .map(|row| row.iter().position(|&real| real == 1).unwrap())
        .collect();
    assert_eq!(firsts, [0, 3, 5]);
    let tokens = golden.tokens("leftpad.input_ids");
    let batch = TokenBatch::from_masked(&tokens, &mask, &device()).unwrap();
    for (processing, prefix, parts) in [
        (Processing::Raw, "leftpad.tl_raw.", 20),
        (Processing::Folded, "leftpad.tl_processed.", 5),
        (Processing::Raw, "leftpad.hf.", 1),
    ] {
        let model = load_dir::<Flex>(&folder, processing, &device(), &NoProgress)
            .unwrap()
            .model;
        let expected: BTreeMap<Site, &Values> = golden
            .floats_under(prefix)
            .filter(|(name, _)| *name != "logits_mask_only")
            .map(|(name, values)| {
                (
                    name.trim_end_matches("_with_position_ids").parse().unwrap(),
                    values,
                )
            })
            .collect();
        assert_eq!(expected.len(), parts, "{prefix}: recorded sites");
        let actual = capture(&model, &batch, expected.keys().copied());
        for (site, expected) in expected {
            for (row, &first) in firsts.iter().enumerate() {
                // Without the batch axis: positions lead, or heads and then two position axes.
                let real = |values: &Values| {
                    let row = values.row(row);
                    match site {
                        Site::Pattern(_) | Site::AttnScores(_) => {
                            row.slice(1, first, 12).slice(2, first, 12)
                        }
                        _ => row.slice(0, first, 12),
                    }
                };
                let name = format!("{prefix}{site} row {row}");
                assert_close_named(&name, &real(&actual[&site]), &real(expected), PARITY);
            }
        }
    }
}
