use burn::tensor::backend::Backend;
use circuitscope_sae::{SavedSae, TrainedOn};
use serde::Serialize;

/// What results say of a dictionary that was there already.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DictionaryOrigin {
    /// Its folder.
    pub folder: String,
    /// Whose files they are.
    pub format: String,
    /// What it computes.
    pub architecture: String,
    /// What it was trained on.
    pub trained_on: TrainedOn,
}

impl DictionaryOrigin {
    /// Of a dictionary that was read.
    #[must_use]
    pub fn of<B: Backend>(saved: &SavedSae<B>) -> Self {
        Self {
            folder: saved.folder.display().to_string(),
            format: saved.format.to_string(),
            architecture: saved.architecture.to_string(),
            trained_on: saved.trained_on.clone(),
        }
    }
}
