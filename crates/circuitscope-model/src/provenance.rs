use serde::{Deserialize, Serialize};

use crate::fold::Processing;
use crate::precision::Precision;

/// A file that a model was loaded from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileHash {
    /// Its name, without folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

/// What a model is and where it came from; part of every result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelProvenance {
    /// Name of the folder, or of the embedded model.
    pub name: String,
    /// Its family.
    pub family: String,
    /// How its weights were rewritten.
    pub processing: Processing,
    /// What it computes in.
    #[serde(default)]
    pub dtype: Precision,
    /// The files.
    pub files: Vec<FileHash>,
    /// Where on the hub it came from, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubOrigin>,
    /// What was assumed, passed over or resolved between files that disagree: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A commit of a repository of the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HubOrigin {
    /// `owner/name`.
    pub repo: String,
    /// The revision asked for: a branch, a tag or a commit.
    pub revision: String,
    /// The commit that it was, 40 hexadecimal digits.
    pub commit: String,
}
