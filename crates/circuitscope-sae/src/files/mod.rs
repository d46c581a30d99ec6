//! Dictionaries on disk: what a folder holds is told by its files.

mod activations;
mod attention_output;
mod circuit_tracer;
mod dictionary_learning;
mod gemma_scope;
mod gemma_scope_2;
mod keys;
mod llama_scope;
mod sae_lens;
mod set;
mod sparsify;
mod trained_on;
mod write;

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::backend::Backend;

pub use activations::Activations;
pub use sae_lens::{CFG_FILE, SaeMetadata, WEIGHTS_FILE, save_dir};
pub use set::{TranscoderSet, load_layer, load_set};
pub use trained_on::TrainedOn;
pub use write::{SPARSITY_FILE, save_trained};

use crate::architecture::Settings;
use crate::tensors::Tensors;
use crate::{Architecture, Encoder, Error, Result};

/// Whose files a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `cfg.json` and `sae_weights.safetensors` of SAELens 6 and of this crate.
    SaeLens6,
    /// The same files of SAELens 3 to 5: everything in one object.
    SaeLens5,
    /// `cfg.json` and `sae.safetensors` of sparsify (Eleuther AI).
    Sparsify,
    /// `params.npz` of Gemma Scope.
    GemmaScope,
    /// `params.safetensors` of Gemma Scope 2.
    GemmaScope2,
    /// `hyperparams.json` and `checkpoints/final.safetensors` of Llama Scope.
    LlamaScope,
    /// `config.json` and `ae.pt` of `dictionary_learning`.
    DictionaryLearning,
    /// `NAME.pt` and `NAME_cfg.json` of the attention-output dictionaries of Kissane and others.
    AttentionOutput,
    /// A layer of a set of circuit-tracer ([`load_set`]).
    CircuitTracer,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SaeLens6 => "SAELens 6",
            Self::SaeLens5 => "SAELens 3 to 5",
            Self::Sparsify => "sparsify",
            Self::GemmaScope => "Gemma Scope",
            Self::GemmaScope2 => "Gemma Scope 2",
            Self::LlamaScope => "Llama Scope",
            Self::DictionaryLearning => "dictionary_learning",
            Self::AttentionOutput => "attention-output-saes",
            Self::CircuitTracer => "circuit-tracer",
        })
    }
}

/// A dictionary read from a folder.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SavedSae<B: Backend> {
    /// The dictionary.
    pub encoder: Arc<dyn Encoder<B>>,
    /// What it computes.
    pub architecture: Architecture,
    /// Whether it is a transcoder: what it writes is not what it reads but another activation
    /// ([`hook_name_out`](TrainedOn::hook_name_out)), which may be as wide.
    pub transcodes: bool,
    /// Whose files they are.
    pub format: Format,
    /// What it was trained on.
    pub trained_on: TrainedOn,
    /// What the folder says about its making, where this crate wrote it.
    pub metadata: SaeMetadata,
    /// The folder.
    pub folder: PathBuf,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl<B: Backend> SavedSae<B> {
    /// Whether it can encode activations of width `width` at `site`, under TransformerLens' name without layer, e.g.
    /// `attn.hook_result` for the outputs of heads. A folder that does not say what it was trained on fits every site;
    /// with `None` the site is not compared, only the width. [`suits`](Self::suits) compares more.
    ///
    /// # Errors
    /// [`Error::Unfit`], which names both.
    ///
    /// # Examples
    /// ```
    /// # use circuitscope_core::Seed;
    /// # use circuitscope_sae::{SaeConfig, SaeMetadata, load_dir, save_dir};
    /// # type B = burn_flex::Flex;
    /// # let device = Default::default();
    /// # let folder = tempfile::tempdir()?;
    /// # let sae = SaeConfig::new(6).with_d_sae(4).init::<B>(Seed::new(0), &device)?;
    /// # save_dir(&sae, &SaeMetadata::default(), folder.path())?;
    /// let mut saved = load_dir::<B>(folder.path(), &device)?;
    /// saved.fits(Some("attn.hook_result"), 6)?;
    /// assert!(saved.fits(Some("attn.hook_result"), 7).is_err());
    /// saved.trained_on.hook_name = Some("blocks.0.attn.hook_z".to_owned());
    /// assert!(saved.fits(Some("attn.hook_result"), 6).is_err());
    /// saved.fits(None, 6)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fits(&self, site: Option<&str>, width: usize) -> Result<()> {
        let d_in = self.encoder.d_in();
        let other = site.is_some_and(|site| self.trained_on.site().is_some_and(|own| own != site));
        if width == d_in && !other {
            return Ok(());
        }
        Err(Error::Unfit {
            path: self.folder.clone(),
            hook: self.trained_on.hook_name.clone(),
            d_in,
            site: site.map(str::to_owned),
            width,
        })
    }
}

