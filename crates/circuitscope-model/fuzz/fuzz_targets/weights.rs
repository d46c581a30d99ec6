//! A hostile safetensors file beside an honest configuration.
#![no_main]

use circuitscope_model::{ModelBytes, Processing, load_bytes};
use libfuzzer_sys::fuzz_target;

const CONFIG: &[u8] = br#"{"model_type":"gpt2","n_layer":1,"n_head":1,"n_embd":2,"n_positions":3,
    "vocab_size":4,"n_inner":2}"#;

fuzz_target!(|weights: &[u8]| {
    let files = ModelBytes {
        name: "fuzzed",
        config: CONFIG,
        weights,
        tokenizer: None,
    };
    let loaded = load_bytes::<burn_flex::Flex>(&files, Processing::Folded, &Default::default());
    if let Err(error) = loaded {
        assert!(!error.to_string().is_empty());
    }
});
