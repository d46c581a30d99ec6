//! Models whose circuits are known.

use circuitscope_core::nearest;

use crate::data::data_file;
use crate::error::list;
use crate::spec::Published;
use crate::{Error, Result};

/// The models whose circuits are known for some task: GPT-2 small (12 layers × 12 heads), the
/// attention-only 4-layer model of Heimersheim and Janiak (4 × 8), and the shipped reference
/// model (4 × 8).
pub const MODELS: [&str; 3] = [GPT2_SMALL, ATTN_ONLY_4L, REFERENCE];

pub(crate) const GPT2_SMALL: &str = "gpt2-small";
pub(crate) const ATTN_ONLY_4L: &str = "attn-only-4l";
const REFERENCE: &str = "reference";

/// The circuits that training planted in the reference model.
pub(crate) const PLANTED: Published = Published {
    model: REFERENCE,
    file: data_file!("reference/ground_truth.json"),
};

/// A model whose circuits are known, and what it is recognised by. Its shape is not among that: models
/// of one shape have different circuits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownModel {
    /// Its name, one of [`MODELS`].
    pub name: &'static str,
    /// Its names on the Hugging Face hub.
    pub hub: &'static [&'static str],
    /// SHA-256 of its published weights, in hexadecimal.
    pub weights: &'static [&'static str],
}

/// The models of [`MODELS`], in that order.
pub const KNOWN_MODELS: [KnownModel; 3] = [
    KnownModel {
        name: GPT2_SMALL,
        hub: &["openai-community/gpt2", "gpt2"],
        // model.safetensors of openai-community/gpt2, 548,105,171 bytes.
        weights: &["248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"],
    },
    KnownModel {
        name: ATTN_ONLY_4L,
        hub: &["NeelNanda/Attn_Only_4L512W_C4_Code"],
        weights: &[],
    },
    KnownModel {
        name: REFERENCE,
        hub: &[],
        weights: &["485a1805ecd1f72017153c71d2854e304b516937b8a417a3b4c02d2a9113cfae"],
    },
];

impl KnownModel {
    /// The reference model.
    pub const REFERENCE: Self = KNOWN_MODELS[2];

    /// The model of this name.
    ///
    /// # Errors
    /// [`Error::UnknownModel`].
    pub fn named(name: &str) -> Result<Self> {
        let known = KNOWN_MODELS.into_iter().find(|model| model.name == name);
        known.ok_or_else(|| Error::UnknownModel {
            found: name.to_owned(),
            nearest: nearest(name, MODELS),
            known: list(&MODELS),
        })
    }

    /// Whether one of these is a hash of its weights.
    pub fn has_weights<'a>(&self, mut sha256: impl Iterator<Item = &'a str>) -> bool {
        sha256.any(|found| self.weights.contains(&found))
    }
}
