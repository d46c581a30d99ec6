//! A hostile `config.json`: every family's parser, and its table of names against a file that holds no
//! tensor.
#![no_main]

use circuitscope_model::{ModelBytes, Processing, load_bytes};
use libfuzzer_sys::fuzz_target;

/// A header of two bytes, `{}`.
const NO_TENSORS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

fuzz_target!(|config: &[u8]| {
    let files = ModelBytes {
        name: "fuzzed",
        config,
        weights: NO_TENSORS,
        tokenizer: None,
    };
    let loaded = load_bytes::<burn_flex::Flex>(&files, Processing::Raw, &Default::default());
    assert!(loaded.is_err(), "a model without a tensor");
});
