use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

use circuitscope_core::did_you_mean;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{field} is {found}: expected {expected}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// The activations do not have the dictionary's width.
    #[error("the activations have width {found}, the dictionary takes d_in = {expected}")]
    Width {
        /// The dictionary's `d_in`.
        expected: usize,
        /// Width of the activations.
        found: usize,
    },
    /// There is nothing to train on.
    #[error("no activations to train on")]
    Empty,
    /// Activations hold NaN or infinite values.
    #[error("the activations hold NaN or infinite values in rows {} to {}", rows.start, rows.end.saturating_sub(1))]
    NonFinite {
        /// Rows among which the first of them is.
        rows: Range<usize>,
    },
    /// Training left the finite numbers.
    #[error(
        "training diverged: before step {step} the weights or the loss were no longer finite; \
         a smaller l1_coefficient or learning_rate may help"
    )]
    Diverged {
        /// The first step, from 0, whose loss is not finite; the number of steps if only the final
        /// weights are not.
        step: usize,
    },
    /// The caller asked to stop.
    #[error("training was cancelled before step {step}")]
    Cancelled {
        /// The step, from 0, that was to come next.
        step: usize,
    },
    /// The device failed while results were read back.
    #[error("the device failed: {message}")]
    Device {
        /// What it reported.
        message: String,
    },
    /// A folder or a file of weights could not be read; the source names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] circuitscope_files::FileError),
    /// `cfg.json` is not JSON of the expected form.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not YAML of the expected form.
    #[error("{}: {reason}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A field of `cfg.json` has a value that this crate cannot honour.
    #[error("{}: {field} is {found}: expected {expected}{}", path.display(), did_you_mean(nearest.as_deref()))]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value, as JSON, or `missing`.
        found: String,
        /// What would do.
        expected: String,
        /// The valid choice most like the value.
        nearest: Option<String>,
    },
    /// A dictionary of another tool, or one that its tool computes otherwise.
    #[error("{}: this is {found}", path.display())]
    OtherFormat {
        /// Its `cfg.json`.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// A folder that holds no dictionary, or that of more than one tool.
    #[error(
        "{}: found {}, expected one dictionary: cfg.json and sae_weights.safetensors (circuitscope, SAELens), cfg.json and \
         sae.safetensors (sparsify), params.npz (Gemma Scope), params.safetensors (Gemma Scope 2), hyperparams.json and \
         checkpoints/ (Llama Scope), config.json and ae.pt (dictionary_learning), or NAME.pt and NAME_cfg.json (attention-output-saes)",
        path.display(),
        list(found, "nothing")
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What lies there, in order.
        found: Vec<String>,
    },
    /// A dictionary that was trained on other activations than those it is to encode, or on activations of another
    /// width.
    #[error("{}", unfit(path, hook.as_deref(), *d_in, site.as_deref(), *width))]
    Unfit {
        /// Its folder.
        path: PathBuf,
        /// The site that it was trained on, where it says so.
        hook: Option<String>,
        /// The width that it takes.
        d_in: usize,
        /// The site of the activations, without layer, where it was compared.
        site: Option<String>,
        /// Their width.
        width: usize,
    },
    /// A dictionary that was trained on other activations than those it is to encode, or one of a set that does not fit the
    /// others.
    #[error("{}: {what}: found {found}, expected {expected}", path.display())]
    Unsuited {
        /// Its folder.
        path: PathBuf,
        /// What does not fit: `width`, `site`, `layer`.
        what: &'static str,
        /// As it is.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// `cfg.json` has a field that neither its tool nor this crate is known to write.
    #[error("{}: unknown field {field:?}{}", path.display(), did_you_mean(nearest.as_deref()))]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The known field most like it.
        nearest: Option<String>,
    },
    /// A file is not valid safetensors.
    #[error("{}: not a safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A file is not an npz archive that can be read.
    #[error("{}: not an npz archive: {reason}", path.display())]
    Npz {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is not a state dict of PyTorch that can be read without running it.
    #[error("{}: not a state dict: {reason}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor is not in the file.
    #[error("{}: no tensor {tensor:?}; the file holds {}", path.display(), list(found, "none"))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// The tensors that are there.
        found: Vec<String>,
    },
    /// A tensor does not belong in the file.
    #[error("{}: unexpected tensor {tensor:?}{}", path.display(), did_you_mean(nearest.as_deref()))]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The expected tensor most like it.
        nearest: Option<String>,
    },
    /// A tensor does not have the shape that `cfg.json` implies.
    #[error("{}: tensor {tensor:?} has shape {found:?}: expected {expected:?} ({axes})", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// The shape that `d_in` and `d_sae` of `cfg.json` imply.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
        /// The axes by name, e.g. `[d_in, d_sae]`.
        axes: &'static str,
    },
    /// A tensor has an element type that cannot be read.
    #[error("{}: tensor {tensor:?} has type {found}: expected F32, F16 or BF16", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// Its type, as safetensors names it.
        found: String,
    },
    /// A tensor has values that its architecture cannot have.
    #[error("{}: tensor {tensor:?} has {found}: expected {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// What it has, and where.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A tensor holds a NaN or an infinity.
    #[error("{}: tensor {tensor:?} holds {value} at {index:?}", path.display())]
    NonFiniteWeight {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
        /// Where the first of them is.
        index: Vec<usize>,
        /// The value.
        value: f32,
    },
}

/// The result of this crate's functions.
pub type Result<T> = core::result::Result<T, Error>;

fn list(names: &[String], none: &str) -> String {
    if names.is_empty() {
        none.to_owned()
    } else {
        names.join(", ")
    }
}

fn unfit(path: &Path, hook: Option<&str>, d_in: usize, site: Option<&str>, width: usize) -> String {
    let of = |site: Option<&str>| site.map_or_else(String::new, |site| format!("{site}, "));
    format!(
        "{}: found activations of {}width {width}, expected those that the dictionary takes, of {}width {d_in}",
        path.display(),
        of(site),
        of(hook)
    )
}
