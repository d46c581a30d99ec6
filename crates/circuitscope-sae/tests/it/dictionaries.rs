//! Folders of other tools: `golden/dictionaries.py` made `golden/dictionaries/` with their own code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use circuitscope_sae::{Architecture, Error, Format, SavedSae, load_dir};
use safetensors::SafeTensors;

use crate::{B, device, matrix, values};

/// Of the largest entry: sums of 12 and 20 products of size one, in two orders.
const TOLERANCE: f32 = 1e-6;
const ROWS: usize = 24;
const D_IN: usize = 12;

const GEMMA: &str = "gemma-scope-2b-pt-res/layer_6/width_16k/average_l0_4";

fn folder(name: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/dictionaries");
    golden.join(name)
}

fn load(name: &str) -> SavedSae<B> {
    load_dir::<B>(&folder(name), &device()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

struct Expected(Vec<u8>);

impl Expected {
    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let words = view.data().chunks_exact(4);
        words.map(|word| word.try_into().unwrap()).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name)
            .into_iter()
            .map(f32::from_le_bytes)
            .collect()
    }
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
    assert!(scale > 0.0, "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let gap = (found - expected).abs();
        assert!(
            gap <= TOLERANCE * scale,
            "{what}[{at}]: {found} against {expected}, of {scale}"
        );
    }
}

/// Activations, reconstructions and codes are those of the tool itself.
#[test]
fn folders_of_other_tools_compute_the_same() {
    let expected = Expected(fs_err::read(folder("expected.safetensors")).unwrap());
    let file = SafeTensors::deserialize(&expected.0).unwrap();
    let names = file
        .names()
        .into_iter()
        .filter_map(|name| name.strip_suffix(".codes"));
    let names: BTreeSet<&str> = names.collect();
    assert!(names.len() >= 22, "{names:?}");
    let x = matrix(&expected.floats("x"), ROWS, D_IN);
    let mut read = BTreeSet::new();
    for name in names {
        let saved = load(name);
        let encoder = &saved.encoder;
        read.insert((saved.format, saved.architecture));
        let features = values(&encoder.encode(x.clone()));
        assert_close(
            name,
            &features,
            &expected.floats(&format!("{name}.features")),
        );
        let again = values(&encoder.reconstruct(x.clone()).unwrap());
        assert_close(
            name,
            &again,
            &expected.floats(&format!("{name}.reconstruction")),
        );
        let codes = expected.words(&format!("{name}.codes")).into_iter();
        let codes: Vec<i32> = codes.map(i32::from_le_bytes).collect();
        assert_eq!(encoder.codes(x.clone()).unwrap(), codes, "{name}");
        let inactive: Vec<bool> = codes.iter().map(|code| *code < 0).collect();
        assert_eq!(encoder.inactive(x.clone()).unwrap(), inactive, "{name}");
        for file in &saved.files {
            assert!(file.is_file(), "{name}");
        }
    }
    let lens = Architecture::ALL.map(|architecture| (Format::SaeLens6, architecture));
    for pair in lens.into_iter().chain([
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
