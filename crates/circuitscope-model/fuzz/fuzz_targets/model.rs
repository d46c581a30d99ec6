//! Both files hostile: two bytes with the length of the configuration, the configuration, the weights.
//! What loads must run.
#![no_main]

use circuitscope_core::Exec;
use circuitscope_model::{
    LoadSettings, ModelBytes, PaddingSide, Precision, Processing, TokenBatch, load_bytes,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let Some((config, weights)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
        return;
    };
    let files = ModelBytes {
        name: "fuzzed",
        config,
        weights,
        tokenizer: None,
    };
    let device = Default::default();
    for processing in [Processing::Raw, Processing::Folded] {
        let settings = LoadSettings::default().with_processing(processing).with_precision(Precision::F32).with_strict_config(false).with_exec(Exec::all_cores());
        if let Ok(loaded) = load_bytes::<burn_flex::Flex>(&files, settings, &device) {
            let prompt = vec![0; loaded.model.config().n_ctx.min(5)];
            let batch = TokenBatch::new(&[prompt], PaddingSide::Right, &device);
            if let Ok(batch) = batch {
                loaded.model.logits(&batch);
            }
        }
    }
});
