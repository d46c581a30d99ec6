//! The reference model: a transformer of 4 layers × 8 heads that was trained for this project to perform the four tasks
//! with a planted circuit, and what a CPU computes with it.
//!
//! `datasets/reference/README.md` of the repository says how it was trained, and how well it does. Which heads are in
//! its circuits is told by `circuitscope-tasks`.
//!
//! ```
//! let files = circuitscope_reference::FILES;
//! let config = std::str::from_utf8(files.config)?;
//! assert!(config.contains("\"n_layer\": 4"), "{config}");
//! assert_eq!(files.weights.len(), 2_581_504);
//! # Ok::<(), std::str::Utf8Error>(())
//! ```

/// The files of the model.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Files {
    /// `config.json`, of the family GPT-2.
    pub config: &'static [u8],
    /// `model.safetensors`: f32, 2.6 MB.
    pub weights: &'static [u8],
    /// `tokenizer.json`: one token for each word, words separated by spaces.
    pub tokenizer: &'static [u8],
}

/// The model.
pub const FILES: Files = Files {
    config: include_bytes!("../data/config.json"),
    weights: include_bytes!("../data/model.safetensors"),
    tokenizer: include_bytes!("../data/tokenizer.json"),
};

/// What a CPU computes with it: a safetensors file, which `circuitscope::conformance` reads to check a device.
pub const CONFORMANCE: &[u8] = include_bytes!("../data/conformance.safetensors");