/// Reads the dictionary in the folder `folder`:
///
/// - `cfg.json` and `sae_weights.safetensors`: what [`save_dir`] wrote, or SAELens 6, or SAELens 3 to 5, of any
///   [`Architecture`], autoencoders and transcoders;
/// - `cfg.json` and `sae.safetensors`: `TopK` of sparsify, autoencoders and transcoders, with and without skip connection;
/// - `params.npz`: `JumpReLU` of Gemma Scope, autoencoders and transcoders;
/// - `params.safetensors`: the same of Gemma Scope 2, with and without skip connection;
/// - `hyperparams.json` and `checkpoints/final.safetensors`: `JumpReLU` of Llama Scope, autoencoders and transcoders;
/// - `NAME.pt` and `NAME_cfg.json`: attention-output dictionaries of Kissane and others (arXiv 2406.17759);
/// - `config.json` and `ae.pt`: autoencoders of `dictionary_learning`. A pickle is interpreted, never run: what is no tensor
///   is an error.
///
/// A set of transcoders of several layers is read by [`load_set`]. Weights in f16 or bf16 are widened. Every key of a JSON
/// file is read, known to change nothing, or refused.
///
/// # Errors
/// Names the file, the field or tensor, what was found and what was expected: [`Error::Folder`] for a folder that
/// holds none of these or more than one, [`Error::Io`], [`Error::Json`], [`Error::OtherFormat`], [`Error::Field`],
/// [`Error::UnknownField`], [`Error::Safetensors`], [`Error::Npz`], [`Error::MissingTensor`],
/// [`Error::UnexpectedTensor`], [`Error::Shape`], [`Error::Dtype`], [`Error::NonFiniteWeight`], [`Error::Tensor`],
/// [`Error::Pickle`].
pub fn load_dir<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let found = names(folder)?;
    let (&[kind], false) = (
        Kind::all_of(&found).as_slice(),
        circuit_tracer::is_set(&found),
    ) else {
        return Err(if circuit_tracer::is_set(&found) {
            Error::OtherFormat {
                path: folder.join(circuit_tracer::FILE),
                found:
                    "a set of transcoders of several layers: expected the folder of one dictionary"
                        .to_owned(),
            }
        } else {
            Error::Folder {
                path: folder.to_owned(),
                found,
            }
        });
    };
    match kind {
        Kind::SaeLens => sae_lens::load(folder, device),
        Kind::Sparsify => sparsify::load(folder, device),
        Kind::GemmaScope => gemma_scope::load(folder, device),
        Kind::GemmaScope2 => gemma_scope_2::load(folder, device),
        Kind::LlamaScope => llama_scope::load(folder, device),
        Kind::DictionaryLearning => dictionary_learning::load(folder, device),
        Kind::AttentionOutput => attention_output::load(
            folder,
            attention_output::name(&found).unwrap_or_default(),
            device,
        ),
    }
}

/// Whose files a folder seems to hold.
#[derive(Clone, Copy)]
enum Kind {
    SaeLens,
    Sparsify,
    GemmaScope,
    GemmaScope2,
    LlamaScope,
    DictionaryLearning,
    AttentionOutput,
}

impl Kind {
    /// All that have their files there.
    fn all_of(found: &[String]) -> Vec<Self> {
        let has = |name: &str| found.iter().any(|found| found == name);
        let folder = |name: &str| has(&format!("{name}/"));
        let kinds = [
            (has(CFG_FILE) && has(WEIGHTS_FILE), Self::SaeLens),
            (has(CFG_FILE) && has(sparsify::WEIGHTS_FILE), Self::Sparsify),
            (has(gemma_scope::FILE), Self::GemmaScope),
            (has(gemma_scope_2::FILE), Self::GemmaScope2),
            (
                has(llama_scope::FILE) && folder(llama_scope::CHECKPOINTS),
                Self::LlamaScope,
            ),
            (
                has(dictionary_learning::FILE) && has(dictionary_learning::WEIGHTS_FILE),
                Self::DictionaryLearning,
            ),
            (
                attention_output::name(found).is_some(),
                Self::AttentionOutput,
            ),
        ];
        let fitting = kinds.into_iter().filter(|(fits, _)| *fits);
        fitting.map(|(_, kind)| kind).collect()
    }
}

/// What lies in a folder, in order; folders end with `/`.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}

/// A dictionary of these tensors.
struct Found<'a> {
    format: Format,
    architecture: Architecture,
    settings: Settings,
    trained_on: TrainedOn,
    metadata: SaeMetadata,
    folder: &'a Path,
    files: Vec<PathBuf>,
}

impl Found<'_> {
    fn read<B: Backend>(self, tensors: &Tensors<'_>, device: &B::Device) -> Result<SavedSae<B>> {
        let encoder = self.architecture.read(&self.settings, tensors, device)?;
        Ok(SavedSae {
            encoder,
            architecture: self.architecture,
            transcodes: self.settings.transcodes,
            format: self.format,
            trained_on: self.trained_on,
            metadata: self.metadata,
            folder: self.folder.to_owned(),
            files: self.files,
        })
    }
}

/// The names of the tensors of an architecture.
fn tensor_names(architecture: Architecture, skip: bool) -> Vec<&'static str> {
    let common = ["W_enc", "W_dec", "b_dec"].into_iter();
    common
        .chain(architecture.tensors().iter().copied())
        .chain(skip.then_some("W_skip"))
        .collect()
}
