//! Files: read within bounds, written whole or not at all, and one error that names the file.
//!
//! - [`read`], [`read_to_string`]: no more than [`MOST`] bytes; pipes are read once and kept.
//! - [`write_atomic`], [`write_new`], [`Pending`]: through a temporary file that is renamed at the end.
//! - [`sha256`], [`struct@Hash`]: lowercase hexadecimal.
//! - [`Reader`], [`Writer`]: safetensors. A tensor is read with its shape checked and half precision widened;
//!   equal tensors and metadata are equal bytes.
//!
//! No tensor library is needed.
//!
//! ```
//! use circuitscope_files::{Entry, Metadata, Reader, Writer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = &folder.path().join("x.safetensors");
//! let metadata = Metadata::from([("seed".to_owned(), 7.into())]);
//! let mut file = Writer::create(path, vec![Entry::of::<f32>("x", &[2, 3])], metadata)?;
//! file.fill("x", &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! file.finish()?;
//!
//! let file = Reader::open(path)?;
//! assert_eq!(file.tensor("x")?.shape(&[2, 3])?.f32()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
//! assert_eq!(file.number("seed")?, 7);
//! let error = file.tensor("x")?.shape(&[3, 2]).unwrap_err().to_string();
//! assert!(error.ends_with("x.safetensors: tensor `x`: found shape [2, 3], expected [3, 2]"));
//! # Ok(())
//! # }
//! ```

#[cfg(target_endian = "big")]
compile_error!("numbers in safetensors files are little-endian, and are read as they lie");

pub mod by_head;
mod error;
mod hash;
mod number;
mod read;
mod reader;
mod write;
mod writer;

pub use error::{FileError, FileErrorKind, Result};
pub use hash::{Hash, digest, hex, sha256, sha256_of};
pub use number::{Number, bf16_to_f32, f16_to_f32};
pub use read::{MOST, is_regular, read, read_to_string};
pub use reader::{Reader, Tensor};
/// The type of a tensor's elements.
pub use safetensors::Dtype;
pub use write::{
    Pending, check_output, folder_of, hold_writes, protect, remove, write_atomic, write_new,
};
pub use writer::{Entry, Writer};

/// What a safetensors file says of its making, by name: one JSON object under the one key `circuitscope` of the
/// file's own metadata, which has texts only and no order.
pub type Metadata = std::collections::BTreeMap<String, serde_json::Value>;

/// The key of [`Metadata`].
pub(crate) const METADATA_KEY: &str = "circuitscope";

/// A value of JSON as an error shows it: of a long one the first 60 characters.
///
/// ```
/// assert_eq!(circuitscope_files::shown(&[1, 2].into()), "[1,2]");
/// let long = circuitscope_files::shown(&"x".repeat(100).into());
/// assert_eq!(long.chars().count(), 61);
/// assert!(long.ends_with("x…"));
/// ```
#[must_use]
pub fn shown(value: &serde_json::Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    if text.chars().count() > MOST {
        text.chars().take(MOST).chain("…".chars()).collect()
    } else {
        text
    }
}

/// The line that byte `at` of a text stands in, from 1.
///
/// ```
/// assert_eq!(circuitscope_files::line_of("a\nb\n", 2), 2);
/// ```
#[must_use]
pub fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Why a text is no TOML: what a parser says of byte `at`, in one line.
///
/// ```
/// let said = circuitscope_files::not_toml("a = 1\nb\n", 7, "expected `=`\n");
/// assert_eq!(said, "line 2: not TOML: expected `=`");
/// ```
#[must_use]
pub fn not_toml(text: &str, at: usize, message: &str) -> String {
    let line = line_of(text, at);
    format!(
        "line {line}: not TOML: {}",
        message.trim().replace('\n', " ")
    )
}
