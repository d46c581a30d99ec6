use std::path::Path;

use burn::tensor::backend::Backend;
use circuitscope_core::{Exec, NoProgress, Progress};
use circuitscope_files::read;
use derive_setters::Setters;
use serde_json::{Map, Value};

use crate::bytes::{KnownFile, hash};
use crate::config::DecoderConfig;
use crate::decoder::Decoder;
use crate::family::{self, Family, Findings, Keys, Layout, Reader};
use crate::fold::{Fold, Processing};
use crate::gguf::Gguf;
use crate::host::Misfits;
use crate::host_decoder::HostDecoder;
use crate::pickle::Pickles;
use crate::precision::Precision;
use crate::provenance::ModelProvenance;
use crate::quantised;
use crate::source::Source;
use crate::tokenizer::{TOKENIZER, Tokenizer, TokenizerFiles};
use crate::upload::Upload;
use crate::{Error, Result};

/// A model ready to run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded<B: Backend> {
    /// The forward pass.
    pub model: Decoder<B>,
    /// Its tokenizer, where the folder has one.
    pub tokenizer: Option<Tokenizer>,
    /// Where it came from.
    pub provenance: ModelProvenance,
}

impl<B: Backend> Loaded<B> {
    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::NotAModel`] if the model came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NotAModel {
            path: self.provenance.name.clone().into(),
            missing: TOKENIZER.to_owned(),
            expected: "the model's tokenizer beside its weights, which text prompts need",
        })
    }

    /// [`load_dir`] with families beside those of this crate, asked before them: `families` may replace one of the same
    /// `model_type`. Unstable, as all of [`family`].
    ///
    /// # Errors
    /// As [`load_dir`].
    #[cfg(feature = "unstable-family")]
    pub fn from_families(
        folder: &Path,
        families: &[&dyn Family],
        settings: impl Into<LoadSettings>,
        device: &B::Device,
        progress: &dyn Progress,
    ) -> Result<Self> {
        load_folder(folder, families, &[], settings.into(), device, progress)
    }
}

pub(crate) const CONFIG: &str = "config.json";

/// The files of a model in memory.
#[derive(Debug, Clone, Copy)]
pub struct ModelBytes<'a> {
    /// Name in reports and errors.
    pub name: &'a str,
    /// `config.json`.
    pub config: &'a [u8],
    /// `model.safetensors`.
    pub weights: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
}

/// How a model is loaded. A [`Processing`] alone stands for f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct LoadSettings {
    /// How the weights are rewritten, in f32 whatever the precision.
    pub processing: Processing,
    /// What they are held and multiplied in.
    pub precision: Precision,
    /// Whether keys of `config.json` that nothing here reads are an error. Default: no, they are named in
    /// [`ModelProvenance::notes`].
    pub strict_config: bool,
    /// How the work of the model is laid out. Default: [`Exec::serial`], which is right on any device;
    /// [`Exec::all_cores`] for a backend that computes in the host's memory.
    pub exec: Exec,
}

impl From<Processing> for LoadSettings {
    fn from(processing: Processing) -> Self {
        Self {
            processing,
            ..Self::default()
        }
    }
}

/// Loads a folder: `config.json`, `model.safetensors` (or shards with their index; f32, f16 or bf16 on
/// disk), and `tokenizer.json` if it is there.
///
/// The families in Hugging Face layout that [`family_names`](crate::family_names) lists and
/// TransformerLens configurations with their state dict are understood.
///
/// All names and shapes are checked first. Then the weights stream from the mapped files to the device,
/// tensor by tensor, so that loading needs little more memory than the loaded model. An unembedding
/// tied to the embedding is shared under [`Processing::Raw`]; [`Processing::Folded`] makes it another
/// matrix.
///
/// # Errors
/// Everything that is missing, unknown, unsupported or does not fit, by name: see [`Error`].
pub fn load_dir<B: Backend>(
    folder: &Path,
    settings: impl Into<LoadSettings>,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Loaded<B>> {
    load_folder(folder, &[], &[], settings.into(), device, progress)
}

/// What the `config.json` of a folder says of the model in it, before its weights are read. Weights may correct
/// what it says of tied embeddings.
///
/// # Errors
/// A folder without one, and one that no family here reads.
pub fn read_config(folder: &Path) -> Result<DecoderConfig> {
    let path = folder.join(CONFIG);
    let json: Map<String, Value> =
        serde_json::from_slice(&read(&path)?).map_err(|error| Error::Config {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    let family = family::detect(&path, &json, &[])?;
    family.config(&Keys::new(&path, &json, &Findings::default()))
}

/// [`load_dir`] with other families, and with hashes that are known.
pub(crate) fn load_folder<B: Backend>(
    folder: &Path,
    families: &[&dyn Family],
    known: &[KnownFile],
    settings: LoadSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Loaded<B>> {
    let config_path = folder.join(CONFIG);
    if !config_path.exists() {
        return Err(Error::NotAModel {
            path: folder.to_owned(),
            missing: CONFIG.to_owned(),
            expected: "a folder with config.json and model.safetensors",
        });
    }
    let config = read(&config_path)?;
    let tokenizer = TokenizerFiles::read(folder)?;
    // Safetensors come first: what lies beside them was saved by other programs.
    let pickles = if Source::has_safetensors(folder) {
        None
    } else {
        Pickles::find(folder)?
    };
    let source = match &pickles {
        Some(pickles) => pickles.source()?,
        None => Source::open(folder)?,
    };
    let name = folder.canonicalize().ok();
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .unwrap_or(folder.as_os_str());
    let parts = Parts {
        name: &name.to_string_lossy(),
        config_path: &config_path,
        config: &config,
        tokenizer,
        source,
        inside: None,
        known,
    };
    load(parts, families, settings, device, progress)
}

/// Loads a GGUF file: weights, configuration and tokenizer in one.
///
/// Read are the architectures `llama`, `qwen2`, `qwen3`, `gemma`, `gemma2`, `gemma3`, `phi3` and `gpt2` with
/// numbers in F32, F16, BF16 or one of llama.cpp's block formats, which are dequantised to f32 one tensor
/// at a time and then held in the precision asked for. The tokenizer is byte-level BPE or SentencePiece.
/// What was dequantised is among the notes of the provenance.
///
/// # Errors
/// As [`load_dir`], and [`Error::NotGguf`].
pub fn load_gguf<B: Backend>(
    file: &Path,
    settings: impl Into<LoadSettings>,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Loaded<B>> {
    let Gguf {
        config,
        source,
        tokenizer,
        notes,
    } = Gguf::open(file)?;
    let name = file.file_name().unwrap_or(file.as_os_str());
    let config = Value::Object(config).to_string();
    let parts = Parts {
        name: &name.to_string_lossy(),
        config_path: file,
        config: config.as_bytes(),
        tokenizer: TokenizerFiles::embedded(file, None),
        source,
        inside: Some(Inside { tokenizer, notes }),
        known: &[],
    };
    load(parts, &[], settings.into(), device, progress)
}

/// Loads a model whose files are in memory.
///
/// # Errors
/// As [`load_dir`].
pub fn load_bytes<B: Backend>(
    files: &ModelBytes<'_>,
    settings: impl Into<LoadSettings>,
    device: &B::Device,
) -> Result<Loaded<B>> {
    let at = |file: &str| Path::new(files.name).join(file);
    let source = Source::embedded(&at(crate::source::SINGLE).to_string_lossy(), files.weights)?;
    let parts = Parts {
        name: files.name,
        config_path: &at(CONFIG),
        config: files.config,
        tokenizer: TokenizerFiles::embedded(Path::new(files.name), files.tokenizer),
        source,
        inside: None,
        known: &[],
    };
    load(parts, &[], settings.into(), device, &NoProgress)
}

struct Parts<'a> {
    name: &'a str,
    config_path: &'a Path,
    config: &'a [u8],
    tokenizer: TokenizerFiles<'a>,
    source: Source<'a>,
    inside: Option<Inside>,
    known: &'a [KnownFile],
}

/// What a file of weights says beside them, where nothing else is read.
struct Inside {
    tokenizer: Option<Tokenizer>,
    notes: Vec<String>,
}

fn load<B: Backend>(
    parts: Parts<'_>,
    families: &[&dyn Family],
    settings: LoadSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Loaded<B>> {
    let Parts {
        name,
        config_path,
        config: config_bytes,
        tokenizer: tokenizer_files,
        source,
        inside,
        known,
    } = parts;
    let LoadSettings {
        processing,
        precision,
        strict_config,
        exec,
    } = settings;
    if !B::supports_dtype(device, precision.dtype()) {
        return Err(Error::Precision {
            precision,
            device: format!("{device:?}"),
        });
    }
    let json: Map<String, Value> =
        serde_json::from_slice(config_bytes).map_err(|error| Error::Config {
            path: config_path.to_owned(),
            reason: error.to_string(),
        })?;
    let mut source = source;
    let dequantised = quantised::assemble(config_path, &json, &mut source)?;
    let family = family::detect(config_path, &json, families)?;
    let findings = Findings::default();
    if let Some(dequantised) = dequantised {
        findings.note(dequantised);
    }
    let mut config = family.config(&Keys::new(config_path, &json, &findings))?;
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Config {
            path: config_path.to_owned(),
            reason: format!("read as {}: {}", family.name(), problems.join("; ")),
        });
    }
    if strict_config {
        findings.refuse_unknown(config_path)?;
    }
    if let Some(layout) = family.layout() {
        settle(layout, &mut config, &source, &findings);
    }
    let reader = Reader {
        config: &config,
        json: &json,
        source: &source,
    };
    check(family, reader)?;
    if let Some(names) = source.renamed() {
        findings.note(format!("names of tensors: {names}"));
    }
    let is_folder = inside.is_none();
    let tokenizer = match inside {
        Some(Inside { tokenizer, notes }) => {
            for note in notes {
                findings.note(note);
            }
            tokenizer
        }
        None => tokenizer_files.tokenizer(config.bos_token, &json, &findings)?,
    };
    let tokenizer = match family.prepends_bos(&json) {
        Some(adds) => tokenizer.map(|tokenizer| tokenizer.with_adds_bos(adds)),
        None => tokenizer,
    };
    let stage = progress.stage("loading", config.n_layers as u64 + 2);
    let mut model = stream(family, reader, settings, device, progress)?;
    let bos = tokenizer.as_ref().and_then(Tokenizer::bos);
    let bos = bos.filter(|bos| (*bos as usize) < config.d_vocab);
    model.config.bos_token = bos.or(config.bos_token);
    model.exec = exec;
    let mut files = Vec::new();
    if is_folder {
        files.push(hash(CONFIG, config_bytes));
    }
    files.extend(tokenizer_files.hashes());
    files.extend(source.hashes(known)?);
    drop(stage);
    tracing::debug!(name, family = family.name(), %processing, %precision, "loaded a model");
    Ok(Loaded {
        model,
        tokenizer,
        provenance: ModelProvenance {
            name: name.to_owned(),
            family: family.name().to_owned(),
            processing,
            dtype: precision,
            files,
            hub: None,
            notes: findings.into_notes(),
        },
    })
}

/// Brings the configuration's word on tied embeddings in line with what is stored, as transformers 5 does.
fn settle(layout: Layout, config: &mut DecoderConfig, source: &Source<'_>, findings: &Findings) {
    source.set_layout(layout);
    let Layout {
        embedding, head, ..
    } = layout;
    if config.tied_embeddings && source.has(head) {
        if !source.has(embedding) {
            source.stands_for(head, embedding);
            findings.note(format!(
                "the token embedding is stored as {head} alone and taken from there, as config.json ties the two"
            ));
        } else if !source.equal(embedding, head) {
            config.tied_embeddings = false;
            findings.note(format!(
                "config.json ties the unembedding to the embedding, but {head} is stored with other values: these \
                 count, as in transformers 5"
            ));
        }
    }
}

/// Whether every tensor is there and fits, and none is left over.
fn check(family: &dyn Family, reader: Reader<'_>) -> Result<()> {
    let Reader { config, source, .. } = reader;
    if config.n_layers > source.tensors() {
        source.problem(format!(
            "{} layers, but there are only {} tensors",
            config.n_layers,
            source.tensors()
        ));
        return source.finish();
    }
    family.embedding(reader);
    for layer in 0..config.n_layers {
        family.attention(reader, layer);
        family.mlp(reader, layer);
    }
    family.unembedding(reader);
    source.checked(|name| family.is_leftover(&name.replacen("language_model.", "", 1)))
}

/// Reads, rewrites and uploads part by part: the two embeddings first, while nothing else is held.
fn stream<B: Backend>(
    family: &dyn Family,
    reader: Reader<'_>,
    settings: LoadSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Decoder<B>> {
    let Reader { config, source, .. } = reader;
    let step = || {
        progress.advance(1);
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        source.finish()
    };
    let fold = (settings.processing == Processing::Folded).then(|| Fold::new(config));
    let mut upload = Upload::new(device, settings.precision);
    // What was read fits; whether the family put it together as it says is seen here.
    let fits = |look: &dyn Fn(&mut Misfits<'_>)| {
        source.finish()?;
        let mut misfits = Misfits::new(config);
        look(&mut misfits);
        for misfit in misfits.found {
            source.problem(misfit);
        }
        source.finish()
    };
    let mut embedding = family.embedding(reader);
    fits(&|misfits| misfits.embedding(&embedding))?;
    if let Some(fold) = fold {
        fold.embedding(&mut embedding);
    }
    upload.embedding(embedding);
    upload.check()?;
    step()?;
    let mut unembedding = family.unembedding(reader);
    fits(&|misfits| misfits.unembedding(&unembedding))?;
    if let Some(fold) = fold {
        let w_u = unembedding.w_u.take();
        let mut w_u = w_u.unwrap_or_else(|| family.embedding(reader).w_e.transposed());
        fold.unembedding(&mut w_u, &mut unembedding);
        unembedding.w_u = Some(w_u);
    }
    upload.unembedding(unembedding);
    upload.check()?;
    step()?;
    for layer in 0..config.n_layers {
        let mut attention = family.attention(reader, layer);
        fits(&|misfits| misfits.attention(layer, &attention))?;
        if let Some(fold) = fold {
            fold.attention(config, &mut attention);
        }
        upload.attention(attention);
        let mut mlp = family.mlp(reader, layer);
        fits(&|misfits| misfits.mlp(layer, mlp.as_ref()))?;
        if let (Some(fold), Some(mlp)) = (fold, &mut mlp) {
            fold.mlp(mlp);
        }
        upload.mlp(mlp);
        upload.check()?;
        step()?;
    }
    Ok(upload.finish(fold.map_or_else(|| config.clone(), |fold| fold.config(config))))
}

/// Writes a raw model of GPT-2's architecture as a Hugging Face folder (`config.json`,
/// `model.safetensors` in f32), atomically file by file. The tokenizer is the caller's to add.
///
/// # Errors
/// [`Error::Save`] if the model is of another architecture, [`Error::File`].
///
/// ```
/// use circuitscope_core::{NoProgress, Seed};
/// use circuitscope_model::{DecoderConfig, Processing, load_dir, save_gpt2};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<burn_flex::Flex>(Seed::new(0), &device);
/// save_gpt2(&model, folder)?;
/// let loaded = load_dir::<burn_flex::Flex>(folder, Processing::Raw, &device, &NoProgress)?;
/// assert_eq!(loaded.model.config(), model.config());
/// assert_eq!(loaded.provenance.family, "GPT-2");
/// # Ok(())
/// # }
/// ```
pub fn save_gpt2<B: Backend>(model: &Decoder<B>, folder: &Path) -> Result<()> {
    family::save_gpt2_folder(model.config(), &HostDecoder::from_decoder(model), folder)
}
