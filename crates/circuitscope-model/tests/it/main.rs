//! Integration tests of `circuitscope-model`.
#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod early_stop;
mod edges;
mod families;
mod faults;
mod fixtures;
mod folder;
mod formats;
mod gguf;
mod golden;
mod head_means;
#[cfg(feature = "hub")]
mod hub;
mod padding;
mod precision;
mod published;
mod resume;
mod saving;
mod score_parts;
mod split_inputs;
mod tokenizer;
mod tokenizer_files;
mod tracr;
mod training;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_core::{Exec, NoProgress};
use circuitscope_hooks::{Capture, Site};
use circuitscope_model::{
    Decoder, Error, LoadSettings, Loaded, PaddingSide, Processing, TokenBatch, load_dir,
};
use circuitscope_testkit::{Flex, Golden, Values, assert_close_named, device};

type B = Flex;

/// f32 in another order of summation: the references themselves differ by up to 1.1e-5 among each
/// other, while a wrong ε or the other GELU moves the logits by more (see the fixtures' README).
const PARITY: f32 = 5e-5;

/// Padding changes the shape of the matrix products and thereby their rounding, nothing else.
const PADDING: f32 = 1e-5;

fn golden_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden")
        .join(name)
}

fn try_load(folder: &Path, processing: Processing) -> Result<Loaded<B>, Error> {
    let settings = LoadSettings::from(processing).with_exec(Exec::all_cores());
    load_dir(folder, settings, &device(), &NoProgress)
}

fn load(folder: &Path, processing: Processing) -> Decoder<B> {
    try_load(folder, processing).unwrap().model
}

fn right_padded<S: AsRef<[u32]>>(prompts: &[S]) -> TokenBatch<B> {
    TokenBatch::new(prompts, PaddingSide::Right, &device()).unwrap()
}

/// Activations of one pass that wants all of `sites`.
fn capture(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    sites: impl IntoIterator<Item = Site>,
) -> BTreeMap<Site, Values> {
    let mut capture = Capture::new(sites);
    model.forward(batch, &mut capture);
    let values = capture.finish().unwrap().into_iter();
    values
        .map(|(site, value)| (site, value.into_data().into()))
        .collect()
}

/// Compares every tensor of a golden file under `prefix` with the site of that name. Returns how many
/// there were.
fn check_sites(
    name: &str,
    model: &Decoder<B>,
    golden: &Golden,
    prefix: &str,
    batch: &TokenBatch<B>,
) -> usize {
    let expected: BTreeMap<Site, &Values> = golden
        .floats_under(prefix)
        .map(|(site, values)| (site.parse().unwrap(), values))
        .collect();
    let actual = capture(model, batch, expected.keys().copied());
    for (site, expected) in &expected {
        let name = format!("{name} {prefix}{site}");
        assert_close_named(&name, &actual[site], expected, PARITY);
    }
    expected.len()
}
