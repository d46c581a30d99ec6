//! Folders of other tools: `golden/dictionaries.py` made `golden/dictionaries/` with their own code.

use std::collections::BTreeSet;
use std::path::PathBuf;

use circuitscope_sae::{Architecture, Error, Format, SavedSae, load_dir};
use safetensors::SafeTensors;

use crate::golden_rows::{self, Golden};
use crate::{B, device, matrix, values};

const D_IN: usize = 12;

const GEMMA: &str = "gemma-scope-2b-pt-res/layer_6/width_16k/average_l0_4";

fn folder(name: &str) -> PathBuf {
    golden_rows::folder("dictionaries").join(name)
}

fn load(name: &str) -> SavedSae<B> {
    golden_rows::load("dictionaries", name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Activations, reconstructions and codes are those of the tool itself.
#[test]
fn folders_of_other_tools_compute_the_same() {
    let golden = Golden::read("dictionaries");
    let rows = golden.rows();
    assert!(rows.len() >= 22, "{}", rows.len());
    let mut read = BTreeSet::new();
    for row in rows {
        row.assert_close();
        row.assert_codes(golden.x());
        read.insert((row.saved.format, row.saved.architecture));
    }
    let lens = Architecture::ALL.into_iter();
    // Of sparsify alone.
    let lens = lens.filter(|architecture| *architecture != Architecture::GroupMax);
    let lens = lens.map(|architecture| (Format::SaeLens6, architecture));
    for pair in lens.chain([
        (Format::SaeLens5, Architecture::Standard),
        (Format::SaeLens5, Architecture::TopK),
        (Format::SaeLens5, Architecture::JumpRelu),
        (Format::SaeLens5, Architecture::Gated),
        (Format::Sparsify, Architecture::TopK),
        (Format::GemmaScope, Architecture::JumpRelu),
    ]) {
        assert!(read.contains(&pair), "{pair:?}");
    }
}

#[test]
fn what_dictionaries_were_trained_on() {
    let hook = |name: &str| load(name).trained_on.hook_name;
    for (name, expected) in [
        ("standard", Some("blocks.3.attn.hook_result")),
        ("topk", Some("blocks.5.hook_resid_post")),
        ("topk-hook-z", Some("blocks.1.attn.hook_z")),
        ("gated", None),
        ("saelens-5-topk", Some("blocks.3.hook_resid_pre")),
        ("saelens-5-jumprelu", Some("blocks.3.attn.hook_result")),
        ("sparsify", None),
        ("layers.7.mlp", Some("blocks.7.hook_mlp_out")),
        (GEMMA, Some("blocks.6.hook_resid_post")),
    ] {
        assert_eq!(hook(name).as_deref(), expected, "{name}");
    }
    let standard = load("standard").trained_on;
    assert_eq!(standard.model.as_deref(), Some("gpt2-small"));
    assert_eq!(standard.hook_head_index, Some(2));
    assert_eq!(load("saelens-5-topk").trained_on.prepend_bos, Some(true));
}

#[test]
fn other_sites_and_widths_do_not_fit() {
    let heads = Some("attn.hook_result");
    for name in ["standard", "gated", "sparsify"] {
        load(name).fits(heads, D_IN).unwrap();
    }
    let message = |name: &str, site, width| {
        let error = load(name).fits(site, width).unwrap_err();
        assert!(matches!(error, Error::Unfit { .. }));
        error
            .to_string()
            .replace(&format!("{}: ", folder(name).display()), "")
    };
    assert_eq!(
        message("topk", heads, D_IN),
        "found activations of attn.hook_result, width 12, expected those that the dictionary takes, of \
         blocks.5.hook_resid_post, width 12"
    );
    assert_eq!(
        message("topk-hook-z", heads, D_IN),
        "found activations of attn.hook_result, width 12, expected those that the dictionary takes, of \
         blocks.1.attn.hook_z, width 12"
    );
    assert_eq!(
        message("gated", heads, 7),
        "found activations of attn.hook_result, width 7, expected those that the dictionary takes, of width 12"
    );
    load("topk").fits(None, D_IN).unwrap();
    assert!(load("topk").fits(None, 7).is_err());
}

/// `golden/attention_output.py` made the folder.
#[test]
fn attention_output_dictionaries() {
    let folder = golden_rows::folder("attention-output");
    let saved = load_dir::<B>(&folder, &device()).unwrap();
    assert_eq!(saved.format, Format::AttentionOutput);
    assert_eq!(saved.architecture, Architecture::Standard);
    let on = &saved.trained_on;
    assert_eq!(on.hook_name.as_deref(), Some("blocks.1.attn.hook_z"));
    assert_eq!((on.folded, on.hook_head_index), (Some(true), None));
    let bytes = fs_err::read(folder.join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let words = file.tensor(name).unwrap().data().chunks_exact(4);
        words
            .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    };
    let x = matrix(&floats("x"), 4, 6);
    let features = saved.encoder.encode(x.clone());
    let made = saved.encoder.reconstruct(x).unwrap();
    for (found, expected) in [
        (values(&features), floats("features")),
        (values(&made), floats("reconstruction")),
    ] {
        let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(largest > 0.5);
        for (found, expected) in found.iter().zip(&expected) {
            let off = (found - expected).abs();
            assert!(
                off <= golden_rows::TOLERANCE * largest,
                "{found} {expected}"
            );
        }
    }
    // Two in one folder are none.
    let two = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs_err::write(two.path().join(format!("{name}_cfg.json")), "{}").unwrap();
        fs_err::write(two.path().join(format!("{name}.pt")), "").unwrap();
    }
    let refused = load_dir::<B>(two.path(), &device()).unwrap_err();
    assert!(matches!(refused, Error::Folder { .. }), "{refused}");
}
